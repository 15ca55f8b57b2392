//! Calls that nobody made: what a policy is asked about when somebody wants to know what it would say.
//!
//! Owns their form, as the management API and files have it, and the way back from a recorded call to one. Must never
//! be taken for a call: nothing here can be permitted, only explained.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::clock::UnixNanos;
use crate::facts::{Bound, CallFacts, CredentialKind, GivenFacts, PrincipalFacts, PrincipalKind, Session, TlsVersion};
use crate::operation::Action;

/// Ends a text that a record had no room for, up to its closing bracket.
const CUT: &str = "...(+";

/// Somebody, doing something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Supposition {
    /// Who.
    pub principal: Asker,
    /// What.
    pub action: Action,
    /// Name of the function, where the action is about one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub function: Option<String>,
    /// Its id; one that nobody has where it is not known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub function_id: Option<String>,
    /// What else it is done to, where the action is about something of its own name; anything of its kind where there
    /// is none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub thing: Option<Thing>,
    /// Under which circumstances.
    #[serde(default)]
    pub context: Surroundings,
}

/// A secret, an app, an account, a policy or a key, whichever the action is about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Thing {
    /// Its name; a key's id.
    pub name: String,
    /// An account's roles.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub roles: Vec<String>,
}

/// Somebody supposed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asker {
    /// Kind of being.
    pub kind: PrincipalKind,
    /// Subject, or name of the service account.
    #[serde(default)]
    pub id: String,
    /// Who vouches for it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub issuer: Option<String>,
    /// Id of its tenant; the tenant whose policies are asked where there is none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tenant: Option<String>,
    /// Its roles there.
    #[serde(default)]
    pub roles: Vec<String>,
    /// Groups its token says it is in.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub groups: Vec<String>,
    /// What it shows; what is usual for its kind where there is none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub credential: Option<CredentialKind>,
    /// How it proves to hold a key.
    #[serde(skip_serializing_if = "Bound::is_none", default)]
    pub bound: Bound,
    /// Name of its machine, where it shows a certificate.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub certificate: Option<String>,
    /// What its credential is good for at most; all it may do itself where there is none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub scopes: Option<Vec<String>>,
    /// What its token says of the session.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub session: Option<Session>,
}

impl Asker {
    /// Somebody of the tenant whose policies are asked.
    pub fn new(kind: PrincipalKind, id: &str, roles: &[String]) -> Self {
        Self {
            kind,
            id: id.to_owned(),
            issuer: None,
            tenant: None,
            roles: roles.to_vec(),
            groups: Vec::new(),
            credential: None,
            bound: Bound::None,
            certificate: None,
            scopes: None,
            session: None,
        }
    }

    /// Nobody in particular.
    pub fn anonymous() -> Self {
        Self::new(PrincipalKind::Anonymous, "anonymous", &[])
    }

    /// What it shows.
    pub fn shows(&self) -> CredentialKind {
        self.credential.unwrap_or(match self.kind {
            PrincipalKind::User => CredentialKind::Jwt,
            PrincipalKind::ServiceAccount => CredentialKind::ApiKey,
            PrincipalKind::Anonymous => CredentialKind::None,
        })
    }
}

/// What surrounds a supposed call. All of it may be left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Surroundings {
    /// Address of the peer.
    pub source: IpAddr,
    /// TLS version.
    pub tls: TlsVersion,
    /// Method.
    pub method: Arc<str>,
    /// Host, lower case, without port.
    pub host: Arc<str>,
    /// Canonical path, without query.
    pub path: Arc<str>,
    /// Whether the route is declared public.
    pub public: bool,
    /// Id of the route it comes by; none for a call of a function by its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// When, as in `2026-11-20T10:38:00Z`; when it is asked where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub now: Option<String>,
    /// Id of the request; one that nobody has where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
}

impl Default for Surroundings {
    fn default() -> Self {
        Self {
            source: Ipv4Addr::LOCALHOST.into(),
            tls: TlsVersion::Tls13,
            method: "GET".into(),
            host: "localhost".into(),
            path: "/".into(),
            public: false,
            route: None,
            now: None,
            request: None,
        }
    }
}

/// Suppositions, and the policies they are put to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Simulation {
    /// Each answered by itself.
    pub requests: Vec<Supposition>,
    /// Names and texts of the policies asked, instead of those of the tenant.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub policies: Option<Vec<(String, String)>>,
    /// Whether each answer has the texts of what decided, and the nearest miss.
    #[serde(default)]
    pub explain: bool,
}

impl Simulation {
    /// As the log tells what was asked.
    pub fn detail(&self) -> String {
        let whose = if self.policies.is_some() { "candidate" } else { "own" };
        format!("requests={} policies={whose}", self.requests.len())
    }
}

