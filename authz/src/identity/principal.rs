//! Who was identified.
//!
//! Owns the type every decision is about. Must never be made anywhere but in `identity`, out of a credential that was
//! checked, and never hold the credential.

use std::sync::Arc;

use cofferdam_model::{Bound, CredentialKind, PrincipalFacts, PrincipalKind, Session, TenantId};

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
    groups: Vec<String>,
    credential: CredentialKind,
    credential_id: Option<Arc<str>>,
    bound: Bound,
    scopes: Option<Arc<[String]>>,
    session: Option<Arc<Session>>,
}

/// Somebody who might ask, for explanations alone: nobody's credential was checked.
#[derive(Debug, Clone)]
pub struct Supposed {
    /// Kind of being.
    pub kind: PrincipalKind,
    /// As in [`Principal::id`].
    pub id: String,
    /// Who would vouch for it.
    pub issuer: Option<String>,
    /// The tenant it would belong to.
    pub tenant: Option<TenantId>,
    /// Its roles there.
    pub roles: Vec<String>,
    /// The groups its token would say it is in.
    pub groups: Vec<String>,
    /// What it would show.
    pub credential: CredentialKind,
    /// How it would prove to hold its key.
    pub bound: Bound,
    /// What that would be good for at most.
    pub scopes: Option<Vec<String>>,
    /// Name of its machine, where it would show a certificate.
    pub certificate: Option<String>,
    /// What its token would say of the session.
    pub session: Option<Session>,
}

impl Principal {
    /// For explanations, which never hand it on: no permit can come of it.
    pub(crate) fn supposed(supposed: Supposed) -> Self {
        let Supposed { kind, id, issuer, tenant, roles, groups, credential, bound, scopes, certificate, session } =
            supposed;
        Self {
            kind,
            id: id.into(),
            issuer: issuer.map(Into::into),
            tenant,
            roles,
            // Machines and nobody are in none, whatever is supposed of them.
            groups: if kind == PrincipalKind::User { groups } else { Vec::new() },
            credential,
            credential_id: certificate.filter(|_| credential == CredentialKind::Certificate).map(Into::into),
            bound,
            scopes: scopes.map(Into::into),
            session: session.map(Arc::new),
        }
    }

    pub(super) fn anonymous() -> Self {
        Self {
            kind: PrincipalKind::Anonymous,
            id: "anonymous".into(),
            issuer: None,
            tenant: None,
            roles: Vec::new(),
            groups: Vec::new(),
            credential: CredentialKind::None,
            credential_id: None,
            bound: Bound::None,
            scopes: None,
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
            groups: Vec::new(),
            credential: CredentialKind::Jwt,
            credential_id: token_id,
            bound: Bound::None,
            scopes: None,
            session: None,
        }
    }

    /// The same, known by another kind of credential.
    pub(super) fn shown(self, credential: CredentialKind) -> Self {
        Self { credential, ..self }
    }

    /// The same, in the groups its token says.
    pub(super) fn in_groups(self, groups: Vec<String>) -> Self {
        Self { groups, ..self }
    }

    /// The same with what its token says of the session.
    pub(super) fn with_session(self, session: Arc<Session>) -> Self {
        Self { session: Some(session), ..self }
    }

    pub(super) fn service_account(account: Arc<str>, tenant: TenantId, roles: Vec<String>, key: Arc<str>) -> Self {
        Self::machine(account, tenant, roles, key, (CredentialKind::ApiKey, Bound::None))
    }

    /// A service account, by what it showed and how that was bound to it.
    pub(super) fn machine(
        account: Arc<str>,
        tenant: TenantId,
        roles: Vec<String>,
        credential_id: Arc<str>,
        (credential, bound): (CredentialKind, Bound),
    ) -> Self {
        Self {
            kind: PrincipalKind::ServiceAccount,
            id: account,
            issuer: None,
            tenant: Some(tenant),
            roles,
            groups: Vec::new(),
            credential,
            credential_id: Some(credential_id),
            bound,
            scopes: None,
            session: None,
        }
    }

    /// The same, under the ceiling of what its credential is good for.
    pub(super) fn narrowed(self, scopes: Option<Arc<[String]>>) -> Self {
        Self { scopes, ..self }
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

    /// The groups its issuer says it is in; none for machines and for nobody.
    pub fn groups(&self) -> &[String] {
        &self.groups
    }

    /// What it showed.
    pub fn credential(&self) -> CredentialKind {
        self.credential
    }

    /// How it proved, in this call, to hold its key.
    pub fn bound(&self) -> Bound {
        self.bound
    }

    /// Name of its machine in the certificate it showed; none where it showed none.
    pub fn certificate(&self) -> Option<&str> {
        self.credential_id.as_deref().filter(|_| self.credential == CredentialKind::Certificate)
    }

    /// Which credential it showed, where that has an id.
    pub fn credential_id(&self) -> Option<&str> {
        self.credential_id.as_deref()
    }

    /// What its credential is good for at most, where it says: actions, groups of them, and `fn:NAME`.
    pub fn scopes(&self) -> Option<&[String]> {
        self.scopes.as_deref()
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
            bound: self.bound,
            session: self.session().filter(|session| session.tells()).cloned(),
        }
    }
}
