//! What must stay of the log, and what must not: legal holds, and the keys of subjects.
//!
//! Owns the rules of both. Must never destroy a key while somebody holds what it opens, and never give one out that was
//! destroyed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::digest;
use cofferdam_audit::retain::Hold;
use cofferdam_audit::shred::{Opener, SubjectKey};
use cofferdam_model::id::is_name;
use cofferdam_model::{Keep, SecretValue, TenantId};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::Control;
use crate::error::ControlError;
use crate::keyfile;
use crate::store::{HoldRow, SubjectKeyRow, Transaction};
use crate::vault::{Place, WrappedKey};

/// Keys of subjects held open at once.
const MOST: usize = 16_384;
/// Characters of a reason.
const REASON: usize = 1_000;
/// Holds there can be.
const HOLDS: usize = 1_000;

type Kept = Result<Value, ControlError>;

/// Keys of subjects that are held open, for the records of calls to come.
#[derive(Default)]
pub(crate) struct Subjects(Mutex<Open>);

#[derive(Default)]
struct Open {
    keys: HashMap<(String, String), Arc<SubjectKey>>,
    /// Counts destructions: what was fetched before one is not put here after it.
    destroyed: u64,
}

impl Subjects {
    fn lock(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, tenant: &TenantId, subject: &str, key: &Arc<SubjectKey>, since: u64) {
        let mut open = self.lock();
        if open.destroyed != since {
            return;
        }
        if open.keys.len() >= MOST {
            open.keys.clear();
        }
        open.keys.insert((tenant.to_string(), subject.to_owned()), key.clone());
    }

    pub(crate) fn forget(&self) {
        let mut open = self.lock();
        open.destroyed += 1;
        open.keys.clear();
    }
}

impl Control {
    pub(crate) fn keep(&self, keep: &Keep) -> Kept {
        match keep {
            Keep::PutHold { name, tenant, from, until, reason } => {
                if !is_name(name) {
                    return Err(ControlError::invalid("name", name, "use 1 to 63 of a-z, 0-9 and -"));
                }
                if reason.trim().is_empty() || reason.chars().count() > REASON {
                    return Err(ControlError::invalid("reason", reason, "say why, in at most 1,000 characters"));
                }
                if from.zip(*until).is_some_and(|(from, until)| from >= until) {
                    return Err(ControlError::invalid("until", name, "it must be after `from`"));
                }
                let row = HoldRow {
                    name: name.clone(),
                    tenant: tenant.clone(),
                    from: *from,
                    until: *until,
                    reason: reason.clone(),
                    created: self.clock.now(),
                };
                self.transact(|tx| {
                    let holds = tx.holds()?;
                    if holds.len() >= HOLDS && !holds.iter().any(|hold| hold.name == *name) {
                        return Err(ControlError::TooMany { what: "holds", limit: HOLDS });
                    }
                    tx.put_hold(&row)
                })?;
                Ok(described(&row))
            }
            Keep::RemoveHold { name } => {
                if !self.transact(|tx| tx.remove_hold(name))? {
                    return Err(ControlError::not_found("hold", name));
                }
                Ok(json!({ "name": name, "removed": true }))
            }
            Keep::ListHolds => {
                let holds = self.transact(|tx| tx.holds())?;
                Ok(json!({ "holds": holds.iter().map(described).collect::<Vec<_>>() }))
            }
            Keep::ShredSubject { tenant, subject, .. } => self.shred_subjects(tenant, subject.as_deref()),
        }
    }

    /// What must stay of the log.
    pub fn holds(&self) -> Result<Vec<Hold>, ControlError> {
        let held =
            |row: HoldRow| Hold { tenant: row.tenant.map(|id| id.to_string()), from: row.from, until: row.until };
        Ok(self.transact(|tx| tx.holds())?.into_iter().map(held).collect())
    }

    /// Index of the first record that was not counted for usage yet; none where nothing was.
    pub fn counted(&self) -> Result<u64, ControlError> {
        Ok(self.transact(|tx| tx.usage_mark())?.map_or(0, |(mark, _)| mark.next))
    }

    fn shred_subjects(&self, tenant: &TenantId, subject: Option<&str>) -> Kept {
        let now = self.clock.now();
        let subject = subject.map(digest_of);
        let destroyed = self.transact(|tx| {
            let known = tx.tenant(tenant)?.is_some();
            if !known {
                return Err(ControlError::not_found("tenant", tenant.as_str()));
            }
            refuse_held(tx, tenant)?;
            tx.destroy_subject_keys(tenant, subject.as_ref(), now)
        })?;
        self.subjects.forget();
        self.scrub()?;
        Ok(json!({ "tenant": tenant, "destroyed": destroyed }))
    }

    /// The key of a subject, if it is held open.
    pub fn subject_key_at_hand(&self, tenant: &str, subject: &str) -> Option<Arc<SubjectKey>> {
        self.subjects.lock().keys.get(&(tenant.to_owned(), subject.to_owned())).cloned()
    }

