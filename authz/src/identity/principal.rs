//! Who was identified.
//!
//! Owns the type every decision is about. Must never be made anywhere but in `identity`, out of a credential that was
//! checked, and never hold the credential.

use std::sync::Arc;

use cofferdam_model::{CredentialKind, PrincipalFacts, PrincipalKind, TenantId};

/// Somebody whose credential was checked, or explicitly nobody.
///
/// Not `Clone`: it is moved into the permit it was decided on.
///
/// ```compile_fail
/// let forged = cofferdam_authz::Principal { kind: cofferdam_model::PrincipalKind::User };
/// ```
#[derive(Debug)]
pub struct Principal {
    kind: PrincipalKind,
    id: Arc<str>,
    issuer: Option<Arc<str>>,
    tenant: Option<TenantId>,
    roles: Vec<String>,
    credential: CredentialKind,
    credential_id: Option<Arc<str>>,
}

impl Principal {
    pub(super) fn anonymous() -> Self {
        Self {
            kind: PrincipalKind::Anonymous,
            id: "anonymous".into(),
            issuer: None,
            tenant: None,
            roles: Vec::new(),
            credential: CredentialKind::None,
            credential_id: None,
        }
    }

    pub(super) fn user(
        issuer: Arc<str>,
        subject: Arc<str>,
        tenant: TenantId,
        roles: Vec<String>,
        token_id: Option<Arc<str>>,
    ) -> Self {
        Self {
            kind: PrincipalKind::User,
            id: subject,
            issuer: Some(issuer),
            tenant: Some(tenant),
            roles,
            credential: CredentialKind::Jwt,
            credential_id: token_id,
        }
    }

    pub(super) fn service_account(account: Arc<str>, tenant: TenantId, roles: Vec<String>, key: Arc<str>) -> Self {
        Self {
            kind: PrincipalKind::ServiceAccount,
            id: account,
            issuer: None,
            tenant: Some(tenant),
            roles,
            credential: CredentialKind::ApiKey,
            credential_id: Some(key),
        }
    }

    /// Somebody who showed nothing, for questions of the kind "what if it were". Only `explain` asks them, and what
    /// comes of one is an explanation: no way leads from there to a permit.
    pub(crate) fn supposed(
        (kind, id, issuer): (PrincipalKind, &str, Option<&str>),
        tenant: Option<TenantId>,
        roles: Vec<String>,
        credential: CredentialKind,
    ) -> Self {
        Self { kind, id: id.into(), issuer: issuer.map(Into::into), tenant, roles, credential, credential_id: None }
    }

    /// Kind of being.
    pub fn kind(&self) -> PrincipalKind {
        self.kind
    }

    /// Subject within its issuer, name of the service account, or `anonymous`. Unique only together with kind,
    /// issuer and tenant.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Who vouches for it; none for keys and for nobody.
    pub fn issuer(&self) -> Option<&str> {
        self.issuer.as_deref()
    }

    /// The tenant it belongs to; none for nobody.
    pub fn tenant(&self) -> Option<&TenantId> {
        self.tenant.as_ref()
    }

    /// Its roles in that tenant.
    pub fn roles(&self) -> &[String] {
        &self.roles
    }

    /// What it showed.
    pub fn credential(&self) -> CredentialKind {
        self.credential
    }

    /// One text for this principal and no other: what a rate limit counts by, and its id in policies.
    pub fn key(&self) -> String {
        // Neither tenant ids nor issuers contain `|` (issuers are checked at start), so no two can meet.
        match (&self.tenant, &self.issuer) {
            (Some(tenant), Some(issuer)) => format!("{tenant}|{issuer}|{}", self.id),
            (Some(tenant), None) => format!("{tenant}|{}", self.id),
            (None, _) => self.id.to_string(),
        }
    }

    /// As the log names it.
    pub fn facts(&self) -> PrincipalFacts {
        PrincipalFacts {
            kind: self.kind,
            id: self.id.to_string(),
            issuer: self.issuer.as_deref().map(str::to_owned),
            tenant: self.tenant.as_ref().map(ToString::to_string),
            credential: self.credential,
            credential_id: self.credential_id.as_deref().map(str::to_owned),
        }
    }
}
