//! Why the way out cannot be opened.
//!
//! Owns what an operator or a tenant has set wrongly. Must never hold a secret's value; what goes wrong with a request
//! is an `EgressError`, not one of these.

use cofferdam_model::EgressRule;

/// Why the way out cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EgressSetupError {
    /// A setting of the node makes no sense.
    #[error("`egress.{key}` {message}; {remedy}")]
    Setting {
        /// Which.
        key: String,
        /// What is wrong.
        message: String,
        /// What to do about it.
        remedy: &'static str,
    },
    /// A ceiling names something that is no network.
    #[error("`{0}` is no network: write it as `10.0.0.0/8` or `fd00::/8`, with nothing set behind the prefix")]
    Network(String),
    /// A rule asks for what cannot be.
    #[error("egress rule `{rule}`: {message}")]
    Rule {
        /// Which, as records name it.
        rule: String,
        /// What is wrong with it, and what to do.
        message: String,
    },
    /// The secret of a credential is not there.
    #[error("egress rule `{rule}` needs the secret `{secret}`, which is not set; set it, or take the credential out")]
    NoSecret {
        /// Which rule, as records name it.
        rule: String,
        /// Name of the secret.
        secret: String,
    },
    /// The secret of a credential cannot be one.
    #[error("egress rule `{rule}` cannot use the secret `{secret}`: {message}")]
    BadSecret {
        /// Which rule, as records name it.
        rule: String,
        /// Name of the secret.
        secret: String,
        /// What is wrong with its value, which is not shown.
        message: &'static str,
    },
    /// TLS cannot be set up.
    #[error("TLS towards the outside cannot be set up: {0}")]
    Tls(String),
}

impl EgressSetupError {
    pub(super) fn rule(rule: &EgressRule, message: impl Into<String>) -> Self {
        Self::Rule { rule: rule.to_string(), message: message.into() }
    }

    pub(super) fn setting(key: impl Into<String>, message: impl Into<String>, remedy: &'static str) -> Self {
        Self::Setting { key: key.into(), message: message.into(), remedy }
    }
}
