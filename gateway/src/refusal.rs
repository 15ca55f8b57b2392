//! Every way this node says no, and the one place where an error becomes a status.
//!
//! Owns the closed list of refusals with their status, stable code and public words, and the problem document
//! (RFC 9457) made of them. Must never tell a stranger more than the code stands for, and never find a status by
//! wildcard: a new refusal has to be given its own here, by hand.

mod fault;
mod from;

use std::time::Duration;

use bytes::Bytes;
use cofferdam_model::{Ending, Origin, RequestId};
use http::{HeaderMap, HeaderValue, StatusCode, header};

pub use self::fault::Fault;

/// Every refusal and failure there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The head is malformed or ambiguous.
    BadRequest(Fault),
    /// The head took too long.
    HeadTimeout,
    /// The target is too long.
    UriTooLong,
    /// Too many fields, or too many bytes of them.
    HeaderTooLarge,
    /// A method nobody here knows.
    MethodUnknown,
    /// A version of HTTP/1 other than 1.1.
    VersionUnsupported,
    /// `Expect` asks for something other than `100-continue`.
    ExpectationFailed,
    /// A rate limit is used up.
    RateLimited {
        /// When to come back.
        retry_after: Duration,
    },
    /// No credential, or one that is not believed.
    Unauthenticated,
    /// A credential that was genuine until it was revoked.
    CredentialRevoked,
    /// No such user, or not the passphrase.
    LoginFailed,
    /// The keys to check the credential cannot be had.
    KeysUnavailable,
    /// Policies do not allow it.
    Forbidden,
    /// The connection was made to another host, and shows or lacks the certificate of this one.
    Misdirected,
    /// What somebody who may otherwise would give to others is more than he holds.
    Escalates {
        /// Of what.
        message: String,
    },
    /// The function may not be given one of its secrets.
    SecretDenied {
        /// Which.
        message: String,
    },
    /// Nothing there, or nothing the caller may know of.
    NotFound,
    /// The route does not take this method.
    MethodNotAllowed {
        /// The methods it takes, as `Allow` lists them.
        allow: String,
    },
    /// The request body is larger than allowed.
    BodyTooLarge,
    /// The request body stopped coming.
    BodyTimeout,
    /// Too many calls on the node.
    Overloaded {
        /// When to come back.
        retry_after: Duration,
    },
    /// The node is starting or stopping.
    NotReady,
    /// The call cannot be recorded, so it does not happen.
    AuditUnavailable,
    /// Records are streamed too far behind, so calls are not made.
    AuditBehind,
    /// A management request does not make sense.
    Invalid {
        /// What to change.
        message: String,
    },
    /// A management request names something that is not there.
    Missing {
        /// What is not there.
        message: String,
    },
    /// A management request contradicts what exists.
    Conflict {
        /// What is in the way.
        message: String,
    },
    /// The function trapped.
    FunctionTrapped,
    /// The function gave no usable answer.
    FunctionNoAnswer,
    /// The function used up its CPU time.
    FunctionCpuExhausted,
    /// The function took too long.
    FunctionWallExceeded,
    /// The function used up its memory.
    FunctionMemoryExhausted,
    /// The function used up its stack.
    FunctionStackExhausted,
    /// The function held too many handles.
    FunctionHandlesExhausted,
    /// The function passed more to the host, or asked more of it, than it takes.
    FunctionHostcallExhausted,
    /// The function's answer is larger than allowed.
    FunctionResponseTooLarge,
    /// Too many calls of this function at once.
    FunctionBusy {
        /// When to come back.
        retry_after: Duration,
    },
    /// The cell died under the call.
    CellLost,
    /// No cell could be had.
    Unavailable {
        /// When to come back.
        retry_after: Duration,
    },
    /// What has to be opened with the root key cannot be, at the moment.
    SecretsUnavailable {
        /// When to come back.
        retry_after: Duration,
    },
    /// The client went away; nobody reads this.
    ClientGone,
    /// A defect of ours.
    Internal,
}