    /// Whether a key of a subject of this tenant can be had without asking anybody else for the tenant's own.
    pub fn has_tenant_key(&self, tenant: &TenantId) -> bool {
        let keys = self.transact(|tx| tx.tenant_keys(tenant)).unwrap_or_default();
        !keys.is_empty() && keys.iter().all(|key| self.vault.holds(tenant, key))
    }

    /// The key of a subject, made if there is none. Blocks on the disk, and on the root key where the tenant's is not
    /// at hand.
    pub fn subject_key(&self, tenant: &TenantId, subject: &str) -> Result<Arc<SubjectKey>, ControlError> {
        let (digest, since) = (digest_of(subject), self.subjects.lock().destroyed);
        let (keys, row) = self.transact(|tx| Ok((tx.tenant_keys(tenant)?, tx.subject_key(tenant, &digest)?)))?;
        let key = match row {
            Some(row) => self.open_subject_key(&keys, &row)?,
            None => self.make_subject_key(&keys, tenant, digest)?,
        };
        self.subjects.put(tenant, subject, &key, since);
        Ok(key)
    }

    fn make_subject_key(
        &self,
        keys: &[WrappedKey],
        tenant: &TenantId,
        subject: [u8; 32],
    ) -> Result<Arc<SubjectKey>, ControlError> {
        let mut name = [0u8; 8];
        self.random.fill(&mut name);
        let id = format!("sk_{:016x}", u64::from_be_bytes(name));
        let key = keyfile::fresh(&*self.random);
        let place = Place::subject_key(tenant, &id);
        let sealed = self.vault.seal(keys, place, &SecretValue::new(key.to_vec()), &*self.random)?;
        let row =
            SubjectKeyRow { id, tenant: tenant.clone(), subject, sealed: Some(sealed), created: self.clock.now() };
        let known = self.transact(|tx| {
            if let Some(other) = tx.subject_key(tenant, &subject)? {
                return Ok(Some(other));
            }
            let newest = tx.tenant_keys(tenant)?.pop().map(|key| key.version);
            // Sealed under a key that a rotation has replaced since, it would be lost with that one.
            if newest != row.sealed.as_ref().map(|sealed| sealed.key_version) {
                return Err(ControlError::KeysChanged { tenant: tenant.to_string() });
            }
            tx.insert_subject_key(&row).map(|()| None)
        })?;
        match known {
            Some(other) => self.open_subject_key(keys, &other),
            None => Ok(Arc::new(SubjectKey::new(row.id, key))),
        }
    }

    /// A key of a subject by its name in records.
    pub fn subject_key_named(&self, id: &str) -> Opener {
        let found = self.transact(|tx| {
            let Some(row) = tx.subject_key_named(id)? else { return Ok(None) };
            Ok(Some((tx.tenant_keys(&row.tenant)?, row)))
        });
        match found {
            Ok(Some((_, row))) if row.sealed.is_none() => Opener::Destroyed,
            Ok(Some((keys, row))) => self.open_subject_key(&keys, &row).map_or(Opener::Unknown, Opener::Key),
            Ok(None) | Err(_) => Opener::Unknown,
        }
    }

    fn open_subject_key(&self, keys: &[WrappedKey], row: &SubjectKeyRow) -> Result<Arc<SubjectKey>, ControlError> {
        let sealed = row.sealed.as_ref().ok_or_else(|| ControlError::not_found("key", &row.id))?;
        let opened = self.vault.open(keys, Place::subject_key(&row.tenant, &row.id), sealed)?;
        let mut key = Zeroizing::new([0u8; 32]);
        key.iter_mut().zip(opened.iter()).for_each(|(to, from)| *to = *from);
        Ok(Arc::new(SubjectKey::new(row.id.clone(), key)))
    }
}

/// Refuses to destroy keys of what is held.
pub(crate) fn refuse_held(tx: &mut dyn Transaction, tenant: &TenantId) -> Result<(), ControlError> {
    let holds = tx.holds()?;
    match holds.into_iter().find(|hold| hold.tenant.as_ref().is_none_or(|held| held == tenant)) {
        Some(hold) => Err(ControlError::Held { hold: hold.name }),
        None => Ok(()),
    }
}

fn described(row: &HoldRow) -> Value {
    let HoldRow { name, tenant, from, until, reason, created } = row;
    let moment = |at: &Option<_>| at.map(|at: cofferdam_model::UnixNanos| at.to_string());
    json!({
        "name": name,
        "tenant": tenant,
        "from": moment(from),
        "until": moment(until),
        "reason": reason,
        "created": created.to_string(),
    })
}

fn digest_of(subject: &str) -> [u8; 32] {
    let mut out = [0; 32];
    let hash = digest::digest(&digest::SHA256, subject.as_bytes());
    out.iter_mut().zip(hash.as_ref()).for_each(|(to, from)| *to = *from);
    out
}
