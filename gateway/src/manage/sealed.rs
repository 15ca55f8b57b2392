//! Calls that set, replace, go back on or destroy what is sealed.
//!
//! Owns the shape of their bodies. Must never keep a value beyond the operation it is part of.

use cofferdam_model::{Action, Manage, SecretValue};
use serde::Deserialize;

use super::{Names, asked, invalid, json};
use crate::refusal::Refusal;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Version {
    version: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Confirm {
    confirm: String,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RootKey {
    destroy_old: bool,
}

pub(super) fn change(action: Action, names: &Names<'_>, query: Option<&str>, body: &[u8]) -> Result<Manage, Refusal> {
    Ok(match action {
        Action::PutSecret => {
            let (function, name) = (names.function()?, names.text(2)?.to_owned());
            Manage::PutSecret { function, name, value: SecretValue::new(body.to_vec()) }
        }
        Action::RemoveSecret => Manage::RemoveSecret { function: names.function()?, name: names.text(2)?.to_owned() },
        Action::RotateSecret => {
            let (revoke_older, name) = (asked::flag(query, "revoke_older")?, names.text(2)?.to_owned());
            let value = SecretValue::new(body.to_vec());
            Manage::RotateSecret { function: names.function()?, name, value, revoke_older }
        }
        Action::RollbackSecret => {
            let (version, name) = (json::<Version>(body)?.version, names.text(2)?.to_owned());
            Manage::RollbackSecret { function: names.function()?, name, version }
        }
        Action::RotateTenantKey => Manage::RotateTenantKey { tenant: names.tenant()? },
        Action::ShredTenant => {
            let confirm = json::<Confirm>(body)?.confirm;
            let tenant = names.tenant()?;
            if names.text(0)? != confirm {
                return Err(invalid(
                    "`confirm` must be the tenant's name: what is destroyed does not come back".into(),
                ));
            }
            // What the record will say is destroyed is what is: if the keys are others by then, nothing is.
            let keys = names.snapshot.tenant(&tenant).map(|tenant| tenant.key_names()).unwrap_or_default();
            Manage::ShredTenant { tenant, keys }
        }
        Action::RotateRootKey => {
            let RootKey { destroy_old } = if body.is_empty() { RootKey::default() } else { json(body)? };
            Manage::RotateRootKey { destroy_old }
        }
        _ => return Err(Refusal::NotFound),
    })
}
