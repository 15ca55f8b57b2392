//! What a cell is given besides code: limits, environment and secrets.
//!
//! Owns the rules of a function's settings and the way of a secret in (sealed at once) and out (opened for one
//! hand-over). Must never answer a secret's value to anyone but the hand-over.

use cofferdam_model::secret::is_env_name;
use cofferdam_model::{Env, FunctionLimits, FunctionSettings, Recycle, SecretValue};
use serde_json::{Value, json};
use zeroize::{Zeroize, Zeroizing};

use crate::apply::Change;
use crate::egress::check_egress;
use crate::error::ControlError;
use crate::snapshot::{FunctionEntry, TenantEntry};
use crate::store::SecretRow;
use crate::tenant::Done;
use crate::vault::{Place, TAG_BYTES, Vault};
use cofferdam_model::operation::FunctionRef;

/// Secrets of one function.
const SECRETS: usize = 64;
/// Bytes of one environment value, secret or not.
const VALUE_BYTES: usize = 32 * 1024;
/// Plain environment entries of one function.
const ENTRIES: usize = 256;
/// Bytes of a whole environment: it has to fit the one frame of a hand-over, which is 64 KiB.
const ENV_BYTES: usize = 48 * 1024;
/// What an entry costs besides its name and value.
const ENTRY_OVERHEAD: usize = 4;

impl Change<'_> {
    pub(crate) fn put_secret(&mut self, function: &FunctionRef, name: &str, value: &SecretValue) -> Done {
        check_env_name("secret", name)?;
        check_secret(name, value)?;
        let state = self.state(&function.id.tenant())?;
        self.check_keys(&state.tenant.id, &state.keys)?;
        let mut row = self.function(&state, function)?.0;
        if row.settings.env.contains_key(name) {
            return Err(ControlError::invalid("secret", name, "the function has a plain `env` entry of that name"));
        }
        let others: Vec<_> = state.secrets.iter().filter(|s| s.function == row.id && s.name != name).collect();
        if others.len() >= SECRETS {
            return Err(ControlError::TooMany { what: "secrets", limit: SECRETS });
        }
        let sealed = others.iter().map(|secret| sealed_bytes(secret)).sum::<usize>();
        let own = entry_bytes(name.len(), value.expose().len());
        check_env_bytes(&function.name, plain_bytes(&row.settings) + sealed + own)?;

        row.generation += 1;
        // The function's generation never goes back, so a version is never used twice for one name.
        let version = row.generation;
        let place = Place::secret(&state.tenant.id, &row.id, name, version);
        let sealed = self.means.vault.seal(&state.keys, place, value, self.means.random)?;
        let injected = row.settings.egress.iter().filter_map(|rule| rule.credential.as_ref());
        let mut declared = row.settings.secrets.iter().chain(injected.map(|credential| &credential.secret));
        let declared = declared.any(|secret| secret == name);
        self.tx.put_function(&row)?;
        let replaced = state.secrets.iter().find(|secret| secret.function == row.id && secret.name == name);
        if let Some(replaced) = replaced {
            self.keep_earlier(replaced)?;
        }
        let (function, told, name) = (row.id.clone(), name, name.to_owned());
        let epoch = replaced.map_or(0, |replaced| replaced.epoch);
        self.tx.put_secret(&SecretRow { function, name, version, sealed, updated: self.means.now, epoch })?;
        Ok(json!({ "function": row.name, "name": told, "version": version, "declared": declared }))
    }

    pub(crate) fn remove_secret(&mut self, function: &FunctionRef, name: &str) -> Done {
        let state = self.state(&function.id.tenant())?;
        let mut row = self.function(&state, function)?.0;
        if !self.tx.remove_secret(&row.id, name)? {
            return Err(ControlError::not_found("secret", name));
        }
        row.generation += 1;
        self.tx.put_function(&row)?;
        Ok(json!({ "function": row.name, "name": name, "removed": true }))
    }
}

