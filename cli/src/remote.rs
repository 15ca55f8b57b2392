//! Speaking to a node's management API.
//!
//! Owns where the node is, whom to trust and what to show it. Must never send a credential anywhere but over TLS to
//! that node, and never print one.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use cofferdam_gateway::client::{Answer, Caps, Client, Trust};
use http::{HeaderMap, HeaderValue, Method, header};
use serde_json::Value;
use zeroize::Zeroizing;

use crate::failure::{Failure, Kind};
use crate::layout::Layout;

/// Bytes of a credential file.
const CREDENTIAL_BYTES: u64 = 8 * 1024;

/// Which node, and who asks.
#[derive(Debug, Args)]
pub(crate) struct RemoteArgs {
    /// Address of the node
    #[arg(long, global = true, env = "COFFERDAM_URL", default_value = "https://localhost:8443")]
    url: String,
    /// PEM file of the certificates to trust [default: <data>/tls/cert.pem if it is there, else the system's]
    #[arg(long, global = true, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// File with an API key [env: COFFERDAM_KEY_FILE] [default: <data>/operator.key]
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "token_file")]
    key_file: Option<PathBuf>,
    /// File with a token; the environment variable COFFERDAM_TOKEN may hold the token itself
    #[arg(long, global = true, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// A node, and a credential to show it.
pub(crate) struct Remote {
    client: Client,
    runtime: tokio::runtime::Runtime,
    url: String,
    authorization: Option<HeaderValue>,
}

impl RemoteArgs {
    /// Makes ready to ask. Nothing is sent yet.
    pub(crate) fn open(&self, layout: &Layout) -> Result<Remote, Failure> {
        let authorization = Some(self.authorization(layout)?);
        Ok(Remote { authorization, ..self.anonymous(layout)? })
    }

    /// The same, showing nothing.
    pub(crate) fn anonymous(&self, layout: &Layout) -> Result<Remote, Failure> {
        let own = layout.certificate();
        let trust = match &self.ca {
            Some(file) => Trust::File(file.clone()),
            None if own.is_file() => Trust::File(own),
            None => Trust::Native,
        };
        // A published component is compiled before it is answered for, however busy the node.
        let client = Client::new(&trust, Caps { deadline: Duration::from_secs(300), ..Caps::default() })?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::internal(format!("cannot start the runtime: {error}")))?;
        let url = self.url.trim_end_matches('/').to_owned();
        Ok(Remote { client, runtime, url, authorization: None })
    }

    /// What was named on the command line comes before the environment, and that before the operator's own key.
    fn authorization(&self, layout: &Layout) -> Result<HeaderValue, Failure> {
        if let Some(file) = &self.token_file {
            return field("Bearer", &credential(file)?);
        }
        if let Some(file) = &self.key_file {
            return field("ApiKey", &credential(file)?);
        }
        if let Ok(token) = std::env::var("COFFERDAM_TOKEN").map(Zeroizing::new) {
            return field("Bearer", token.trim());
        }
        if let Some(file) = std::env::var_os("COFFERDAM_KEY_FILE") {
            return field("ApiKey", &credential(Path::new(&file))?);
        }
        let own = layout.operator_key();
        if own.is_file() {
            return field("ApiKey", &credential(&own)?);
        }
        let failure = Failure::new(Kind::Denied, "there is no credential to show to the node");
        Err(failure.hint("name one with --key-file or --token-file, or the data directory of a local node with --data"))
    }
}

impl Remote {
    /// Asks, and gives the JSON answered; any status but a good one is a failure.
    pub(crate) fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
        let body = body.map(|value| Bytes::from(value.to_string()));
        let kind = body.is_some().then_some("application/json");
        let answer = self.send(method, path, kind, body.unwrap_or_default())?;
        if !answer.status.is_success() {
            return Err(problem(&answer));
        }
        serde_json::from_slice(&answer.body)
            .map_err(|error| Failure::new(Kind::Remote, format!("the node's answer is not JSON: {error}")))
    }

    /// Asks, and gives what was answered as it is; any status but a good one is a failure.
    pub(crate) fn text(&self, method: Method, path: &str) -> Result<Bytes, Failure> {
        let answer = self.send(method, path, None, Bytes::new())?;
        if answer.status.is_success() { Ok(answer.body) } else { Err(problem(&answer)) }
    }

    /// Sends bytes of a kind, and gives the JSON answered.
    pub(crate) fn upload(&self, method: Method, path: &str, kind: &'static str, body: Bytes) -> Result<Value, Failure> {
        let answer = self.send(method, path, Some(kind), body)?;
        if !answer.status.is_success() {
            return Err(problem(&answer));
        }
        serde_json::from_slice(&answer.body)
            .map_err(|error| Failure::new(Kind::Remote, format!("the node's answer is not JSON: {error}")))
    }

    /// Does nothing for a while.
    pub(crate) fn pause(&self, time: Duration) {
        self.runtime.block_on(tokio::time::sleep(time));
    }

    fn send(&self, method: Method, path: &str, kind: Option<&'static str>, body: Bytes) -> Result<Answer, Failure> {
        let mut headers = HeaderMap::new();
        if let Some(kind) = kind {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        self.request(method, path, headers, body)
    }

    /// Sends a request as it is, and gives the answer as it is.
    pub(crate) fn request(
        &self,
        method: Method,
        path: &str,
        mut headers: HeaderMap,
        body: Bytes,
    ) -> Result<Answer, Failure> {
        if let Some(authorization) = &self.authorization {
            headers.insert(header::AUTHORIZATION, authorization.clone());
        }
        let url = format!("{}{path}", self.url);
        self.runtime.block_on(self.client.request(method, &url, headers, body)).map_err(|error| {
            let failure = Failure::from(error);
            failure.hint(format!("is a node serving at {}, and is its certificate trusted (--ca)?", self.url))
        })
    }
}

