//! What operations touch, as policies and the log name it.
//!
//! Owns the list of kinds of resources and their ids. Must never name a thing whose owner cannot be told from it.

use std::sync::Arc;

use crate::id::{FunctionId, KeyId, TenantId};

/// What an operation touches. Becomes the resource of the policy decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resource {
    /// The installation itself.
    Platform,
    /// A tenant as a whole.
    Tenant(TenantId),
    /// A function of a tenant, with the name policies know it by.
    Function {
        /// Which.
        id: FunctionId,
        /// Its name.
        name: Arc<str>,
    },
    /// A secret of a function.
    Secret {
        /// Of which function.
        function: FunctionId,
        /// That function's name.
        function_name: Arc<str>,
        /// Its own.
        name: Arc<str>,
    },
    /// The routes of one app.
    Api {
        /// Whose.
        tenant: TenantId,
        /// Name of the app.
        name: String,
    },
    /// A service account, as a key is made for it.
    Account {
        /// Whose.
        tenant: TenantId,
        /// Its name.
        name: String,
        /// The roles the key shall have.
        roles: Vec<String>,
    },
    /// An API key.
    ApiKey(KeyId),
    /// The policies a tenant writes itself.
    PolicySet {
        /// Whose.
        tenant: TenantId,
        /// Name of the one that is written or removed.
        policy: String,
    },
    /// The log's records of a tenant.
    AuditLog(TenantId),
}

impl Resource {
    /// The id as text; `platform` for the platform.
    pub fn id(&self) -> String {
        match self {
            Self::Platform => "platform".to_owned(),
            Self::Tenant(id) => id.to_string(),
            Self::Function { id, .. } => id.to_string(),
            Self::Secret { function, name, .. } => format!("{function}|{name}"),
            Self::Api { tenant, name } | Self::Account { tenant, name, .. } => format!("{tenant}|{name}"),
            Self::ApiKey(id) => id.to_string(),
            Self::PolicySet { tenant, .. } => format!("{tenant}|policies"),
            Self::AuditLog(tenant) => format!("{tenant}|audit"),
        }
    }

    /// The tenant it belongs to; none for the platform.
    pub fn tenant(&self) -> Option<TenantId> {
        match self {
            Self::Platform => None,
            Self::Tenant(tenant)
            | Self::AuditLog(tenant)
            | Self::Api { tenant, .. }
            | Self::Account { tenant, .. }
            | Self::PolicySet { tenant, .. } => Some(tenant.clone()),
            Self::Function { id, .. } => Some(id.tenant()),
            Self::Secret { function, .. } => Some(function.tenant()),
            Self::ApiKey(key) => Some(key.tenant()),
        }
    }

    /// The name of the function it is, or belongs to.
    pub fn function_name(&self) -> Option<&str> {
        match self {
            Self::Function { name, .. } | Self::Secret { function_name: name, .. } => Some(name),
            _ => None,
        }
    }
}
