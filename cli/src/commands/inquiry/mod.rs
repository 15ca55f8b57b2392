//! `why`, `authz` and the tools of `policy`: what is decided, what would be, and why.
//!
//! Owns where policies, callers and records come from: a node, files, or a copy of the log. Must never decide
//! anything for a node, and never show a secret: records hold none.

pub(crate) mod authz;
mod check;
mod diff;
mod grants;
mod import;
pub(crate) mod policy;
mod replay;
mod simulate;
mod told;
pub(crate) mod why;

use std::path::{Path, PathBuf};

use clap::Args;
use cofferdam_audit::select::{Wanted, select_in};
use cofferdam_authz::{Authorizer, Owner, PolicyError, TenantPolicies, Texts, explain};
use cofferdam_model::{Asker, CallFacts, Clock, OrganisationId, PrincipalKind, TenantId, UnixNanos};
use http::Method;
use serde_json::{Value, json};

use super::usage::{When, when};
use super::{input, tenant_path};
use crate::failure::{Failure, Kind};
use crate::output::{items, text};
use crate::remote::Remote;

/// Bytes of a policy file.
const POLICY_BYTES: usize = 64 * 1024;
/// From so many milliseconds ago on records are read where nothing else is said.
const USUAL_MS: u64 = 24 * 3_600_000;

/// Which records.
#[derive(Debug, Args)]
pub(crate) struct RecordArgs {
    /// From when on: 2026-11-20T10:00:00Z, 2026-11-20, or how long ago, as in 30d [default: 24h]
    #[arg(long, value_name = "TIME", value_parser = when)]
    since: Option<When>,
    /// Until when, said like --since [default: now]
    #[arg(long, value_name = "TIME", value_parser = when)]
    until: Option<When>,
    /// Records looked at, at most
    #[arg(long, value_name = "NUMBER", default_value_t = 100_000)]
    most: usize,
    /// Directory of a log, or of a copy of one, instead of asking the node
    #[arg(long, value_name = "DIR")]
    log: Option<PathBuf>,
}

/// Records, and whether there were more.
pub(crate) struct Records {
    pub(crate) all: Vec<Value>,
    pub(crate) more: bool,
}

impl RecordArgs {
    fn range(&self, clock: &dyn Clock) -> (UnixNanos, UnixNanos) {
        let now = clock.now();
        let since = self.since.unwrap_or(When::Ago(USUAL_MS)).before(now);
        (since, self.until.map_or(UnixNanos(u64::MAX), |until| until.before(now)))
    }

    /// Those of a tenant, from the node or from the files of a log.
    fn read(&self, remote: &Remote, tenant: &Tenant, clock: &dyn Clock) -> Result<Records, Failure> {
        let range = self.range(clock);
        match &self.log {
            Some(dir) => from_files(dir, Some(tenant.id.as_str()), (None, range), self.most),
            None => from_node(remote, &tenant.name, (None, range), self.most),
        }
    }
}

/// What is asked of records: one request's, and when.
pub(crate) type Asked<'a> = (Option<&'a str>, (UnixNanos, UnixNanos));

/// Records out of a log's files.
pub(crate) fn from_files(
    dir: &Path,
    tenant: Option<&str>,
    (request, (since, until)): Asked<'_>,
    most: usize,
) -> Result<Records, Failure> {
    if !dir.is_dir() {
        return Err(Failure::new(Kind::NotFound, format!("there is no log at `{}`", dir.display())));
    }
    let (mut all, mut from) = (Vec::new(), None);
    loop {
        let records = most.saturating_sub(all.len());
        let page = select_in(dir, &Wanted { tenant, request, since, until, from, records })?;
        all.extend(page.lines.iter().filter_map(|line| serde_json::from_str(line).ok()));
        match page.next {
            Some(_) if all.len() >= most => return Ok(Records { all, more: true }),
            None => return Ok(Records { all, more: false }),
            next => from = next,
        }
    }
}

