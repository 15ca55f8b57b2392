//! Policies as they are stored, judged by this release.
//!
//! Owns the list of texts that this release does not take, or takes for less than the release that took them. Must
//! never change anything, and never call a text good that it did not look at.

use std::path::Path;

use cofferdam_authz::{Authorizer, Finding, Owner, Texts};
use cofferdam_model::PolicyTier;

use crate::Control;
use crate::error::ControlError;
use crate::store::{self, PolicyRow, SqliteStore};

/// A stored text that should be looked at by whoever wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flagged {
    /// Name of the tenant or organisation whose it is.
    pub owner: String,
    /// In which tier.
    pub tier: PolicyTier,
    /// What of it, and what to write instead.
    pub finding: Finding,
}

impl Flagged {
    /// One line for people.
    pub fn told(&self) -> String {
        let Finding { name, line, problem, .. } = &self.finding;
        let at = if *line == 0 { String::new() } else { format!(", line {line}") };
        format!("{} `{}`, policy `{name}`{at}: {problem}", self.tier.as_str(), self.owner)
    }
}

impl Control {
    /// Texts of this moment whose scope covers less than it did: each is in force, and its writer may not know.
    pub fn narrower(&self) -> Vec<Flagged> {
        let (snapshot, mut found) = (self.snapshot(), Vec::new());
        let mut look = |owner: &str, tier, texts: &mut dyn Iterator<Item = (&str, &str)>| {
            let findings = texts.flat_map(|(name, text)| self.authorizer.narrower(name, text));
            found.extend(findings.map(|finding| Flagged { owner: owner.to_owned(), tier, finding }));
        };
        for tenant in snapshot.tenants() {
            look(&tenant.name, PolicyTier::Tenant, &mut tenant.policy_sources());
            let mut texts = tenant.boundary().iter().map(|row| (row.name.as_str(), row.text.as_str()));
            look(&tenant.name, PolicyTier::Boundary, &mut texts);
        }
        for organisation in snapshot.organisations() {
            let mut texts = organisation.sources.iter().map(|row| (row.name.as_str(), row.text.as_str()));
            look(&organisation.name, PolicyTier::Organisation, &mut texts);
        }
        found
    }
}

/// Texts in a data directory that this release does not take, or takes for less, whether a node serves from it or not.
pub fn flagged(state: &Path, authorizer: &Authorizer) -> Result<Vec<Flagged>, ControlError> {
    let mut store = SqliteStore::look(state)?;
    store::run(&mut store, |tx| {
        let mut found = Vec::new();
        let mut look = |name: &str, owner: Owner, rows: &[PolicyRow]| {
            let tier = match owner {
                Owner::Organisation(_) => PolicyTier::Organisation,
                Owner::Boundary(_) => PolicyTier::Boundary,
                Owner::Tenant(_) => PolicyTier::Tenant,
            };
            let sources: Vec<_> = rows.iter().map(|row| (row.name.clone(), row.text.clone())).collect();
            let narrower = sources.iter().flat_map(|(name, text)| authorizer.narrower(name, text)).collect::<Vec<_>>();
            let wrong = authorizer.tier(owner, Texts { version: 0, sources }, None).err().map(Finding::from);
            let flagged = |finding| Flagged { owner: name.to_owned(), tier, finding };
            found.extend(wrong.into_iter().chain(narrower).map(flagged));
        };
        for row in tx.tenants()? {
            let Some(state) = tx.tenant(&row.id)? else { continue };
            look(&row.name, Owner::Tenant(row.id.clone()), &state.policies);
            look(&row.name, Owner::Boundary(row.id), &state.boundary);
        }
        for state in tx.organisations()? {
            look(&state.organisation.name, Owner::Organisation(state.organisation.id), &state.ceiling);
        }
        Ok(found)
    })
}
