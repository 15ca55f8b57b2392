//! Who was identified.
//!
//! Owns the type every decision is about. Must never be made anywhere but in `identity`, out of a credential that was
//! checked, and never hold the credential.

use std::sync::Arc;

use cofferdam_model::{CredentialKind, PrincipalFacts, PrincipalKind, Session, TenantId};

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
    session: Option<Arc<Session>>,
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
            session: None,
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
            session: None,
        }
    }

    /// The same, known by another kind of credential.
    pub(super) fn shown(self, credential: CredentialKind) -> Self {
        Self { credential, ..self }
    }

    /// The same with what its token says of the session.
    pub(super) fn with_session(self, session: Arc<Session>) -> Self {
        Self { session: Some(session), ..self }
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
            session: None,
        }
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

    /// What its token says of the session: scopes, factors, when, and who acts. None for keys and for nobody.
    pub fn session(&self) -> Option<&Session> {
        self.session.as_deref()
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
            session: self.session().filter(|session| session.tells()).cloned(),
        }
    }
}
