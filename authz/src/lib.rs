//! Who is asking, and whether they may.
//!
//! Owns identities (tokens, keys, API keys), the policy language's setting (schema, tiers, compilation) and the one
//! decision, which mints a `Permit`. Must never know HTTP, the log or a database, and never keep a decision.

mod decide;
mod entities;
mod error;
pub mod identity;
mod policy;
mod schema;

#[cfg(test)]
mod tests;

pub use cofferdam_model::PolicyTier as Tier;
pub use decide::{Authorizer, Because, Denied, Errand, Explanation, Outcome, Permit, TierExplanation};
pub use entities::Way;
pub use error::{FetchError, IdentityError, IssuerError, PolicyError, Refusal};
pub use identity::api_key;
pub use identity::{
    Algorithm, ApiKeyRecord, Credential, Directory, Identities, IssuerConfig, JWKS_BYTES, JwksSource, Pepper,
    Principal, SecretText, Supposed,
};

pub use policy::{Owner, POLICIES_BYTES_MAX, POLICIES_MAX, POLICY_BYTES_MAX, TenantPolicies, Texts, TierPolicies};
