//! Decision tables: what must come of whom doing what, and by which policy.
//!
//! Owns the form of a row and how it is run. A row's callers are supposed, so that a table needs no node and no key.
//! Must never pass a row it did not ask about.

use std::net::IpAddr;
use std::sync::Arc;

use cofferdam_model::id::platform_tenant;
use cofferdam_model::{Action, Asker, PrincipalKind, Supposition, Surroundings, TenantId, TlsVersion, UnixNanos};
use serde::Deserialize;

use crate::decide::Authorizer;
use crate::error::{PolicyError, SuppositionError};
use crate::explain::{Answer, tenant_named};
use crate::policy::TenantPolicies;

/// Rows of a file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// Each a claim.
    pub case: Vec<Case>,
}

/// A row: every one of `who` with every one of `may`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What the row claims.
    pub claim: String,
    /// Each `tenant:role,role` for the account `robot`, `tenant:account/NAME:role,role`,
    /// `tenant:user/NAME:role,role`, or `nobody`.
    pub who: Vec<String>,
    /// Each an action.
    pub may: Vec<String>,
    /// Tenant it happens in.
    pub on: String,
    /// Name of the function, for actions that are about one.
    #[serde(default = "orders")]
    pub function: String,
    /// Whether the route was declared public.
    #[serde(default)]
    pub public: bool,
    /// Whether the tenant is suspended.
    #[serde(default)]
    pub suspended: bool,
    /// Address of the caller.
    #[serde(default = "source")]
    pub source: IpAddr,
    /// TLS version.
    #[serde(default = "tls")]
    pub tls: TlsVersion,
    /// Method.
    #[serde(default = "method")]
    pub method: String,
    /// Host.
    #[serde(default = "host")]
    pub host: String,
    /// Path.
    #[serde(default = "path")]
    pub path: String,
    /// When.
    #[serde(default = "now")]
    pub now: String,
    /// Policies of that tenant, named `p0`, `p1` and so on.
    #[serde(default)]
    pub policies: Vec<String>,
    /// Outcome.
    pub outcome: String,
    /// Tier that settles it; any where there is none.
    #[serde(default)]
    pub tier: Option<String>,
    /// Policies that do; any where there are none.
    #[serde(default)]
    pub by: Option<Vec<String>>,
}

fn orders() -> String {
    "orders".to_owned()
}

fn source() -> IpAddr {
    [192, 0, 2, 7].into()
}

fn tls() -> TlsVersion {
    TlsVersion::Tls13
}

fn method() -> String {
    "GET".to_owned()
}

fn host() -> String {
    "api.example".to_owned()
}

fn path() -> String {
    "/orders/1".to_owned()
}

/// A Friday morning.
fn now() -> String {
    "2026-11-20T10:38:00Z".to_owned()
}

/// One caller and action of a row, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// The caller, as the row has it.
    pub who: String,
    /// The action.
    pub action: String,
    /// What came of it.
    pub answer: Answer,
    /// Whether that is what the row says.
    pub good: bool,
}

/// A row that cannot be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// No such caller.
    #[error(
        "`{0}` is no caller: write `nobody`, `tenant:role,role`, `tenant:user/NAME:role` or `tenant:account/NAME:role`"
    )]
    Who(String),
    /// No such action.
    #[error("`{0}` is no action: see policies/schema.cedarschema")]
    Action(String),
    /// A policy of the row, or of those it is run with, is refused.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The row supposes what cannot be.
    #[error(transparent)]
    Supposition(#[from] SuppositionError),
}

impl Case {
    /// Runs the row with these policies (name and text each) beside its own.
    pub fn run(&self, authorizer: &Authorizer, beside: &[(String, String)]) -> Result<Vec<Ran>, TableError> {
        let on = tenant_named(&self.on);
        let own = self.policies.iter().enumerate().map(|(at, text)| (format!("p{at}"), text.clone()));
        let none = on == platform_tenant();
        let sources: Vec<_> = own.chain(beside.iter().filter(|_| !none).cloned()).collect();
        let set = authorizer.compile(&on, &sources)?.suspended(self.suspended);
        let mut ran = Vec::new();
        for who in &self.who {
            let asker = asker(who)?;
            for action in &self.may {
                ran.push(self.one((authorizer, &set), (who, &asker), action)?);
            }
        }
        Ok(ran)
    }

    fn one(
        &self,
        (authorizer, set): (&Authorizer, &TenantPolicies),
        (who, asker): (&str, &Asker),
        action: &str,
    ) -> Result<Ran, TableError> {
        let known = Action::ALL.iter().find(|known| known.as_str() == action);
        let known = *known.ok_or_else(|| TableError::Action(action.to_owned()))?;
        let shared = |text: &String| -> Arc<str> { text.as_str().into() };
        let supposition = Supposition {
            principal: asker.clone(),
            action: known,
            function: authorizer.about_functions(known).then(|| self.function.clone()),
            function_id: None,
            context: Surroundings {
                source: self.source,
                tls: self.tls,
                method: shared(&self.method),
                host: shared(&self.host),
                path: shared(&self.path),
                // Only calls come by a route.
                public: self.public && known == Action::Invoke,
                now: Some(self.now.clone()),
                request: None,
            },
        };
        let answer = authorizer.simulate(set, &supposition, UnixNanos(0))?;
        let good = answer.outcome == self.outcome
            && self.tier.as_ref().is_none_or(|tier| answer.tier == tier)
            && self.by.as_ref().is_none_or(|by| answer.policies == *by);
        Ok(Ran { who: who.to_owned(), action: action.to_owned(), answer, good })
    }
}

fn asker(who: &str) -> Result<Asker, TableError> {
    if who == "nobody" {
        return Ok(Asker::anonymous());
    }
    let wrong = || TableError::Who(who.to_owned());
    let (home, rest) = who.split_once(':').ok_or_else(wrong)?;
    let (kind, id, roles) = match rest.split_once(':') {
        None => (PrincipalKind::ServiceAccount, "robot", rest),
        Some((named, roles)) => match named.split_once('/') {
            Some(("user", id)) => (PrincipalKind::User, id, roles),
            Some(("account", id)) => (PrincipalKind::ServiceAccount, id, roles),
            _ => return Err(wrong()),
        },
    };
    let roles: Vec<_> = roles.split(',').filter(|role| !role.is_empty()).map(str::to_owned).collect();
    let tenant: TenantId = tenant_named(home);
    Ok(Asker { tenant: Some(tenant.to_string()), ..Asker::new(kind, id, &roles) })
}
