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

pub use decide::{Authorizer, Denied, Outcome, Permit, Tier};
pub use error::{FetchError, IdentityError, IssuerError, PolicyError, Refusal};
pub use identity::{
    Algorithm, ApiKeyRecord, Credential, Directory, Gauges, Identities, IssuerConfig, JWKS_BYTES, JwksSource, Login,
    Pepper, Principal, Renewal, RevokedBy, SecretText, Shown, UserRecord,
};
pub use identity::{api_key, passphrase};

pub use policy::{POLICIES_BYTES_MAX, POLICIES_MAX, POLICY_BYTES_MAX, TenantPolicies};
