//! Who is asking, and whether they may.
//!
//! Owns identities (tokens, keys, API keys), the policy language's setting (schema, tiers, compilation) and the one
//! decision, which mints a `Permit`. Must never know HTTP, the log or a database, and never keep a decision.

mod check;
mod decide;
mod entities;
mod error;
pub mod explain;
pub mod iam;
pub mod identity;
mod policy;
mod schema;
pub mod table;

#[cfg(test)]
mod tests;

pub use check::Finding;
pub use decide::{Authorizer, Denied, Outcome, Permit, Tier};
pub use error::{FetchError, IamError, IdentityError, IssuerError, PolicyError, Refusal, SuppositionError};
pub use identity::api_key;
pub use identity::{
    Algorithm, ApiKeyRecord, Credential, Directory, Identities, IssuerConfig, JWKS_BYTES, JwksSource, Pepper,
    Principal, SecretText,
};

pub use policy::{POLICIES_BYTES_MAX, POLICIES_MAX, POLICY_BYTES_MAX, TenantPolicies};
