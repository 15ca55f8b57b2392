//! A picture after any changes is that of a fresh look, and stored policies are judged anew by each release.

use super::*;
use crate::store::{PolicyRow, SqliteStore, Transaction, run};
use crate::{OrganisationEntry, flagged};
use cofferdam_model::operation::OrganisationRef;
use cofferdam_model::{Govern, OrganisationId, PolicyTier, RevocationTarget};
use serde_json::json;

/// Dice of a seed.
struct Dice(SeededRandom);

impl Dice {
    fn roll(&self, sides: usize) -> usize {
        let mut byte = [0];
        self.0.fill(&mut byte);
        usize::from(byte[0]) % sides
    }

    fn one<'a>(&self, of: &[&'a str]) -> &'a str {
        of[self.roll(of.len())]
    }

    /// Some change, which may be refused.
    fn change(&self, world: &World, tenant: &TenantId) -> Manage {
        let snapshot = world.control.snapshot();
        let entry = snapshot.tenant(tenant).unwrap();
        let (tenant, text) = (tenant.clone(), |of: &[&str]| self.one(of).to_owned());
        let function = || match entry.functions().nth(self.roll(3)) {
            Some(known) => FunctionRef { id: known.id.clone(), name: known.name.clone() },
            None => world.reference(&tenant, self.one(&["one", "two", "three"])),
        };
        let policy =
            || text(&["permit (principal, action, resource);", "forbid (principal is User, action, resource);"]);
        match self.roll(20) {
            0 | 1 => Manage::PutFunction { function: function(), settings: settings(json!({ "secrets": ["KEY"] })) },
            2 => publish(&function(), self.roll(9) as u8),
            3 => Manage::RemoveFunction { function: function() },
            4 => put_secret(&function(), "KEY", "value"),
            5 => Manage::RemoveSecret { function: function(), name: "KEY".into() },
            6 | 7 => {
                let path = text(&["/a", "/b"]);
                let route = route(json!({ "host": self.one(&["x.test", "*"]), "path": path, "function": "one" }));
                let routes = if self.roll(3) == 0 { vec![] } else { vec![route] };
                Manage::PutRoutes { tenant, app: text(&["shop", "blog"]), routes }
            }
            8 | 9 => Manage::PutPolicy { tenant, name: text(&["p", "q"]), text: policy() },
            10 => Manage::RemovePolicy { tenant, name: text(&["p", "q"]) },
            11 => Manage::PutMember {
                tenant,
                issuer: None,
                subject: text(&["alice", "bob"]),
                roles: vec!["viewer".into()],
            },
            12 => Manage::RemoveMember { tenant, issuer: None, subject: text(&["alice", "bob"]) },
            13 => create_key(&tenant, self.one(&["ci", "robot"]), &["invoker"]),
            14 => {
                let target = RevocationTarget::Account { account: text(&["ci", "robot"]) };
                Manage::Revoke { tenant, target, reason: "lost".into(), expires: None }
            }
            15 => match entry.revocations().next() {
                Some(row) => {
                    let gives = snapshot.revived(&row.id).unwrap();
                    Manage::Reinstate { revocation: row.id.clone(), gives }
                }
                None => Manage::RotateTenantKey { tenant },
            },
            16 => Manage::SuspendTenant { tenant, reason: "unpaid".into() },
            17 => Manage::ResumeTenant { tenant },
            18 => {
                let passphrase = Some(SecretValue::new(b"correct horse battery".to_vec()));
                Manage::PutUser { tenant, name: text(&["carol", "dave"]), roles: vec!["viewer".into()], passphrase }
            }
            _ => Manage::Govern(self.govern(world, tenant, policy())),
        }
    }

    fn govern(&self, world: &World, tenant: TenantId, text: String) -> Govern {
        let snapshot = world.control.snapshot();
        let reference =
            |found: &Arc<OrganisationEntry>| OrganisationRef { id: found.id.clone(), name: found.name.to_string() };
        let organisation = snapshot.organisations().next().map(reference);
        match (self.roll(6), organisation) {
            (0, Some(organisation)) => Govern::PutCeiling { organisation, name: "c".into(), text },
            (1, Some(organisation)) => Govern::RemoveCeiling { organisation, name: "c".into() },
            (2, Some(organisation)) => Govern::AssignTenant { tenant, organisation: Some(organisation) },
            (3, _) => Govern::AssignTenant { tenant, organisation: None },
            (4, _) => Govern::RemoveBoundary { tenant, name: "b".into() },
            (5, _) => Govern::PutBoundary { tenant, name: "b".into(), text },
            (_, None) | (_, Some(_)) => Govern::CreateOrganisation { name: "group".into() },
        }
    }
}

