//! The kill switch: what is revoked, and how it is looked up for every call.
//!
//! Owns the rules of revoking and undoing, and the index a snapshot answers from. Must never let a revocation be
//! forgotten while a credential it is about could still be valid.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use cofferdam_authz::{RevokedBy, Shown};
use cofferdam_model::id::platform_tenant;
use cofferdam_model::{Digest, PrincipalKind, RevocationId, RevocationTarget, TenantId};
use serde_json::{Value, json};

use crate::apply::Change;
use crate::error::ControlError;
use crate::store::RevocationRow;
use crate::tenant::{Done, PLATFORM_NAME};

/// Most that can be revoked in a tenant at once.
const REVOCATIONS: usize = 10_000;
const TEXT_BYTES: usize = 512;
const REASON_BYTES: usize = 500;
/// How far ahead `before` may be: the most that an issuer's clock may be ahead of ours, twice.
const AHEAD_SECONDS: u64 = 60;

/// What is revoked in one tenant.
#[derive(Default)]
pub(crate) struct Revocations {
    rows: Vec<RevocationRow>,
    digests: HashSet<Digest>,
    tokens: HashSet<(String, String)>,
    keys: HashSet<(String, String)>,
    /// By issuer, or of whoever vouches for it.
    subjects: HashSet<(Option<String>, String)>,
    accounts: HashSet<String>,
    /// By issuer and subject, or for all of either; the latest moment.
    epochs: HashMap<(Option<String>, Option<String>), u64>,
}

impl Revocations {
    pub(crate) fn of(rows: Vec<RevocationRow>) -> Self {
        let mut all = Self::default();
        for row in &rows {
            match row.target.clone() {
                RevocationTarget::Token { issuer, id } => drop(all.tokens.insert((issuer, id))),
                RevocationTarget::Digest { digest } => drop(all.digests.insert(digest)),
                RevocationTarget::SigningKey { issuer, key } => drop(all.keys.insert((issuer, key))),
                RevocationTarget::Subject { issuer, subject } => drop(all.subjects.insert((issuer, subject))),
                RevocationTarget::Account { account } => drop(all.accounts.insert(account)),
                RevocationTarget::Sessions { issuer, subject, before } => {
                    let epoch = all.epochs.entry((issuer, subject)).or_default();
                    *epoch = before.max(*epoch);
                }
            }
        }
        all.rows = rows;
        all
    }

    pub(crate) fn rows(&self) -> impl Iterator<Item = &RevocationRow> {
        self.rows.iter()
    }

    /// Why this credential is worth nothing, if it is. Nothing is allocated where nothing is revoked.
    pub(crate) fn revoked(&self, shown: &Shown<'_>) -> Option<RevokedBy> {
        if self.rows.is_empty() {
            return None;
        }
        let subject = shown.subject.to_owned();
        if shown.kind == PrincipalKind::ServiceAccount {
            return self.accounts.contains(&subject).then_some(RevokedBy::Subject);
        }
        let issuer = shown.issuer.map(str::to_owned);
        let of_issuer = |text: Option<&str>| issuer.clone().zip(text.map(str::to_owned));
        if shown.digest.is_some_and(|digest| self.digests.contains(&Digest(*digest)))
            || of_issuer(shown.token).is_some_and(|token| self.tokens.contains(&token))
        {
            return Some(RevokedBy::Token);
        }
        if of_issuer(shown.signing_key).is_some_and(|key| self.keys.contains(&key)) {
            return Some(RevokedBy::SigningKey);
        }
        if self.subjects.contains(&(None, subject.clone()))
            || self.subjects.contains(&(issuer.clone(), subject.clone()))
        {
            return Some(RevokedBy::Subject);
        }
        let issued = shown.issued?;
        let scopes =
            [(None, None), (issuer.clone(), None), (None, Some(subject.clone())), (issuer.clone(), Some(subject))];
        let before = |scope| self.epochs.get(scope).is_some_and(|before| issued < *before);
        scopes.iter().any(before).then_some(RevokedBy::Epoch)
    }
}

