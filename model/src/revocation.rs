//! What can be revoked, and for how long that has to be remembered.
//!
//! Owns the closed list of targets and their reading from JSON. Must never name a credential itself: a token is known
//! by its id or by the digest of its text.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// What is worth nothing any more, within one tenant.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum RevocationTarget {
    /// One token, by its `jti`.
    Token {
        /// Who issued it.
        issuer: String,
        /// Its `jti`.
        id: String,
    },
    /// One token, by SHA-256 of its text.
    Digest {
        /// The digest.
        digest: Digest,
    },
    /// Every token signed with one key.
    SigningKey {
        /// Whose key.
        issuer: String,
        /// Its `kid`.
        key: String,
    },
    /// A person, whatever it shows, until this is undone.
    Subject {
        /// Who vouches for it; whoever does when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        issuer: Option<String>,
        /// As its issuer names it.
        subject: String,
    },
    /// A service account with all its keys, until this is undone.
    Account {
        /// Its name.
        account: String,
    },
    /// All tokens issued before a moment: of one subject, or of the whole tenant.
    Sessions {
        /// Who issued them; any issuer when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        issuer: Option<String>,
        /// Whose; everybody's when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        subject: Option<String>,
        /// The moment, seconds since 1970.
        before: u64,
    },
}

/// What somebody has again once a revocation is undone, as far as that can be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revived {
    /// A service account, with the roles of all its keys and certificates.
    Account {
        /// Its name.
        name: String,
        /// Every role it has by any of them.
        roles: Vec<String>,
    },
    /// A user of the node's own issuer.
    User {
        /// Its name.
        name: String,
        /// Its roles.
        roles: Vec<String>,
    },
    /// People whose roles only their tokens know, or whom the revocation does not name: it could be anybody.
    Anybody,
}

/// Longest a token can live whatever an issuer's declaration says: a year and the leeway of two clocks.
const TOKEN_LIFE_SECONDS: u64 = 366 * 24 * 3600 + 60;

impl RevocationTarget {
    /// When no credential it is about can be valid any more, so that it may be forgotten; never for what stands until
    /// it is undone. `made` is when it was revoked, `expires` when the token ends, where that is known.
    pub fn forgotten_at(&self, made: u64, expires: Option<u64>) -> Option<u64> {
        match self {
            Self::Subject { .. } | Self::Account { .. } => None,
            Self::Token { .. } | Self::Digest { .. } => {
                let latest = made.saturating_add(TOKEN_LIFE_SECONDS);
                Some(expires.map_or(latest, |expires| expires.saturating_add(60).min(latest)))
            }
            Self::SigningKey { .. } => Some(made.saturating_add(2 * TOKEN_LIFE_SECONDS)),
            Self::Sessions { before, .. } => Some((*before).max(made).saturating_add(TOKEN_LIFE_SECONDS)),
        }
    }

    /// One line for the log.
    pub fn detail(&self) -> String {
        let from = |issuer: &Option<String>| issuer.as_deref().map(|by| format!(" issuer={by}")).unwrap_or_default();
        match self {
            Self::Token { issuer, id } => format!("token id={id} issuer={issuer}"),
            Self::Digest { digest } => format!("token sha256={digest}"),
            Self::SigningKey { issuer, key } => format!("signing_key key={key} issuer={issuer}"),
            Self::Subject { issuer, subject } => format!("subject={subject}{}", from(issuer)),
            Self::Account { account } => format!("account={account}"),
            Self::Sessions { issuer, subject: Some(subject), before } => {
                format!("sessions before={before} subject={subject}{}", from(issuer))
            }
            Self::Sessions { issuer, subject: None, before } => format!("sessions before={before}{}", from(issuer)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revocation_outlives_every_token_it_is_about() {
        let year = 366 * 24 * 3600;
        let token = RevocationTarget::Token { issuer: "i".into(), id: "x".into() };
        assert_eq!(token.forgotten_at(1_000, Some(1_300)), Some(1_360));
        assert!(token.forgotten_at(1_000, None).is_some_and(|at| at >= 1_000 + year));
        assert!(
            token.forgotten_at(1_000, Some(u64::MAX)).is_some_and(|at| at < 1_000 + 2 * year),
            "nobody's word is forever"
        );
        let sessions = RevocationTarget::Sessions { issuer: None, subject: None, before: 2_000 };
        assert!(sessions.forgotten_at(1_000, Some(1)).is_some_and(|at| at >= 2_000 + year));
        let subject = RevocationTarget::Subject { issuer: None, subject: "a".into() };
        assert_eq!(subject.forgotten_at(1_000, Some(1)), None);
    }

    #[test]
    fn targets_are_read_from_json_and_nothing_else_is() {
        let read = |text: &str| serde_json::from_str::<RevocationTarget>(text);
        assert!(read(r#"{"kind":"token","issuer":"i","id":"x"}"#).is_ok());
        assert!(read(r#"{"kind":"sessions","before":5}"#).is_ok());
        for bad in [r#"{"kind":"all"}"#, r#"{"kind":"token","id":"x"}"#, r#"{"kind":"account","account":"a","x":1}"#] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
