//! Machines known by a client certificate.
//!
//! Owns the authorities of a tenant, what a chain must be to count under them, and whose account its machine is. Must
//! never trust one authority's word on another's machines, nor a verdict older than a second: certificates end, and
//! authorities revoke them, while connections stay.

mod name;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use cofferdam_model::machine::{ACCOUNTS, CERTIFICATES_BYTES, CRLS_BYTES, MACHINE_BYTES};
use cofferdam_model::{Bound, ClientCa, CredentialKind, TenantId, UnixNanos};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};
use webpki::EndEntityCert;

use super::revoked::Shown;
use super::{Directory, Principal};
use crate::error::{AuthorityError, IdentityError, Refusal};

/// Authorities of one tenant.
pub const AUTHORITIES: usize = 8;
const CERTIFICATES: usize = 16;
const CRLS: usize = 64;
/// Certificates a machine may show.
const CHAIN: usize = 8;
/// A verdict on a chain counts for as long.
const VERDICT_SECONDS: u64 = 1;

/// The authorities that name machines of one tenant. Replaced as a whole: what was judged by others counts no more.
#[derive(Debug)]
pub struct ClientAuthorities {
    authorities: Vec<Authority>,
    hints: Vec<DistinguishedName>,
    required: bool,
}

#[derive(Debug)]
struct Authority {
    verifier: Arc<dyn ClientCertVerifier>,
    machines: HashMap<String, Account>,
}

/// What a machine is here: its account, and the roles of that.
type Account = (Arc<str>, Vec<String>);

/// A machine whose chain was verified.
#[derive(Debug, Clone)]
struct Machine {
    name: Arc<str>,
    account: Arc<str>,
    roles: Vec<String>,
}

impl ClientAuthorities {
    /// Reads authorities as they were declared, or says what is wrong with which.
    pub fn read(declared: &[(&str, &ClientCa)]) -> Result<Self, AuthorityError> {
        let (mut authorities, mut hints) = (Vec::new(), Vec::new());
        let mut known: HashMap<Vec<u8>, &str> = HashMap::new();
        for (name, ca) in declared {
            let wrong = |problem: String| AuthorityError::new(name, problem);
            let roots = certificates(ca).map_err(wrong)?;
            let mut store = RootCertStore::empty();
            for root in roots {
                // Revoked by the one and not by the other, a certificate would be good.
                if let Some(other) = known.insert(root.to_vec(), name) {
                    return Err(wrong(format!("a certificate of it is `{other}`'s too: name an authority once")));
                }
                store.add(root).map_err(|error| wrong(format!("a certificate of it cannot be used: {error}")))?;
            }
            hints.extend(store.subjects());
            let verifier = verifier(store, crls(ca).map_err(wrong)?).map_err(wrong)?;
            authorities.push(Authority { verifier, machines: machines(ca).map_err(wrong)? });
        }
        let required = declared.iter().any(|(_, ca)| ca.required);
        Ok(Self { authorities, hints, required })
    }

    /// Authorities that stand for nobody and let nobody in without them: for what was declared and cannot be read.
    pub fn none() -> Self {
        Self { authorities: Vec::new(), hints: Vec::new(), required: true }
    }

    /// Whether the tenant's hosts take no call without a certificate.
    pub fn required(&self) -> bool {
        self.required
    }

    /// What checks certificates in a handshake.
    pub fn verifier(self: &Arc<Self>) -> Arc<dyn ClientCertVerifier> {
        Arc::new(AtHandshake { authorities: self.clone(), provider: aws_lc_rs::default_provider() })
    }

    /// The authority that stands for this chain, if one does.
    fn verified(
        &self,
        leaf: &CertificateDer<'_>,
        more: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<&Authority, rustls::Error> {
        let mut refused = rustls::Error::NoCertificatesPresented;
        if more.len() >= CHAIN {
            return Err(rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer));
        }
        for authority in &self.authorities {
            match authority.verifier.verify_client_cert(leaf, more, now) {
                Ok(_) => return Ok(authority),
                // What the right authority says is worth more than what the others do not know.
                Err(error) if is_stranger(&refused) => refused = error,
                Err(_) => {}
            }
        }
        Err(refused)
    }

    fn machine(&self, chain: &[CertificateDer<'_>], now: UnixNanos) -> Result<Machine, Refusal> {
        let (leaf, more) = chain.split_first().ok_or(Refusal::Certificate)?;
        let at = UnixTime::since_unix_epoch(std::time::Duration::from_secs(now.seconds()));
        let authority = self.verified(leaf, more, at).map_err(|error| refusal(&error))?;
        let parsed = EndEntityCert::try_from(leaf).map_err(|_| Refusal::Certificate)?;
        let name = name::machine(&parsed).ok_or(Refusal::UnknownMachine)?;
        let (account, roles) = authority.machines.get(&name).ok_or(Refusal::UnknownMachine)?;
        Ok(Machine { name: name.into(), account: account.clone(), roles: roles.clone() })
    }
}

fn is_stranger(error: &rustls::Error) -> bool {
    use rustls::{CertificateError, Error};
    matches!(error, Error::NoCertificatesPresented | Error::InvalidCertificate(CertificateError::UnknownIssuer))
}

fn refusal(error: &rustls::Error) -> Refusal {
    use rustls::CertificateError;
    match error {
        rustls::Error::InvalidCertificate(CertificateError::Revoked) => Refusal::Revoked,
        rustls::Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            Refusal::Expired
        }
        _ => Refusal::Certificate,
    }
}