impl Change<'_> {
    pub(crate) fn revoke(
        &mut self,
        tenant: &TenantId,
        target: &RevocationTarget,
        reason: &str,
        expires: Option<u64>,
    ) -> Done {
        check(target, reason, self.means.now.seconds())?;
        self.tx.forget_revocations(self.means.now)?;
        let known = self.state(tenant)?.revocations;
        if let Some(known) = known.iter().find(|row| row.target == *target) {
            // Said twice it is revoked once, and the first time counts.
            return Ok(describe(known));
        }
        if known.len() >= REVOCATIONS {
            return Err(ControlError::TooMany { what: "revocations", limit: REVOCATIONS });
        }
        let row = self.revocation(tenant, target.clone(), reason, expires);
        self.tx.insert_revocation(&row)?;
        Ok(describe(&row))
    }

    fn revocation(
        &self,
        tenant: &TenantId,
        target: RevocationTarget,
        reason: &str,
        expires: Option<u64>,
    ) -> RevocationRow {
        let now = self.means.now;
        let forgotten = target.forgotten_at(now.seconds(), expires);
        RevocationRow {
            id: RevocationId::mint(tenant, self.means.random),
            expires: forgotten.map(|at| now.plus(Duration::from_secs(at.saturating_sub(now.seconds())))),
            target,
            reason: reason.to_owned(),
            created: now,
        }
    }

    /// Ends every session of a user of the node's own issuer: what was issued until now is worth nothing.
    pub(crate) fn end_sessions(
        &mut self,
        tenant: &TenantId,
        issuer: &str,
        user: &str,
        why: &str,
    ) -> Result<(), ControlError> {
        let before = self.means.now.seconds().saturating_add(1);
        let (issuer, subject) = (Some(issuer.to_owned()), Some(user.to_owned()));
        self.tx.forget_revocations(self.means.now)?;
        // The later moment holds for all that the earlier one held for.
        for row in self.state(tenant)?.revocations {
            let same = matches!(&row.target, RevocationTarget::Sessions { issuer: of, subject: who, before: earlier }
                if *of == issuer && *who == subject && *earlier <= before);
            if same {
                self.tx.remove_revocation(&row.id)?;
            }
        }
        let row = self.revocation(tenant, RevocationTarget::Sessions { issuer, subject, before }, why, None);
        self.tx.insert_revocation(&row)
    }

    pub(crate) fn reinstate(&mut self, id: &RevocationId) -> Done {
        if !self.tx.remove_revocation(id)? {
            return Err(ControlError::not_found("revocation", id.as_str()));
        }
        Ok(json!({ "id": id, "reinstated": true }))
    }

    pub(crate) fn set_active(&mut self, tenant: &TenantId, active: bool) -> Result<(TenantId, Value), ControlError> {
        if *tenant == platform_tenant() {
            return Err(ControlError::invalid("tenant", PLATFORM_NAME, "nobody would be left to open it again"));
        }
        let state = self.state(tenant)?;
        if active && state.keys.is_empty() {
            return Err(ControlError::Shredded { tenant: state.tenant.name });
        }
        self.tx.set_tenant_active(tenant, active)?;
        Ok((tenant.clone(), json!({ "id": tenant, "name": state.tenant.name, "active": active })))
    }
}

/// A revocation as callers see it.
pub(crate) fn describe(row: &RevocationRow) -> Value {
    json!({
        "id": row.id,
        "target": row.target,
        "reason": row.reason,
        "created": row.created.to_string(),
        "expires": row.expires.map(|at| at.to_string()),
    })
}

fn check(target: &RevocationTarget, reason: &str, now: u64) -> Result<(), ControlError> {
    let plain = |text: &str| (1..=TEXT_BYTES).contains(&text.len()) && !text.chars().any(char::is_control);
    let texts = match target {
        RevocationTarget::Token { issuer, id } => vec![issuer, id],
        RevocationTarget::SigningKey { issuer, key } => vec![issuer, key],
        RevocationTarget::Digest { .. } => vec![],
        RevocationTarget::Subject { issuer, subject } => issuer.iter().chain([subject]).collect(),
        RevocationTarget::Account { account } => vec![account],
        RevocationTarget::Sessions { issuer, subject, .. } => issuer.iter().chain(subject).collect(),
    };
    if let Some(text) = texts.into_iter().find(|text| !plain(text)) {
        return Err(ControlError::invalid("target", text, "1 to 512 bytes, none of them a control character"));
    }
    if reason.len() > REASON_BYTES || reason.chars().any(char::is_control) {
        return Err(ControlError::invalid("reason", reason, "up to 500 bytes, none of them a control character"));
    }
    match target {
        RevocationTarget::Sessions { before, .. } if *before > now.saturating_add(AHEAD_SECONDS) => {
            let reason = "tokens issued later than a minute from now cannot be revoked in advance";
            Err(ControlError::invalid("before", &before.to_string(), reason))
        }
        _ => Ok(()),
    }
}