/// Names and ages of a function's secrets; those that are declared and not set have no version.
pub(crate) fn list_secrets(function: &FunctionEntry) -> Value {
    let injected = function.settings.egress.iter().filter_map(|rule| rule.credential.as_ref());
    let mut declared = function.settings.secrets.clone();
    declared.extend(injected.map(|credential| credential.secret.clone()));
    declared.dedup();
    let set = function.secrets.iter().map(|secret| {
        json!({
            "name": secret.name,
            "version": secret.version,
            "updated": secret.updated.to_string(),
            "declared": declared.contains(&secret.name),
        })
    });
    let unset = declared
        .iter()
        .filter(|name| !function.secrets.iter().any(|secret| secret.name == **name))
        .map(|name| json!({ "name": name, "version": null, "updated": null, "declared": true }));
    json!({ "function": &*function.name, "secrets": set.chain(unset).collect::<Vec<_>>() })
}

/// A secret of a function.
pub(crate) fn secret_of<'a>(function: &'a FunctionEntry, name: &str) -> Option<&'a SecretRow> {
    function.secrets.iter().find(|secret| secret.name == name)
}

/// The environment of a function's cell in plaintext: plain entries, and the secrets its settings name.
pub(crate) fn unseal(vault: &Vault, tenant: &TenantEntry, function: &FunctionEntry) -> Result<Env, ControlError> {
    let mut env = Env::new();
    for (name, value) in &function.settings.env {
        env.push(name.clone(), value.clone());
    }
    for name in &function.settings.secrets {
        // One that nobody has set yet is not there, as any entry that is not: what that means is the function's to say.
        let Some(secret) = function.secrets.iter().find(|secret| secret.name == *name) else { continue };
        let place = Place::secret(&tenant.id, &function.id, name, secret.version);
        let mut opened = vault.open(&tenant.keys, place, &secret.sealed)?;
        env.push(name.clone(), text(&mut opened)?);
    }
    Ok(env)
}

/// Moves plaintext on as text without leaving a copy behind.
pub(crate) fn text(opened: &mut Zeroizing<Vec<u8>>) -> Result<String, ControlError> {
    String::from_utf8(std::mem::take(&mut **opened)).map_err(|error| {
        error.into_bytes().zeroize();
        ControlError::Damaged { what: "a secret is not text".into() }
    })
}

/// Refuses settings that no installation would take, whatever its ceiling. The command line asks before it sends.
pub fn check_settings_alone(function: &str, settings: &FunctionSettings) -> Result<(), ControlError> {
    check_settings(function, settings, &settings.limits, &[])
}

/// Refuses settings no cell could be given. `secrets` are those of the function that are already set.
pub(crate) fn check_settings(
    function: &str,
    settings: &FunctionSettings,
    ceiling: &FunctionLimits,
    secrets: &[&SecretRow],
) -> Result<(), ControlError> {
    check_limits(&settings.limits, ceiling)?;
    check_recycle(&settings.recycle)?;
    if settings.env.len() > ENTRIES {
        return Err(ControlError::TooMany { what: "env entries", limit: ENTRIES });
    }
    for (name, value) in &settings.env {
        check_env_name("env entry", name)?;
        if value.len() > VALUE_BYTES {
            let what = format!("env entry `{name}`");
            return Err(ControlError::TooLarge { what, bytes: value.len(), limit: VALUE_BYTES });
        }
        if value.contains('\0') {
            return Err(ControlError::invalid("env entry", name, "its value has a NUL byte"));
        }
        if secrets.iter().any(|secret| secret.name == *name) {
            return Err(ControlError::invalid("env entry", name, "the function has a secret of that name"));
        }
    }
    if settings.secrets.len() > SECRETS {
        return Err(ControlError::TooMany { what: "secrets", limit: SECRETS });
    }
    for (at, name) in settings.secrets.iter().enumerate() {
        check_env_name("secret", name)?;
        if settings.env.contains_key(name) {
            return Err(ControlError::invalid(
                "secret",
                name,
                "it is a plain `env` entry as well; keep one of the two",
            ));
        }
        if settings.secrets.iter().take(at).any(|earlier| earlier == name) {
            return Err(ControlError::invalid("secret", name, "it is listed twice"));
        }
    }
    check_egress(settings)?;
    let sealed = secrets.iter().map(|secret| sealed_bytes(secret)).sum::<usize>();
    check_env_bytes(function, plain_bytes(settings) + sealed)
}

