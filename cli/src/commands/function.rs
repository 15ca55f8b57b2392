//! `invoke`, `logs` and `function`: one function at a time.
//!
//! Owns how an answer is passed on: its body as it came, its status as an exit code. Must never change a byte of it.

use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use clap::{Args, Subcommand};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::{Value, json};

use super::{Context, FunctionName, input};
use crate::failure::Failure;
use crate::output::items;
use crate::remote::{RemoteArgs, problem};

/// Bytes of a request body.
const BODY_BYTES: usize = 64 * 1024 * 1024;

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
    let read = args.remote.open(&context.layout)?.call(Method::GET, &path, None)?;
    context.output.result(&read, || {
        let line = |line: &Value| line.as_str().map_or_else(|| line.to_string(), str::to_owned);
        items(&read, "lines").iter().map(line).collect()
    })
}

/// Runs `cofferdam function`.
pub(crate) fn function(args: &FunctionArgs, context: &Context) -> Result<(), Failure> {
    let Function::Rm { function } = &args.what;
    let removed = args.remote.open(&context.layout)?.call(Method::DELETE, &function.path(), None)?;
    context.output.result(&removed, || vec![format!("{}/{} is gone", function.tenant, function.function)])
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
}
