//! Who the other side has to be: TLS towards the outside.
//!
//! Owns one client configuration per set of authorities and outlet, so that no session is resumed by another cell.
//! Must never take a certificate that does not verify, whatever a rule says.

use std::sync::{Arc, LazyLock};

use cofferdam_model::egress::CA_BYTES;
use cofferdam_model::{EgressRule, TlsVersion};
use rustls::{ClientConfig, ProtocolVersion, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tokio_rustls::TlsConnector;

use super::error::EgressSetupError;
use crate::tls;

/// The authorities that browsers believe, read once.
static PUBLIC: LazyLock<Arc<RootCertStore>> =
    LazyLock::new(|| Arc::new(RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() }));

/// The authorities of one outlet's rules.
pub(super) struct Trusts(Vec<Trusted>);

struct Trusted {
    /// PEM; none for the public ones.
    ca: Option<String>,
    connector: TlsConnector,
}

/// Which of an outlet's sets of authorities vouches for a connection; none for one without TLS.
pub(super) type TrustId = Option<usize>;

impl Trusts {
    pub(super) fn new(rules: &[EgressRule]) -> Result<Self, EgressSetupError> {
        let mut all = Vec::<Trusted>::new();
        for rule in rules {
            if !rule.tls && rule.ca.is_some() {
                return Err(EgressSetupError::rule(rule, "a `ca` is of no use without TLS; take one of the two out"));
            }
            if rule.tls && !all.iter().any(|known| known.ca == rule.ca) {
                let roots = match &rule.ca {
                    Some(pem) => Arc::new(authorities(rule, pem)?),
                    None => PUBLIC.clone(),
                };
                all.push(Trusted { ca: rule.ca.clone(), connector: connector(roots)? });
            }
        }
        Ok(Self(all))
    }

    /// Whom a rule trusts.
    pub(super) fn of(&self, rule: &EgressRule) -> TrustId {
        if rule.tls { self.0.iter().position(|known| known.ca == rule.ca) } else { None }
    }

    pub(super) fn connector(&self, id: usize) -> Option<&TlsConnector> {
        self.0.get(id).map(|trusted| &trusted.connector)
    }
}

fn authorities(rule: &EgressRule, pem: &str) -> Result<RootCertStore, EgressSetupError> {
    if pem.len() > CA_BYTES {
        return Err(EgressSetupError::rule(rule, format!("its `ca` has more than {CA_BYTES} bytes")));
    }
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let bad = |why: String| EgressSetupError::rule(rule, format!("its `ca` cannot be read: {why}"));
        store.add(certificate.map_err(|e| bad(e.to_string()))?).map_err(|e| bad(e.to_string()))?;
    }
    if store.is_empty() {
        return Err(EgressSetupError::rule(rule, "its `ca` holds no certificate; give PEM, or leave it out"));
    }
    Ok(store)
}

fn connector(roots: Arc<RootCertStore>) -> Result<TlsConnector, EgressSetupError> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(tls::provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|error| EgressSetupError::Tls(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// The version agreed on.
pub(super) fn version(session: &rustls::ClientConnection) -> Option<TlsVersion> {
    match session.protocol_version() {
        Some(ProtocolVersion::TLSv1_3) => Some(TlsVersion::Tls13),
        Some(ProtocolVersion::TLSv1_2) => Some(TlsVersion::Tls12),
        _ => None,
    }
}
