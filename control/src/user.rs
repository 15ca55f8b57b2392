//! Users of the node's own issuer.
//!
//! Owns the rules of their names, roles and passphrases. Must never keep a passphrase, only what recognises it, and
//! never leave a session alive that a change of it should have ended.

use cofferdam_authz::passphrase::{self, PASSPHRASE_BYTES};
use cofferdam_model::{SecretValue, TenantId};
use serde_json::{Value, json};

use crate::apply::Change;
use crate::error::ControlError;
use crate::store::UserRow;
use crate::tenant::{Done, check_roles};

/// Most users of a tenant.
const USERS: usize = 1_000;
const NAME_BYTES: usize = 128;

impl Change<'_> {
    pub(crate) fn put_user(
        &mut self,
        tenant: &TenantId,
        name: &str,
        roles: &[String],
        passphrase: Option<&SecretValue>,
    ) -> Done {
        let issuer = self.own_issuer()?;
        check_name(name)?;
        check_roles(tenant, roles)?;
        let users = self.state(tenant)?.users;
        let known = users.iter().find(|user| user.name == name);
        if known.is_none() && users.len() >= USERS {
            return Err(ControlError::TooMany { what: "users", limit: USERS });
        }
        let now = self.means.now;
        let (hash, changed) = match (passphrase, known) {
            (Some(passphrase), _) => (self.hashed(passphrase)?, now),
            (None, Some(user)) => (user.passphrase.clone(), user.changed),
            (None, None) => {
                return Err(ControlError::invalid("passphrase", "", "a new user needs one"));
            }
        };
        let created = known.map_or(now, |user| user.created);
        let row = UserRow { name: name.to_owned(), roles: roles.to_vec(), passphrase: hash, created, changed };
        self.tx.put_user(tenant, &row)?;
        // Whoever knew the old passphrase is logged out with it.
        if passphrase.is_some() && known.is_some() {
            self.end_sessions(tenant, &issuer, name, "the passphrase was changed")?;
        }
        let mut answer = describe(&row);
        if let Value::Object(fields) = &mut answer {
            fields.insert("made".into(), known.is_none().into());
        }
        Ok(answer)
    }

    pub(crate) fn remove_user(&mut self, tenant: &TenantId, name: &str) -> Done {
        if !self.tx.remove_user(tenant, name)? {
            return Err(ControlError::not_found("user", name));
        }
        // Somebody else may be given the name: not with the sessions of the one before.
        if let Ok(issuer) = self.own_issuer() {
            self.end_sessions(tenant, &issuer, name, "the user was removed")?;
        }
        Ok(json!({ "tenant": tenant, "name": name, "removed": true }))
    }

    fn own_issuer(&self) -> Result<String, ControlError> {
        let name = self.means.issuer.map(str::to_owned);
        name.ok_or_else(|| ControlError::invalid("user", "", "this node has no issuer of its own: see `[users]`"))
    }

    fn hashed(&self, passphrase: &SecretValue) -> Result<String, ControlError> {
        let refused = |reason: &str| Err(ControlError::invalid("passphrase", "", reason));
        let bytes = passphrase.expose();
        if !PASSPHRASE_BYTES.contains(&bytes.len()) {
            return refused("12 to 1024 bytes are expected");
        }
        if std::str::from_utf8(bytes).is_err() || bytes.iter().any(|byte| byte.is_ascii_control()) {
            return refused("text without control characters is expected");
        }
        match passphrase::hash(bytes, self.means.passphrases, self.means.random) {
            Some(hash) => Ok(hash),
            None => refused("it could not be hashed"),
        }
    }
}

/// A user as callers see it.
pub(crate) fn describe(user: &UserRow) -> Value {
    json!({
        "name": user.name,
        "roles": user.roles,
        "created": user.created.to_string(),
        "passphrase_set": user.changed.to_string(),
    })
}

fn check_name(name: &str) -> Result<(), ControlError> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._@+-".contains(&byte);
    let begins = name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    if begins && name.len() <= NAME_BYTES && name.bytes().all(plain) {
        return Ok(());
    }
    let reason = "a user's name is 1 to 128 of `a-z`, `0-9` and `._@+-`, and begins with a letter or digit";
    Err(ControlError::invalid("user", name, reason))
}
