//! What functions may ask of the outside: the rules of their rules, and the values the gateway puts in for them.
//!
//! Owns which egress rules a function may declare. Must never let a value that is put in for a function be part of its
//! environment too: what the gateway adds, the function is never to hold.

use cofferdam_model::egress::{CA_BYTES, METHODS, RULES};
use cofferdam_model::secret::is_env_name;
use cofferdam_model::{EgressRule, FunctionSettings};
use zeroize::Zeroizing;

use crate::deployment::text;
use crate::error::ControlError;
use crate::snapshot::{FunctionEntry, TenantEntry};
use crate::vault::{Place, Vault};

/// Bytes of all certificate authorities of one function's rules.
const CA_BYTES_IN_ALL: usize = 128 * 1024;
/// Bytes of what stands before a credential.
const PREFIX_BYTES: usize = 64;
/// Fields that are not for a credential: they belong to the connection, or say where the request goes.
const NOT_FOR_CREDENTIALS: &[&str] = &[
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Refuses rules that could not be followed, or that would give away what they are to keep.
pub(crate) fn check_egress(settings: &FunctionSettings) -> Result<(), ControlError> {
    if settings.egress.len() > RULES {
        return Err(ControlError::TooMany { what: "egress rules", limit: RULES });
    }
    let authorities = settings.egress.iter().filter_map(|rule| rule.ca.as_ref()).map(String::len).sum::<usize>();
    if authorities > CA_BYTES_IN_ALL {
        let what = "certificate authorities of all egress rules together".to_owned();
        return Err(ControlError::TooLarge { what, bytes: authorities, limit: CA_BYTES_IN_ALL });
    }
    settings.egress.iter().try_for_each(|rule| check_rule(rule, settings))
}

fn check_rule(rule: &EgressRule, settings: &FunctionSettings) -> Result<(), ControlError> {
    let named = rule.to_string();
    let wrong = |reason: &str| Err(ControlError::invalid("egress rule", &named, reason));
    if rule.port == 0 {
        return wrong("a port is 1 to 65535");
    }
    if rule.methods.len() > METHODS.len() || rule.methods.iter().any(|method| !METHODS.contains(&method.as_str())) {
        return wrong(&format!("its methods are some of {}", METHODS.join(", ")));
    }
    if let Some(ca) = &rule.ca {
        if !rule.tls {
            return wrong("it has certificate authorities, but `tls = false`");
        }
        if ca.len() > CA_BYTES {
            let what = format!("certificate authorities of egress rule `{named}`");
            return Err(ControlError::TooLarge { what, bytes: ca.len(), limit: CA_BYTES });
        }
        if !ca.contains("-----BEGIN CERTIFICATE-----") {
            return wrong("its `ca` has no certificate in PEM");
        }
    }
    let Some(credential) = &rule.credential else { return Ok(()) };
    if !rule.tls {
        return wrong("a credential is sent over TLS only");
    }
    if rule.host.is_any() {
        return wrong("a credential is for hosts that are named, not for every host");
    }
    let header = credential.header.as_str();
    let field = header.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if header.is_empty() || header.len() > 64 || !field {
        return wrong("the credential's `header` is 1 to 64 of `a-z`, `0-9` and `-`");
    }
    let reserved = ["proxy-", "x-cofferdam-"].iter().any(|prefix| header.starts_with(prefix));
    if reserved || NOT_FOR_CREDENTIALS.contains(&header) {
        return wrong(&format!("`{header}` cannot hold a credential"));
    }
    let printable = credential.prefix.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    if credential.prefix.len() > PREFIX_BYTES || !printable {
        return wrong("the credential's `prefix` is at most 64 printable ASCII characters");
    }
    if !is_env_name(&credential.secret) {
        return wrong("the credential's `secret` is no name of a secret");
    }
    if settings.secrets.contains(&credential.secret) || settings.env.contains_key(&credential.secret) {
        return wrong(&format!(
            "the function would be given `{}` as an environment entry as well; take it out of `secrets`",
            credential.secret
        ));
    }
    Ok(())
}

/// A function's rules, and the values they put in.
pub struct Egress {
    /// Rules that can be followed: one whose secret nobody has set is left out.
    pub rules: Vec<EgressRule>,
    /// Names and values of the secrets they name.
    pub credentials: Vec<(String, Zeroizing<String>)>,
}

/// Opens what rules of a function put in.
pub(crate) fn open(
    vault: &Vault,
    tenant: &TenantEntry,
    function: &FunctionEntry,
    rules: &[EgressRule],
) -> Result<Egress, ControlError> {
    let mut egress = Egress { rules: Vec::new(), credentials: Vec::new() };
    for rule in rules {
        if let Some(credential) = &rule.credential
            && !egress.credentials.iter().any(|(name, _)| *name == credential.secret)
        {
            let Some(secret) = function.secrets.iter().find(|secret| secret.name == credential.secret) else {
                let secret = &credential.secret;
                tracing::warn!(function = %function.id, %rule, secret, "an egress rule's secret is not set");
                continue;
            };
            let place = Place::secret(&tenant.id, &function.id, &secret.name, secret.version);
            let mut opened = vault.open(&tenant.keys, place, &secret.sealed)?;
            egress.credentials.push((credential.secret.clone(), Zeroizing::new(text(&mut opened)?)));
        }
        egress.rules.push(rule.clone());
    }
    Ok(egress)
}
