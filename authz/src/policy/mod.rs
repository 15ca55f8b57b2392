//! From policy text to a set that can be asked.
//!
//! Owns the bounds on text, its parsing, strict validation against the schema, the check that a tenant's text speaks
//! of nobody else's things, and the words in which a refusal is told to who wrote it. Must never accept a policy it did
//! not validate.

pub(crate) mod bounds;

use std::collections::BTreeSet;
use std::str::FromStr;
use std::sync::Arc;

use aws_lc_rs::digest;
use cedar_policy::{Effect, EntityUid, Policy, PolicyId, PolicySet, ValidationMode, Validator};
use cofferdam_model::id::is_name;
use cofferdam_model::{Digest, FunctionId, TenantId};
use miette::Diagnostic;

pub use self::bounds::{POLICIES_BYTES_MAX, POLICIES_MAX, POLICY_BYTES_MAX};

use crate::error::PolicyError;
use crate::schema::BuiltIn;

/// How many steps from principal, action, resource or context a policy may look. All that can be reached in so many
/// is in the slice of entities a decision is made on, so nothing a policy asks for can be missing.
pub(crate) const LEVEL: u32 = 2;
pub(crate) const SEE_SCHEMA: &str = "see policies/schema.cedarschema for what policies can speak of";

/// A validated set of policies and the digest of the texts it is from.
pub(crate) struct Set {
    pub(crate) policies: PolicySet,
    pub(crate) digest: Digest,
}

/// The policies of one tenant, ready to be asked. Cheap to clone.
#[derive(Clone)]
pub struct TenantPolicies {
    tenant: TenantId,
    suspended: bool,
    set: Arc<Set>,
}

impl TenantPolicies {
    pub(crate) fn new(tenant: TenantId, set: Arc<Set>) -> Self {
        Self { tenant, suspended: false, set }
    }

    /// The same policies, for a tenant that is suspended or not.
    pub fn suspended(self, suspended: bool) -> Self {
        Self { suspended, ..self }
    }

    /// Whose they are.
    pub fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    /// SHA-256 of the texts, the defaults included.
    pub fn digest(&self) -> Digest {
        self.set.digest
    }

    pub(crate) fn is_suspended(&self) -> bool {
        self.suspended
    }

    pub(crate) fn set(&self) -> &Set {
        &self.set
    }
}

/// Texts that came with the software, as one set.
pub(crate) fn built_in(validator: &Validator, texts: &[BuiltIn], only: Option<Effect>) -> Result<Set, PolicyError> {
    let mut all = PolicySet::new();
    for (name, text) in texts {
        let broken = |error: PolicyError| PolicyError::BuiltIn(error.to_string());
        for policy in parse(validator, name, text).map_err(broken)? {
            if only.is_some_and(|only| policy.effect() != only) {
                return Err(PolicyError::BuiltIn(format!("`{}` has the wrong effect", policy.id())));
            }
            all.add(policy).map_err(|error| PolicyError::BuiltIn(error.to_string()))?;
        }
    }
    let digest = digest_of(texts.iter().copied());
    Ok(Set { policies: all, digest })
}

/// A tenant's texts on top of the defaults.
pub(crate) fn of_tenant(
    validator: &Validator,
    tenant: &TenantId,
    defaults: &Set,
    default_texts: &[BuiltIn],
    sources: &[(String, String)],
) -> Result<Set, PolicyError> {
    bounds::count(sources.len())?;
    let mut all = defaults.policies.clone();
    let mut names = BTreeSet::new();
    let (mut statements, mut bytes) = (0, 0);
    for (name, text) in sources {
        if !is_name(name) || !names.insert(name) {
            let remedy = "give each policy a name of its own: 1 to 63 of a-z, 0-9, -, starting with a letter";
            return Err(refused(name, text, 0, "the name is not usable, or used twice", remedy));
        }
        bounds::text(name, text, bytes)?;
        bytes += text.len();
        let policies = parse(validator, name, text)?;
        statements += policies.len();
        bounds::count(statements)?;
        for policy in policies {
            own_things_only(tenant, name, text, &policy)?;
            let id = policy.id().to_string();
            all.add(policy).map_err(|_| refused(name, text, 0, &format!("id `{id}` is used twice"), "rename one"))?;
        }
    }
    let mut texts: Vec<_> = sources.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    texts.sort_unstable();
    let digest = digest_of(default_texts.iter().copied().chain(texts));
    Ok(Set { policies: all, digest })
}

