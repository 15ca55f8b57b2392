//! Nobody gives what he does not hold.
//!
//! Owns the check that roles, keys and policies somebody of a tenant gives to others allow no action which he may not
//! do himself. It looks at scopes and not at conditions, so it may refuse what would have been harmless, never the
//! other way round. Must never let a giver's credential count for more than it is good for.

use cedar_policy::{Effect, EntityUid, Policy, PrincipalConstraint};
use cofferdam_model::id::platform_tenant;
use cofferdam_model::{Action, Circumstances, FunctionId, Grants, KeyId, Operation, Resource, TenantId};

use super::{Authorizer, Outcome, session};
use crate::identity::Principal;
use crate::policy::index::{Actions, bit};
use crate::policy::{self, TenantPolicies};

/// Kinds of principals that somebody can be made.
const GIVEN: &[&str] = &["User", "ServiceAccount", "Anonymous"];

/// An action on something of a tenant that nobody has a policy about by name.
struct Probe {
    action: Action,
    resource: Resource,
    tenant: TenantId,
}

impl Operation for Probe {
    fn action(&self) -> Action {
        self.action
    }

    fn tenant(&self) -> TenantId {
        self.tenant.clone()
    }

    fn resource(&self) -> Resource {
        self.resource.clone()
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
        let given = match grants {
            Grants::Roles(roles, scopes) => self.given_by_roles(policies, roles, scopes, &operation.resource().id()),
            Grants::Accounts(accounts) => accounts.iter().fold(0, |all, one| {
                let (name, roles) = (one.account.clone(), one.roles.clone());
                let account = Resource::Account { tenant: operation.tenant(), name, roles };
                all | self.given_by_roles(policies, &one.roles, &[], &account.id())
            }),
            Grants::Policy(name, text) => {
                // What cannot be read is refused where it is compiled, with its place.
                let permits =
                    policy::readable(name, text).into_iter().filter(|policy| policy.effect() == Effect::Permit);
                permits.filter(gives).fold(0, |all, policy| all | self.compiler.bits.actions(&policy))
            }
        };
        let tenant = operation.tenant();
        let given = Action::ALL.iter().filter(|action| bit(**action).unwrap_or_default() & given != 0);
        // A token for oneself is for nobody to give: whoever the issuer knows has it.
        let mut given = given.copied().filter(|action| *action != Action::IssueToken);
        given.find(|action| !self.holds(policies, principal, *action, &tenant, circumstances))
    }

    /// All that permits in force give to whoever has these roles, or has this account.
    fn given_by_roles(&self, policies: &TenantPolicies, roles: &[String], scopes: &[String], account: &str) -> Actions {
        let concerns = |policy: &&Policy| {
            let named = |uid: &EntityUid| match uid.type_name().basename() {
                "Role" => roles.iter().any(|role| role == uid.id().unescaped()),
                "ServiceAccount" => uid.id().unescaped() == account,
                // Whoever is in the tenant.
                "Tenant" => true,
                _ => false,
            };
            let principal = match policy.principal_constraint() {
                PrincipalConstraint::Any => true,
                PrincipalConstraint::Is(kind) => matches!(kind.basename(), "User" | "ServiceAccount"),
                PrincipalConstraint::In(uid) | PrincipalConstraint::IsIn(_, uid) | PrincipalConstraint::Eq(uid) => {
                    named(&uid)
                }
            };
            policy.effect() == Effect::Permit && principal
        };
        let sets = [&self.defaults, policies.grants()].into_iter().filter_map(|tier| tier.set().ok());
        let all = sets.flat_map(|set| set.policies()).filter(concerns);
        let given = all.fold(0, |all, policy| all | self.compiler.bits.actions(policy));
        given & session::actions(scopes, &self.compiler.bits).unwrap_or(Actions::MAX)
    }

    /// Whether somebody may do this in his tenant, to something that no policy names. Actions that nobody of a tenant
    /// can do there are nobody's to hold, and none to give.
    fn holds(
        &self,
        policies: &TenantPolicies,
        principal: &Principal,
        action: Action,
        tenant: &TenantId,
        circumstances: &Circumstances,
    ) -> bool {
        match self.vocabulary.done_to(action) {
            None | Some("Platform") => true,
            Some(kind) => something(kind, tenant).is_some_and(|resource| {
                let probe = Probe { action, resource, tenant: tenant.clone() };
                self.judge(policies, principal, &probe, circumstances).outcome == Outcome::Allow
            }),
        }
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

/// A resource of a kind with a name and an id that nothing real has.
fn something(kind: &str, tenant: &TenantId) -> Option<Resource> {
    let function = || FunctionId::parse(&format!("{tenant}.f_0000000000000000")).ok();
    Some(match kind {
        "Tenant" => Resource::Tenant(tenant.clone()),
        "Function" => Resource::Function { id: function()?, name: "".into() },
        "Secret" => Resource::Secret { function: function()?, function_name: "".into(), name: "".into() },
        "Api" => Resource::Api { tenant: tenant.clone(), name: String::new() },
        "Account" => Resource::Account { tenant: tenant.clone(), name: String::new(), roles: Vec::new() },
        "ApiKey" => Resource::ApiKey(KeyId::parse(&format!("{tenant}.k_0000000000000000")).ok()?),
        "PolicySet" => Resource::PolicySet { tenant: tenant.clone(), policy: String::new() },
        _ => return None,
    })
}
