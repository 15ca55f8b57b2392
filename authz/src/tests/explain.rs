//! What is said of supposed calls: the same as of real ones, with the reasons, and nothing that lets anyone in.

use cofferdam_model::{
    Action, Asker, CallFacts, Operation, PrincipalKind, Subject, Supposition, Surroundings, Unclear, UnixNanos,
};

use super::{NOW, World, circumstances};
use crate::explain::{Used, Witnesses, changes};
use crate::{Authorizer, Owner, Principal, TenantPolicies, Texts};

const BUSINESS: &str = r#"
@id("ops-by-day")
permit (principal in Role::"ops", action in [Action::"Deploy", Action::"Invoke"], resource)
when { context.source.isInRange(ip("198.51.100.0/24")) && context.tls == "1.3" && principal.id == "robot" };
@id("freeze") forbid (principal, action == Action::"PublishVersion", resource) when { context has method };
"#;

fn now() -> UnixNanos {
    UnixNanos::from_seconds(NOW)
}

fn policies(authorizer: &Authorizer, world: &World, text: &str) -> TenantPolicies {
    authorizer.compile(&world.acme, &[("mine".to_owned(), text.to_owned())]).unwrap()
}

fn asked(roles: &[&str], action: Action) -> Supposition {
    let roles: Vec<_> = roles.iter().map(ToString::to_string).collect();
    Supposition {
        principal: Asker::new(PrincipalKind::ServiceAccount, "robot", &roles),
        action,
        function: Some("orders".to_owned()),
        function_id: None,
        thing: None,
        context: Surroundings::default(),
    }
}

fn facts<A: Operation>(authorizer: &Authorizer, set: &TenantPolicies, who: Principal, operation: A) -> CallFacts {
    match authorizer.decide(set, who, operation, circumstances()) {
        Ok(permit) => permit.facts(),
        Err(denied) => denied.facts(),
    }
}

/// The records are JSON: what is read back from there must be all that was decided on.
#[tokio::test]
async fn a_recorded_call_is_decided_again_as_it_was_whatever_policies_look_at() {
    let (world, authorizer) = (World::new(), Authorizer::new().unwrap());
    // Looks at everything the schema lets a policy look at.
    let all = r#"
        permit (principal in Role::"ops", action, resource) when {
            context.source.isInRange(ip("192.0.2.0/24")) && context.tls == "1.3" && context.method == "GET" &&
            context.host == "api.example" && context.path like "/orders/*" && !context.public &&
            context.credential == "api_key" && context.now >= datetime("2026-11-20") && context.request like "req_*" &&
            principal.id == "robot" && principal.roles.contains("ops") && !(principal has issuer) &&
            principal has tenant && !principal.tenant.suspended && context.bound == "none" && !context.mfa &&
            !(context has certificate) && !(context has scopes) && !(context has route)
        };
        permit (principal in Role::"clerk", action, resource is Secret)
        when { resource.name == "orders" && resource.secret == "x" && resource in resource.function };
        permit (principal in Role::"clerk", action, resource is Account)
        when { resource.id == "x" && resource.roles.isEmpty() };
        permit (principal in Role::"clerk", action, resource is Api) when { resource.app == "x" };
        permit (principal in Role::"clerk", action, resource is PolicySet) when { resource.policy == "x" };
        permit (principal in Role::"signer", action, resource)
        when { context.bound == "sigv4" && context.credential == "sigv4" };
        permit (principal in Group::"oncall", action, resource is AuditLog)
        when { principal.groups.contains("oncall") };
        permit (principal is Anonymous, action, resource is Function)
        when { context.public && resource.name == "orders" };
    "#;
    for suspended in [false, true] {
        let set = policies(&authorizer, &world, all).suspended(suspended);
        for (roles, action) in [(&["ops"][..], "PutSecret"), (&[], "PutSecret"), (&["ops", "x"], "ReadTenant")] {
            let who = world.account(&world.acme, roles).await;
            let known = facts(&authorizer, &set, who, world.manage(action, &world.acme));
            again(&authorizer, &set, &known);
        }
        for action in ["PutSecret", "CreateKey", "PutRoutes", "RemovePolicy", "RevokeKey"] {
            let who = world.account(&world.acme, &["clerk"]).await;
            again(&authorizer, &set, &facts(&authorizer, &set, who, world.manage(action, &world.acme)));
            let who = world.signing_account(&world.acme, &["signer"]);
            again(&authorizer, &set, &facts(&authorizer, &set, who, world.manage(action, &world.acme)));
            let scopes = ["Secrets".to_owned(), "fn:orders".to_owned()];
            let who = world.narrowed(&world.acme, &["admin"], &scopes).await;
            again(&authorizer, &set, &facts(&authorizer, &set, who, world.manage(action, &world.acme)));
        }
        for action in ["PutSecret", "QueryAudit"] {
            let who = world.person(&world.acme, "carol", &["clerk"], &["oncall".to_owned()]).await;
            again(&authorizer, &set, &facts(&authorizer, &set, who, world.manage(action, &world.acme)));
        }
        let known = facts(&authorizer, &set, world.nobody().await, world.invoke(&world.acme, true));
        again(&authorizer, &set, &known);
    }
}