impl Refusal {
    /// The status it is answered with.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) | Self::Invalid { .. } => StatusCode::BAD_REQUEST,
            Self::Unauthenticated | Self::CredentialRevoked | Self::LoginFailed => StatusCode::UNAUTHORIZED,
            Self::Forbidden | Self::Escalates { .. } | Self::SecretDenied { .. } => StatusCode::FORBIDDEN,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::NotFound | Self::Missing { .. } => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::HeadTimeout | Self::BodyTimeout | Self::ClientGone => StatusCode::REQUEST_TIMEOUT,
            Self::Conflict { .. } => StatusCode::CONFLICT,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UriTooLong => StatusCode::URI_TOO_LONG,
            Self::ExpectationFailed => StatusCode::EXPECTATION_FAILED,
            Self::RateLimited { .. } | Self::FunctionBusy { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::HeaderTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::MethodUnknown => StatusCode::NOT_IMPLEMENTED,
            Self::FunctionTrapped
            | Self::FunctionNoAnswer
            | Self::FunctionMemoryExhausted
            | Self::FunctionStackExhausted
            | Self::FunctionHandlesExhausted
            | Self::FunctionHostcallExhausted
            | Self::FunctionResponseTooLarge
            | Self::CellLost => StatusCode::BAD_GATEWAY,
            Self::KeysUnavailable
            | Self::Overloaded { .. }
            | Self::NotReady
            | Self::AuditUnavailable
            | Self::AuditBehind
            | Self::SecretsUnavailable { .. }
            | Self::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::FunctionCpuExhausted | Self::FunctionWallExceeded => StatusCode::GATEWAY_TIMEOUT,
            Self::VersionUnsupported => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
        }
    }

    /// Its stable code, in problem documents and records.
    pub fn code(&self) -> &'static str {
        match self {
            Self::BadRequest(fault) => fault.code(),
            Self::HeadTimeout => "head_timeout",
            Self::UriTooLong => "uri_too_long",
            Self::HeaderTooLarge => "header_too_large",
            Self::MethodUnknown => "method_unknown",
            Self::VersionUnsupported => "version_unsupported",
            Self::ExpectationFailed => "expectation_failed",
            Self::RateLimited { .. } => "rate_limited",
            Self::Unauthenticated => "unauthenticated",
            Self::CredentialRevoked => "credential_revoked",
            Self::LoginFailed => "login_failed",
            Self::KeysUnavailable => "keys_unavailable",
            Self::Forbidden => "forbidden",
            Self::Misdirected => "misdirected",
            Self::Escalates { .. } => "escalates",
            Self::SecretDenied { .. } => "secret_denied",
            Self::NotFound | Self::Missing { .. } => "not_found",
            Self::MethodNotAllowed { .. } => "method_not_allowed",
            Self::BodyTooLarge => "body_too_large",
            Self::BodyTimeout => "body_timeout",
            Self::Overloaded { .. } => "overloaded",
            Self::NotReady => "not_ready",
            Self::AuditUnavailable => "audit_unavailable",
            Self::AuditBehind => "audit_behind",
            Self::Invalid { .. } => "invalid",
            Self::Conflict { .. } => "conflict",
            Self::FunctionTrapped => "function_trapped",
            Self::FunctionNoAnswer => "function_no_answer",
            Self::FunctionCpuExhausted => "function_cpu_exhausted",
            Self::FunctionWallExceeded => "function_wall_exceeded",
            Self::FunctionMemoryExhausted => "function_memory_exhausted",
            Self::FunctionStackExhausted => "function_stack_exhausted",
            Self::FunctionHandlesExhausted => "function_handles_exhausted",
            Self::FunctionHostcallExhausted => "function_hostcall_exhausted",
            Self::FunctionResponseTooLarge => "function_response_too_large",
            Self::FunctionBusy { .. } => "function_busy",
            Self::CellLost => "cell_lost",
            Self::Unavailable { .. } => "unavailable",
            Self::SecretsUnavailable { .. } => "secrets_unavailable",
            Self::ClientGone => "client_gone",
            Self::Internal => "internal",
        }
    }

    /// One sentence for whoever reads the answer.
    pub fn detail(&self) -> &str {
        match self {
            Self::BadRequest(fault) => fault.detail(),
            Self::HeadTimeout => "the head of the request took too long",
            Self::UriTooLong => "the request target is too long",
            Self::HeaderTooLarge => "too many header fields, or too many bytes of them",
            Self::MethodUnknown => "no route takes this method",
            Self::VersionUnsupported => "use HTTP/1.1 or HTTP/2",
            Self::ExpectationFailed => "nothing but `100-continue` can be expected",
            Self::RateLimited { .. } => "a rate limit is used up; come back after the time given",
            Self::Unauthenticated => "a valid credential is needed",
            Self::CredentialRevoked => "the credential was revoked",
            Self::LoginFailed => "there is no such user, or the passphrase is another",
            Self::KeysUnavailable => "the keys to check the credential cannot be had at the moment",
            Self::Forbidden => "policies do not allow this",
            Self::Misdirected => "connect to this very host, by its name and with the certificate it asks for",
            Self::NotFound => "there is nothing here, or nothing you may know of",
            Self::MethodNotAllowed { .. } => "this path does not take the method",
            Self::BodyTooLarge => "the request body is larger than allowed",
            Self::BodyTimeout => "the request body stopped coming",
            Self::Overloaded { .. } => "too many calls at once; come back after the time given",
            Self::NotReady => "the node is starting or stopping",
            Self::AuditUnavailable => "the call could not be recorded, so it was not made",
            Self::AuditBehind => "records of calls are too far behind on their way elsewhere; come back later",
            Self::Escalates { message } | Self::SecretDenied { message } => message,
            Self::Invalid { message } | Self::Missing { message } | Self::Conflict { message } => message,
            Self::FunctionTrapped => "the function failed",
            Self::FunctionNoAnswer => "the function gave no usable answer",
            Self::FunctionCpuExhausted => "the function used up its CPU time",
            Self::FunctionWallExceeded => "the function took too long",
            Self::FunctionMemoryExhausted => "the function used up its memory",
            Self::FunctionStackExhausted => "the function used up its stack",
            Self::FunctionHandlesExhausted => "the function held too many handles at once",
            Self::FunctionHostcallExhausted => "the function passed more at once than the host takes",
            Self::FunctionResponseTooLarge => "the function's answer is larger than allowed",
            Self::FunctionBusy { .. } => "too many calls of this function at once",
            Self::CellLost => "the function's process was lost during the call",
            Self::Unavailable { .. } => "the function cannot be started at the moment",
            Self::SecretsUnavailable { .. } => {
                "the key that opens secrets cannot be had at the moment; what needs none of them goes on"
            }
            Self::ClientGone => "the client went away",
            Self::Internal => "something went wrong on our side",
        }
    }

    /// Who is answerable for it.
    pub fn origin(&self) -> Origin {
        match self.ending() {
            Ending::Trapped
            | Ending::NoAnswer
            | Ending::CpuExhausted
            | Ending::WallExceeded
            | Ending::MemoryExhausted
            | Ending::StackExhausted
            | Ending::HandlesExhausted
            | Ending::HostcallExhausted
            | Ending::ResponseTooLarge => Origin::Function,
            Ending::Answered
            | Ending::Refused
            | Ending::CellLost
            | Ending::Unavailable
            | Ending::SecretsUnavailable
            | Ending::Overloaded
            | Ending::ClientGone
            | Ending::Abandoned
            | Ending::PlatformFailed
            | Ending::Unknown => Origin::Platform,
        }
    }

    /// How the call ended, as the log names it.
    pub fn ending(&self) -> Ending {
        match self {
            Self::BadRequest(_)
            | Self::HeadTimeout
            | Self::UriTooLong
            | Self::HeaderTooLarge
            | Self::MethodUnknown
            | Self::VersionUnsupported
            | Self::ExpectationFailed
            | Self::RateLimited { .. }
            | Self::Unauthenticated
            | Self::CredentialRevoked
            | Self::LoginFailed
            | Self::KeysUnavailable
            | Self::Forbidden
            | Self::Misdirected
            | Self::Escalates { .. }
            | Self::SecretDenied { .. }
            | Self::NotFound
            | Self::MethodNotAllowed { .. }
            | Self::BodyTooLarge
            | Self::BodyTimeout
            | Self::NotReady
            | Self::AuditBehind
            | Self::Invalid { .. }
            | Self::Missing { .. }
            | Self::Conflict { .. } => Ending::Refused,
            Self::Overloaded { .. } | Self::FunctionBusy { .. } => Ending::Overloaded,
            Self::FunctionTrapped => Ending::Trapped,
            Self::FunctionNoAnswer => Ending::NoAnswer,
            Self::FunctionCpuExhausted => Ending::CpuExhausted,
            Self::FunctionWallExceeded => Ending::WallExceeded,
            Self::FunctionMemoryExhausted => Ending::MemoryExhausted,
            Self::FunctionStackExhausted => Ending::StackExhausted,
            Self::FunctionHandlesExhausted => Ending::HandlesExhausted,
            Self::FunctionHostcallExhausted => Ending::HostcallExhausted,
            Self::FunctionResponseTooLarge => Ending::ResponseTooLarge,
            Self::CellLost => Ending::CellLost,
            Self::Unavailable { .. } => Ending::Unavailable,
            Self::SecretsUnavailable { .. } => Ending::SecretsUnavailable,
            Self::ClientGone => Ending::ClientGone,
            Self::AuditUnavailable | Self::Internal => Ending::PlatformFailed,
        }
    }

    /// What a call that ended this way without an answer is told. An ending that is none of a failure's is a
    /// defect of ours.
    pub fn of_ending(ending: Ending, retry_after: Option<Duration>) -> Self {
        let retry_after = retry_after.unwrap_or(Duration::from_secs(1));
        match ending {
            Ending::Trapped => Self::FunctionTrapped,
            Ending::NoAnswer => Self::FunctionNoAnswer,
            Ending::CpuExhausted => Self::FunctionCpuExhausted,
            Ending::WallExceeded => Self::FunctionWallExceeded,
            Ending::MemoryExhausted => Self::FunctionMemoryExhausted,
            Ending::StackExhausted => Self::FunctionStackExhausted,
            Ending::HandlesExhausted => Self::FunctionHandlesExhausted,
            Ending::HostcallExhausted => Self::FunctionHostcallExhausted,
            Ending::ResponseTooLarge => Self::FunctionResponseTooLarge,
            Ending::CellLost => Self::CellLost,
            Ending::Unavailable => Self::Unavailable { retry_after },
            Ending::SecretsUnavailable => Self::SecretsUnavailable { retry_after },
            Ending::Overloaded => Self::FunctionBusy { retry_after },
            Ending::ClientGone => Self::ClientGone,
            Ending::Answered | Ending::Refused | Ending::Abandoned | Ending::PlatformFailed | Ending::Unknown => {
                Self::Internal
            }
        }
    }

    /// The problem document of this refusal.
    pub fn problem(&self, request: &RequestId) -> Bytes {
        let code = self.code();
        let status = self.status();
        let document = Problem {
            kind: format!("urn:cofferdam:problem:{code}"),
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail: self.detail(),
            code,
            request_id: request.as_str(),
            source: self.origin().as_str(),
        };
        serde_json::to_vec(&document).map(Bytes::from).unwrap_or_default()
    }

    /// The header fields that go with the problem document.
    pub fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        match self {
            Self::RateLimited { retry_after }
            | Self::Overloaded { retry_after }
            | Self::FunctionBusy { retry_after }
            | Self::SecretsUnavailable { retry_after }
            | Self::Unavailable { retry_after } => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(whole_seconds(*retry_after)));
            }
            // Issuers are asked again after a few seconds: no caller gains by being quicker.
            Self::KeysUnavailable => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
            }
            Self::Unauthenticated | Self::CredentialRevoked | Self::LoginFailed => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Self::MethodNotAllowed { allow } => {
                if let Ok(allow) = HeaderValue::from_str(allow) {
                    headers.insert(header::ALLOW, allow);
                }
            }
            _ => {}
        }
        headers
    }
}

/// Seconds, rounded up, at least one: `Retry-After: 0` would invite the very retry it should delay.
fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0)).max(1)
}

/// RFC 9457, with `code`, `request_id` and `source` as extensions.
#[derive(serde::Serialize)]
struct Problem<'a> {
    #[serde(rename = "type")]
    kind: String,
    title: &'static str,
    status: u16,
    detail: &'a str,
    code: &'static str,
    request_id: &'a str,
    source: &'static str,
}

#[cfg(test)]
mod tests;
