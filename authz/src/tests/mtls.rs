//! Certificates of machines: the genuine one, and every one that is not.

use std::sync::Arc;

use cofferdam_model::clock::ManualClock;
use cofferdam_model::{Bound, ClientAccount, ClientCa, CredentialKind, TenantId};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer, KeyIdMethod, KeyPair,
    KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use rustls::pki_types::CertificateDer;

use super::{Scripted, World, clock, pepper};
use crate::RevokedBy;
use crate::identity::Identities;
use crate::{AuthorityError, ClientAuthorities, IdentityError, PeerCertificate, Principal, Refusal};

const PAY: &str = "spiffe://acme.example/pay";

/// An authority with its key.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, name);
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2040, 1, 1));
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A certificate, changed as the test wants it.
    fn names(&self, uris: &[&str], change: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.subject_alt_names = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
        params.serial_number = Some(SerialNumber::from(7u64));
        (params.not_before, params.not_after) = (date_time_ymd(2026, 1, 1), date_time_ymd(2027, 1, 1));
        change(&mut params);
        params.signed_by(&KeyPair::generate().unwrap(), &self.issuer).unwrap().der().clone()
    }

    /// A list of revoked serials, the next of which is due in a year.
    fn revokes(&self, serials: &[u64], next: i32) -> String {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2026, 6, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2025, 6, 1),
            next_update: date_time_ymd(next, 6, 1),
            crl_number: SerialNumber::from(1u64),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap().pem().unwrap()
    }

    fn declared(&self, machines: &[&str]) -> ClientCa {
        let account = |machine: &&str| ClientAccount {
            machine: (*machine).to_owned(),
            account: "pay".into(),
            roles: vec!["invoker".into()],
        };
        ClientCa {
            certificates: self.pem.clone(),
            accounts: machines.iter().map(account).collect(),
            ..ClientCa::default()
        }
    }
}

struct Scene {
    world: World,
    clock: Arc<ManualClock>,
    identities: Identities,
}

impl Scene {
    fn new() -> Self {
        let clock = clock();
        let identities = Identities::new(vec![], pepper(), Scripted::down(), clock.clone()).unwrap();
        Self { world: World::new(), clock, identities }
    }

    fn trust(&self, tenant: &TenantId, cas: &[(&str, &ClientCa)]) {
        let read = Arc::new(ClientAuthorities::read(cas).unwrap());
        self.world.authorities.lock().unwrap().insert(tenant.clone(), read);
    }