#[test]
fn a_picture_after_any_changes_is_that_of_a_fresh_look() {
    let mut made = 0;
    for seed in 0..6 {
        let (world, dice) = (World::new(), Dice(SeededRandom::new(seed)));
        let tenants = [world.tenant("acme").0, world.tenant("globex").0];
        for step in 0..60 {
            let change = dice.change(&world, &tenants[dice.roll(2)]);
            world.clock.advance(Duration::from_millis(1500));
            made += usize::from(world.operate(change).is_ok());
            if step % 12 == 11 {
                let (now, fresh) = (world.control.snapshot().portrait(), world.reopen().snapshot().portrait());
                assert_eq!(now, fresh, "seed {seed}, step {step}");
            }
        }
    }
    assert!(made > 200, "only {made} changes were made at all");
}

/// Puts texts into the store as an earlier release might have.
fn stored(world: &World, work: impl FnOnce(&mut dyn Transaction) -> Result<(), ControlError>) {
    let mut store = SqliteStore::open(&world.data().join("state.sqlite")).unwrap();
    run(&mut store, work).unwrap();
}

fn row(name: &str, text: &str) -> PolicyRow {
    PolicyRow { name: name.into(), text: text.into() }
}

#[test]
fn stored_policies_that_no_longer_compile_or_cover_less_are_told_by_name_with_a_remedy() {
    let world = World::new();
    let (acme, _) = world.tenant("acme");
    let (globex, _) = world.tenant("globex");
    let state = world.data().join("state.sqlite");
    assert_eq!(flagged(&state, &world.authorizer).unwrap(), []);
    let group = OrganisationId::mint(&*world.random);
    stored(&world, |tx| {
        tx.put_policy(&acme, &row("gone", "permit (principal, action == Action::\"Gone\", resource);"))?;
        tx.put_policy(&globex, &row("good", "permit (principal, action, resource);"))?;
        let narrow = "@id(\"keep\") forbid (principal, action in [Action::\"Secrets\"], resource is Function);";
        tx.put_policy(&globex, &row("narrow", narrow))?;
        tx.put_ceiling(
            PolicyTier::Boundary,
            globex.as_str(),
            &row("edge", "permit (principal, action in Action::\"Deploy\", resource is Tenant);"),
        )?;
        let (id, name, created) = (group.clone(), "group".to_owned(), NOW);
        tx.insert_organisation(&crate::store::OrganisationRow { id, name, created })?;
        tx.put_ceiling(PolicyTier::Organisation, group.as_str(), &row("top", "permit ("))
    });
    let before = std::fs::read(&state).unwrap();
    let found = flagged(&state, &world.authorizer).unwrap();
    assert_eq!(std::fs::read(&state).unwrap(), before, "a look changes nothing");
    let told: Vec<_> = found.iter().map(|flagged| (flagged.told(), flagged.finding.remedy.as_str())).collect();
    let expected = [
        ("tenant `acme`, policy `gone`, line 1", "Gone", ""),
        (
            "tenant `globex`, policy `narrow`",
            "`forbid` statement keep: `resource is Function` does not cover PutSecret, RemoveSecret",
            "say it of Secret too",
        ),
        ("boundary `globex`, policy `edge`", "does not cover PutRoutes", "say it of Api"),
        ("organisation `group`, policy `top`, line 1", "", ""),
    ];
    assert_eq!(told.len(), expected.len(), "{told:#?}");
    for ((told, remedy), (begins, has, helps)) in told.iter().zip(expected) {
        assert!(told.starts_with(begins) && told.contains(has), "{told}");
        assert!(!remedy.is_empty() && remedy.contains(helps), "{remedy}");
    }
    // A node that serves from it tells what is in force and covers less.
    let narrower: Vec<_> = world.reopen().narrower().into_iter().map(|flagged| flagged.finding.name).collect();
    assert_eq!(narrower, ["narrow", "edge"]);
}

#[test]
fn a_tenant_whose_policies_do_not_compile_is_denied_everything_by_them() {
    let world = World::new();
    let (acme, key) = world.tenant("acme");
    stored(&world, |tx| tx.put_policy(&acme, &row("old", "forbid (principal, action == Action::\"Gone\", resource);")));
    let reopened = world.reopen();
    let snapshot = reopened.snapshot();
    let who = world.who(Credential::ApiKey(&key)).unwrap();
    let policies = snapshot.policies(&acme).unwrap();
    assert!(!snapshot.tenant(&acme).unwrap().active);
    // Nobody of it is let in; and were somebody, were it not shut even, its policies would deny.
    let at = || circumstances(&*world.clock, &*world.random);
    let read = || Manage::ReadTenant { tenant: acme.clone() };
    let open = (*policies).clone().suspended(false);
    let denied = world.authorizer.decide(&open, who, read(), at()).err().unwrap();
    assert_eq!(denied.outcome(), cofferdam_authz::Outcome::PolicyError);
    let who = world.who(Credential::ApiKey(&key)).unwrap();
    let shut = world.authorizer.decide(&policies, who, read(), at()).err().unwrap();
    assert_eq!(shut.outcome(), cofferdam_authz::Outcome::ExplicitDeny, "a tenant that stands still is told so first");
}
