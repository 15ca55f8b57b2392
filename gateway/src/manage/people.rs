//! Who belongs, with which keys and passphrases, and what of it is revoked: bodies of those calls.
//!
//! Owns the shapes of these bodies. Must never keep a passphrase in anything that is not wiped.

use cofferdam_model::{Action, ClientCa, KeyId, KeySettings, Manage, RevocationId, RevocationTarget, SecretValue};
use serde::Deserialize;

use super::{Names, asked, json};
use crate::refusal::Refusal;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Roles {
    roles: Vec<String>,
    #[serde(default)]
    issuer: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Why {
    #[serde(default)]
    reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewUser {
    roles: Vec<String>,
    #[serde(default)]
    passphrase: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rotation {
    #[serde(default)]
    forget: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewRevocation {
    target: RevocationTarget,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    expires: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewKey {
    account: String,
    roles: Vec<String>,
    #[serde(default)]
    scopes: Vec<String>,
    ttl_seconds: u64,
    #[serde(default)]
    settings: KeySettings,
}

/// Members, keys and authorities of machines, users, and the key users' tokens are signed with.
pub(super) fn operation(
    action: Action,
    names: &Names<'_>,
    query: Option<&str>,
    body: &[u8],
) -> Result<Manage, Refusal> {
    Ok(match action {
        Action::PutMember => {
            let Roles { roles, issuer } = json(body)?;
            Manage::PutMember { tenant: names.tenant()?, issuer, subject: names.text(1)?.to_owned(), roles }
        }
        Action::RemoveMember => {
            let issuer = asked::issuer(query)?;
            Manage::RemoveMember { tenant: names.tenant()?, issuer, subject: names.text(1)?.to_owned() }
        }
        Action::CreateKey => {
            let NewKey { account, roles, scopes, ttl_seconds, settings } = json(body)?;
            Manage::CreateKey { tenant: names.tenant()?, account, roles, scopes, ttl_seconds, settings }
        }
        Action::RevokeKey => Manage::RevokeKey { key: KeyId::parse(names.text(0)?).map_err(|_| Refusal::NotFound)? },
        Action::PutClientCa => {
            let ca = json::<ClientCa>(body)?;
            Manage::PutClientCa { tenant: names.tenant()?, name: names.text(1)?.to_owned(), ca }
        }
        Action::RemoveClientCa => Manage::RemoveClientCa { tenant: names.tenant()?, name: names.text(1)?.to_owned() },
        Action::PutUser => {
            let NewUser { roles, passphrase } = json(body)?;
            let passphrase = passphrase.map(|text| SecretValue::new(text.into_bytes()));
            Manage::PutUser { tenant: names.tenant()?, name: names.text(1)?.to_owned(), roles, passphrase }
        }
        Action::RemoveUser => Manage::RemoveUser { tenant: names.tenant()?, name: names.text(1)?.to_owned() },
        Action::RotateIssuerKey => Manage::RotateIssuerKey { forget: json::<Rotation>(body)?.forget },
        _ => return Err(Refusal::NotFound),
    })
}

/// The kill switch and its undoing.
pub(super) fn revoking(action: Action, names: &Names<'_>, body: &[u8]) -> Result<Manage, Refusal> {
    Ok(match action {
        Action::SuspendTenant => {
            let reason = json::<Why>(body)?.reason;
            Manage::SuspendTenant { tenant: names.tenant()?, reason }
        }
        Action::ResumeTenant => Manage::ResumeTenant { tenant: names.tenant()? },
        Action::Revoke => {
            let NewRevocation { target, reason, expires } = json(body)?;
            Manage::Revoke { tenant: names.tenant()?, target, reason, expires }
        }
        Action::Reinstate => {
            let revocation = RevocationId::parse(names.text(0)?).map_err(|_| Refusal::NotFound)?;
            let gives = names.snapshot.revived(&revocation).ok_or(Refusal::NotFound)?;
            Manage::Reinstate { revocation, gives }
        }
        _ => return Err(Refusal::NotFound),
    })
}
