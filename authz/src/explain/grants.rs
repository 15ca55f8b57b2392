//! What is granted, and what of it was used.
//!
//! Owns the two reports: grants that nobody used, and policies that grant what was used and no more. Must never propose
//! a text that does not pass the checks of a policy.

use std::collections::{BTreeMap, BTreeSet};

use cofferdam_model::{Action, Asker, PrincipalKind, Supposition, Surroundings, TenantId, UnixNanos};
use serde::Serialize;

use crate::decide::Authorizer;
use crate::error::{PolicyError, SuppositionError};
use crate::policy::TenantPolicies;

/// Allowed calls that are alike, as far as grants go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Used {
    /// Who called.
    pub who: Asker,
    /// What it did.
    pub action: Action,
    /// Name of the function, where it was about one.
    pub function: Option<String>,
    /// Policies that allowed it.
    pub policies: Vec<String>,
    /// How many there were.
    pub calls: u64,
}

/// A caller, and what it may do but did not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Idle {
    /// The caller.
    pub who: Asker,
    /// How many calls of it there were.
    pub calls: u64,
    /// Actions it may do on some function or the tenant, and did not.
    pub unused: Vec<&'static str>,
    /// Actions it did.
    pub used: Vec<&'static str>,
}

/// What was granted and not used.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Unused {
    /// Permits that allowed nothing.
    pub policies: Vec<String>,
    /// Forbids that are left out: that nothing came their way is what they are for.
    pub callers: Vec<Idle>,
}

/// For whom a policy is proposed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Holder {
    /// Whoever has a role.
    Role(String),
    /// One user.
    User {
        /// Subject.
        id: String,
        /// Who vouches for it.
        issuer: Option<String>,
    },
    /// One service account.
    Account(String),
    /// Callers without a credential.
    Anonymous,
}

/// A policy that grants what was used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Proposal {
    /// To whom.
    pub holder: Holder,
    /// Allowed calls it is made of.
    pub calls: u64,
    /// Cedar text.
    pub text: String,
}

impl Authorizer {
    /// What callers may do and did not, and permits that allowed nothing. `functions` are the names there are.
    pub fn unused(
        &self,
        policies: &TenantPolicies,
        (callers, functions): (&[Asker], &[String]),
        used: &[Used],
        now: UnixNanos,
    ) -> Result<Unused, SuppositionError> {
        let decided: BTreeSet<&str> = used.iter().flat_map(|call| &call.policies).map(String::as_str).collect();
        let permits = self.policy_texts(policies).into_iter().filter(|policy| policy.effect == "permit");
        let mut found = Unused {
            policies: permits.map(|policy| policy.id).filter(|id| !decided.contains(id.as_str())).collect(),
            callers: Vec::new(),
        };
        for who in callers {
            let own: Vec<_> = used.iter().filter(|call| same(&call.who, who)).collect();
            let did: BTreeSet<_> = own.iter().map(|call| call.action.as_str()).collect();
            let mut unused = Vec::new();
            // What functions at work may, nobody who calls may.
            let all = Action::ALL.iter().filter(|action| self.done_to(**action).is_some());
            for action in all.filter(|action| !did.contains(action.as_str())) {
                if self.may(policies, who, (*action, functions), now)? {
                    unused.push(action.as_str());
                }
            }
            let calls = own.iter().map(|call| call.calls).sum();
            let used = did.into_iter().collect();
            found.callers.push(Idle { who: who.clone(), calls, unused, used });
        }
        Ok(found)
    }

