//! Legal holds, and the keys of subjects.
//!
//! Owns the shape of what is stored of them. Must never see a key but sealed, nor whose it is.

use cofferdam_model::{SealedValue, TenantId, UnixNanos};

use crate::error::ControlError;

/// A legal hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldRow {
    /// Its name, unique.
    pub name: String,
    /// Of which tenant; of all, where there is none.
    pub tenant: Option<TenantId>,
    /// Records made at this moment or later.
    pub from: Option<UnixNanos>,
    /// Records made before this moment.
    pub until: Option<UnixNanos>,
    /// Why.
    pub reason: String,
    /// Since when.
    pub created: UnixNanos,
}

/// The key of one subject in one tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubjectKeyRow {
    /// Its name in records.
    pub id: String,
    /// In which tenant.
    pub tenant: TenantId,
    /// SHA-256 of the subject's id.
    pub subject: [u8; 32],
    /// The key; none once it was destroyed.
    pub sealed: Option<SealedValue>,
    /// Since when.
    pub created: UnixNanos,
}

/// What a transaction does about what is kept.
pub trait Keeps {
    /// Every hold, in order of name.
    fn holds(&mut self) -> Result<Vec<HoldRow>, ControlError>;
    /// Adds a hold or replaces it.
    fn put_hold(&mut self, hold: &HoldRow) -> Result<(), ControlError>;
    /// Removes a hold; says whether it was there.
    fn remove_hold(&mut self, name: &str) -> Result<bool, ControlError>;
    /// The key of a subject that is not destroyed.
    fn subject_key(&mut self, tenant: &TenantId, subject: &[u8; 32]) -> Result<Option<SubjectKeyRow>, ControlError>;
    /// The key of this name, destroyed or not.
    fn subject_key_named(&mut self, id: &str) -> Result<Option<SubjectKeyRow>, ControlError>;
    /// Adds a key. Its subject must have none.
    fn insert_subject_key(&mut self, key: &SubjectKeyRow) -> Result<(), ControlError>;
    /// Forgets a subject's key for good and whose it was, or those of all subjects of a tenant; gives their names.
    fn destroy_subject_keys(
        &mut self,
        tenant: &TenantId,
        subject: Option<&[u8; 32]>,
        at: UnixNanos,
    ) -> Result<Vec<String>, ControlError>;
}
