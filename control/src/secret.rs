//! A secret's values one after the other: replaced, gone back to, taken out of use.
//!
//! Owns how many earlier values are kept and from which on they may be gone back to. Must never answer with a value.

use cofferdam_model::SecretValue;
use cofferdam_model::operation::FunctionRef;
use serde_json::{Value, json};

use crate::apply::Change;
use crate::error::ControlError;
use crate::snapshot::Snapshot;
use crate::store::{SecretRow, TenantState};
use crate::tenant::Done;
use crate::{Control, deployment};

/// Earlier values kept of one secret.
const EARLIER: usize = 10;

impl Change<'_> {
    /// Replaces the value of a secret that is there.
    pub(crate) fn rotate_secret(
        &mut self,
        function: &FunctionRef,
        name: &str,
        value: &SecretValue,
        revoke_older: bool,
    ) -> Done {
        let state = self.state(&function.id.tenant())?;
        current(&state, function, name)?;
        let mut answer = self.put_secret(function, name, value)?;
        let mut row = current(&self.state(&function.id.tenant())?, function, name)?;
        if revoke_older {
            row.epoch = row.version;
            let revoked = self.tx.forget_secrets(&row.function, name, row.version)?;
            self.tx.put_secret(&row)?;
            tell(&mut answer, "revoked", revoked.into());
        }
        tell(&mut answer, "epoch", row.epoch.into());
        Ok(answer)
    }

    /// Keeps what is about to be replaced, and forgets the oldest where there are too many.
    pub(crate) fn keep_earlier(&mut self, replaced: &SecretRow) -> Result<(), ControlError> {
        self.tx.keep_secret(replaced)?;
        for old in self.tx.secret_history(&replaced.function, &replaced.name)?.iter().skip(EARLIER) {
            self.tx.forget_secret(&old.function, &old.name, old.version)?;
        }
        Ok(())
    }

    /// Makes an earlier value the current one again. It is not opened for that.
    pub(crate) fn rollback_secret(&mut self, function: &FunctionRef, name: &str, version: u64) -> Done {
        let state = self.state(&function.id.tenant())?;
        let now = current(&state, function, name)?;
        if version < now.epoch {
            return Err(ControlError::BelowEpoch { name: name.to_owned(), version, epoch: now.epoch });
        }
        if version == now.version {
            return Err(ControlError::invalid("version", &version.to_string(), "it is the current one"));
        }
        let earlier = self.tx.secret_history(&now.function, name)?;
        let Some(mut wanted) = earlier.into_iter().find(|row| row.version == version) else {
            return Err(ControlError::not_found("version", version.to_string()));
        };
        self.tx.forget_secret(&now.function, name, version)?;
        self.keep_earlier(&now)?;
        wanted.epoch = now.epoch;
        wanted.updated = self.means.now;
        self.tx.put_secret(&wanted)?;
        let mut row = self.function(&state, function)?.0;
        row.generation += 1;
        self.tx.put_function(&row)?;
        Ok(json!({ "function": row.name, "name": name, "version": version, "replaced": now.version }))
    }
}

fn current(state: &TenantState, function: &FunctionRef, name: &str) -> Result<SecretRow, ControlError> {
    let found = state.secrets.iter().find(|row| row.function == function.id && row.name == name);
    found.cloned().ok_or_else(|| ControlError::not_found("secret", name))
}

fn tell(answer: &mut Value, name: &str, value: Value) {
    if let Value::Object(fields) = answer {
        fields.insert(name.to_owned(), value);
    }
}

/// Which values a secret has had, and when.
pub(crate) fn versions(control: &Control, snapshot: &Snapshot, function: &FunctionRef, name: &str) -> Done {
    let entry = snapshot.function_by_id(&function.id);
    let entry = entry.ok_or_else(|| ControlError::not_found("function", &*function.name))?;
    let now = deployment::secret_of(entry, name).ok_or_else(|| ControlError::not_found("secret", name))?;
    let earlier = control.transact(|tx| tx.secret_history(&function.id, name))?;
    let told = |row: &SecretRow, current: bool| {
        json!({
            "version": row.version,
            "updated": row.updated.to_string(),
            "current": current,
            "format": row.sealed.format,
            "tenant_key": row.sealed.key_version,
        })
    };
    let all = std::iter::once(told(now, true)).chain(earlier.iter().map(|row| told(row, false)));
    let (function, epoch) = (&*function.name, now.epoch);
    Ok(json!({ "function": function, "name": name, "epoch": epoch, "versions": all.collect::<Vec<_>>() }))
}