/// A text as one segment of a path, in the form the gateway calls plain.
pub(crate) fn segment(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,=:@".contains(&byte);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// What a refusal of the node means here.
pub(crate) fn problem(answer: &Answer) -> Failure {
    let status = answer.status.as_u16();
    let kind = match status {
        401 | 403 => Kind::Denied,
        404 => Kind::NotFound,
        409 => Kind::Conflict,
        400 | 405 | 411 | 413 | 414 | 415 | 422 | 431 => Kind::Invalid,
        _ => Kind::Remote,
    };
    let problem: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let member = |name: &str| problem.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let message = member("detail").or_else(|| member("title"));
    let mut failure = Failure::new(kind, message.map_or_else(|| format!("the node answered {status}"), str::to_owned));
    if let Some(code) = member("code") {
        failure = failure.code(code);
    }
    let asked = member("request_id").map(|id| format!(" (request {id})")).unwrap_or_default();
    match kind {
        Kind::Denied if status == 401 => failure.hint(format!("the credential shown is not known there{asked}")),
        Kind::Denied => failure.hint(format!("the roles of the credential shown do not allow it{asked}")),
        _ if asked.is_empty() => failure,
        _ => failure.hint(format!("the log has the details{asked}")),
    }
}

fn credential(path: &Path) -> Result<Zeroizing<String>, Failure> {
    let failed = |error: std::io::Error| Failure::file("read the credential in", path, &error);
    let file = std::fs::File::open(path).map_err(failed)?;
    // Room for all of it from the start: growing would leave copies behind.
    let mut text = Zeroizing::new(String::with_capacity(CREDENTIAL_BYTES as usize + 1));
    file.take(CREDENTIAL_BYTES + 1).read_to_string(&mut text).map_err(failed)?;
    Ok(Zeroizing::new(text.trim().to_owned()))
}

fn field(scheme: &str, credential: &str) -> Result<HeaderValue, Failure> {
    let fits = !credential.is_empty()
        && credential.len() as u64 <= CREDENTIAL_BYTES
        && credential.bytes().all(|byte| byte.is_ascii_graphic());
    let text = Zeroizing::new(format!("{scheme} {credential}"));
    let mut value = HeaderValue::from_str(&text)
        .ok()
        .filter(|_| fits)
        .ok_or_else(|| Failure::new(Kind::Denied, "the credential given is not one: a single line is expected"))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::StatusCode;

    fn refused(status: u16, body: &str) -> Failure {
        let status = StatusCode::from_u16(status).unwrap();
        problem(&Answer { status, headers: HeaderMap::new(), body: Bytes::from(body.to_owned()) })
    }

    #[test]
    fn refusals_become_exit_codes() {
        for (status, code) in [(400, 3), (401, 5), (403, 5), (404, 4), (409, 6), (413, 3), (429, 7), (500, 7), (503, 7)]
        {
            assert_eq!(refused(status, "").exit_code(), code, "{status}");
        }
        let body = r#"{"code":"conflict","detail":"route `x` conflicts","request_id":"req_1"}"#;
        let told = refused(409, body).json();
        assert_eq!((told["code"].as_str(), told["message"].as_str()), (Some("conflict"), Some("route `x` conflicts")));
        assert!(told["hint"].as_str().unwrap().contains("req_1"));
    }

    #[test]
    fn segment_cannot_leave_its_place() {
        assert_eq!(segment("auth0|a/b?c#d%é"), "auth0%7Ca%2Fb%3Fc%23d%25%C3%A9");
        assert_eq!(segment("alice@example.com"), "alice@example.com");
    }

    #[test]
    fn credential_is_one_line_and_never_printed() {
        let value = field("ApiKey", "cof_abc").unwrap();
        assert!(value.is_sensitive() && !format!("{value:?}").contains("cof_abc"));
        for text in ["", "a b", "a\nb", "é", &"x".repeat(8193)] {
            assert!(field("Bearer", text).is_err(), "{text}");
        }
    }
}