fn check_limits(limits: &FunctionLimits, ceiling: &FunctionLimits) -> Result<(), ControlError> {
    let each = [
        ("memory_bytes", limits.memory_bytes, ceiling.memory_bytes, 64 * 1024),
        ("cpu_ms", limits.cpu_ms, ceiling.cpu_ms, 1),
        ("wall_ms", limits.wall_ms, ceiling.wall_ms, 1),
        ("concurrency", limits.concurrency.into(), ceiling.concurrency.into(), 1),
        ("request_bytes", limits.request_bytes, ceiling.request_bytes, 0),
        ("response_bytes", limits.response_bytes, ceiling.response_bytes, 0),
        ("response_header_bytes", limits.response_header_bytes.into(), ceiling.response_header_bytes.into(), 256),
        ("log_bytes", limits.log_bytes, ceiling.log_bytes, 0),
        ("cells", limits.cells.into(), ceiling.cells.into(), 1),
        ("egress_calls", limits.egress_calls.into(), ceiling.egress_calls.into(), 0),
        ("egress_bytes", limits.egress_bytes, ceiling.egress_bytes, 0),
    ];
    for (limit, asked, ceiling, floor) in each {
        if asked > ceiling {
            return Err(ControlError::AboveCeiling { limit, asked, ceiling });
        }
        if asked < floor {
            let reason = format!("at least {floor} is needed");
            return Err(ControlError::invalid(format!("limit `{limit}`"), &asked.to_string(), reason));
        }
    }
    Ok(())
}

/// Memory a cell may be said to be too large at.
const RECYCLE_BYTES: std::ops::RangeInclusive<u64> = 1024 * 1024..=64 * 1024 * 1024 * 1024;

fn check_recycle(recycle: &Recycle) -> Result<(), ControlError> {
    let each = [
        ("after_calls", recycle.after_calls, 1_000_000),
        ("after_seconds", recycle.after_seconds, 24 * 60 * 60),
        ("idle_seconds", recycle.idle_seconds, 60 * 60),
    ];
    for (field, given, most) in each {
        if !(1..=most).contains(&given) {
            let reason = format!("1 to {most} is expected");
            return Err(ControlError::invalid(format!("recycle `{field}`"), &given.to_string(), reason));
        }
    }
    let bytes = recycle.memory_bytes;
    if bytes != 0 && !RECYCLE_BYTES.contains(&bytes) {
        let reason = format!("{} to {} is expected, or 0", RECYCLE_BYTES.start(), RECYCLE_BYTES.end());
        return Err(ControlError::invalid("recycle `memory_bytes`", &bytes.to_string(), reason));
    }
    Ok(())
}

fn check_secret(name: &str, value: &SecretValue) -> Result<(), ControlError> {
    let bytes = value.expose();
    if bytes.len() > VALUE_BYTES {
        let what = format!("secret `{name}`");
        return Err(ControlError::TooLarge { what, bytes: bytes.len(), limit: VALUE_BYTES });
    }
    if std::str::from_utf8(bytes).is_err() || bytes.contains(&0) {
        let reason = "its value must be UTF-8 text without NUL bytes, for it becomes an environment entry";
        return Err(ControlError::invalid("secret", name, reason));
    }
    Ok(())
}

fn check_env_name(field: &str, name: &str) -> Result<(), ControlError> {
    if is_env_name(name) {
        return Ok(());
    }
    let reason = "an environment name is 1 to 64 of `A-Z`, `a-z`, `0-9` and `_`, and does not begin with a digit";
    Err(ControlError::invalid(field, name, reason))
}

fn check_env_bytes(function: &str, bytes: usize) -> Result<(), ControlError> {
    if bytes <= ENV_BYTES {
        return Ok(());
    }
    let what = format!("environment of function `{function}` with its secrets");
    Err(ControlError::TooLarge { what, bytes, limit: ENV_BYTES })
}

fn entry_bytes(name: usize, value: usize) -> usize {
    name + value + ENTRY_OVERHEAD
}

fn plain_bytes(settings: &FunctionSettings) -> usize {
    settings.env.iter().map(|(name, value)| entry_bytes(name.len(), value.len())).sum()
}

fn sealed_bytes(secret: &SecretRow) -> usize {
    entry_bytes(secret.name.len(), secret.sealed.ciphertext.len().saturating_sub(TAG_BYTES))
}
