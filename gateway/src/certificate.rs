//! The certificate a node shows.
//!
//! Owns reading one from PEM files, and making a self-signed one so that a new installation speaks TLS from its first
//! minute. Must never write a key that anyone but its owner may read, and never log one.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::Duration;

use cofferdam_model::Clock;
use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::error::GatewayError;
use crate::tls;

/// 398 days is the most that clients accept of a server.
const VALID: Duration = Duration::from_secs(397 * 24 * 3600);
/// Clocks differ.
const EARLY: Duration = Duration::from_secs(3600);

/// Reads a chain and its key, and checks that they belong together.
pub fn load(certificate: &Path, key: &Path) -> Result<CertifiedKey, GatewayError> {
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        move |source| GatewayError::Pem { path, source }
    };
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect).map_err(unreadable(certificate))?;
    if chain.is_empty() {
        return Err(unreadable(certificate)(rustls_pki_types::pem::Error::NoItemsFound));
    }
    let mode = fs::metadata(key).map_err(|source| GatewayError::File { path: key.to_owned(), source })?;
    if mode.permissions().mode() & 0o007 != 0 {
        return Err(GatewayError::KeyReadable { path: key.to_owned() });
    }
    let key_der = PrivateKeyDer::from_pem_file(key).map_err(unreadable(key))?;
    CertifiedKey::from_der(chain, key_der, &tls::provider())
        .map_err(|source| GatewayError::Certificate { path: certificate.to_owned(), source })
}

/// Makes a self-signed certificate for this machine and `names`, and writes it and its key. Never overwrites.
pub fn create(certificate: &Path, key: &Path, names: &[String], clock: &dyn Clock) -> Result<(), GatewayError> {
    let made = self_signed(names, clock.now().seconds()).map_err(|source| GatewayError::SelfSigned { source })?;
    write_new(key, made.key.as_bytes(), 0o600)?;
    write_new(certificate, made.certificate.as_bytes(), 0o644)
}

struct Made {
    certificate: String,
    key: zeroize::Zeroizing<String>,
}

fn self_signed(names: &[String], now: u64) -> Result<Made, rcgen::Error> {
    let mut all: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
    all.extend(names.iter().filter(|name| !["localhost", "127.0.0.1", "::1"].contains(&name.as_str())).cloned());
    let mut params = CertificateParams::new(all)?;
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + Duration::from_secs(now).saturating_sub(EARLY);
    params.not_after = epoch + Duration::from_secs(now).saturating_add(VALID).saturating_sub(EARLY);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "cofferdam self-signed");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let certificate = params.self_signed(&key)?;
    Ok(Made { certificate: certificate.pem(), key: zeroize::Zeroizing::new(key.serialize_pem()) })
}

fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), GatewayError> {
    let failed = |source| GatewayError::File { path: path.to_owned(), source };
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(failed)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cofferdam_model::SystemClock;

    #[test]
    fn a_made_certificate_loads_and_its_key_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let (certificate, key) = (dir.path().join("c.pem"), dir.path().join("k.pem"));
        create(&certificate, &key, &["node.example".into()], &SystemClock::default()).unwrap();
        assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(load(&certificate, &key).unwrap().cert.len(), 1);
        let again = create(&certificate, &key, &[], &SystemClock::default());
        assert!(matches!(again, Err(GatewayError::File { .. })));
    }

    #[test]
    fn a_key_of_another_certificate_or_open_to_all_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        create(&at("a.pem"), &at("a.key"), &[], &SystemClock::default()).unwrap();
        create(&at("b.pem"), &at("b.key"), &[], &SystemClock::default()).unwrap();
        assert!(matches!(load(&at("a.pem"), &at("b.key")), Err(GatewayError::Certificate { .. })));
        assert!(matches!(load(&at("a.key"), &at("a.key")), Err(GatewayError::Pem { .. })));
        fs::set_permissions(at("a.key"), fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(load(&at("a.pem"), &at("a.key")), Err(GatewayError::KeyReadable { .. })));
        assert!(matches!(load(&at("none"), &at("b.key")), Err(GatewayError::Pem { .. })));
    }
}