/// The platform's own tenant is ruled by the operators' policies alone: texts for it would rest there without effect.
pub(crate) fn none_of_its_own(sources: &[(String, String)]) -> Result<(), PolicyError> {
    let problem = "the platform's own tenant takes no policies";
    sources
        .first()
        .map_or(Ok(()), |(name, _)| Err(refused(name, "", 0, problem, "put the policy into the tenant it is about")))
}

/// The statements of one text, each named after the text and its own `@id` (or its place), and validated.
fn parse(validator: &Validator, name: &str, text: &str) -> Result<Vec<Policy>, PolicyError> {
    let parsed = PolicySet::from_str(text).map_err(|errors| {
        let first = errors.iter().next();
        let at = first.and_then(offset).unwrap_or(0);
        let help = first.and_then(|error| error.help().map(|help| help.to_string()));
        let problem = first.map_or_else(|| errors.to_string(), ToString::to_string);
        refused(
            name,
            text,
            at,
            &problem,
            help.as_deref().unwrap_or("write it as a Cedar policy, see policies/README.md"),
        )
    })?;
    if parsed.num_of_templates() > 0 {
        let remedy = "write the principal or resource out, or use a role";
        return Err(refused(name, text, 0, "templates (`?principal`, `?resource`) are not taken", remedy));
    }
    let mut set = PolicySet::new();
    let mut policies = Vec::new();
    for (place, policy) in parsed.policies().enumerate() {
        let own = match policy.annotation("id") {
            None => (place + 1).to_string(),
            Some(id) if is_name(id) => id.to_owned(),
            Some(id) => {
                let at = text.find(id).unwrap_or(0);
                let remedy = "1 to 63 of a-z, 0-9, -, starting with a letter";
                return Err(refused(name, text, at, "`@id` is not usable", remedy));
            }
        };
        let policy = policy.new_id(PolicyId::new(format!("{name}/{own}")));
        set.add(policy.clone())
            .map_err(|_| refused(name, text, 0, &format!("`@id` {own} is used twice"), "rename one"))?;
        policies.push(policy);
    }
    let outcome = validator.validate_with_level(&set, ValidationMode::Strict, LEVEL);
    match outcome.validation_errors().next() {
        Some(error) => {
            let help = error.help().map(|help| help.to_string());
            let remedy = help.as_deref().unwrap_or(SEE_SCHEMA);
            Err(refused(name, text, offset(error).unwrap_or(0), &error.to_string(), remedy))
        }
        None => Ok(policies),
    }
}

/// Whether every entity a policy names outright belongs to its tenant. The guard-rails hold anyway; this keeps ids of
/// others from being tried out in policies, and a mistaken id from resting there unnoticed.
fn own_things_only(tenant: &TenantId, name: &str, text: &str, policy: &Policy) -> Result<(), PolicyError> {
    let own = |uid: &EntityUid| {
        let id = uid.id().unescaped();
        match uid.type_name().basename() {
            "Tenant" => id == tenant.as_str(),
            "Function" => FunctionId::parse(id).is_ok_and(|function| function.tenant() == *tenant),
            "User" | "ServiceAccount" => id.strip_prefix(tenant.as_str()).is_some_and(|rest| rest.starts_with('|')),
            "Role" | "Action" | "Anonymous" => true,
            _ => false,
        }
    };
    match policy.entity_literals().iter().find(|uid| !own(uid)) {
        None => Ok(()),
        Some(uid) => {
            let literal = uid.to_string();
            let at = text.find(&literal).unwrap_or(0);
            let problem = format!("`{literal}` is not of this tenant");
            Err(refused(name, text, at, &problem, "name roles, `principal.id` or `resource.name` instead of ids"))
        }
    }
}

pub(crate) fn offset(error: &(impl Diagnostic + ?Sized)) -> Option<usize> {
    error.labels().and_then(|mut labels| labels.next()).map(|label| label.offset())
}

pub(crate) fn refused(name: &str, text: &str, at: usize, problem: &str, remedy: &str) -> PolicyError {
    let before = text.get(..at).unwrap_or_default();
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    PolicyError::Refused {
        name: name.chars().take(80).collect(),
        line: before.matches('\n').count() + 1,
        column: before.get(line_start..).unwrap_or_default().chars().count() + 1,
        problem: problem.chars().take(500).collect(),
        remedy: remedy.chars().take(500).collect(),
    }
}

/// Of names and texts, each with its length before it, so that no two lists have one digest.
fn digest_of<'a>(texts: impl Iterator<Item = (&'a str, &'a str)>) -> Digest {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in texts.flat_map(|(name, text)| [name, text]) {
        context.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        context.update(part.as_bytes());
    }
    let mut out = [0u8; 32];
    out.iter_mut().zip(context.finish().as_ref()).for_each(|(to, from)| *to = *from);
    Digest(out)
}
