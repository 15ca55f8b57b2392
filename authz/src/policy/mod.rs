//! From policy text to a set that can be asked.
//!
//! Owns the bounds on text, its parsing, strict validation against the schema, the check that a tenant's text speaks
//! of nobody else's things, and the words in which a refusal is told to who wrote it. Must never accept a policy it did
//! not validate.

pub(crate) mod bounds;
pub(crate) mod index;
pub(crate) mod look;
pub(crate) mod set;

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;

use aws_lc_rs::digest;
use cedar_policy::{Effect, EntityUid, Policy, PolicyId, PolicySet, Schema, ValidationMode, Validator};
use cofferdam_model::id::is_name;
use cofferdam_model::{Digest, FunctionId, TenantId};
use miette::Diagnostic;

pub use self::bounds::{POLICIES_BYTES_MAX, POLICIES_MAX, POLICY_BYTES_MAX};
pub use self::set::{Owner, TenantPolicies, Texts, TierPolicies};

use self::index::{Bits, Index};
use self::set::{Set, Statements};
use crate::error::PolicyError;
use crate::schema::{BuiltIn, DEFAULTS};

/// How many steps from principal, action, resource or context a policy may look. All that can be reached in so many
/// is in the slice of entities a decision is made on, so nothing a policy asks for can be missing.
pub(crate) const LEVEL: u32 = 2;
pub(crate) const SEE_SCHEMA: &str = "see policies/schema.cedarschema for what policies can speak of";

/// What makes sets of texts.
pub(crate) struct Compiler {
    pub(crate) validator: Validator,
    pub(crate) bits: Bits,
}

impl Compiler {
    pub(crate) fn new(schema: Schema) -> Result<Self, PolicyError> {
        Ok(Self { bits: Bits::of(&schema)?, validator: Validator::new(schema) })
    }

    /// Texts that came with the software, as one set.
    pub(crate) fn built_in(&self, texts: &[BuiltIn], only: Option<Effect>) -> Result<Set, PolicyError> {
        let mut all = BTreeMap::new();
        for (name, text) in texts {
            let broken = |error: PolicyError| PolicyError::BuiltIn(error.to_string());
            let policies = parse(&self.validator, "", name, text).map_err(broken)?;
            if let Some(policy) = policies.iter().find(|policy| only.is_some_and(|only| policy.effect() != only)) {
                return Err(PolicyError::BuiltIn(format!("`{}` has the wrong effect", policy.id())));
            }
            all.insert((*name).to_owned(), Arc::new(Statements { text: digest_of_text(text), policies }));
        }
        self.set(all)
    }

    /// The texts of an owner. Those that `before` has too are not looked at again.
    pub(crate) fn compile(
        &self,
        owner: &Owner,
        sources: &[(String, String)],
        before: Option<&Set>,
    ) -> Result<Set, PolicyError> {
        bounds::count(sources.len())?;
        let mut all = BTreeMap::new();
        let (mut statements, mut bytes) = (0, 0);
        for (name, text) in sources {
            if !is_name(name) || all.contains_key(name) {
                let remedy = "give each policy a name of its own: 1 to 63 of a-z, 0-9, -, starting with a letter";
                return Err(refused(name, text, 0, "the name is not usable, or used twice", remedy));
            }
            bounds::text(name, text, bytes)?;
            bytes += text.len();
            let digest = digest_of_text(text);
            let known = before.and_then(|before| before.texts.get(name)).filter(|known| known.text == digest);
            let compiled = match known {
                Some(known) => known.clone(),
                None => {
                    let policies = parse(&self.validator, owner.prefix(), name, text)?;
                    policies.iter().try_for_each(|policy| own_things_only(owner, name, text, policy))?;
                    Arc::new(Statements { text: digest, policies })
                }
            };
            statements += compiled.policies.len();
            bounds::count(statements)?;
            all.insert(name.clone(), compiled);
        }
        self.set(all)
    }

    fn set(&self, texts: BTreeMap<String, Arc<Statements>>) -> Result<Set, PolicyError> {
        let index = Index::of(&self.bits, texts.values().flat_map(|text| &text.policies))?;
        Ok(Set { texts, index })
    }

    /// SHA-256 of an owner's texts, for a tenant's with the defaults they stand on.
    pub(crate) fn digest(&self, owner: &Owner, sources: &[(String, String)]) -> Digest {
        let mut texts: Vec<_> = sources.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        texts.sort_unstable();
        match owner {
            Owner::Tenant(_) => digest_of(DEFAULTS.iter().copied().chain(texts)),
            Owner::Organisation(_) | Owner::Boundary(_) => digest_of(texts.into_iter()),
        }
    }
}

/// SHA-256 of texts that came with the software.
pub(crate) fn digest_of_built_in(texts: &[BuiltIn]) -> Digest {
    digest_of(texts.iter().copied())
}

/// The platform's own tenant is ruled by the operators' policies alone: texts for it would rest there without effect.
pub(crate) fn none_of_its_own(sources: &[(String, String)]) -> Result<(), PolicyError> {
    let problem = "the platform's own tenant takes no policies";
    sources
        .first()
        .map_or(Ok(()), |(name, _)| Err(refused(name, "", 0, problem, "put the policy into the tenant it is about")))
}

/// The statements of a text as far as it can be read at all, not validated: for looking at alone.
pub(crate) fn readable(name: &str, text: &str) -> Vec<Policy> {
    let parsed = bounds::text(name, text, 0).ok().and_then(|()| PolicySet::from_str(text).ok());
    parsed.map(|set| set.policies().cloned().collect()).unwrap_or_default()
}

/// The statements of one text, each named after the text and its own `@id` (or its place), and validated.
fn parse(validator: &Validator, prefix: &str, name: &str, text: &str) -> Result<Vec<Policy>, PolicyError> {
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
        let policy = policy.new_id(PolicyId::new(format!("{prefix}{name}/{own}")));
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
fn own_things_only(owner: &Owner, name: &str, text: &str, policy: &Policy) -> Result<(), PolicyError> {
    let tenant = match owner {
        Owner::Organisation(_) => return Ok(()),
        Owner::Boundary(tenant) | Owner::Tenant(tenant) => tenant,
    };
    match policy.entity_literals().iter().find(|uid| !is_of(tenant, uid)) {
        None => Ok(()),
        Some(uid) => {
            let literal = uid.to_string();
            let at = text.find(&literal).unwrap_or(0);
            let problem = format!("`{literal}` is not of this tenant");
            Err(refused(name, text, at, &problem, "name roles, `principal.id` or `resource.name` instead of ids"))
        }
    }
}

fn is_of(tenant: &TenantId, uid: &EntityUid) -> bool {
    let id = uid.id().unescaped();
    let below = |mark: char| id.strip_prefix(tenant.as_str()).is_some_and(|rest| rest.starts_with(mark));
    match uid.type_name().basename() {
        "Tenant" => id == tenant.as_str(),
        "Function" | "Workload" => FunctionId::parse(id).is_ok_and(|function| function.tenant() == *tenant),
        "Version" | "Secret" | "Destination" | "Route" | "ApiKey" => below('.'),
        "User" | "ServiceAccount" | "Account" | "Api" | "PolicySet" | "AuditLog" => below('|'),
        "Role" | "Group" | "Action" | "Anonymous" => true,
        _ => false,
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

fn digest_of_text(text: &str) -> Digest {
    digest_of(std::iter::once(("", text)))
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