fn again(authorizer: &Authorizer, set: &TenantPolicies, known: &CallFacts) {
    let read: CallFacts = serde_json::from_str(&serde_json::to_string(known).unwrap()).unwrap();
    let decision = read.decision.clone().unwrap();
    let answer = authorizer.simulate(set, &Supposition::of(&read).unwrap(), UnixNanos(0)).unwrap();
    let settled = (answer.outcome, answer.tier, answer.policies, answer.policy_set);
    assert_eq!(settled, (&*decision.outcome, &*decision.tier, decision.policies, decision.policy_set));
}

/// Every attribute the schema gives policies to look at comes out of a record again. One that is added to the schema
/// must be added to `GivenFacts`, or to the facts, and to `Supposition::of`; then here.
#[test]
fn whatever_policies_can_look_at_is_recorded() {
    let schema = include_str!("../../../policies/schema.cedarschema");
    let attributes: Vec<_> = schema
        .lines()
        .filter_map(|line| line.trim().strip_prefix('"')?.split_once('"'))
        .filter(|(_, rest)| rest.starts_with(':') || rest.starts_with("?:"))
        .map(|(name, _)| name)
        .collect();
    let recorded = [
        // Of callers, tenants and their organisation, which is asked for as it is now.
        "suspended organisation id issuer tenant roles groups",
        // Of resources.
        "name secret function app policy",
        // Of what surrounds a call.
        "source tls method host path route public credential bound certificate mfa scopes auth_age actor client now",
        "request",
        // Of functions at work, of which nothing is decided again.
        "version digest port rule",
    ];
    let recorded: Vec<_> = recorded.iter().flat_map(|names| names.split(' ')).collect();
    let lost: Vec<_> = attributes.iter().filter(|name| !recorded.contains(name)).collect();
    assert!(!attributes.is_empty() && lost.is_empty(), "{lost:?}");
}

#[tokio::test]
async fn what_was_not_decided_or_not_written_down_in_full_is_not_decided_again() {
    let (world, authorizer) = (World::new(), Authorizer::new().unwrap());
    let set = policies(&authorizer, &world, BUSINESS);
    let who = world.account(&world.acme, &["ops"]).await;
    let known = facts(&authorizer, &set, who, world.invoke(&world.acme, false));
    let changed = |change: fn(&mut CallFacts)| {
        let mut known = known.clone();
        change(&mut known);
        Supposition::of(&known).unwrap_err()
    };
    assert_eq!(changed(|known| known.decision = None), Unclear::Undecided);
    assert_eq!(changed(|known| known.decision.as_mut().unwrap().given = None), Unclear::Early);
    assert_eq!(changed(|known| known.path = "/x...(+12 bytes)".into()), Unclear::Cut);
    let long = |known: &mut CallFacts| {
        known.decision.as_mut().unwrap().given.as_mut().unwrap().roles.push("...(+3 more)".into());
    };
    assert_eq!(changed(long), Unclear::Cut);
    assert_eq!(changed(|known| known.action = Some("Fly".into())), Unclear::Action);
}

