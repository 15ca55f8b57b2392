//! What a condition can ask about, and where that is here.
//!
//! Owns the list of keys. Must never give a key for something that is there to be asked only sometimes, without
//! saying when.

use super::test::Test;

/// A key of the request.
pub(super) struct Key {
    /// When it is there.
    pub(super) present: Test,
    pub(super) is: Kind,
}

/// What kind of thing its value is, and where it is.
pub(super) enum Kind {
    Text(&'static str),
    Texts(&'static str),
    Flag(Test),
    /// `context.source`.
    Address,
    /// `context.now`, to the millisecond.
    Moment,
    /// `context.now` in whole seconds since 1970.
    Seconds,
}

/// The key of that name, which IAM compares without regard to case.
pub(super) fn key(name: &str) -> Option<Key> {
    let when = |text: &str| Test::Is(text.to_owned());
    let (present, is) = match name.to_ascii_lowercase().as_str() {
        "aws:sourceip" => (Test::Always, Kind::Address),
        "aws:currenttime" => (Test::Always, Kind::Moment),
        "aws:epochtime" => (Test::Always, Kind::Seconds),
        // Nothing comes in without TLS.
        "aws:securetransport" => (Test::Always, Kind::Flag(Test::Always)),
        "aws:username" => (when("principal is User"), Kind::Text("principal.id")),
        "cofferdam:principalid" => (Test::Always, Kind::Text("principal.id")),
        "cofferdam:issuer" => (when("principal has issuer"), Kind::Text("principal.issuer")),
        "cofferdam:functionname" => (when("resource has name"), Kind::Text("resource.name")),
        "cofferdam:method" => (Test::Always, Kind::Text("context.method")),
        "cofferdam:host" => (Test::Always, Kind::Text("context.host")),
        "cofferdam:path" => (Test::Always, Kind::Text("context.path")),
        "cofferdam:tls" => (Test::Always, Kind::Text("context.tls")),
        "cofferdam:credential" => (Test::Always, Kind::Text("context.credential")),
        "cofferdam:public" => (Test::Always, Kind::Flag(when("context.public"))),
        // A list of none is, in IAM, a key that is not there.
        "cofferdam:roles" => (when("!(principal.roles.isEmpty())"), Kind::Texts("principal.roles")),
        _ => return None,
    };
    Some(Key { present, is })
}
