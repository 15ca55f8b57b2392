//! What is kept of the log for how long: legal holds, and destroying the keys of subjects.
//!
//! Owns these operations. All of them are on the installation, so that no policy of a tenant can allow one. Must never
//! put into words whose keys are destroyed: that would be kept in their place.

use crate::clock::UnixNanos;
use crate::id::{TenantId, platform_tenant};
use crate::operation::{Action, Operation, Resource};

/// Change or read what must stay, or destroy what must not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keep {
    /// Hold records, or replace a hold.
    PutHold {
        /// Its name.
        name: String,
        /// Of which tenant; of all, where there is none.
        tenant: Option<TenantId>,
        /// Those made at this moment or later.
        from: Option<UnixNanos>,
        /// Those made before this moment.
        until: Option<UnixNanos>,
        /// Why.
        reason: String,
    },
    /// Hold them no more.
    RemoveHold {
        /// Its name.
        name: String,
    },
    /// List holds.
    ListHolds,
    /// Destroy the keys that what records disclose of a subject is sealed under.
    ShredSubject {
        /// In which tenant.
        tenant: TenantId,
        /// Whose; those of all its subjects, where there is none.
        subject: Option<String>,
        /// Why.
        reason: String,
    },
}

impl Operation for Keep {
    fn action(&self) -> Action {
        match self {
            Self::PutHold { .. } => Action::PutHold,
            Self::RemoveHold { .. } => Action::RemoveHold,
            Self::ListHolds => Action::ListHolds,
            Self::ShredSubject { .. } => Action::ShredSubject,
        }
    }

    fn tenant(&self) -> TenantId {
        platform_tenant()
    }

    fn resource(&self) -> Resource {
        Resource::Platform
    }

    fn detail(&self) -> Option<String> {
        let moment = |at: &Option<UnixNanos>| at.map_or_else(|| "-".to_owned(), |at| at.to_string());
        match self {
            Self::PutHold { name, tenant, from, until, reason } => {
                let tenant = tenant.as_ref().map_or("-", TenantId::as_str);
                let (from, until) = (moment(from), moment(until));
                Some(format!("name={name} tenant={tenant} from={from} until={until} reason={reason}"))
            }
            Self::RemoveHold { name } => Some(format!("name={name}")),
            Self::ListHolds => None,
            Self::ShredSubject { tenant, subject, reason } => {
                let whose = if subject.is_some() { "one" } else { "all" };
                Some(format!("tenant={tenant} subjects={whose} reason={reason}"))
            }
        }
    }
}
