//! `invoke`, `logs` and `function`: one function at a time.
//!
//! Owns how an answer is passed on: its body as it came, its status as an exit code; and the following of a log. Must
//! never change a byte of either.

use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use clap::{Args, Subcommand};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::{Value, json};

use super::{Context, FunctionName, input};
use crate::failure::Failure;
use crate::output::{items, text};
use crate::remote::{Remote, RemoteArgs, problem};

/// Bytes of a request body.
const BODY_BYTES: usize = 64 * 1024 * 1024;
/// Lines asked for at once while a log is followed, and how long the node waits for the first of them.
const FOLLOWED: usize = 1_000;
const WAIT_MS: u64 = 20_000;
/// Time between two askings where nothing came, or the node could not be asked, and how often the latter is borne.
const PAUSE: Duration = Duration::from_secs(1);
const RETRIES: usize = 30;

/// Arguments of `cofferdam invoke`.
#[derive(Debug, Args)]
pub(crate) struct InvokeArgs {
    #[command(flatten)]
    remote: RemoteArgs,
    /// Function, as tenant/function
    function: FunctionName,
    /// Path and query it is called with
    #[arg(default_value = "/")]
    path: String,
    /// Method [default: GET, or POST with a body]
    #[arg(long, short = 'X')]
    method: Option<Method>,
    /// A header, as `name: value`; may be repeated
    #[arg(long = "header", short = 'H', value_name = "HEADER", value_parser = header)]
    headers: Vec<(HeaderName, HeaderValue)>,
    /// File with the body; `-` is standard input
    #[arg(long, value_name = "FILE")]
    body: Option<PathBuf>,
}

/// Arguments of `cofferdam logs`.
#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    #[command(flatten)]
    remote: RemoteArgs,
    /// Function, as tenant/function
    function: FunctionName,
    /// At most this many of the newest lines
    #[arg(long, short = 'n', default_value_t = 100)]
    lines: usize,
    /// Go on with lines as they are written, until interrupted
    #[arg(long, short = 'f')]
    follow: bool,
}

/// Arguments of `cofferdam function`.
#[derive(Debug, Args)]
pub(crate) struct FunctionArgs {
    #[command(flatten)]
    remote: RemoteArgs,
    #[command(subcommand)]
    what: Function,
}

#[derive(Debug, Subcommand)]
enum Function {
    /// Remove a function with its versions, secrets and routes
    Rm {
        /// Function, as tenant/function
        function: FunctionName,
    },
    /// Forget old versions, and free the room their components take
    Prune {
        /// Function, as tenant/function
        function: FunctionName,
        /// How many of the newest versions stay; the current one stays in any case
        #[arg(long, value_name = "N")]
        keep: u32,
    },
}

/// Runs `cofferdam invoke`.
pub(crate) fn invoke(args: &InvokeArgs, context: &Context) -> Result<(), Failure> {
    let body = match &args.body {
        Some(file) if file.as_os_str() == "-" => input(None, BODY_BYTES)?.to_vec(),
        Some(file) => input(Some(file), BODY_BYTES)?.to_vec(),
        None => Vec::new(),
    };
    let method = args.method.clone().unwrap_or_else(|| if args.body.is_some() { Method::POST } else { Method::GET });
    let FunctionName { tenant, function } = &args.function;
    let path = format!("/-/invoke/{tenant}/{function}/{}", args.path.trim_start_matches('/'));
    let headers: HeaderMap = args.headers.iter().cloned().collect();
    let answer = args.remote.open(&context.layout)?.request(method, &path, headers, Bytes::from(body))?;
    if context.output.json {
        let fields = answer
            .headers
            .iter()
            .map(|(name, value)| json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())]));
        let fields: Vec<_> = fields.collect();
        let text = std::str::from_utf8(&answer.body).ok();
        let bytes = text.is_none().then(|| STANDARD.encode(&answer.body));
        let told = json!({ "status": answer.status.as_u16(), "headers": fields, "body": text, "body_base64": bytes });
        context.output.result(&told, Vec::new)?;
    } else {
        context.output.bytes(&answer.body)?;
    }
    if answer.status.is_client_error() || answer.status.is_server_error() {
        return Err(problem(&answer));
    }
    Ok(())
}

