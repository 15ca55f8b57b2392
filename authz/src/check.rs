//! Judging policy texts without a node, for whoever writes them.
//!
//! Owns the list of everything wrong with a text, each with its place and remedy. Must never find a text good that a
//! node would refuse: what it says last is what the node's own compilation says.

use cedar_policy::{PolicyId, PolicySet, ValidationMode};
use cofferdam_model::TenantId;
use miette::Diagnostic;
use serde::Serialize;
use std::str::FromStr;

use crate::decide::Authorizer;
use crate::error::PolicyError;
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

impl Finding {
    fn of(error: PolicyError) -> Self {
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
            let verdict = Finding::of(error);
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
            return vec![Finding::of(error)];
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
        errors.chain(warnings).take(FINDINGS).collect()
    }
}

fn finding((name, text): (&str, &str), about: &dyn Diagnostic, warning: bool) -> Finding {
    let help = about.help().map(|help| help.to_string());
    let remedy = help.as_deref().unwrap_or(SEE_SCHEMA);
    let at = policy::offset(about).unwrap_or(0);
    Finding { warning, ..Finding::of(policy::refused(name, text, at, &about.to_string(), remedy)) }
}
