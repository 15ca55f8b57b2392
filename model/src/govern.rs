//! What binds tenants from above: organisations with their ceilings, and the boundaries of single tenants.
//!
//! Owns these operations. All of them are on the installation, so that no policy of a tenant can allow one.

use crate::id::{OrganisationId, TenantId, platform_tenant};
use crate::operation::{Action, Operation, Resource};

/// An organisation as an operation names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrganisationRef {
    /// Which.
    pub id: OrganisationId,
    /// Its name.
    pub name: String,
}

/// Change or read what binds tenants from above.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Govern {
    /// Make an organisation.
    CreateOrganisation {
        /// Its name.
        name: String,
    },
    /// List organisations, with their tenants and the texts of their ceilings.
    ListOrganisations,
    /// Put a tenant into an organisation, or out of one.
    AssignTenant {
        /// Which tenant.
        tenant: TenantId,
        /// Where to; out, if nowhere.
        organisation: Option<OrganisationRef>,
    },
    /// Write a policy of an organisation's ceiling.
    PutCeiling {
        /// Whose.
        organisation: OrganisationRef,
        /// Its name.
        name: String,
        /// Cedar text.
        text: String,
    },
    /// Remove a policy of an organisation's ceiling.
    RemoveCeiling {
        /// Whose.
        organisation: OrganisationRef,
        /// Its name.
        name: String,
    },
    /// Write a policy of a tenant's boundary.
    PutBoundary {
        /// Whose.
        tenant: TenantId,
        /// Its name.
        name: String,
        /// Cedar text.
        text: String,
    },
    /// Remove a policy of a tenant's boundary.
    RemoveBoundary {
        /// Whose.
        tenant: TenantId,
        /// Its name.
        name: String,
    },
}

impl Operation for Govern {
    fn action(&self) -> Action {
        match self {
            Self::CreateOrganisation { .. } => Action::CreateOrganisation,
            Self::ListOrganisations => Action::ListOrganisations,
            Self::AssignTenant { .. } => Action::AssignTenant,
            Self::PutCeiling { .. } => Action::PutCeiling,
            Self::RemoveCeiling { .. } => Action::RemoveCeiling,
            Self::PutBoundary { .. } => Action::PutBoundary,
            Self::RemoveBoundary { .. } => Action::RemoveBoundary,
        }
    }

    fn tenant(&self) -> TenantId {
        platform_tenant()
    }

    fn resource(&self) -> Resource {
        Resource::Platform
    }

    fn detail(&self) -> Option<String> {
        match self {
            Self::CreateOrganisation { name } => Some(format!("name={name}")),
            Self::ListOrganisations => None,
            Self::AssignTenant { tenant, organisation } => {
                let to = organisation.as_ref().map_or("-", |organisation| organisation.id.as_str());
                Some(format!("tenant={tenant} organisation={to}"))
            }
            Self::PutCeiling { organisation, name, .. } | Self::RemoveCeiling { organisation, name } => {
                Some(format!("organisation={} name={name}", organisation.id))
            }
            Self::PutBoundary { tenant, name, .. } | Self::RemoveBoundary { tenant, name } => {
                Some(format!("tenant={tenant} name={name}"))
            }
        }
    }
}