/// Records a node gives of a tenant.
pub(crate) fn from_node(
    remote: &Remote,
    tenant: &str,
    (request, (since, until)): Asked<'_>,
    most: usize,
) -> Result<Records, Failure> {
    let mut path = format!("{}/audit?since={since}", tenant_path(tenant));
    if until != UnixNanos(u64::MAX) {
        path = format!("{path}&until={until}");
    }
    if let Some(request) = request {
        path = format!("{path}&request={request}");
    }
    let (mut all, mut from) = (Vec::new(), String::new());
    loop {
        let page = remote.call(Method::GET, &format!("{path}{from}"), None)?;
        all.extend_from_slice(items(&page, "records"));
        match page.get("next").and_then(Value::as_u64) {
            Some(_) if all.len() >= most => return Ok(Records { all, more: true }),
            Some(next) => from = format!("&from={next}"),
            None => return Ok(Records { all, more: false }),
        }
    }
}

/// The facts a record of a call tells; none for other kinds.
pub(crate) fn facts(record: &Value) -> Option<CallFacts> {
    let kind = record.get("kind")?.as_str()?;
    if !["call", "intent", "refusal"].contains(&kind) {
        return None;
    }
    let mut record = record.clone();
    let received = record.get("received")?.clone();
    let members = record.as_object_mut()?;
    members.insert("at".to_owned(), received);
    // Written for people, one line each; `uses` tells them. Of the others no decision is made.
    for told in ["uses", "connection", "headers", "limits"] {
        members.remove(told);
    }
    let sets = members.get_mut("decision").and_then(|decision| decision.get_mut("sets"));
    if let Some(sets) = sets {
        let by_tier = sets.as_object().into_iter().flatten();
        *sets = by_tier.map(|(tier, set)| set_of(tier, set)).collect();
    }
    serde_json::from_value(record).ok()
}

/// The state of a tier's policies, as facts have it.
fn set_of(tier: &str, set: &Value) -> Value {
    json!({ "tier": tier, "owner": set["owner"], "version": set["version"], "digest": set["sha256"] })
}

/// A tenant as a node describes it.
pub(crate) struct Tenant {
    pub(crate) id: TenantId,
    pub(crate) name: String,
    active: bool,
    policies: Vec<(String, String)>,
    boundary: Vec<(String, String)>,
    organisation: Option<(OrganisationId, Vec<(String, String)>)>,
    functions: Vec<String>,
    members: Vec<Asker>,
    pub(crate) described: Value,
}