/// Why a recorded call cannot be put to policies again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub enum Unclear {
    /// It was refused before anything was decided.
    #[error("it was refused before anything was decided")]
    Undecided,
    /// The record is of a release that did not write down all a decision is made on.
    #[error("it was recorded by an earlier release, without the roles of its caller")]
    Early,
    /// A text was too long for its record.
    #[error("its record had no room for all that was decided on")]
    Cut,
    /// The action is not known here.
    #[error("its action is not one this release knows")]
    Action,
}

impl Supposition {
    /// The call of a record, as it was put to policies then.
    pub fn of(facts: &CallFacts) -> Result<Self, Unclear> {
        let (Some(principal), Some(decision), Some(action)) = (&facts.principal, &facts.decision, &facts.action) else {
            return Err(Unclear::Undecided);
        };
        let given = decision.given.as_ref().ok_or(Unclear::Early)?;
        if texts(facts, principal, given).any(is_cut) {
            return Err(Unclear::Cut);
        }
        let action = Action::ALL.iter().find(|known| known.as_str() == action).ok_or(Unclear::Action)?;
        Ok(Self {
            principal: Asker {
                kind: principal.kind,
                id: principal.id.clone(),
                issuer: principal.issuer.clone(),
                tenant: principal.tenant.clone(),
                roles: given.roles.clone(),
                groups: given.groups.clone(),
                credential: Some(principal.credential),
                bound: principal.bound,
                certificate: certificate(principal).cloned(),
                scopes: given.scopes.clone(),
                session: principal.session.clone(),
            },
            action: *action,
            // A secret's id begins with that of its function.
            function_id: given.name.as_ref().and(facts.resource.as_deref()).map(|id| match id.split_once('|') {
                Some((function, _)) => function.to_owned(),
                None => id.to_owned(),
            }),
            function: given.name.clone(),
            thing: given.item.clone().map(|name| Thing { name, roles: given.item_roles.clone() }),
            context: Surroundings {
                source: facts.source,
                tls: facts.tls,
                method: facts.method.clone(),
                host: facts.host.clone(),
                path: facts.path.clone(),
                public: given.public,
                route: facts.route.clone(),
                now: Some(facts.at.to_string()),
                request: Some(facts.request.to_string()),
            },
        })
    }

    /// When it is supposed to be.
    pub fn now(&self) -> Option<Result<UnixNanos, &str>> {
        self.context.now.as_deref().map(|text| UnixNanos::parse(text).ok_or(text))
    }
}

/// All of a record that policies can look at, and that could have been too long for it.
fn texts<'a>(
    facts: &'a CallFacts,
    principal: &'a PrincipalFacts,
    given: &'a GivenFacts,
) -> impl Iterator<Item = &'a str> {
    let session = principal.session.iter();
    let said = session.flat_map(|said| said.scopes.iter().flatten().chain(&said.actor).chain(&said.client));
    let lists = [&given.roles, &given.groups, &given.item_roles].into_iter().chain(&given.scopes).flatten();
    let single = [Some(&principal.id), facts.action.as_ref(), facts.resource.as_ref(), certificate(principal)];
    let named = [&principal.issuer, &given.name, &given.item].into_iter().flatten();
    let plain = [&facts.method, &facts.host, &facts.path].map(|text| &**text);
    single.into_iter().flatten().chain(named).chain(lists).chain(said).map(String::as_str).chain(plain)
}

/// Name of the caller's machine, where it showed a certificate.
fn certificate(principal: &PrincipalFacts) -> Option<&String> {
    principal.credential_id.as_ref().filter(|_| principal.credential == CredentialKind::Certificate)
}

/// Whether a text or a list ends as a record ends what it had no room for.
fn is_cut(text: &str) -> bool {
    text.ends_with(')') && text.contains(CUT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_usual_and_what_is_unknown_is_refused() {
        let text = r#"{"principal":{"kind":"user","id":"alice"},"action":"Invoke","function":"orders"}"#;
        let asked: Supposition = serde_json::from_str(text).unwrap();
        assert_eq!((asked.principal.shows(), &*asked.context.method), (CredentialKind::Jwt, "GET"));
        for bad in [
            r#"{"principal":{"kind":"user"},"action":"Fly"}"#,
            r#"{"principal":{"kind":"dog"},"action":"Invoke"}"#,
            r#"{"principal":{"kind":"user"},"action":"Invoke","contxt":{}}"#,
            r#"{"principal":{"kind":"user"},"action":"Invoke","context":{"source":"here"}}"#,
        ] {
            assert!(serde_json::from_str::<Supposition>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn texts_that_were_cut_are_known_by_their_end() {
        for (text, cut) in [("abc...(+12 bytes)", true), ("...(+3 more)", true), ("a (b)", false), ("", false)] {
            assert_eq!(is_cut(text), cut, "{text}");
        }
    }
}