/// Runs `cofferdam logs`.
pub(crate) fn logs(args: &LogsArgs, context: &Context) -> Result<(), Failure> {
    let path = format!("{}/logs?lines={}", args.function.path(), args.lines);
    let remote = args.remote.open(&context.layout)?;
    let read = remote.call(Method::GET, &path, None)?;
    if args.follow {
        return follow(args, &remote, context, read);
    }
    context.output.result(&read, || {
        let line = |line: &Value| line.as_str().map_or_else(|| line.to_string(), str::to_owned);
        items(&read, "lines").iter().map(line).collect()
    })
}

/// Tells the lines of a page, then asks for those after it, as long as anybody reads.
fn follow(args: &LogsArgs, remote: &Remote, context: &Context, mut page: Value) -> Result<(), Failure> {
    let mut failures = 0;
    loop {
        if !context.output.stream(told(&page, context.output.json).as_bytes())? {
            return Ok(());
        }
        let after = text(&page, "cursor");
        if items(&page, "lines").is_empty() {
            // The node waited already, unless too many follow.
            remote.pause(PAUSE);
        }
        let path = format!("{}/logs?lines={FOLLOWED}&after={after}&wait_ms={WAIT_MS}", args.function.path());
        page = loop {
            match remote.call(Method::GET, &path, None) {
                Ok(page) => break page,
                // A node that restarts comes back, and the lines are still there.
                Err(failure) if failure.is_remote() && failures < RETRIES => {
                    context.output.note(&format!("{}; asking again", failure.message()));
                    failures += 1;
                    remote.pause(PAUSE);
                }
                Err(failure) => return Err(failure),
            }
        };
        failures = 0;
    }
}

/// A page of a log that is followed: its lines, or one JSON object for each.
fn told(page: &Value, json: bool) -> String {
    let mut out = String::new();
    if page.get("missed") == Some(&Value::Bool(true)) {
        let missed = "lines between were overwritten before they could be read";
        let line = if json { json!({ "missed": missed }).to_string() } else { format!("-- {missed} --") };
        out.push_str(&line);
        out.push('\n');
    }
    for line in items(page, "lines").iter().filter_map(Value::as_str) {
        if json {
            out.push_str(&json!({ "line": line }).to_string());
        } else {
            out.push_str(line);
        }
        out.push('\n');
    }
    out
}

/// Runs `cofferdam function`.
pub(crate) fn function(args: &FunctionArgs, context: &Context) -> Result<(), Failure> {
    let remote = args.remote.open(&context.layout)?;
    match &args.what {
        Function::Rm { function } => {
            let removed = remote.call(Method::DELETE, &function.path(), None)?;
            context.output.result(&removed, || vec![format!("{}/{} is gone", function.tenant, function.function)])
        }
        Function::Prune { function, keep } => {
            let path = format!("{}/prune", function.path());
            let pruned = remote.call(Method::POST, &path, Some(&json!({ "keep": keep })))?;
            context.output.result(&pruned, || {
                let (gone, [kept, freed, stored]) = (
                    items(&pruned, "removed").len(),
                    ["kept", "freed_bytes", "stored_bytes"].map(|n| text(&pruned, n)),
                );
                vec![format!("{gone} versions forgotten, {kept} kept; {freed} bytes freed, the tenant stores {stored}")]
            })
        }
    }
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("write it as `name: value`")?;
    let name = name.trim().parse().map_err(|_| "its name is not a header's".to_owned())?;
    let value = value.trim().parse().map_err(|_| "its value is not a header's".to_owned())?;
    Ok((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_is_a_name_and_a_value() {
        let (name, value) = header("X-A:  b: c").unwrap();
        assert_eq!((name.as_str(), value.to_str().unwrap()), ("x-a", "b: c"));
        for text in ["", "x", ": v", "a b: c", "a: b\nc"] {
            assert!(header(text).is_err(), "{text}");
        }
    }

    #[test]
    fn followed_lines_are_told_as_they_are_and_a_gap_before_them() {
        let page = json!({ "lines": ["one", "two"], "cursor": "1-1", "missed": false });
        assert_eq!(told(&page, false), "one\ntwo\n");
        assert_eq!(told(&page, true), "{\"line\":\"one\"}\n{\"line\":\"two\"}\n");
        let page = json!({ "lines": ["three"], "cursor": "1-1", "missed": true });
        assert!(told(&page, false).starts_with("-- lines between were overwritten"));
        assert!(told(&page, true).lines().next().unwrap().contains("missed"));
    }
}
