//! What of a record is kept at all, by configuration.
//!
//! Owns the fields that are never stored in the clear, and which claims of a caller's token are told. Must never widen
//! what the facts of a call hold: it only takes away.

use crate::disclose::Fields;

/// A claim of a caller's token that a record may tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Claim {
    /// Who acts in the subject's stead.
    Actor,
    /// When its subject last proved who it is.
    Authenticated,
    /// The program it was issued to.
    Client,
    /// Whether more than one factor was shown.
    Mfa,
    /// What it is good for.
    Scopes,
}

impl Claim {
    /// The whole list.
    pub const ALL: &'static [Self] = &[Self::Actor, Self::Authenticated, Self::Client, Self::Mfa, Self::Scopes];

    /// Its name in records and configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Actor => "actor",
            Self::Authenticated => "authenticated",
            Self::Client => "client",
            Self::Mfa => "mfa",
            Self::Scopes => "scopes",
        }
    }

    /// The claim of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|claim| claim.as_str() == name)
    }
}

/// Some of the claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claims(u8);

impl Claims {
    /// Whether it is one of them.
    pub fn has(self, claim: Claim) -> bool {
        self.0 & (1 << claim as u8) != 0
    }
}

impl Default for Claims {
    fn default() -> Self {
        Claim::ALL.iter().copied().collect()
    }
}

impl FromIterator<Claim> for Claims {
    fn from_iter<I: IntoIterator<Item = Claim>>(claims: I) -> Self {
        Self(claims.into_iter().fold(0, |all, claim| all | 1 << claim as u8))
    }
}

/// What of a record is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Privacy {
    /// Fields of which only the commitment is kept: their values are lost to everybody.
    pub redact: Fields,
    /// Claims that are told.
    pub claims: Claims,
}
