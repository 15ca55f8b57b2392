//! The token endpoint of the node's own issuer: a passphrase or a token in, a token that says no more out.
//!
//! Owns the form it takes (RFC 6749, 4.3; RFC 8693) and who that makes the caller. From there on it is an operation
//! like any other: decided on, recorded, then done. Must never put a passphrase or a token into a record or an error.

use std::net::IpAddr;
use std::time::Duration;

use cofferdam_authz::{Credential, Login, Principal};
use cofferdam_control::Narrowing;
use cofferdam_model::Manage;
use zeroize::Zeroizing;

use crate::body::Inbound;
use crate::node::Node;
use crate::refusal::Refusal;
use crate::signed::Payload;

/// Bytes of a form: a token, a passphrase where each byte takes three, and the rest.
const FORM_BYTES: u64 = 24 * 1024;
const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
/// Every field there is.
const FIELDS: [&str; 10] = [
    "grant_type",
    "username",
    "password",
    "subject_token",
    "subject_token_type",
    "requested_token_type",
    "scope",
    "roles",
    "audience",
    "expires_in",
];

/// What was asked for, read but not believed.
pub(crate) struct Asked {
    shown: Shown,
    narrowing: Narrowing,
}

/// What the caller shows for it.
enum Shown {
    Passphrase { tenant: String, user: String, passphrase: Zeroizing<String> },
    Token(Zeroizing<String>),
}

/// Reads the form.
pub(crate) async fn read(node: &Node, body: Payload) -> Result<Asked, Refusal> {
    let idle = Duration::from_millis(node.limits.body_idle_ms);
    let bytes = Inbound::new(body, FORM_BYTES, idle)?.collect_within(idle).await?;
    Asked::parse(&bytes)
}

impl Asked {
    fn parse(form: &[u8]) -> Result<Self, Refusal> {
        let fields = Fields::parse(form)?;
        let list = |name: &str| fields.get(name).map(|text| words(&text));
        let seconds = fields.get("expires_in").map(|text| text.parse::<u64>());
        let seconds = seconds.transpose().map_err(|_| invalid("`expires_in` is a number of seconds"))?;
        let narrowing =
            Narrowing { audiences: fields.all("audience"), roles: list("roles"), scopes: list("scope"), seconds };
        let need = |name: &'static str| fields.get(name).ok_or_else(|| invalid(&format!("`{name}` is missing")));
        let shown = match need("grant_type")?.as_str() {
            "password" => {
                let name = need("username")?;
                let (tenant, user) =
                    name.split_once('/').ok_or_else(|| invalid("write `username` as `tenant/user`"))?;
                let (tenant, user) = (tenant.to_owned(), user.to_owned());
                Shown::Passphrase { tenant, user, passphrase: need("password")? }
            }
            EXCHANGE => {
                let kinds = [("subject_token_type", true), ("requested_token_type", false)];
                for (name, needed) in kinds {
                    let given = fields.get(name);
                    let known = given.as_ref().is_some_and(|kind| [ACCESS_TOKEN, JWT].contains(&kind.as_str()));
                    if !known && (needed || given.is_some()) {
                        return Err(invalid(&format!("`{name}` must be `{ACCESS_TOKEN}`")));
                    }
                }
                Shown::Token(need("subject_token")?)
            }
            _ => return Err(invalid(&format!("`grant_type` must be `password` or `{EXCHANGE}`"))),
        };
        Ok(Self { shown, narrowing })
    }

    /// The credential in it.
    pub(crate) fn credential(&self, source: IpAddr) -> Credential<'_> {
        match &self.shown {
            Shown::Passphrase { tenant, user, passphrase } => {
                Credential::Passphrase(Login { tenant, user, passphrase: passphrase.as_bytes(), source })
            }
            Shown::Token(token) => Credential::Bearer(token),
        }
    }

    /// What a record says of it where nobody was identified. A name nobody has may be anything, even a passphrase typed
    /// into the wrong field: it is not written down.
    pub(crate) fn detail(&self, node: &Node) -> String {
        let Shown::Passphrase { tenant, user, .. } = &self.shown else { return "exchange".to_owned() };
        let snapshot = node.live.control().snapshot();
        let known = snapshot.tenant_by_name(tenant).is_some_and(|found| found.has_user(user));
        if known { format!("login user={tenant}/{user}") } else { "login user=unknown".to_owned() }
    }

    /// The operation it comes to, for this principal.
    pub(crate) fn operation(&self, node: &Node, who: &Principal) -> Result<Manage, Refusal> {
        let (tenant, grant) = node.live.control().grant(who, &self.narrowing)?;
        Ok(Manage::IssueToken { tenant, grant })
    }
}