    fn peer(&self, chain: &[&CertificateDer<'static>]) -> PeerCertificate {
        PeerCertificate::new(self.world.acme.clone(), chain.iter().map(|one| (*one).clone()).collect())
    }

    fn who(&self, peer: &PeerCertificate) -> Result<Principal, Refusal> {
        self.identities.identify_machine(peer, &self.world).map_err(|error| match error {
            IdentityError::Refused(refusal) => refusal,
            IdentityError::Revoked { by: RevokedBy::Tenant, .. } => Refusal::Tenant,
            IdentityError::Revoked { .. } => Refusal::Revoked,
            other => panic!("{other}"),
        })
    }

    fn shows(&self, certificate: &CertificateDer<'static>) -> Result<Principal, Refusal> {
        self.who(&self.peer(&[certificate]))
    }
}

#[test]
fn a_machine_is_the_account_its_authority_gives_it() {
    let (scene, ca) = (Scene::new(), Authority::new("Acme"));
    scene.trust(&scene.world.acme, &[("corp", &ca.declared(&[PAY, "CN=old pay,O=Acme"]))]);
    let pay = scene.shows(&ca.names(&[PAY], |_| {})).unwrap();
    assert_eq!((pay.id(), pay.bound(), pay.credential()), ("pay", Bound::Mtls, CredentialKind::Certificate));
    assert_eq!((pay.tenant(), pay.certificate()), (Some(&scene.world.acme), Some(PAY)));
    assert_eq!(pay.roles(), ["invoker"]);
    let subject = |params: &mut CertificateParams| {
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Acme");
        params.distinguished_name.push(DnType::CommonName, "old pay");
    };
    assert_eq!(scene.shows(&ca.names(&[], subject)).unwrap().certificate(), Some("CN=old pay,O=Acme"));
    // A subject is no name where there is a SPIFFE ID, and two of those are none.
    assert_eq!(scene.shows(&ca.names(&["spiffe://acme.example/x"], subject)).unwrap_err(), Refusal::UnknownMachine);
    let two = ca.names(&[PAY, "spiffe://acme.example/x"], |_| {});
    assert_eq!(scene.shows(&two).unwrap_err(), Refusal::UnknownMachine);
    let mixed = ca.names(&["https://acme.example", PAY], |_| {});
    assert_eq!(scene.shows(&mixed).unwrap_err(), Refusal::UnknownMachine);
}

#[test]
fn certificates_of_others_expired_ones_and_authorities_themselves_are_refused() {
    let (scene, ca, other) = (Scene::new(), Authority::new("Acme"), Authority::new("Acme"));
    scene.trust(&scene.world.acme, &[("corp", &ca.declared(&[PAY]))]);
    scene.trust(&scene.world.other, &[("corp", &other.declared(&[PAY]))]);
    // Of the same name, by the authority of another tenant.
    assert_eq!(scene.shows(&other.names(&[PAY], |_| {})).unwrap_err(), Refusal::Certificate);
    let expired = ca.names(&[PAY], |params| params.not_after = date_time_ymd(2026, 11, 20));
    assert_eq!(scene.shows(&expired).unwrap_err(), Refusal::Expired);
    let early = ca.names(&[PAY], |params| params.not_before = date_time_ymd(2026, 11, 21));
    assert_eq!(scene.shows(&early).unwrap_err(), Refusal::Certificate);
    let authority = ca.names(&[PAY], |params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    assert_eq!(scene.shows(&authority).unwrap_err(), Refusal::Certificate);
    let server = ca.names(&[PAY], |params| {
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    });
    assert_eq!(scene.shows(&server).unwrap_err(), Refusal::Certificate);
    scene.trust(&scene.world.suspended, &[("corp", &ca.declared(&[PAY]))]);
    let nobody = PeerCertificate::new(scene.world.suspended.clone(), vec![ca.names(&[PAY], |_| {})]);
    assert_eq!(scene.who(&nobody).unwrap_err(), Refusal::Tenant);
    assert_eq!(scene.who(&scene.peer(&[])).unwrap_err(), Refusal::Certificate);
    let one = ca.names(&[PAY], |_| {});
    assert_eq!(scene.who(&scene.peer(&[&one; 9])).unwrap_err(), Refusal::Certificate);
}

#[test]
fn one_authority_does_not_name_the_machines_of_another() {
    let (scene, ca, other) = (Scene::new(), Authority::new("Acme"), Authority::new("Partner"));
    let (own, partner) = (ca.declared(&[PAY]), other.declared(&["spiffe://partner.example/x"]));
    scene.trust(&scene.world.acme, &[("corp", &own), ("partner", &partner)]);
    assert!(scene.shows(&ca.names(&[PAY], |_| {})).is_ok());
    assert!(scene.shows(&other.names(&["spiffe://partner.example/x"], |_| {})).is_ok());
    assert_eq!(scene.shows(&other.names(&[PAY], |_| {})).unwrap_err(), Refusal::UnknownMachine);
}

#[test]
fn a_connection_outlives_neither_its_certificate_nor_its_revocation_nor_its_authority() {
    let (scene, ca) = (Scene::new(), Authority::new("Acme"));
    let trusted = ca.declared(&[PAY]);
    scene.trust(&scene.world.acme, &[("corp", &trusted)]);
    let peer = scene.peer(&[&ca.names(&[PAY], |params| params.not_after = date_time_ymd(2026, 11, 21))]);
    assert!(scene.who(&peer).is_ok());
    // Another certificate revoked: this one stays good. Then this one.
    let revoking = |serial| ClientCa { crls: ca.revokes(&[serial], 2027), ..trusted.clone() };
    scene.trust(&scene.world.acme, &[("corp", &revoking(8))]);
    assert!(scene.who(&peer).is_ok());
    scene.trust(&scene.world.acme, &[("corp", &revoking(7))]);
    assert_eq!(scene.who(&peer).unwrap_err(), Refusal::Revoked);
    scene.trust(&scene.world.acme, &[("corp", &trusted)]);
    assert!(scene.who(&peer).is_ok());
    scene.clock.advance(std::time::Duration::from_secs(14 * 3600));
    assert_eq!(scene.who(&peer).unwrap_err(), Refusal::Expired);
    scene.world.authorities.lock().unwrap().clear();
    assert_eq!(scene.who(&peer).unwrap_err(), Refusal::Certificate);
}

#[test]
fn lists_of_revoked_certificates_that_are_outdated_or_of_others_deny() {
    let (scene, ca, other) = (Scene::new(), Authority::new("Acme"), Authority::new("Other"));
    let peer = scene.peer(&[&ca.names(&[PAY], |_| {})]);
    let with = |crls: String| {
        scene.trust(&scene.world.acme, &[("corp", &ClientCa { crls, ..ca.declared(&[PAY]) })]);
        scene.who(&peer).map(drop)
    };
    assert_eq!(with(ca.revokes(&[], 2027)), Ok(()));
    assert_eq!(with(ca.revokes(&[], 2026)), Err(Refusal::Certificate));
    assert_eq!(with(other.revokes(&[], 2027)), Err(Refusal::Certificate));
}

#[test]
fn authorities_that_make_no_sense_are_refused_with_a_remedy() {
    let (ca, other) = (Authority::new("Acme"), Authority::new("Other"));
    let good = ca.declared(&[PAY]);
    let said = |change: &dyn Fn(&mut ClientCa)| {
        let mut bad = good.clone();
        change(&mut bad);
        ClientAuthorities::read(&[("corp", &bad)]).unwrap_err().to_string()
    };
    let leaf = ca.names(&[PAY], |_| {});
    let leaf = rcgen_pem(&leaf);
    for (told, expected) in [
        (said(&|ca| ca.certificates.clear()), "there is no certificate"),
        (said(&|ca| ca.certificates = "nonsense".into()), "hold something else"),
        (said(&|it| it.certificates.push_str(&other.issuer.key().serialize_pem())), "hold something else"),
        (said(&|ca| ca.certificates = leaf.clone()), "is no authority's"),
        (said(&|ca| ca.certificates = "-----BEGIN CERTIFICATE-----\nAA".into()), "not PEM"),
        (said(&|ca| ca.certificates = ca.certificates.repeat(17)), "at most 16"),
        (said(&|ca| ca.certificates = " ".repeat(65 * 1024)), "longer than"),
        (said(&|ca| ca.crls = ca.certificates.clone()), "hold something else"),
        (said(&|ca| ca.crls = "-----BEGIN X509 CRL-----\nMAAA\n-----END X509 CRL-----\n".into()), "cannot be used"),
        (said(&|ca| ca.accounts.push(ca.accounts[0].clone())), "listed twice"),
        (said(&|ca| ca.accounts[0].machine.clear()), "names no machine"),
        (said(&|ca| ca.certificates = ca.certificates.repeat(2)), "name an authority once"),
    ] {
        assert!(told.starts_with("authority `corp`: ") && told.contains(expected), "{told}");
    }
    let twice: Result<_, AuthorityError> = ClientAuthorities::read(&[("corp", &good), ("again", &good)]);
    assert!(twice.unwrap_err().to_string().contains("`corp`'s too"));
    assert!(!ClientAuthorities::read(&[("corp", &good)]).unwrap().required());
}

fn rcgen_pem(der: &CertificateDer<'_>) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
}
