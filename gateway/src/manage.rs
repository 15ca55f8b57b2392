//! The management API as operations: from method, path and body to one `Manage`.
//!
//! Owns the table of management paths below `/-/v1` and the shape of their bodies. Must never decide whether a
//! caller may, and never act: that is the pipeline's order, the same as for every other call.

use cofferdam_control::Snapshot;
use cofferdam_model::id::is_name;
use cofferdam_model::operation::{FunctionRef, SinkReset};
use cofferdam_model::{
    Action, Digest, FunctionId, FunctionSettings, Manage, Random, RouteSpec, Simulation, TenantId, TenantSettings,
};
use http::Method;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::egress::{check_ceiling, check_rules};
use crate::refusal::Refusal;

pub(crate) use asked::parameter;

mod asked;
mod govern;
mod keep;
mod people;
mod prove;
mod sealed;

/// A recognised management call, its names not looked up yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    action: Action,
    names: Vec<String>,
}

/// Every management path there is; `*` is a name, and `**` the rest.
const TABLE: &[(&str, &str, Action)] = &[
    ("POST", "tenants", Action::CreateTenant),
    ("GET", "tenants", Action::ListTenants),
    ("GET", "tenants/*", Action::ReadTenant),
    ("PUT", "tenants/*/settings", Action::PutTenantSettings),
    ("PUT", "tenants/*/organisation", Action::AssignTenant),
    ("PUT", "tenants/*/boundary/*", Action::PutBoundary),
    ("DELETE", "tenants/*/boundary/*", Action::RemoveBoundary),
    ("POST", "organisations", Action::CreateOrganisation),
    ("GET", "organisations", Action::ListOrganisations),
    ("PUT", "organisations/*/ceiling/*", Action::PutCeiling),
    ("DELETE", "organisations/*/ceiling/*", Action::RemoveCeiling),
    ("PUT", "tenants/*/suspension", Action::SuspendTenant),
    ("DELETE", "tenants/*/suspension", Action::ResumeTenant),
    ("GET", "tenants/*/usage", Action::ReadUsage),
    ("PUT", "tenants/*/members/*", Action::PutMember),
    ("DELETE", "tenants/*/members/*", Action::RemoveMember),
    ("PUT", "tenants/*/functions/*", Action::PutFunction),
    ("DELETE", "tenants/*/functions/*", Action::RemoveFunction),
    ("POST", "tenants/*/functions/*/versions", Action::PublishVersion),
    ("POST", "tenants/*/functions/*/prune", Action::PruneVersions),
    ("GET", "tenants/*/functions/*/logs", Action::ReadLogs),
    ("GET", "tenants/*/functions/*/secrets", Action::ListSecrets),
    ("PUT", "tenants/*/functions/*/secrets/*", Action::PutSecret),
    ("DELETE", "tenants/*/functions/*/secrets/*", Action::RemoveSecret),
    ("POST", "tenants/*/functions/*/secrets/*/rotate", Action::RotateSecret),
    ("POST", "tenants/*/functions/*/secrets/*/rollback", Action::RollbackSecret),
    ("GET", "tenants/*/functions/*/secrets/*/versions", Action::ListSecretVersions),
    ("POST", "tenants/*/key/rotate", Action::RotateTenantKey),
    ("POST", "tenants/*/shred", Action::ShredTenant),
    ("POST", "tenants/*/audit/shred", Action::ShredSubject),
    ("PUT", "holds/*", Action::PutHold),
    ("DELETE", "holds/*", Action::RemoveHold),
    ("GET", "holds", Action::ListHolds),
    ("POST", "root-key/rotate", Action::RotateRootKey),
    ("GET", "root-key", Action::ReadRootKey),
    ("PUT", "tenants/*/apps/*/routes", Action::PutRoutes),
    ("PUT", "tenants/*/policies/*", Action::PutPolicy),
    ("DELETE", "tenants/*/policies/*", Action::RemovePolicy),
    ("POST", "tenants/*/simulate", Action::SimulatePolicy),
    ("GET", "tenants/*/audit", Action::QueryAudit),
    ("GET", "tenants/*/tree/**", Action::ProveAudit),
    ("GET", "audit/checkpoint", Action::ReadTiles),
    ("GET", "audit/tile/entries/**", Action::ReadEntries),
    ("GET", "audit/tile/**", Action::ReadTiles),
    ("POST", "tenants/*/keys", Action::CreateKey),
    ("GET", "tenants/*/keys", Action::ListKeys),
    ("DELETE", "keys/*", Action::RevokeKey),
    ("PUT", "tenants/*/client-cas/*", Action::PutClientCa),
    ("GET", "tenants/*/client-cas", Action::ListClientCas),
    ("DELETE", "tenants/*/client-cas/*", Action::RemoveClientCa),
    ("POST", "tenants/*/revocations", Action::Revoke),
    ("GET", "tenants/*/revocations", Action::ListRevocations),
    ("DELETE", "revocations/*", Action::Reinstate),
    ("PUT", "tenants/*/users/*", Action::PutUser),
    ("DELETE", "tenants/*/users/*", Action::RemoveUser),
    ("GET", "tenants/*/users", Action::ListUsers),
    ("POST", "issuer/rotate", Action::RotateIssuerKey),
    ("GET", "tenants/*/cells", Action::ListCells),
    ("DELETE", "tenants/*/cells", Action::RecycleCells),
    ("GET", "tenants/*/functions/*/cells", Action::ListCells),
    ("DELETE", "tenants/*/functions/*/cells", Action::RecycleCells),
    ("GET", "metrics", Action::ReadMetrics),
    ("GET", "sinks", Action::ListSinks),
    ("POST", "sinks/*/reset", Action::ResetSink),
];

