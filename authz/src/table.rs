//! Decision tables: what must come of whom doing what, and by which policy.
//!
//! Owns the form of a row and how it is run. A row's callers are supposed, so that a table needs no node and no key.
//! Must never pass a row it did not ask about.

use std::net::IpAddr;
use std::sync::Arc;

use cofferdam_model::id::platform_tenant;
use cofferdam_model::{
    Action, Asker, Bound, CredentialKind, Digest, OrganisationId, PrincipalKind, Session, Supposition, Surroundings,
    TenantId, TlsVersion, UnixNanos,
};
use serde::Deserialize;

use crate::decide::{Authorizer, Work};
use crate::entities::Way;
use crate::error::{PolicyError, SuppositionError};
use crate::explain::{Answer, tenant_named};
use crate::policy::{Owner, TenantPolicies, Texts};

/// A function at work, among callers.
const WORKLOAD: &str = "workload";
/// The account of callers that are not named.
const ROBOT: &str = "robot";

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
    /// `tenant:user/NAME:role,role`, or `nobody`; or `workload`: the function that an invoker of the tenant calls.
    /// Accounts with `@sigv4` behind them sign, the others show a key.
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
    /// Policies operators bound the tenant by, named `b0`, `b1` and so on.
    #[serde(default)]
    pub boundary: Vec<String>,
    /// Policies of the ceiling of the tenant's organisation, named `c0`, `c1` and so on.
    #[serde(default)]
    pub ceiling: Vec<String>,
    /// What the caller's credential is good for at most; all it may do itself where there are none.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// Groups that the tokens of callers who are users say they are in.
    #[serde(default)]
    pub groups: Vec<String>,
    /// Whether the caller's token says that more than one factor was shown.
    #[serde(default)]
    pub mfa: bool,
    /// SHA-256 of the code of a `workload`, in hex.
    #[serde(default)]
    pub component: Option<Digest>,
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
        "`{0}` is no caller: write `nobody`, `workload`, `tenant:role,role`, `tenant:user/NAME:role` or \
         `tenant:account/NAME:role`"
    )]
    Who(String),
    /// No such action.
    #[error("`{0}` is no action: see policies/schema.cedarschema")]
    Action(String),
    /// An action of a caller for a workload, or the other way round.
    #[error("`{0}` does not do `{1}`: `UseSecret` and `Connect` are for `workload`, and nothing else is")]
    Doer(String, String),
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
        let set = self.in_force(authorizer, beside)?;
        let mut ran = Vec::new();
        for who in &self.who {
            let asker = (who != WORKLOAD).then(|| self.asker(who)).transpose()?;
            for action in &self.may {
                let known = Action::ALL.iter().find(|known| known.as_str() == action);
                let known = *known.ok_or_else(|| TableError::Action(action.clone()))?;
                if authorizer.done_to(known).is_none() != asker.is_none() {
                    return Err(TableError::Doer(who.clone(), action.clone()));
                }
                let answer = match &asker {
                    Some(asker) => authorizer.simulate(&set, &self.supposition(authorizer, asker, known), UnixNanos(0)),
                    None => self.of_workload(authorizer, &set, known),
                };
                ran.push(self.judged(who, action, answer?));
            }
        }
        Ok(ran)
    }

    /// Everything that is asked in the row.
    fn in_force(&self, authorizer: &Authorizer, beside: &[(String, String)]) -> Result<TenantPolicies, PolicyError> {
        let named = |letter: char, texts: &[String]| -> Vec<(String, String)> {
            texts.iter().enumerate().map(|(at, text)| (format!("{letter}{at}"), text.clone())).collect()
        };
        let tier = |owner: Owner, sources: Vec<(String, String)>| {
            let some = !sources.is_empty();
            some.then(|| authorizer.tier(owner, Texts { version: 0, sources }, None)).transpose()
        };
        let on = tenant_named(&self.on);
        let none = on == platform_tenant();
        let own = named('p', &self.policies).into_iter().chain(beside.iter().filter(|_| !none).cloned());
        let set = authorizer.compile(&on, &own.collect::<Vec<_>>())?.suspended(self.suspended);
        let set = set.within(tier(Owner::Boundary(on), named('b', &self.boundary))?);
        let Ok(organisation) = OrganisationId::parse("o_0000000000000000") else { return Ok(set) };
        let ceiling = tier(Owner::Organisation(organisation.clone()), named('c', &self.ceiling))?;
        Ok(set.under(organisation, ceiling))
    }

    fn judged(&self, who: &str, action: &str, answer: Answer) -> Ran {
        let good = answer.outcome == self.outcome
            && self.tier.as_ref().is_none_or(|tier| answer.tier == tier)
            && self.by.as_ref().is_none_or(|by| answer.policies == *by);
        Ran { who: who.to_owned(), action: action.to_owned(), answer, good }
    }

    fn supposition(&self, authorizer: &Authorizer, asker: &Asker, action: Action) -> Supposition {
        let shared = |text: &String| -> Arc<str> { text.as_str().into() };
        Supposition {
            principal: asker.clone(),
            action,
            function: authorizer.about_functions(action).then(|| self.function.clone()),
            function_id: None,
            thing: None,
            context: Surroundings {
                source: self.source,
                tls: self.tls,
                method: shared(&self.method),
                host: shared(&self.host),
                path: shared(&self.path),
                // Only calls come by a route.
                public: self.public && action == Action::Invoke,
                route: None,
                now: Some(self.now.clone()),
                request: None,
            },
        }
    }

    /// What comes of the function's own decision, the call itself being allowed.
    fn of_workload(
        &self,
        authorizer: &Authorizer,
        set: &TenantPolicies,
        action: Action,
    ) -> Result<Answer, SuppositionError> {
        let caller = Asker::new(PrincipalKind::ServiceAccount, ROBOT, &["invoker".to_owned()]);
        let call = self.supposition(authorizer, &caller, Action::Invoke);
        let work = match action {
            Action::UseSecret => Work::Secret("KEY"),
            _ => Work::Request(Way {
                host: "api.example",
                port: 443,
                tls: true,
                method: "GET",
                rule: "https://api.example",
            }),
        };
        authorizer.simulate_work(set, &call, (work, self.component.unwrap_or(Digest([0; 32]))))
    }

    fn asker(&self, who: &str) -> Result<Asker, TableError> {
        if who == "nobody" {
            return Ok(Asker::anonymous());
        }
        let wrong = || TableError::Who(who.to_owned());
        let (signs, named) = match who.strip_suffix("@sigv4") {
            Some(named) => (true, named),
            None => (false, who),
        };
        let (home, rest) = named.split_once(':').ok_or_else(wrong)?;
        let (kind, id, roles) = match rest.split_once(':') {
            None => (PrincipalKind::ServiceAccount, ROBOT, rest),
            Some((named, roles)) => match named.split_once('/') {
                Some(("user", id)) if !signs => (PrincipalKind::User, id, roles),
                Some(("account", id)) => (PrincipalKind::ServiceAccount, id, roles),
                _ => return Err(wrong()),
            },
        };
        let roles: Vec<_> = roles.split(',').filter(|role| !role.is_empty()).map(str::to_owned).collect();
        let tenant: TenantId = tenant_named(home);
        let bound = if signs { Bound::Sigv4 } else { Bound::None };
        let session = self.mfa.then(|| Session { mfa: true, ..Session::default() });
        Ok(Asker {
            tenant: Some(tenant.to_string()),
            groups: self.groups.clone(),
            credential: signs.then_some(CredentialKind::Sigv4),
            bound,
            scopes: (!self.scopes.is_empty()).then(|| self.scopes.clone()),
            session,
            ..Asker::new(kind, id, &roles)
        })
    }
}
