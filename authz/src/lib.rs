//! Who is asking, and whether they may.
//!
//! Owns identities (tokens, keys, certificates), the policy language's setting (schema, tiers, compilation) and the one
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
pub use cofferdam_model::PolicyTier as Tier;
pub use decide::{Authorizer, Because, Denied, Errand, Explanation, Outcome, Permit, TierExplanation, scopes_narrow};
pub use entities::Way;
pub use error::{
    AuthorityError, FetchError, IamError, IdentityError, IssuerError, PolicyError, Refusal, SuppositionError,
};
pub use identity::{
    AccessSecrets, Algorithm, ApiKeyRecord, Claim, ClientAuthorities, Credential, Directory, Gauges, Identities,
    IssuerConfig, JWKS_BYTES, JwksSource, Login, Payload, PeerCertificate, Pepper, Principal, Renewal, RevokedBy,
    Secret, SecretText, Shown, SignedRequest, Sigv4Config, Supposed, UserRecord, checks,
};
pub use identity::{api_key, mtls, passphrase, sigv4};

pub use policy::{Owner, POLICIES_BYTES_MAX, POLICIES_MAX, POLICY_BYTES_MAX, TenantPolicies, Texts, TierPolicies};
