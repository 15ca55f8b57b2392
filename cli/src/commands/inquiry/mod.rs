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
mod records;
mod replay;
mod simulate;
mod told;
pub(crate) mod why;

use std::path::PathBuf;

use cofferdam_authz::{Authorizer, Owner, PolicyError, TenantPolicies, Texts, explain};
use cofferdam_model::{Asker, Digest, OrganisationId, PolicyTier, PrincipalKind, Simulation, Supposition, TenantId};
use http::Method;
use serde_json::{Value, json};

use self::records::{RecordArgs, Seen, Skipped, facts};
use super::{input, tenant_path};
use crate::failure::{Failure, Kind};
use crate::output::{items, text};
use crate::remote::Remote;

/// Bytes of a policy file.
const POLICY_BYTES: usize = 64 * 1024;
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
    /// Whether something binds it whose texts are not for whoever asks.
    bound_unseen: bool,
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
        let bound = ["boundary", "ceiling"].into_iter().flat_map(|of| items(&described, of));
        let bound_unseen = bound.into_iter().any(|row| row.get("text").is_none());
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
            bound_unseen,
            described,
        })
    }

    /// Its policies, as the node has them.
    fn policies(&self, authorizer: &Authorizer) -> Result<TenantPolicies, Failure> {
        self.granting(authorizer, &self.policies)
    }

    /// The same with this granted instead; what binds the tenant from above stays, as far as its texts are told.
    fn granting(&self, authorizer: &Authorizer, sources: &[(String, String)]) -> Result<TenantPolicies, Failure> {
        let granted = compiled(authorizer, &self.id, sources)?.suspended(!self.active);
        let tier = |owner: Owner, sources: &[(String, String)]| {
            let some =
                (!sources.is_empty() && !self.bound_unseen).then(|| Texts { version: 0, sources: sources.to_vec() });
            some.map(|texts| authorizer.tier(owner, texts, None)).transpose().map_err(refused)
        };
        let set = granted.within(tier(Owner::Boundary(self.id.clone()), &self.boundary)?);
        let Some((id, ceiling)) = &self.organisation else { return Ok(set) };
        let ceiling = tier(Owner::Organisation(id.clone()), ceiling)?;
        Ok(set.under(id.clone(), ceiling))
    }

    /// The state of each tier that binds it or is its own, of `policies` what they grant.
    fn sets(&self, policies: &TenantPolicies) -> Vec<(PolicyTier, Digest)> {
        let told = |of: &str| Digest::parse(self.described.get(of)?.get("sha256")?.as_str()?);
        let above = [(PolicyTier::Organisation, told("ceiling_set")), (PolicyTier::Boundary, told("boundary_set"))];
        let above = above.into_iter().filter_map(|(tier, digest)| Some((tier, digest?)));
        above.chain([(PolicyTier::Tenant, policies.digest())]).collect()
    }

    /// What the node says of supposed calls, by the tenant's policies or by these instead.
    fn answers(
        &self,
        remote: &Remote,
        (requests, explain): (Vec<Supposition>, bool),
        policies: Option<Vec<(String, String)>>,
    ) -> Result<Vec<Value>, Failure> {
        let asked = requests.len();
        let simulation = Simulation { requests, policies, explain };
        let path = format!("{}/simulate", tenant_path(&self.name));
        let answer = remote.call(Method::POST, &path, Some(&json!(simulation)))?;
        let answers = items(&answer, "answers").to_vec();
        let wrong = || Failure::new(Kind::Remote, format!("{} answers to {asked} questions", answers.len()));
        if answers.len() == asked { Ok(answers) } else { Err(wrong()) }
    }

    /// What is said where its texts are not all told.
    fn unseen(&self) -> Option<&'static str> {
        self.bound_unseen.then_some(
            "what binds the tenant from above is told to operators alone: it is not looked at here, and may allow less",
        )
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