impl Tenant {
    pub(crate) fn ask(remote: &Remote, name: &str) -> Result<Self, Failure> {
        let described = remote.call(Method::GET, &tenant_path(name), None)?;
        let wrong = |_| Failure::new(Kind::Remote, "the node's answer does not describe a tenant");
        let strings = |value: &Value, name: &str| -> Vec<String> {
            items(value, name).iter().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let texts = |of: &str| -> Vec<(String, String)> {
            items(&described, of).iter().map(|row| (text(row, "name"), text(row, "text"))).collect()
        };
        let organisation = described.get("organisation_id").and_then(Value::as_str);
        let organisation = organisation.map(|id| OrganisationId::parse(id).map_err(wrong)).transpose()?;
        Ok(Self {
            id: TenantId::parse(&text(&described, "id")).map_err(wrong)?,
            name: name.to_owned(),
            active: described.get("active") == Some(&Value::Bool(true)),
            policies: texts("policies"),
            boundary: texts("boundary"),
            organisation: organisation.map(|id| (id, texts("ceiling"))),
            functions: items(&described, "functions").iter().map(|row| text(row, "name")).collect(),
            members: items(&described, "members")
                .iter()
                .map(|row| {
                    let issuer = row.get("issuer").and_then(Value::as_str).map(str::to_owned);
                    let member = Asker::new(PrincipalKind::User, &text(row, "subject"), &strings(row, "roles"));
                    Asker { issuer, ..member }
                })
                .collect(),
            described,
        })
    }

    /// Its policies, as the node has them.
    fn policies(&self, authorizer: &Authorizer) -> Result<TenantPolicies, Failure> {
        self.granting(authorizer, &self.policies)
    }

    /// The same with this granted instead; what binds the tenant from above stays.
    fn granting(&self, authorizer: &Authorizer, sources: &[(String, String)]) -> Result<TenantPolicies, Failure> {
        let granted = compiled(authorizer, &self.id, sources)?.suspended(!self.active);
        let tier = |owner: Owner, sources: &[(String, String)]| {
            let some = (!sources.is_empty()).then(|| Texts { version: 0, sources: sources.to_vec() });
            some.map(|texts| authorizer.tier(owner, texts, None)).transpose().map_err(refused)
        };
        let set = granted.within(tier(Owner::Boundary(self.id.clone()), &self.boundary)?);
        let Some((id, ceiling)) = &self.organisation else { return Ok(set) };
        let ceiling = tier(Owner::Organisation(id.clone()), ceiling)?;
        Ok(set.under(id.clone(), ceiling))
    }

    /// Its policies, with these in the place of those of their names; or these alone.
    fn with(&self, candidate: &[(String, String)], whole: bool) -> Vec<(String, String)> {
        let stays = |name: &String| !whole && !candidate.iter().any(|(other, _)| other == name);
        let kept = self.policies.iter().filter(|(name, _)| stays(name)).cloned();
        kept.chain(candidate.iter().cloned()).collect()
    }

    /// Everybody who is known to be able to ask: members, the accounts of keys, and nobody.
    pub(crate) fn callers(&self, remote: &Remote) -> Result<Vec<Asker>, Failure> {
        let mut all = vec![Asker::anonymous()];
        all.extend(self.members.iter().cloned());
        let keys = remote.call(Method::GET, &format!("{}/keys", tenant_path(&self.name)), None)?;
        for key in items(&keys, "keys").iter().filter(|key| key.get("revoked").is_none_or(Value::is_null)) {
            let roles: Vec<_> = items(key, "roles").iter().filter_map(Value::as_str).map(str::to_owned).collect();
            let scopes: Vec<_> = items(key, "scopes").iter().filter_map(Value::as_str).map(str::to_owned).collect();
            let account = Asker::new(PrincipalKind::ServiceAccount, &text(key, "account"), &roles);
            let account = Asker { scopes: Some(scopes).filter(|scopes| !scopes.is_empty()), ..account };
            if !all.contains(&account) {
                all.push(account);
            }
        }
        Ok(all)
    }
}

impl Tenant {
    /// Roles anyone known has, and those the policies and defaults speak of.
    pub(crate) fn roles(&self, callers: &[Asker]) -> Result<Vec<String>, Failure> {
        let authorizer = authorizer()?;
        let set = self.policies(&authorizer)?;
        let mut all = authorizer.roles_of(&set);
        all.extend(callers.iter().flat_map(|caller| caller.roles.iter().cloned()));
        all.sort_unstable();
        all.dedup();
        Ok(all)
    }
}

/// An object with one more member.
pub(crate) fn with(mut value: Value, name: &str, member: Value) -> Value {
    if let Some(members) = value.as_object_mut() {
        members.insert(name.to_owned(), member);
    }
    value
}

/// What decides here as it does on a node of the same release.
pub(crate) fn authorizer() -> Result<Authorizer, Failure> {
    Authorizer::new().map_err(|error| Failure::internal(error.to_string()))
}

pub(crate) fn compiled(
    authorizer: &Authorizer,
    tenant: &TenantId,
    sources: &[(String, String)],
) -> Result<TenantPolicies, Failure> {
    authorizer.compile(tenant, sources).map_err(refused)
}

fn refused(error: PolicyError) -> Failure {
    Failure::new(Kind::Invalid, error.to_string()).hint("`cofferdam policy check` tells all that is wrong with a file")
}

/// Policy files as names and texts, the names as `apply` and `policy put` have them.
pub(crate) fn sources(files: &[PathBuf]) -> Result<Vec<(String, String)>, Failure> {
    let mut all: Vec<(String, String)> = Vec::new();
    for file in files {
        let bytes = input(Some(file), POLICY_BYTES).map_err(|failure| failure.within(&file.display().to_string()))?;
        let text = std::str::from_utf8(&bytes)
            .map_err(|_| Failure::new(Kind::Invalid, format!("`{}` is not UTF-8 text", file.display())))?;
        let name = explain::policy_name(&file.display().to_string());
        if all.iter().any(|(known, _)| *known == name) {
            let told = format!("two files make a policy of the name `{name}`: rename one");
            return Err(Failure::new(Kind::Invalid, told));
        }
        all.push((name, text.to_owned()));
    }
    Ok(all)
}
