//! Nobody gives what he does not hold.
//!
//! Owns what a change gives to others: by roles, keys, passphrases and permits, by the lifting of a forbid, and by the
//! undoing of a revocation. It looks at the scopes of what is given and not at its conditions, so it may refuse what
//! would have been harmless, never the other way round. Must never let a giver's credential count for more than it is
//! good for.

use std::collections::HashSet;

use cedar_policy::{Effect, EntityUid, Policy, PrincipalConstraint};
use cofferdam_model::id::platform_tenant;
use cofferdam_model::{Action, Circumstances, Grants, Operation, Resource, Revived};

use super::holding::Giver;
use super::{Authorizer, session};
use crate::identity::Principal;
use crate::policy::index::{Actions, bit};
use crate::policy::look::essence;
use crate::policy::{self, TenantPolicies};

/// Kinds of principals that somebody can be made.
const GIVEN: &[&str] = &["User", "ServiceAccount", "Anonymous"];

/// What must be held to lift a forbid from what nobody holds by himself: what a function is given and asks is for
/// whoever deploys it, and a login is as good as the passphrase that somebody set.
const IN_PLACE_OF: &[(Action, Action)] = &[
    (Action::UseSecret, Action::PutFunction),
    (Action::Connect, Action::PutFunction),
    (Action::IssueToken, Action::PutUser),
];

/// Who would have what is given.
#[derive(Default)]
struct Receiver<'a> {
    roles: &'a [String],
    /// The service account, as policies name it.
    account: Option<String>,
    /// Name of the user of the node's own issuer.
    user: Option<&'a str>,
    /// Whether it could be anybody who has a token.
    anybody: bool,
}

impl Receiver<'_> {
    /// Whether a policy for this entity is for the receiver.
    fn is(&self, uid: &EntityUid) -> bool {
        let id = uid.id().unescaped();
        match uid.type_name().basename() {
            "Role" => self.anybody || self.roles.iter().any(|role| role == id),
            "ServiceAccount" => self.account.as_deref() == Some(id),
            // Whatever the issuer is called: an id ends with the name.
            "User" => self.anybody || self.user.is_some_and(|user| id.rsplit('|').next() == user.rsplit('|').next()),
            // People are in groups by their tokens, which only a token tells.
            "Group" => self.anybody,
            // Whoever is in the tenant.
            "Tenant" => true,
            _ => false,
        }
    }

    fn is_meant(&self, principal: &PrincipalConstraint) -> bool {
        match principal {
            PrincipalConstraint::Any => true,
            PrincipalConstraint::Is(kind) => matches!(kind.basename(), "User" | "ServiceAccount"),
            PrincipalConstraint::In(uid) | PrincipalConstraint::IsIn(_, uid) | PrincipalConstraint::Eq(uid) => {
                self.is(uid)
            }
        }
    }
}

impl Authorizer {
    /// An action that what is given would allow and that the giver may not do; none, if there is no such action.
    pub(super) fn escalates<A: Operation>(
        &self,
        policies: &TenantPolicies,
        principal: &Principal,
        operation: &A,
        circumstances: &Circumstances,
    ) -> Option<Action> {
        // Operators act for the installation, within the guard-rails; what a narrowed credential of theirs gives is
        // looked at like everybody's.
        let operator = principal.tenant() == Some(&platform_tenant()) && principal.scopes().is_none();
        let grants = operation.grants().filter(|_| !operator)?;
        let given = self.given(policies, operation, grants);
        let given = Action::ALL.iter().filter(|action| bit(**action).unwrap_or_default() & given != 0);
        // A token for oneself is for nobody to give: whoever the issuer knows has it.
        let given = given.copied().filter(|action| *action != Action::IssueToken);
        Giver::new(self, policies, principal, circumstances).lacks(given)
    }

