//! Management calls about what is kept of the log.
//!
//! Owns the shape of their bodies. Must never take a subject from a path, which is recorded: only from a body, which is
//! not.

use cofferdam_model::{Action, Keep, UnixNanos};
use serde::Deserialize;

use super::{Names, invalid, json};
use crate::refusal::Refusal;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewHold {
    #[serde(default)]
    tenant: Option<String>,
    #[serde(default)]
    from: Option<UnixNanos>,
    #[serde(default)]
    until: Option<UnixNanos>,
    reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Shred {
    confirm: String,
    #[serde(default)]
    subject: Option<String>,
    reason: String,
}

/// The operation, if the action is one of these.
pub(super) fn operation(action: Action, names: &Names<'_>, body: &[u8]) -> Result<Option<Keep>, Refusal> {
    Ok(Some(match action {
        Action::PutHold => {
            let NewHold { tenant, from, until, reason } = json(body)?;
            let known = |name: String| match names.snapshot.tenant_by_name(&name) {
                Some(tenant) => Ok(tenant.id.clone()),
                None => Err(invalid(format!("there is no tenant `{name}`"))),
            };
            let tenant = tenant.map(known).transpose()?;
            Keep::PutHold { name: names.text(0)?.to_owned(), tenant, from, until, reason }
        }
        Action::RemoveHold => Keep::RemoveHold { name: names.text(0)?.to_owned() },
        Action::ListHolds => Keep::ListHolds,
        Action::ShredSubject => {
            let Shred { confirm, subject, reason } = json(body)?;
            if names.text(0)? != confirm {
                let message = "`confirm` must be the tenant's name: what is destroyed does not come back";
                return Err(invalid(message.into()));
            }
            Keep::ShredSubject { tenant: names.tenant()?, subject, reason }
        }
        _ => return Ok(None),
    }))
}