    /// Whether somebody may do this to any function, or the tenant, under usual circumstances.
    fn may(
        &self,
        policies: &TenantPolicies,
        who: &Asker,
        (action, functions): (Action, &[String]),
        now: UnixNanos,
    ) -> Result<bool, SuppositionError> {
        let ask = |function: Option<String>, public| {
            let context = Surroundings { public, ..Surroundings::default() };
            let principal = who.clone();
            let asked = Supposition { principal, action, function, function_id: None, thing: None, context };
            self.simulate(policies, &asked, now).map(|answer| answer.allowed())
        };
        if !self.about_functions(action) {
            return ask(None, false);
        }
        for name in functions {
            if ask(Some(name.clone()), false)? || ask(Some(name.clone()), action == Action::Invoke)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// For each role, or each caller, a policy that grants what was used and no more. Each passes the checks.
    pub fn least_privilege(
        &self,
        tenant: &TenantId,
        used: &[Used],
        by_role: bool,
    ) -> Result<Vec<Proposal>, PolicyError> {
        let mut by_holder: BTreeMap<Holder, (u64, BTreeMap<&'static str, BTreeSet<&str>>)> = BTreeMap::new();
        for call in used {
            for holder in holders(&call.who, by_role) {
                let (calls, actions) = by_holder.entry(holder).or_default();
                *calls += call.calls;
                actions.entry(call.action.as_str()).or_default().extend(call.function.as_deref());
            }
        }
        let mut proposals = Vec::new();
        for (holder, (calls, actions)) in by_holder {
            let text = written(&holder, &actions);
            self.compile(tenant, &[("proposal".to_owned(), text.clone())])?;
            proposals.push(Proposal { holder, calls, text });
        }
        Ok(proposals)
    }
}

/// Whether a call was that caller's: of the same kind and name, vouched for by the same issuer where that is known.
fn same(caller: &Asker, who: &Asker) -> bool {
    let issuer = who.issuer.is_none() || caller.issuer == who.issuer;
    (caller.kind, &caller.id) == (who.kind, &who.id) && issuer
}

fn holders(who: &Asker, by_role: bool) -> Vec<Holder> {
    if by_role && !who.roles.is_empty() {
        return who.roles.iter().cloned().map(Holder::Role).collect();
    }
    vec![match who.kind {
        PrincipalKind::User => Holder::User { id: who.id.clone(), issuer: who.issuer.clone() },
        PrincipalKind::ServiceAccount => Holder::Account(who.id.clone()),
        PrincipalKind::Anonymous => Holder::Anonymous,
    }]
}

/// One statement for all actions that were used on the same functions.
fn written(holder: &Holder, actions: &BTreeMap<&'static str, BTreeSet<&str>>) -> String {
    let mut groups: BTreeMap<Vec<&str>, Vec<&str>> = BTreeMap::new();
    for (action, functions) in actions {
        groups.entry(functions.iter().copied().collect()).or_default().push(action);
    }
    let (principal, mut conditions) = match holder {
        Holder::Role(role) => (format!("principal in Role::{}", quoted(role)), Vec::new()),
        Holder::User { id, issuer } => {
            let mut conditions = vec![format!("principal.id == {}", quoted(id))];
            if let Some(issuer) = issuer {
                conditions.push(format!("principal has issuer && principal.issuer == {}", quoted(issuer)));
            }
            ("principal is User".to_owned(), conditions)
        }
        Holder::Account(name) => {
            ("principal is ServiceAccount".to_owned(), vec![format!("principal.id == {}", quoted(name))])
        }
        Holder::Anonymous => ("principal is Anonymous".to_owned(), vec!["context.public".to_owned()]),
    };
    let common = conditions.len();
    let statements = groups.into_iter().map(|(functions, actions)| {
        let actions: Vec<_> = actions.iter().map(|action| format!("Action::\"{action}\"")).collect();
        conditions.truncate(common);
        match functions.as_slice() {
            [] => {}
            [one] => conditions.push(format!("resource.name == {}", quoted(one))),
            several => {
                let names: Vec<_> = several.iter().map(|name| quoted(name)).collect();
                conditions.push(format!("[{}].contains(resource.name)", names.join(", ")));
            }
        }
        let when =
            if conditions.is_empty() { String::new() } else { format!("\nwhen {{ {} }}", conditions.join(" && ")) };
        format!("permit (\n    {principal},\n    action in [{}],\n    resource\n){when};\n", actions.join(", "))
    });
    statements.collect::<Vec<_>>().join("\n")
}

/// A text as Cedar reads it back.
pub(crate) fn quoted(text: &str) -> String {
    format!("\"{}\"", text.escape_debug())
}
