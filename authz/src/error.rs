//! What can go wrong here, as decisions.
//!
//! Owns the error types of the crate. Must never carry a credential or any part of one: what a caller showed is
//! named by the kind of defect alone.

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use cofferdam_model::{KeyId, PrincipalFacts};

use crate::identity::{Principal, RevokedBy};

/// Nobody could be identified.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The credential is no good, and showing it again will not help.
    #[error("the credential is refused: {}", .0.as_str())]
    Refused(Refusal),
    /// It is genuine, and was revoked: worth a record of its own.
    #[error("the credential was revoked: {}", .by.as_str())]
    Revoked {
        /// Whose it was.
        who: Box<PrincipalFacts>,
        /// What a rate limit counts them by.
        key: String,
        /// What was revoked.
        by: RevokedBy,
    },
    /// Too many tries, or too many at once. Whether it is any good was not looked at.
    #[error("too many tries")]
    Throttled {
        /// When to come back.
        retry_after: Duration,
    },
    /// Whether it is any good cannot be told now.
    #[error("the keys of issuer `{issuer}` cannot be had")]
    Unavailable {
        /// Whose keys.
        issuer: String,
        /// Why, where this very call tried.
        #[source]
        cause: Option<FetchError>,
    },
    /// Whether it is any good cannot be told now: its secret is sealed, and what opens it cannot be had.
    #[error("the secret of key `{key}` cannot be opened now")]
    Sealed {
        /// Which key.
        key: KeyId,
        /// Why.
        #[source]
        cause: Box<dyn Error + Send + Sync>,
    },
    /// It may be good, and whether it was shown before cannot be remembered now.
    #[error("too many signatures to remember")]
    Overloaded,
}

impl IdentityError {
    /// What becomes of somebody whose credential was revoked.
    pub(crate) fn revoked(who: &Principal, by: RevokedBy) -> Self {
        Self::Revoked { who: Box::new(who.facts()), key: who.key(), by }
    }
}

macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Why a credential was refused. For the operator's eyes and the log; strangers learn only that it was.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Refusal { $($(#[$doc])* $name,)* }

        impl Refusal {
            /// Every one there is.
            pub const ALL: &'static [Refusal] = &[$(Refusal::$name,)*];

            /// Stable name in records and diagnostics.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

refusals! {
    /// Longer than any credential may be.
    TooLong = "too_long",
    /// Not of the shape of a token or API key at all.
    Malformed = "malformed",
    /// A name given twice in one JSON object.
    DuplicateName = "duplicate_name",
    /// No such issuer was declared.
    UnknownIssuer = "unknown_issuer",
    /// Not an algorithm this issuer, or this key, was declared for.
    Algorithm = "algorithm",
    /// A header that changes what the token means (`crit`) or brings its own key.
    Header = "header",
    /// `typ` is not that of an access token.
    Type = "type",
    /// The issuer has no such key.
    UnknownKey = "unknown_key",
    /// The signature does not verify.
    Signature = "signature",
    /// A claim is missing, or not of its type.
    Claims = "claims",
    /// Meant for somebody else.
    Audience = "audience",
    /// No longer valid.
    Expired = "expired",
    /// Not valid yet, or issued in the future.
    NotYetValid = "not_yet_valid",
    /// Valid for longer than this issuer may make tokens for.
    Lifetime = "lifetime",
    /// Bound to a key whose possession was not shown (`cnf`).
    ProofMissing = "proof_missing",
    /// Of no tenant that exists.
    Tenant = "tenant",
    /// No such API key, or not its secret.
    ApiKey = "api_key",
    /// The key or certificate was revoked.
    Revoked = "revoked",
    /// Shown from a network that the key is not bound to.
    Network = "network",
    /// More than one credential, or two forms of one.
    TwoCredentials = "two_credentials",
    /// A signature for another day, region or service.
    Scope = "scope",
    /// A part of the request that must be signed is not.
    Unsigned = "unsigned",
    /// A signature that was shown before, or may have been.
    Replay = "replay",
    /// A certificate that no authority of the tenant stands for.
    Certificate = "certificate",
    /// A certificate whose machine is nobody here.
    UnknownMachine = "unknown_machine",
    /// No such user, or not the passphrase.
    Passphrase = "passphrase",
}

impl From<Refusal> for IdentityError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// A key set could not be fetched.
#[derive(Debug, thiserror::Error)]
#[error("the key set at `{location}` could not be had")]
pub struct FetchError {
    location: String,
    #[source]
    cause: Box<dyn Error + Send + Sync>,
}

impl FetchError {
    /// A failure to get what is at `location`.
    pub fn new(location: impl Into<String>, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { location: location.into(), cause: cause.into() }
    }
}

/// An authority of machines cannot be used. Says what to give instead, for whoever gave it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("authority `{name}`: {problem}")]
pub struct AuthorityError {
    name: String,
    problem: String,
}

impl AuthorityError {
    pub(crate) fn new(name: &str, problem: String) -> Self {
        Self { name: name.to_owned(), problem }
    }
}

/// The declaration of an issuer makes no sense. Found at start.
#[derive(Debug, thiserror::Error)]
pub enum IssuerError {
    /// Two declarations of one issuer: which would count?
    #[error("issuer `{0}` is declared twice")]
    Duplicate(String),
    /// Something in the declaration.
    #[error("issuer `{issuer}`: {problem}")]
    Invalid {
        /// Which.
        issuer: String,
        /// What, and what to write instead.
        problem: &'static str,
    },
    /// A file of keys cannot be used.
    #[error("issuer `{issuer}`: the key file `{path}` cannot be used")]
    KeyFile {
        /// Which.
        issuer: String,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: Box<dyn Error + Send + Sync>,
    },
}

/// A supposed call cannot be put to policies. Says what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SuppositionError {
    /// What it is about is not what its action is about.
    #[error("`{action}`: {problem}")]
    Resource {
        /// The action.
        action: &'static str,
        /// What is wrong.
        problem: &'static str,
    },
    /// No id of a tenant.
    #[error("`{0}` is not a tenant's id: write it as t_ and 16 characters, or leave it out")]
    Tenant(String),
    /// No moment.
    #[error("`{0}` is not a moment: write it as 2026-11-20T10:38:00Z")]
    Time(String),
    /// No id of a request.
    #[error("`{0}` is not a request's id: leave it out")]
    Request(String),
}

/// A document of IAM cannot be taken over at all. Says where and what.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IamError {
    /// Longer than is looked at.
    #[error("the document has {bytes} bytes, at most {most} are looked at")]
    TooLarge {
        /// How many.
        bytes: usize,
        /// How many at most.
        most: usize,
    },
    /// Not JSON, or JSON that means two things.
    #[error("the document is not JSON that has one meaning: {0}")]
    Json(String),
    /// Not a document of IAM.
    #[error("{place}: {problem}")]
    Document {
        /// Where.
        place: String,
        /// What is wrong.
        problem: String,
    },
    /// It names no principal.
    #[error("the document names no principal: say to whom it is attached")]
    Unattached,
    /// What came out is no policy.
    #[error("what came out is no policy that can be taken: {0}")]
    Cedar(#[source] PolicyError),
}

/// A policy was not accepted. Says where and what to do, for the person who wrote it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// More policies than a tenant may have.
    #[error("{count} policies, at most {max} are allowed: combine or remove some")]
    TooMany {
        /// How many.
        count: usize,
        /// How many at most.
        max: usize,
    },
    /// A policy longer, or nested deeper, than is looked at.
    #[error("policy `{name}`: {problem}: {remedy}")]
    TooLarge {
        /// Which.
        name: String,
        /// What is too much.
        problem: String,
        /// What to do.
        remedy: &'static str,
    },
    /// A policy that is not right.
    #[error("policy `{name}`, line {line}, column {column}: {problem}: {remedy}")]
    Refused {
        /// Which.
        name: String,
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// What is wrong.
        problem: String,
        /// What to do.
        remedy: String,
    },
    /// A policy that came with the software is not right.
    #[error("the built-in policies are unusable: {0}")]
    BuiltIn(String),
}