fn names_of(pattern: &str, path: &str) -> Option<Vec<String>> {
    let (pattern, path, rest) = match pattern.strip_suffix("/**") {
        Some(pattern) => {
            let (at, _) = path.match_indices('/').nth(pattern.matches('/').count())?;
            (pattern, path.get(..at)?, Some(path.get(at + 1..).filter(|rest| !rest.is_empty())?))
        }
        None => (pattern, path, None),
    };
    let (mut pattern, mut path) = (pattern.split('/'), path.split('/'));
    let mut names = Vec::new();
    loop {
        match (pattern.next(), path.next()) {
            (None, None) => {
                // The rest is taken as it stands.
                names.extend(rest.map(str::to_owned));
                return Some(names);
            }
            (Some("*"), Some(name)) if !name.is_empty() => names.push(decoded(name)?),
            (Some(fixed), Some(part)) if fixed == part => {}
            _ => return None,
        }
    }
}

/// A segment of a canonical path as its author meant it: subjects of issuers have characters that paths have not.
fn decoded(segment: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
            let (high, low) = (digit(rest.next())?, digit(rest.next())?);
            bytes.push(u8::try_from(high << 4 | low).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

/// Recognises a path below `/-/v1/`; the error says whether path or method is unknown.
pub(crate) fn recognise(method: &Method, path: &str) -> Result<Asked, Refusal> {
    let mut known = Vec::new();
    for (verb, pattern, action) in TABLE {
        if let Some(names) = names_of(pattern, path) {
            if verb == &method.as_str() {
                return Ok(Asked { action: *action, names });
            }
            known.push(*verb);
        }
    }
    Err(if known.is_empty() { Refusal::NotFound } else { Refusal::MethodNotAllowed { allow: known.join(", ") } })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewTenant {
    name: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyText {
    text: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Keep {
    keep: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GoOn {
    to: u64,
}

impl Asked {
    /// Whether the body is a component, which may be much larger than the rest.
    pub(crate) fn takes_component(&self) -> bool {
        self.action == Action::PublishVersion
    }

    /// Reads the body, then looks the names up: a name nobody has is 404, as is one the caller may not know, and what
    /// is wrong with the body must not tell the two apart.
    pub(crate) fn operation(
        self,
        snapshot: &Snapshot,
        random: &dyn Random,
        query: Option<&str>,
        body: &[u8],
        digest: impl FnOnce(&[u8]) -> Digest,
    ) -> Result<Manage, Refusal> {
        let names = Names { snapshot, names: &self.names };
        Ok(match self.action {
            Action::CreateTenant => Manage::CreateTenant { name: json::<NewTenant>(body)?.name },
            Action::PutTenantSettings => {
                let settings = json::<TenantSettings>(body)?;
                if let Some(ceiling) = &settings.egress {
                    check_ceiling(ceiling).map_err(|error| invalid(error.to_string()))?;
                }
                Manage::PutTenantSettings { tenant: names.tenant()?, settings }
            }
            Action::PutFunction => {
                let settings = json::<FunctionSettings>(body)?;
                check_rules(&settings.egress).map_err(|error| invalid(error.to_string()))?;
                Manage::PutFunction { function: names.function_or_new(random)?, settings }
            }
            Action::PublishVersion => Manage::PublishVersion {
                function: names.function()?,
                component: digest(body),
                component_bytes: body.len() as u64,
            },
            Action::PruneVersions => {
                let keep = json::<Keep>(body)?.keep;
                Manage::PruneVersions { function: names.function()?, keep }
            }
            Action::RemoveFunction => Manage::RemoveFunction { function: names.function()? },
            Action::PutRoutes => {
                let routes = json::<Vec<RouteSpec>>(body)?;
                Manage::PutRoutes { tenant: names.tenant()?, app: names.text(1)?.to_owned(), routes }
            }
            Action::PutPolicy | Action::RemovePolicy | Action::SimulatePolicy => policy(self.action, &names, body)?,
            Action::PutSecret
            | Action::RemoveSecret
            | Action::RotateSecret
            | Action::RollbackSecret
            | Action::RotateTenantKey
            | Action::ShredTenant
            | Action::RotateRootKey => sealed::change(self.action, &names, query, body)?,
            Action::PutMember
            | Action::RemoveMember
            | Action::CreateKey
            | Action::RevokeKey
            | Action::PutClientCa
            | Action::RemoveClientCa
            | Action::PutUser
            | Action::RemoveUser
            | Action::RotateIssuerKey => people::operation(self.action, &names, query, body)?,
            Action::SuspendTenant | Action::ResumeTenant | Action::Revoke | Action::Reinstate => {
                people::revoking(self.action, &names, body)?
            }
            Action::ResetSink => {
                Manage::ResetSink(SinkReset { sink: names.text(0)?.to_owned(), to: json::<GoOn>(body)?.to })
            }
            Action::ListCells => Manage::ListCells { tenant: names.tenant()?, function: names.function_if_named()? },
            Action::RecycleCells => {
                Manage::RecycleCells { tenant: names.tenant()?, function: names.function_if_named()? }
            }
            action => match (govern::operation(action, &names, body)?, keep::operation(action, &names, body)?) {
                (Some(govern), _) => Manage::Govern(govern),
                (None, Some(keep)) => Manage::Keep(keep),
                (None, None) => reading(action, &names, query)?,
            },
        })
    }
}

/// Those about what a tenant grants.
fn policy(action: Action, names: &Names<'_>, body: &[u8]) -> Result<Manage, Refusal> {
    Ok(match action {
        Action::PutPolicy => {
            let text = json::<PolicyText>(body)?.text;
            Manage::PutPolicy { tenant: names.tenant()?, name: names.text(1)?.to_owned(), text }
        }
        Action::RemovePolicy => Manage::RemovePolicy { tenant: names.tenant()?, name: names.text(1)?.to_owned() },
        _ => {
            let simulation = json::<Simulation>(body)?;
            Manage::SimulatePolicy { tenant: names.tenant()?, simulation }
        }
    })
}

/// Those that take a query and no body, or neither.
fn reading(action: Action, names: &Names<'_>, query: Option<&str>) -> Result<Manage, Refusal> {
    Ok(match action {
        Action::ListTenants => Manage::ListTenants,
        Action::ReadTenant => Manage::ReadTenant { tenant: names.tenant()? },
        Action::ReadUsage => {
            let range = asked::usage_range(query)?;
            Manage::ReadUsage { tenant: names.tenant()?, range }
        }
        Action::ReadLogs => {
            let range = asked::log_range(query)?;
            Manage::ReadLogs { function: names.function()?, range }
        }
        Action::QueryAudit => {
            let range = asked::audit_range(query)?;
            Manage::QueryAudit { tenant: names.tenant()?, range }
        }
        Action::ProveAudit | Action::ReadTiles | Action::ReadEntries => {
            Manage::Prove(prove::operation(action, names, query)?)
        }
        Action::ListSecrets => Manage::ListSecrets { function: names.function()? },
        Action::ListSecretVersions => {
            Manage::ListSecretVersions { function: names.function()?, name: names.text(2)?.to_owned() }
        }
        Action::ReadRootKey => Manage::ReadRootKey,
        Action::ListKeys => Manage::ListKeys { tenant: names.tenant()? },
        Action::ListClientCas => Manage::ListClientCas { tenant: names.tenant()? },
        Action::ListUsers => Manage::ListUsers { tenant: names.tenant()? },
        Action::ListRevocations => Manage::ListRevocations { tenant: names.tenant()? },
        Action::ReadMetrics => Manage::ReadMetrics,
        Action::ListSinks => Manage::ListSinks,
        // No path leads to any other: a function is called through its own, and changes are told apart before.
        _ => return Err(Refusal::NotFound),
    })
}

/// Names of a path, looked up in what exists.
struct Names<'a> {
    snapshot: &'a Snapshot,
    names: &'a [String],
}

impl Names<'_> {
    fn text(&self, at: usize) -> Result<&str, Refusal> {
        self.names.get(at).map(String::as_str).ok_or(Refusal::NotFound)
    }

    fn tenant(&self) -> Result<TenantId, Refusal> {
        let found = self.snapshot.tenant_by_name(self.text(0)?);
        found.map(|tenant| tenant.id.clone()).ok_or(Refusal::NotFound)
    }

    fn function(&self) -> Result<FunctionRef, Refusal> {
        let found = self.snapshot.function(&self.tenant()?, self.text(1)?).ok_or(Refusal::NotFound)?;
        Ok(FunctionRef { id: found.id.clone(), name: found.name.clone() })
    }

    fn function_if_named(&self) -> Result<Option<FunctionRef>, Refusal> {
        if self.names.len() > 1 { self.function().map(Some) } else { Ok(None) }
    }

    fn function_or_new(&self, random: &dyn Random) -> Result<FunctionRef, Refusal> {
        let name = self.text(1)?;
        if !is_name(name) {
            return Err(invalid(format!("`{name}` is not a function name: use 1 to 63 of a-z, 0-9 and -")));
        }
        let tenant = self.tenant()?;
        match self.snapshot.function(&tenant, name) {
            Some(_) => self.function(),
            None => Ok(FunctionRef { id: FunctionId::mint(&tenant, random), name: name.into() }),
        }
    }
}

fn invalid(message: String) -> Refusal {
    Refusal::Invalid { message }
}

fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| invalid(format!("the body is not what this call takes: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_recognised_and_nothing_else_is() {
        let asked = recognise(&Method::PUT, "tenants/acme/functions/api/secrets/KEY").unwrap();
        assert_eq!((asked.action, asked.names.len()), (Action::PutSecret, 3));
        for path in ["", "tenants/", "tenants//functions/x", "tenants/a/functions/b/c", "keys"] {
            assert!(matches!(recognise(&Method::GET, path), Err(Refusal::NotFound)), "{path}");
        }
        assert!(matches!(recognise(&Method::PATCH, "tenants"), Err(Refusal::MethodNotAllowed { .. })));
    }

    #[test]
    fn the_rest_of_a_path_is_one_name() {
        let names = |path: &str| recognise(&Method::GET, path).map(|asked| (asked.action, asked.names));
        assert_eq!(names("audit/tile/0/x001/067.p/5").unwrap(), (Action::ReadTiles, vec!["0/x001/067.p/5".into()]));
        assert_eq!(names("audit/tile/entries/067").unwrap(), (Action::ReadEntries, vec!["067".into()]));
        assert_eq!(names("audit/checkpoint").unwrap(), (Action::ReadTiles, vec![]));
        let own = (Action::ProveAudit, vec!["acme".into(), "tile/0/000".into()]);
        assert_eq!(names("tenants/acme/tree/tile/0/000").unwrap(), own);
        for path in ["audit/tile", "audit/tile/", "audit", "tenants/acme/tree", "tenants//tree/checkpoint"] {
            assert!(names(path).is_err(), "{path}");
        }
    }

    #[test]
    fn names_are_read_as_they_were_meant() {
        let asked = recognise(&Method::PUT, "tenants/acme/members/auth0%7Cj%C3%BC").unwrap();
        assert_eq!(asked.names, ["acme", "auth0|jü"]);
        assert!(recognise(&Method::PUT, "tenants/acme/members/%ff").is_err());
    }
}
