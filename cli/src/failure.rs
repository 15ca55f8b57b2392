//! How a command says that it did not work.
//!
//! Owns the exit codes and the two ways a failure is written: a line or two for people, one JSON object for programs.
//! Must never print a credential or a secret.

use std::error::Error;
use std::path::PathBuf;

use cofferdam_audit::AuditError;
use cofferdam_control::ControlError;
use cofferdam_gateway::GatewayError;
use serde_json::{Value, json};

/// What a failure was, as scripts tell it by the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Something that should not happen, or that the operating system refused.
    Internal,
    /// The command line makes no sense.
    Usage,
    /// A configuration or a manifest is not valid, or the server refused what it was sent.
    Invalid,
    /// What was named is not there.
    NotFound,
    /// Not allowed, or not known.
    Denied,
    /// In the way of something that is there.
    Conflict,
    /// The network or the server failed.
    Remote,
    /// A check found something.
    Finding,
    /// The audit log takes no more records, so the node ended.
    Unrecorded,
}

impl Kind {
    /// The exit code.
    pub(crate) fn exit_code(self) -> u8 {
        match self {
            Self::Internal => 1,
            Self::Usage => 2,
            Self::Invalid => 3,
            Self::NotFound => 4,
            Self::Denied => 5,
            Self::Conflict => 6,
            Self::Remote => 7,
            Self::Finding => 8,
            Self::Unrecorded => 9,
        }
    }

    fn code(self) -> &'static str {
        match self {
            Self::Internal => "internal",
            Self::Usage => "usage",
            Self::Invalid => "invalid",
            Self::NotFound => "not_found",
            Self::Denied => "denied",
            Self::Conflict => "conflict",
            Self::Remote => "remote",
            Self::Finding => "finding",
            Self::Unrecorded => "unrecorded",
        }
    }
}

/// Where in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) file: PathBuf,
    pub(crate) line: usize,
    pub(crate) column: usize,
}

/// Why a command did not work.
#[derive(Debug)]
pub(crate) struct Failure {
    kind: Kind,
    code: String,
    message: String,
    hint: Option<String>,
    place: Option<Place>,
}

impl Failure {
    /// A failure of this kind.
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, code: kind.code().to_owned(), message: message.into(), hint: None, place: None }
    }

    /// Something that should not happen.
    pub(crate) fn internal(message: String) -> Self {
        Self::new(Kind::Internal, message)
    }

    /// A command line that makes no sense.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// A configuration that cannot be used.
    pub(crate) fn config(message: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, message)
    }

    /// A file or directory that cannot be used.
    pub(crate) fn file(doing: &str, path: &std::path::Path, error: &std::io::Error) -> Self {
        let kind = if error.kind() == std::io::ErrorKind::NotFound { Kind::NotFound } else { Kind::Internal };
        Self::new(kind, format!("cannot {doing} `{}`: {error}", path.display()))
    }

    /// The same with what can be done about it.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same with the place in a file.
    pub(crate) fn at(mut self, place: Place) -> Self {
        self.place = Some(place);
        self
    }

    /// The same, said of something.
    pub(crate) fn within(mut self, what: &str) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// The same under the code a server gave.
    pub(crate) fn code(mut self, code: impl Into<String>) -> Self {
        self.code = code.into();
        self
    }

    /// Whether it was the network or the server, so that it may pass.
    pub(crate) fn is_remote(&self) -> bool {
        self.kind == Kind::Remote
    }

    /// The exit code.
    pub(crate) fn exit_code(&self) -> u8 {
        self.kind.exit_code()
    }

    /// What went wrong, alone.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        let mut text = match &self.place {
            Some(place) => format!("{}:{}:{}: {}", place.file.display(), place.line, place.column, self.message),
            None => format!("error: {}", self.message),
        };
        if let Some(hint) = &self.hint {
            text.push_str("\n  hint: ");
            text.push_str(hint);
        }
        text
    }

    /// For programs.
    pub(crate) fn json(&self) -> Value {
        let place = self.place.as_ref();
        json!({
            "code": self.code,
            "message": self.message,
            "hint": self.hint,
            "file": place.map(|place| place.file.display().to_string()),
            "line": place.map(|place| place.line),
            "column": place.map(|place| place.column),
        })
    }
}

/// An error with everything behind it, in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text.push_str(": ");
        text.push_str(&error.to_string());
        next = error.source();
    }
    text
}

impl From<ControlError> for Failure {
    fn from(error: ControlError) -> Self {
        let kind = match &error {
            ControlError::NotFound { .. } => Kind::NotFound,
            ControlError::Exists { .. }
            | ControlError::RouteConflict { .. }
            | ControlError::HostTaken { .. }
            | ControlError::StorageFull { .. }
            | ControlError::BelowEpoch { .. }
            | ControlError::Shredded { .. }
            | ControlError::KeysChanged { .. }
            | ControlError::Held { .. }
            | ControlError::Unfinished { .. }
            | ControlError::AlreadyInitialised { .. } => Kind::Conflict,
            ControlError::OperatorsOnly { .. } => Kind::Denied,
            ControlError::Invalid { .. }
            | ControlError::AboveCeiling { .. }
            | ControlError::TooMany { .. }
            | ControlError::TooLarge { .. }
            | ControlError::KeyFile { .. }
            | ControlError::Authority(_)
            | ControlError::Policy(_) => Kind::Invalid,
            ControlError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => Kind::NotFound,
            ControlError::Io { .. }
            | ControlError::Vault(_)
            | ControlError::StoreTooNew { .. }
            | ControlError::StoreTooOld { .. }
            | ControlError::Damaged { .. }
            | ControlError::Store(_)
            | ControlError::Log(_)
            | ControlError::NotAChange { .. } => Kind::Internal,
        };
        let failure = Self::new(kind, chain(&error));
        match error.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

impl From<AuditError> for Failure {
    fn from(error: AuditError) -> Self {
        Self::new(Kind::Internal, chain(&error))
    }
}

impl From<GatewayError> for Failure {
    fn from(error: GatewayError) -> Self {
        let kind = match error {
            GatewayError::Config { path, line, column, message, remedy } => {
                return Self::new(Kind::Invalid, message).hint(remedy).at(Place { file: path, line, column });
            }
            GatewayError::Url { .. } => Kind::Usage,
            GatewayError::Pem { .. }
            | GatewayError::KeyReadable { .. }
            | GatewayError::Certificate { .. }
            | GatewayError::RootKey { .. }
            | GatewayError::NoCredentials
            | GatewayError::NoMetadata { .. }
            | GatewayError::NotBuilt { .. }
            | GatewayError::NoRoots { .. } => Kind::Invalid,
            GatewayError::Connect { .. }
            | GatewayError::Exchange { .. }
            | GatewayError::Timeout { .. }
            | GatewayError::AnswerTooLarge { .. } => Kind::Remote,
            GatewayError::File { .. }
            | GatewayError::SelfSigned { .. }
            | GatewayError::Tls { .. }
            | GatewayError::Listen { .. } => Kind::Internal,
        };
        Self::new(kind, chain(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failure_is_told_to_people_and_programs_alike() {
        let place = Place { file: "app.toml".into(), line: 6, column: 1 };
        let failure = Failure::new(Kind::Invalid, "unknown key `sorce`").hint("did you mean `source`?").at(place);
        assert_eq!(failure.text(), "app.toml:6:1: unknown key `sorce`\n  hint: did you mean `source`?");
        let told = failure.json();
        assert_eq!((&told["code"], &told["line"], &told["column"]), (&json!("invalid"), &json!(6), &json!(1)));
        assert_eq!(failure.exit_code(), 3);
    }
}
