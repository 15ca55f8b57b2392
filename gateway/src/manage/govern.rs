//! Management calls about what binds tenants from above.
//!
//! Owns the shape of their bodies. Must never decide who may: all of them are on the installation, for policies to say.

use cofferdam_model::operation::{Govern, OrganisationRef};
use cofferdam_model::{Action, TenantId};
use serde::Deserialize;

use super::{Names, PolicyText, invalid, json};
use crate::refusal::Refusal;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewOrganisation {
    name: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Membership {
    organisation: Option<String>,
}

/// The operation, if the action is one of these.
pub(super) fn operation(action: Action, names: &Names<'_>, body: &[u8]) -> Result<Option<Govern>, Refusal> {
    let tenant = || -> Result<TenantId, Refusal> { names.tenant() };
    let name = || names.text(1).map(str::to_owned);
    Ok(Some(match action {
        Action::CreateOrganisation => Govern::CreateOrganisation { name: json::<NewOrganisation>(body)?.name },
        Action::ListOrganisations => Govern::ListOrganisations,
        Action::AssignTenant => {
            let to = json::<Membership>(body)?.organisation;
            let unknown = |name: &str| invalid(format!("there is no organisation `{name}`"));
            let to = to.map(|to| organisation(names, &to).ok_or_else(|| unknown(&to))).transpose()?;
            Govern::AssignTenant { tenant: tenant()?, organisation: to }
        }
        Action::PutCeiling => {
            let text = json::<PolicyText>(body)?.text;
            Govern::PutCeiling { organisation: named(names)?, name: name()?, text }
        }
        Action::RemoveCeiling => Govern::RemoveCeiling { organisation: named(names)?, name: name()? },
        Action::PutBoundary => {
            let text = json::<PolicyText>(body)?.text;
            Govern::PutBoundary { tenant: tenant()?, name: name()?, text }
        }
        Action::RemoveBoundary => Govern::RemoveBoundary { tenant: tenant()?, name: name()? },
        _ => return Ok(None),
    }))
}

fn named(names: &Names<'_>) -> Result<OrganisationRef, Refusal> {
    organisation(names, names.text(0)?).ok_or(Refusal::NotFound)
}

fn organisation(names: &Names<'_>, name: &str) -> Option<OrganisationRef> {
    let found = names.snapshot.organisations().find(|organisation| &*organisation.name == name)?;
    Some(OrganisationRef { id: found.id.clone(), name: found.name.to_string() })
}