/// The certificates of an authority: at least one, all of authorities, and nothing else.
fn certificates(ca: &ClientCa) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Vec<CertificateDer<'static>> = pem(&ca.certificates, CERTIFICATES_BYTES, CERTIFICATES, "certificates")?;
    if found.is_empty() {
        return Err("there is no certificate: give that of the authority, PEM".to_owned());
    }
    for (at, certificate) in found.iter().enumerate() {
        if !name::is_authority(certificate) {
            let place = at + 1;
            return Err(format!(
                "certificate {place} is no authority's (`CA:TRUE` is not among its basic constraints): give the one \
                 that signs, not one it signed"
            ));
        }
    }
    Ok(found)
}

fn crls(ca: &ClientCa) -> Result<Vec<CertificateRevocationListDer<'static>>, String> {
    pem(&ca.crls, CRLS_BYTES, CRLS, "lists of revoked certificates")
}

/// Everything in a PEM text, which must be of one kind.
fn pem<T: PemObject>(text: &str, most_bytes: usize, most: usize, what: &str) -> Result<Vec<T>, String> {
    if text.len() > most_bytes {
        return Err(format!("its {what} are longer than the {most_bytes} bytes allowed"));
    }
    let found: Vec<T> = T::pem_slice_iter(text.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| format!("its {what} are not PEM: {error}"))?;
    if text.matches("-----BEGIN ").count() != found.len() || (found.is_empty() && !text.trim().is_empty()) {
        return Err(format!("its {what} hold something else too: PEM of {what} alone is expected"));
    }
    if found.len() > most {
        return Err(format!("{} {what}, at most {most} are taken", found.len()));
    }
    Ok(found)
}

/// With lists, each certificate of a chain must be on the books of one that is not outdated; without, none is asked.
fn verifier(
    roots: RootCertStore,
    crls: Vec<CertificateRevocationListDer<'static>>,
) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let builder = if crls.is_empty() { builder } else { builder.with_crls(crls).enforce_revocation_expiration() };
    builder.build().map_err(|error| format!("it cannot be used: {error}"))
}

fn machines(ca: &ClientCa) -> Result<HashMap<String, Account>, String> {
    if ca.accounts.len() > ACCOUNTS {
        return Err(format!("{} accounts, at most {ACCOUNTS} are taken", ca.accounts.len()));
    }
    let mut machines = HashMap::new();
    for one in &ca.accounts {
        let shown: String = one.machine.chars().take(80).collect();
        if one.machine.is_empty() || one.machine.len() > MACHINE_BYTES || one.machine.chars().any(char::is_control) {
            return Err(format!("`{shown}` names no machine: write a SPIFFE ID, or a subject such as `CN=pay,O=Acme`"));
        }
        if machines.insert(one.machine.clone(), (one.account.as_str().into(), one.roles.clone())).is_some() {
            return Err(format!("machine `{shown}` is listed twice"));
        }
    }
    Ok(machines)
}

/// The authorities of a tenant as a handshake asks them.
#[derive(Debug)]
struct AtHandshake {
    authorities: Arc<ClientAuthorities>,
    provider: CryptoProvider,
}

impl ClientCertVerifier for AtHandshake {
    // Never in the handshake: the platform's own paths are on this host too, and no tenant may lock its operators out.
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.authorities.hints
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.authorities.verified(end_entity, intermediates, now).map(|_| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// A chain that was shown in a handshake whose other messages its key has signed.
#[derive(Debug)]
pub struct PeerCertificate {
    tenant: TenantId,
    chain: Vec<CertificateDer<'static>>,
    judged: Mutex<Option<Judged>>,
}

/// What was last found of a chain, by whom and when.
#[derive(Debug)]
struct Judged {
    by: Arc<ClientAuthorities>,
    at: u64,
    found: Result<Machine, Refusal>,
}

impl PeerCertificate {
    /// Takes the chain of a handshake that was made under a tenant's authorities, the machine's own certificate first.
    pub fn new(tenant: TenantId, chain: Vec<CertificateDer<'static>>) -> Self {
        Self { tenant, chain, judged: Mutex::default() }
    }

    /// The tenant whose authorities were asked.
    pub fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    fn machine(&self, authorities: &Arc<ClientAuthorities>, now: UnixNanos) -> Result<Machine, Refusal> {
        let mut judged = self.judged.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh =
            |last: &&Judged| Arc::ptr_eq(&last.by, authorities) && now.seconds().abs_diff(last.at) < VERDICT_SECONDS;
        if let Some(last) = judged.as_ref().filter(fresh) {
            return last.found.clone();
        }
        let found = authorities.machine(&self.chain, now);
        *judged = Some(Judged { by: authorities.clone(), at: now.seconds(), found: found.clone() });
        found
    }
}

/// Who a machine is by the authorities its tenant has now, whatever they were at the handshake.
pub(super) fn identify(
    shown: &PeerCertificate,
    directory: &dyn Directory,
    now: UnixNanos,
) -> Result<Principal, IdentityError> {
    let authorities = directory.client_authorities(&shown.tenant).ok_or(Refusal::Certificate)?;
    let Machine { name, account, roles } = shown.machine(&authorities, now)?;
    let by = Shown::account(&shown.tenant, &account).by(directory);
    let kind = (CredentialKind::Certificate, Bound::Mtls);
    let who = Principal::machine(account, shown.tenant.clone(), roles, name, kind);
    match by {
        Some(by) => Err(IdentityError::revoked(&who, by)),
        None => Ok(who),
    }
}