#[test]
fn the_nearest_permit_is_named_with_what_it_lacks() {
    let (world, authorizer) = (World::new(), Authorizer::new().unwrap());
    let set = policies(&authorizer, &world, BUSINESS);
    let told = authorizer.simulate_in_full(&set, &asked(&["ops"], Action::Invoke), now()).unwrap();
    assert_eq!((told.answer.outcome, told.answer.tier), ("implicit_deny", "tenant"));
    let miss = told.nearest.unwrap();
    assert_eq!(miss.policy.id, "mine/ops-by-day");
    let lacks: Vec<_> = miss.lacks.iter().map(|part| (part.text.as_str(), part.is)).collect();
    assert_eq!(lacks, [(r#"context.source.isInRange(ip("198.51.100.0/24"))"#, "false")]);
    // Action, role, TLS and name.
    assert_eq!(miss.holds, 4);
    assert!(miss.policy.text.contains("@id(\"ops-by-day\")"), "{}", miss.policy.text);
}

#[test]
fn a_refusal_by_a_forbid_shows_its_text_and_each_tiers_word() {
    let (world, authorizer) = (World::new(), Authorizer::new().unwrap());
    let set = policies(&authorizer, &world, BUSINESS);
    let told = authorizer.simulate_in_full(&set, &asked(&["admin"], Action::PublishVersion), now()).unwrap();
    assert_eq!(
        (told.answer.outcome, told.answer.policies.as_slice()),
        ("explicit_deny", &["mine/freeze".to_owned()][..])
    );
    assert!(told.deciding[0].text.contains("forbid (principal, action == Action::\"PublishVersion\""));
    let tiers: Vec<_> = told.tiers.iter().map(|says| (says.tier, says.outcome)).collect();
    assert_eq!(tiers, [("platform", "allow"), ("tenant", "explicit_deny")]);
    // The guard-rails' no does not hide what the tenant's own policies say.
    let mut other = asked(&["admin"], Action::Invoke);
    other.principal.tenant = Some(world.other.to_string());
    let told = authorizer.simulate_in_full(&set, &other, now()).unwrap();
    let tiers: Vec<_> = told.tiers.iter().map(|says| (says.tier, says.outcome)).collect();
    assert_eq!(tiers, [("platform", "explicit_deny"), ("tenant", "allow")]);
    assert_eq!(told.answer.policies, ["00-platform/cross-tenant"]);
}

#[test]
fn a_ceiling_that_does_not_permit_is_told_with_what_it_lacks_and_a_candidate_stays_under_it() {
    let (world, authorizer) = (World::new(), Authorizer::new().unwrap());
    let boundary = r#"@id("office") permit (principal, action, resource)
        when { context.source.isInRange(ip("203.0.113.0/24")) };"#;
    let texts = Texts { version: 1, sources: vec![("edge".to_owned(), boundary.to_owned())] };
    let boundary = authorizer.tier(Owner::Boundary(world.acme.clone()), texts, None).unwrap();
    let set = policies(&authorizer, &world, "permit (principal, action, resource);").within(Some(boundary));
    let told = authorizer.simulate_in_full(&set, &asked(&["admin"], Action::PutSecret), now()).unwrap();
    assert_eq!((told.answer.outcome, told.answer.tier), ("ceiling_deny", "boundary"));
    let tiers: Vec<_> = told.tiers.iter().map(|says| (says.tier, says.outcome)).collect();
    assert_eq!(tiers, [("platform", "allow"), ("boundary", "ceiling_deny"), ("tenant", "allow")]);
    let miss = told.nearest.unwrap();
    assert_eq!((miss.policy.id.as_str(), miss.lacks.len()), ("boundary:edge/office", 1));
    // What the credential is good for is a tier too.
    let mut narrow = asked(&["admin"], Action::PutSecret);
    narrow.context.source = [203, 0, 113, 9].into();
    assert!(authorizer.simulate(&set, &narrow, now()).unwrap().allowed());
    narrow.principal.scopes = Some(vec!["Data".to_owned()]);
    let told = authorizer.simulate_in_full(&set, &narrow, now()).unwrap();
    assert_eq!((told.answer.outcome, told.answer.tier), ("ceiling_deny", "session"));
    // A candidate takes the place of what is granted, not of what binds it.
    let texts = Texts { version: 0, sources: vec![] };
    let none = authorizer.tier(Owner::Tenant(world.acme.clone()), texts, None).unwrap();
    let told = authorizer.simulate(&set.clone().granting(none), &asked(&["ops"], Action::PutSecret), now()).unwrap();
    assert_eq!((told.outcome, told.tier), ("ceiling_deny", "boundary"));
}

#[test]
fn what_cannot_be_supposed_is_refused_with_a_remedy() {
    let (world, authorizer) = (World::new(), Authorizer::new().unwrap());
    let set = policies(&authorizer, &world, BUSINESS);
    let refused = |change: fn(&mut Supposition)| {
        let mut asked = asked(&[], Action::Invoke);
        change(&mut asked);
        authorizer.simulate(&set, &asked, now()).unwrap_err().to_string()
    };
    assert!(refused(|asked| asked.function = None).contains("name one"));
    assert!(refused(|asked| asked.action = Action::ReadTenant).contains("name none"));
    assert!(refused(|asked| asked.principal.tenant = Some("acme".into())).contains("t_"));
    assert!(refused(|asked| asked.context.now = Some("noon".into())).contains("2026-"));
    assert!(refused(|asked| asked.context.request = Some("1".into())).contains("leave it out"));
    assert!(refused(|asked| asked.function_id = Some("t_0.f_0".into())).contains("tenant"));
}

#[test]
fn two_sets_are_told_apart_by_calls_that_meet_what_they_look_at() {
    let (world, authorizer) = (World::new(), Authorizer::new().unwrap());
    let before = policies(&authorizer, &world, BUSINESS);
    for (from, to) in [
        ("198.51.100.0/24", "203.0.113.0/24"),
        ("\"1.3\"", "\"1.2\""),
        ("\"ops\"", "\"dev\""),
        ("\"robot\"", "\"robots\""),
        ("PublishVersion", "PruneVersions"),
        ("permit (principal in", "forbid (principal in"),
        ("context has method", "context.path like \"/v1/*\""),
        ("context has method", "context.now < datetime(\"2026-11-20T10:00:00Z\")"),
    ] {
        let after = policies(&authorizer, &world, &BUSINESS.replace(from, to));
        let candidates = Witnesses::of(&authorizer, &[&before, &after], &[], 50_000);
        assert_eq!(candidates.left_out, 0);
        let mut flips = candidates
            .requests
            .iter()
            .filter_map(|request| authorizer.flip((&before, &after), request, now()).unwrap());
        assert!(flips.next().is_some(), "{from} -> {to}");
        let same = authorizer.flip((&before, &before), &candidates.requests[0], now()).unwrap();
        assert!(same.is_none());
    }
    let few = Witnesses::of(&authorizer, &[&before], &[], 7);
    assert!(few.requests.len() == 7 && few.left_out > 0);
}

#[test]
fn statements_added_removed_and_changed_are_named() {
    let (world, authorizer) = (World::new(), Authorizer::new().unwrap());
    let texts = |text: &str| authorizer.policy_texts(&policies(&authorizer, &world, text));
    let after =
        r#"@id("freeze") forbid (principal, action, resource); @id("new") permit (principal, action, resource);"#;
    let found = changes(&texts(BUSINESS), &texts(after));
    let ids = |texts: &[crate::explain::PolicyText]| texts.iter().map(|text| text.id.clone()).collect::<Vec<_>>();
    assert_eq!((ids(&found.added), ids(&found.removed)), (vec!["mine/new".into()], vec!["mine/ops-by-day".into()]));
    assert_eq!(found.changed[0].0.id, "mine/freeze");
}

#[test]
fn what_was_used_is_granted_and_what_was_not_is_named() {
    let (world, authorizer) = (World::new(), Authorizer::new().unwrap());
    let set = policies(&authorizer, &world, BUSINESS);
    let robot = Asker::new(PrincipalKind::ServiceAccount, "ro\"bot\\", &["deployer".to_owned()]);
    let call = |action, function: Option<&str>| Used {
        who: robot.clone(),
        action,
        function: function.map(str::to_owned),
        policies: vec!["10-defaults/deployer".to_owned()],
        calls: 1,
    };
    let used = [
        call(Action::PutFunction, Some("orders")),
        call(Action::PutFunction, Some("pay")),
        call(Action::PutRoutes, None),
    ];
    let functions = ["orders".to_owned(), "pay".to_owned()];
    let found = authorizer.unused(&set, (std::slice::from_ref(&robot), &functions), &used, now()).unwrap();
    assert!(
        found.policies.contains(&"mine/ops-by-day".to_owned())
            && !found.policies.contains(&"10-defaults/deployer".into())
    );
    assert!(found.policies.iter().all(|id| id != "mine/freeze"), "a forbid is not a grant");
    let idle = &found.callers[0];
    assert!(idle.unused.contains(&"RemoveFunction") && !idle.unused.contains(&"PutFunction"), "{idle:?}");
    assert!(!idle.unused.contains(&"Invoke"), "a deployer may not");
    for by_role in [false, true] {
        let proposed = authorizer.least_privilege(&world.acme, &used, by_role).unwrap();
        assert_eq!((proposed.len(), proposed[0].calls), (1, 3));
        // It grants what was used, and of that kind nothing else.
        let only = authorizer.compile(&world.acme, &[("least".to_owned(), proposed[0].text.clone())]).unwrap();
        let may = |action, function: Option<&str>| {
            let mut who = robot.clone();
            who.roles = if by_role { vec!["deployer".into()] } else { vec![] };
            let context = Surroundings::default();
            let function = function.map(str::to_owned);
            let asked = Supposition { principal: who, action, function, function_id: None, thing: None, context };
            let answer = authorizer.simulate(&only, &asked, now()).unwrap();
            answer.policies.iter().any(|id| id.starts_with("least/"))
        };
        assert!(may(Action::PutFunction, Some("orders")) && may(Action::PutRoutes, None), "{}", proposed[0].text);
        assert!(!may(Action::PutFunction, Some("other")) && !may(Action::RemoveFunction, Some("orders")));
    }
}

#[test]
fn every_finding_has_its_place_and_a_text_that_has_none_is_taken() {
    let (world, authorizer) = (World::new(), Authorizer::new().unwrap());
    let find = |text: &str| authorizer.findings(&world.acme, &[("mine".to_owned(), text.to_owned())]);
    assert!(find(BUSINESS).iter().all(|finding| finding.warning));
    let two = "permit (principal, action, resource) when { resource.nam == \"x\" };\n\
               permit (principal, action, resource) when { context.when > 1 };\n";
    let lines: Vec<_> = find(two).into_iter().filter(|finding| !finding.warning).map(|finding| finding.line).collect();
    assert!(lines.contains(&1) && lines.contains(&2), "{lines:?}");
    for bad in [
        "permit (",
        "@id(\"A B\") permit (principal, action, resource);",
        "permit (principal == ?principal, action, resource);",
    ] {
        let found = find(bad);
        assert!(found.iter().any(|finding| !finding.warning && !finding.remedy.is_empty()), "{bad}");
    }
}
