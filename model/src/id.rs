//! Typed, opaque identifiers. Minted from randomness, prefixed by their tenant's id, never reused.
//!
//! Shape: `t_<16>` for a tenant, `<tenant>.<kind>_<16>` for what a tenant owns, where `<16>` is 80 random bits in
//! lower-case Crockford base32. Must never carry meaning a caller could guess or collide with: names are for
//! people, ids are for machines, policies and the log.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::random::Random;

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const BODY_CHARS: usize = 16;

/// Why a text is not the id it claims to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a {kind} id, expected the shape `{shape}`")]
pub struct IdError {
    kind: &'static str,
    shape: &'static str,
    text: String,
}

impl IdError {
    fn new(kind: &'static str, shape: &'static str, text: &str) -> Self {
        Self { kind, shape, text: text.chars().take(80).collect() }
    }
}

/// Sixteen characters of base32: 80 random bits.
fn body(random: &dyn Random) -> String {
    let mut bytes = [0u8; BODY_CHARS];
    random.fill(&mut bytes);
    bytes.iter().filter_map(|b| ALPHABET.get(usize::from(b & 31))).map(|c| char::from(*c)).collect()
}

fn is_body(text: &str) -> bool {
    text.len() == BODY_CHARS && text.bytes().all(|b| ALPHABET.contains(&b))
}

fn is_segment(text: &str, prefix: &str) -> bool {
    text.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('_')).is_some_and(is_body)
}

macro_rules! common {
    ($name:ident, $what:literal, $shape:literal) => {
        impl $name {
            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;

            fn try_from(text: String) -> Result<Self, IdError> {
                Self::parse(&text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0.to_string()
            }
        }
    };
}

macro_rules! root_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        common!($name, $what, "");

        impl $name {
            /// Makes a new id from 80 random bits.
            pub fn mint(random: &dyn Random) -> Self {
                Self(format!("{}_{}", $prefix, body(random)).into())
            }

            /// Reads an id, refusing anything not of its exact shape.
            pub fn parse(text: &str) -> Result<Self, IdError> {
                if is_segment(text, $prefix) {
                    Ok(Self(text.into()))
                } else {
                    Err(IdError::new($what, concat!($prefix, "_<16 base32 characters>"), text))
                }
            }
        }
    };
}

macro_rules! owned_id {
    ($(#[$doc:meta])* $name:ident, $owner:ident, $prefix:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        common!($name, $what, "");

        impl $name {
            /// Makes a new id under its owner's.
            pub fn mint(owner: &$owner, random: &dyn Random) -> Self {
                Self(format!("{owner}.{}_{}", $prefix, body(random)).into())
            }

            /// Reads an id, refusing anything not of its exact shape.
            pub fn parse(text: &str) -> Result<Self, IdError> {
                let good = text
                    .rsplit_once('.')
                    .is_some_and(|(owner, own)| is_segment(own, $prefix) && $owner::parse(owner).is_ok());
                if good {
                    Ok(Self(text.into()))
                } else {
                    Err(IdError::new($what, concat!("<", stringify!($owner), ">.", $prefix, "_<16>"), text))
                }
            }

            /// The tenant this belongs to, read from the id itself.
            pub fn tenant(&self) -> TenantId {
                let tenant = self.0.split_once('.').map_or(&*self.0, |(tenant, _)| tenant);
                TenantId(tenant.into())
            }
        }
    };
}

root_id!(/// A tenant: `t_<16>`.
    TenantId, "t", "tenant");
root_id!(/// An organisation of tenants: `o_<16>`.
    OrganisationId, "o", "organisation");
root_id!(/// One request, as told to client, guest, log and diagnostics: `req_<16>`.
    RequestId, "req", "request");
root_id!(/// One cell process on this node: `c_<16>`.
    CellId, "c", "cell");
owned_id!(/// A function of a tenant: `<tenant>.f_<16>`.
    FunctionId, TenantId, "f", "function");
owned_id!(/// An immutable version of a function: `<function>.v_<16>`.
    VersionId, FunctionId, "v", "version");
owned_id!(/// A route of a tenant: `<tenant>.r_<16>`.
    RouteId, TenantId, "r", "route");
owned_id!(/// An API key of a tenant: `<tenant>.k_<16>`.
    KeyId, TenantId, "k", "API key");
owned_id!(/// A revocation in a tenant: `<tenant>.x_<16>`.
    RevocationId, TenantId, "x", "revocation");

/// The tenant that stands for the platform itself: its operators are members of it, and no function lives in it.
pub fn platform_tenant() -> TenantId {
    TenantId("t_0000000000000000".into())
}

/// Whether a text may be a name given by people (tenant, function, app, policy): 1 to 63 of `a-z 0-9 -`, first a
/// letter, last not `-`. Names appear in paths, so nothing else is allowed.
pub fn is_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    (1..=63).contains(&bytes.len())
        && bytes.first().is_some_and(u8::is_ascii_lowercase)
        && bytes.last() != Some(&b'-')
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SeededRandom;

    #[test]
    fn ids_round_trip_and_name_their_tenant() {
        let random = SeededRandom::new(7);
        let tenant = TenantId::mint(&random);
        let function = FunctionId::mint(&tenant, &random);
        let version = VersionId::mint(&function, &random);
        assert_eq!(version.tenant(), tenant);
        assert_eq!(VersionId::parse(version.as_str()), Ok(version.clone()));
        assert_ne!(TenantId::mint(&random), tenant);
    }

    #[test]
    fn malformed_ids_are_refused() {
        for text in ["", "t_", "t_0", "t_000000000000000I", "T_0000000000000000", "t_0000000000000000.f_1", "../etc"] {
            assert!(TenantId::parse(text).is_err(), "{text}");
            assert!(FunctionId::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn names_are_narrow() {
        assert!(is_name("orders-2"));
        for text in ["", "-a", "a-", "A", "a_b", "a/b", "1a", &"a".repeat(64)] {
            assert!(!is_name(text), "{text}");
        }
    }
}
