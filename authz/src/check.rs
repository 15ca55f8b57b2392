//! Judging policy texts without a node, for whoever writes them.
//!
//! Owns the list of everything wrong with a text, each with its place and remedy. Must never find a text good that a
//! node would refuse: what it says last is what the node's own compilation says.

use cedar_policy::{Effect, Policy, PolicyId, PolicySet, ResourceConstraint, ValidationMode};
use cofferdam_model::{Action, TenantId};
use miette::Diagnostic;
use serde::Serialize;
use std::str::FromStr;

use crate::decide::Authorizer;
use crate::error::PolicyError;
use crate::policy::index::bit;
use crate::policy::{self, LEVEL, SEE_SCHEMA, bounds};

/// Findings told of one text.
const FINDINGS: usize = 100;

/// Something about a policy text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Name of the text.
    pub name: String,
    /// Line, from 1; 0 where it is about all of it.
    pub line: usize,
    /// Column, from 1; 0 where it is about all of it.
    pub column: usize,
    /// What it is.
    pub problem: String,
    /// What to write instead.
    pub remedy: String,
    /// Whether a node would take the text all the same.
    pub warning: bool,
}

/// What was a function's or a tenant's to a scope, until each kind of thing became a resource of its own.
const CAME_OF: &[(&str, &[&str])] =
    &[("Function", &["Secret"]), ("Tenant", &["Api", "Account", "ApiKey", "PolicySet", "AuditLog"])];

/// Actions named of those that a scope does not cover.
const NAMED: usize = 8;

impl From<PolicyError> for Finding {
    fn from(error: PolicyError) -> Self {
        match error {
            PolicyError::Refused { name, line, column, problem, remedy } => {
                Self { name, line, column, problem, remedy, warning: false }
            }
            PolicyError::TooLarge { name, problem, remedy } => {
                Self { name, line: 0, column: 0, problem, remedy: remedy.to_owned(), warning: false }
            }
            PolicyError::TooMany { .. } | PolicyError::BuiltIn(_) => Self {
                name: String::new(),
                line: 0,
                column: 0,
                problem: error.to_string(),
                remedy: "combine or remove some".to_owned(),
                warning: false,
            },
        }
    }
}

impl Authorizer {
    /// Everything that is wrong with a tenant's texts (name and text each), and what a writer should know besides.
    pub fn findings(&self, tenant: &TenantId, sources: &[(String, String)]) -> Vec<Finding> {
        let mut found: Vec<_> = sources.iter().flat_map(|(name, text)| self.findings_in(name, text)).collect();
        if let Err(error) = self.compile(tenant, sources) {
            let verdict = Finding::from(error);
            let told =
                |finding: &Finding| !finding.warning && (&finding.name, finding.line) == (&verdict.name, verdict.line);
            if !found.iter().any(told) {
                found.push(verdict);
            }
        }
        found.sort_by(|a, b| (&a.name, a.line, a.column, a.warning).cmp(&(&b.name, b.line, b.column, b.warning)));
        found.dedup();
        found
    }

    fn findings_in(&self, name: &str, text: &str) -> Vec<Finding> {
        // What is too large or too deep is not looked into: see `bounds`.
        if let Err(error) = bounds::text(name, text, 0) {
            return vec![Finding::from(error)];
        }
        let parsed = match PolicySet::from_str(text) {
            Ok(parsed) => parsed,
            Err(errors) => {
                let told = errors.iter().map(|error| finding((name, text), error, false));
                return told.take(FINDINGS).collect();
            }
        };
        let mut named = PolicySet::new();
        for (place, policy) in parsed.policies().enumerate() {
            if named.add(policy.new_id(PolicyId::new(format!("statement {}", place + 1)))).is_err() {
                return Vec::new();
            }
        }
        let result = self.validator().validate_with_level(&named, ValidationMode::Strict, LEVEL);
        let errors = result.validation_errors().map(|error| finding((name, text), error, false));
        let warnings = result.validation_warnings().map(|warning| finding((name, text), warning, true));
        errors.chain(warnings).chain(self.narrower(name, text)).take(FINDINGS).collect()
    }

    /// Statements that a node takes, but whose scope speaks of a function or of the tenant itself and so covers nothing
    /// of what is theirs, though they name actions on that: with releases that knew no such things, it did.
    pub fn narrower(&self, name: &str, text: &str) -> Vec<Finding> {
        // Nearly all texts speak of neither, and need not be read for it.
        if !CAME_OF.iter().any(|(kind, _)| text.contains(kind)) {
            return Vec::new();
        }
        let policies = policy::readable(name, text);
        let each = policies.iter().zip(1..).filter_map(|(policy, place)| self.narrowed(name, policy, place));
        each.take(FINDINGS).collect()
    }

    fn narrowed(&self, name: &str, policy: &Policy, place: usize) -> Option<Finding> {
        let (kind, exact) = match policy.resource_constraint() {
            ResourceConstraint::Eq(uid) => (uid.type_name().basename().to_owned(), Some(uid)),
            ResourceConstraint::Is(kind) | ResourceConstraint::IsIn(kind, _) => (kind.basename().to_owned(), None),
            ResourceConstraint::Any | ResourceConstraint::In(_) => return None,
        };
        let (_, came) = CAME_OF.iter().find(|(of, _)| *of == kind)?;
        let named = self.actions_of(policy);
        let left_out = |action: &&Action| {
            named & bit(**action).unwrap_or_default() != 0
                && self.done_to(**action).is_some_and(|kind| came.contains(&kind))
        };
        let left_out: Vec<_> = Action::ALL.iter().filter(left_out).map(|action| action.as_str()).collect();
        if left_out.is_empty() {
            return None;
        }
        let more = left_out.len().saturating_sub(NAMED);
        let told = left_out.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        let effect = match policy.effect() {
            Effect::Permit => "permit",
            Effect::Forbid => "forbid",
        };
        let id = policy.annotation("id").map_or_else(|| place.to_string(), str::to_owned);
        let scope = exact.as_ref().map_or_else(|| format!("is {kind}"), |uid| format!("== {uid}"));
        let problem = format!("`{effect}` statement {id}: `resource {scope}` does not cover {told}{more}");
        let remedy = match exact {
            Some(uid) => format!("write `resource in {uid}`, which covers all that is its own, or name fewer actions"),
            None => format!("leave the kind out, say it of {} too, or name fewer actions", came.join(", ")),
        };
        Some(Finding { name: name.to_owned(), line: 0, column: 0, problem, remedy, warning: true })
    }
}

fn finding((name, text): (&str, &str), about: &dyn Diagnostic, warning: bool) -> Finding {
    let help = about.help().map(|help| help.to_string());
    let remedy = help.as_deref().unwrap_or(SEE_SCHEMA);
    let at = policy::offset(about).unwrap_or(0);
    Finding { warning, ..Finding::from(policy::refused(name, text, at, &about.to_string(), remedy)) }
}