    fn given<A: Operation>(&self, policies: &TenantPolicies, operation: &A, grants: Grants<'_>) -> Actions {
        let account = |name: &str, roles: &[String]| {
            let account = Resource::Account { tenant: operation.tenant(), name: name.to_owned(), roles: Vec::new() };
            self.given_to(policies, &Receiver { roles, account: Some(account.id()), ..Receiver::default() })
        };
        let user = |name, roles| self.given_to(policies, &Receiver { roles, user: Some(name), ..Receiver::default() });
        match grants {
            Grants::Roles(roles, scopes) => {
                let account = Some(operation.resource().id());
                let given = self.given_to(policies, &Receiver { roles, account, ..Receiver::default() });
                given & session::actions(scopes, &self.compiler.bits).unwrap_or(Actions::MAX)
            }
            Grants::User(name, roles) => user(name, roles),
            Grants::Accounts(accounts) => accounts.iter().fold(0, |all, one| all | account(&one.account, &one.roles)),
            Grants::Revived(Revived::Account { name, roles }) => account(name, roles),
            Grants::Revived(Revived::User { name, roles }) => user(name, roles),
            Grants::Revived(Revived::Anybody) => {
                self.given_to(policies, &Receiver { anybody: true, ..Receiver::default() })
            }
            Grants::Policy(name, text) => {
                // What cannot be read is refused where it is compiled, with its place.
                let new = policy::readable(name, text);
                let permits = new.iter().filter(|policy| policy.effect() == Effect::Permit && gives(policy));
                let permitted = permits.fold(0, |all, policy| all | self.compiler.bits.actions(policy));
                permitted | self.lifted(policies, name, &new)
            }
        }
    }

    /// All that permits in force give to this receiver.
    fn given_to(&self, policies: &TenantPolicies, receiver: &Receiver<'_>) -> Actions {
        let sets = [&self.defaults, policies.grants()].into_iter().filter_map(|tier| tier.set().ok());
        let permits = sets.flat_map(|set| set.policies()).filter(|policy| policy.effect() == Effect::Permit);
        let meant = permits.filter(|policy| receiver.is_meant(&policy.principal_constraint()));
        meant.fold(0, |all, policy| all | self.compiler.bits.actions(policy))
    }

    /// The actions that forbids take from somebody now and would take no more, were this in the place of the tenant's
    /// text of that name. A statement that stays to the letter, here or in another text, is not lifted.
    fn lifted(&self, policies: &TenantPolicies, name: &str, new: &[Policy]) -> Actions {
        let forbids = |policy: &&Policy| policy.effect() == Effect::Forbid;
        let lifted = match policies.grants().set() {
            Ok(set) => {
                let others = set.texts.iter().filter(|(other, _)| *other != name).flat_map(|(_, text)| &text.policies);
                let staying: HashSet<_> = others.chain(new).filter(forbids).filter_map(essence).collect();
                let old = set.texts.get(name).into_iter().flat_map(|text| &text.policies).filter(forbids);
                let gone = old.filter(|policy| essence(policy).is_none_or(|essence| !staying.contains(&essence)));
                gone.fold(0, |all, policy| all | self.compiler.bits.actions(policy))
            }
            // Nobody can say what a text forbids that is not understood.
            Err(_) => Actions::MAX,
        };
        let bit = |action| bit(action).unwrap_or_default();
        IN_PLACE_OF
            .iter()
            .fold(lifted, |all, (of, in_place)| if all & bit(*of) == 0 { all } else { all | bit(*in_place) })
    }
}

/// Whether a permit can be for somebody who calls; a workload's are for functions.
fn gives(policy: &Policy) -> bool {
    match policy.principal_constraint() {
        PrincipalConstraint::Any | PrincipalConstraint::In(_) => true,
        PrincipalConstraint::Is(kind) | PrincipalConstraint::IsIn(kind, _) => GIVEN.contains(&kind.basename()),
        PrincipalConstraint::Eq(uid) => GIVEN.contains(&uid.type_name().basename()),
    }
}