/// The fields of a form. Only `audience` may be there more than once.
struct Fields(Vec<(String, Zeroizing<String>)>);

impl Fields {
    fn parse(form: &[u8]) -> Result<Self, Refusal> {
        let text = std::str::from_utf8(form).map_err(|_| invalid("the body is not a form"))?;
        let mut fields: Vec<(String, Zeroizing<String>)> = Vec::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').ok_or_else(|| invalid("the body is not a form"))?;
            let known = FIELDS.contains(&name);
            if !known || (name != "audience" && fields.iter().any(|(given, _)| given == name)) {
                return Err(invalid("the form has a field twice, or one that is not known here"));
            }
            fields.push((name.to_owned(), decoded(value).ok_or_else(|| invalid("the body is not a form"))?));
        }
        Ok(Self(fields))
    }

    fn get(&self, name: &str) -> Option<Zeroizing<String>> {
        self.0.iter().find(|(given, _)| given == name).map(|(_, value)| value.clone())
    }

    fn all(&self, name: &str) -> Option<Vec<String>> {
        let all: Vec<_> =
            self.0.iter().filter(|(given, _)| given == name).map(|(_, value)| value.to_string()).collect();
        (!all.is_empty()).then_some(all)
    }
}

/// A value of a form as it was meant.
fn decoded(text: &str) -> Option<Zeroizing<String>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                let (high, low) = (digit(rest.next())?, digit(rest.next())?);
                u8::try_from(high << 4 | low).ok()?
            }
            other => other,
        });
    }
    std::str::from_utf8(&bytes).ok().map(|text| Zeroizing::new(text.to_owned()))
}

fn words(text: &str) -> Vec<String> {
    let mut words: Vec<_> = text.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect();
    words.sort_unstable();
    words.dedup();
    words
}

fn invalid(message: &str) -> Refusal {
    Refusal::Invalid { message: message.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_read_in_one_way_or_not_at_all() {
        let asked = Asked::parse(b"grant_type=password&username=acme%2Falice&password=a+b%26c%3d&roles=x+y+x").unwrap();
        let Shown::Passphrase { tenant, user, passphrase } = &asked.shown else { panic!("a passphrase") };
        assert_eq!((tenant.as_str(), user.as_str(), passphrase.as_str()), ("acme", "alice", "a b&c="));
        assert_eq!(asked.narrowing.roles, Some(vec!["x".to_owned(), "y".to_owned()]));
        let exchange = format!(
            "grant_type={EXCHANGE}&subject_token=a.b.c&subject_token_type={ACCESS_TOKEN}&audience=a&audience=b&scope="
        );
        let asked = Asked::parse(exchange.as_bytes()).unwrap();
        assert!(matches!(&asked.shown, Shown::Token(token) if token.as_str() == "a.b.c"));
        assert_eq!(asked.narrowing.audiences, Some(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(asked.narrowing.scopes, Some(vec![]), "none is not the same as all");
        for bad in [
            "",
            "grant_type=password",
            "grant_type=password&username=alice&password=x",
            "grant_type=password&grant_type=password&username=a/b&password=x",
            "grant_type=password&username=a/b&password=x&password=y",
            "grant_type=password&username=a/b&password=%",
            "grant_type=password&username=a/b&password=%ff",
            "grant_type=password&username=a/b&password=x&actor_token=y",
            "grant_type=password&username=a/b&password=x&expires_in=-1",
            "grant_type=client_credentials",
            "grant_type=urn:ietf:params:oauth:grant-type:token-exchange&subject_token=x",
            "{}",
        ] {
            assert!(matches!(Asked::parse(bad.as_bytes()), Err(Refusal::Invalid { .. })), "{bad}");
        }
    }
}
