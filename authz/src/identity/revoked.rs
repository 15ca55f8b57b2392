//! What was revoked, as identities ask about it.
//!
//! Owns the words of that question. What is revoked is kept elsewhere; here it is only asked, for every call and after
//! the credential was found genuine. Must never be asked of a credential that was not.

use cofferdam_model::{PrincipalKind, TenantId};

use super::Directory;

/// A genuine credential, as far as a revocation may name it.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'a> {
    /// The tenant of its subject.
    pub tenant: &'a TenantId,
    /// What kind of being its subject is.
    pub kind: PrincipalKind,
    /// Who vouches for the subject; none for keys.
    pub issuer: Option<&'a str>,
    /// The subject, or the name of the service account.
    pub subject: &'a str,
    /// `jti` of a token that has one.
    pub token: Option<&'a str>,
    /// SHA-256 of a token's text.
    pub digest: Option<&'a [u8; 32]>,
    /// `kid` of the key a token was signed with.
    pub signing_key: Option<&'a str>,
    /// When a token was issued, seconds since 1970.
    pub issued: Option<u64>,
}

impl<'a> Shown<'a> {
    /// What a machine shows: its account, and nothing that a token has.
    pub(super) fn account(tenant: &'a TenantId, account: &'a str) -> Self {
        let kind = PrincipalKind::ServiceAccount;
        let (issuer, token, digest, signing_key, issued) = (None, None, None, None, None);
        Self { tenant, kind, issuer, subject: account, token, digest, signing_key, issued }
    }

    /// What of it was revoked, if anything was: its tenant before all else.
    pub(super) fn by(&self, directory: &dyn Directory) -> Option<RevokedBy> {
        if directory.tenant_active(self.tenant) { directory.revoked(self) } else { Some(RevokedBy::Tenant) }
    }
}

/// Why a genuine credential is worth nothing any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RevokedBy {
    /// This very token was revoked.
    Token,
    /// The key it was signed with was.
    SigningKey,
    /// This API key was.
    ApiKey,
    /// Its subject was, whatever it shows.
    Subject,
    /// All tokens of the subject, or of the tenant, that were issued before a moment.
    Epoch,
    /// The tenant is suspended.
    Tenant,
}

impl RevokedBy {
    /// Stable name in records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::SigningKey => "signing_key",
            Self::ApiKey => "api_key",
            Self::Subject => "subject",
            Self::Epoch => "epoch",
            Self::Tenant => "tenant",
        }
    }
}
