//! `app.toml`: what an app consists of.
//!
//! Owns the manifest's meaning and every check that needs no server: what is wrong is said with file, line, column
//! and what to write instead. Must never upload or change anything.

mod egress;
mod reader;
pub(crate) mod units;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use cofferdam_control::{ControlError, check_route, check_settings, routes_conflict};
use cofferdam_model::id::is_name;
use cofferdam_model::secret::is_env_name;
use cofferdam_model::{FunctionSettings, Level, Rate, RouteSpec};

use self::reader::{Spanned, Table, Wrong, did_you_mean};
use crate::failure::{Failure, Kind, Place};

/// Bytes of a manifest or a policy file.
const TEXT_BYTES: u64 = 1024 * 1024;
/// Bytes of a component.
const COMPONENT_BYTES: u64 = 64 * 1024 * 1024;
/// How a component begins: magic, version 13, layer 1.
const COMPONENT: [u8; 8] = *b"\0asm\x0d\0\x01\0";
/// How a core module begins.
const MODULE: [u8; 8] = *b"\0asm\x01\0\0\0";

/// Gives the content of a file the manifest names.
type Opener<'a> = &'a dyn Fn(&Path) -> std::io::Result<Vec<u8>>;

/// An app, checked as far as it can be without a server.
#[derive(Debug)]
pub(crate) struct Manifest {
    pub(crate) app: String,
    pub(crate) tenant: String,
    pub(crate) functions: Vec<Function>,
    pub(crate) routes: Vec<RouteSpec>,
    pub(crate) policies: Vec<Policy>,
}

/// A function of an app.
#[derive(Debug)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) settings: FunctionSettings,
    pub(crate) component: Vec<u8>,
}

/// A policy of an app.
#[derive(Debug)]
pub(crate) struct Policy {
    pub(crate) name: String,
    pub(crate) text: String,
    pub(crate) file: PathBuf,
}

impl Manifest {
    /// Reads the file, and the files it names, which are looked for beside it.
    pub(crate) fn load(path: &Path) -> Result<Self, Failure> {
        let text = read(path, TEXT_BYTES).map_err(|error| Failure::file("read", path, &error))?;
        let text = String::from_utf8(text)
            .map_err(|_| Failure::new(Kind::Invalid, format!("`{}` is not UTF-8 text", path.display())))?;
        let base = path.parent().unwrap_or_else(|| Path::new(""));
        Self::parse(&text, &|file| read(&base.join(file), COMPONENT_BYTES)).map_err(|wrong| failure(path, &text, wrong))
    }

    /// Reads a text; `open` gives the files it names.
    fn parse(text: &str, open: Opener<'_>) -> Result<Self, Wrong> {
        let document = toml_edit::Document::parse(text).map_err(|error| {
            let message = error.message().trim().replace('\n', ", ");
            Wrong::new(error.span().unwrap_or(0..0), message, "see https://toml.io for how TOML is written")
        })?;
        let root = Table::new(document.as_table(), "the manifest", 0..0);
        match root.number("manifest")? {
            Some(version) if version.value == 1 => {}
            Some(version) => {
                return Err(Wrong::new(version.span, "this format is not known", "write `manifest = 1`"));
            }
            None => return Err(root.missing("manifest = 1")),
        }
        root.only(&["manifest", "app", "functions", "routes", "policies"])?;
        let app = root.need_table("app")?;
        app.only(&["name", "tenant"])?;
        let (name, tenant) = (self::name(app.need_text("name")?)?, self::name(app.need_text("tenant")?)?);
        let functions = match root.table("functions")? {
            Some(tables) => {
                tables.named_tables()?.into_iter().map(|(name, table)| function(name, table, open)).collect()
            }
            None => Ok(Vec::new()),
        }?;
        let routes = routes(root.tables("routes")?, &functions)?;
        let policies = match root.table("policies")? {
            Some(table) => policies(table, open)?,
            None => Vec::new(),
        };
        Ok(Self { app: name.value, tenant: tenant.value, functions, routes, policies })
    }
}

fn function(name: Spanned<String>, table: Table<'_>, open: Opener<'_>) -> Result<Function, Wrong> {
    let name = self::name(name)?;
    table.only(&["source", "limits", "recycle", "env", "secrets", "egress"])?;
    let source = table.need_table("source")?;
    source.only(&["path"])?;
    let path = source.need_text("path")?;
    let component = component(&path, open)?;
    let mut settings = FunctionSettings::default();
    if let Some(limits) = table.table("limits")? {
        read_limits(limits, &mut settings)?;
    }
    if let Some(recycle) = table.table("recycle")? {
        read_recycle(recycle, &mut settings)?;
    }
    if let Some(env) = table.table("env")? {
        for (key, value) in env.named_texts()? {
            let key = env_name(key)?;
            settings.env.insert(key.value, value.value);
        }
    }
    for secret in table.texts("secrets")? {
        let secret = env_name(secret)?;
        if settings.env.contains_key(&secret.value) {
            let message = format!("`{}` is a secret and a plain `env` entry", secret.value);
            return Err(Wrong::new(secret.span, message, "keep one of the two"));
        }
        if settings.secrets.contains(&secret.value) {
            let message = format!("secret `{}` is listed twice", secret.value);
            return Err(Wrong::new(secret.span, message, "list it once"));
        }
        settings.secrets.push(secret.value);
    }
    egress::read(table.tables("egress")?, &mut settings, &name.value, open)?;
    check_settings(&name.value, &settings).map_err(|error| refused(table.span, &error))?;
    Ok(Function { name: name.value, settings, component })
}

fn component(path: &Spanned<String>, open: Opener<'_>) -> Result<Vec<u8>, Wrong> {
    let wrong = |message: String, remedy: &str| Err(Wrong::new(path.span.clone(), message, remedy));
    let bytes = match open(Path::new(&path.value)) {
        Ok(bytes) => bytes,
        Err(error) => {
            let message = format!("cannot read component `{}`: {error}", path.value);
            return wrong(message, "build it first; the path is looked for beside the manifest");
        }
    };
    if bytes.starts_with(&COMPONENT) {
        return Ok(bytes);
    }
    if bytes.starts_with(&MODULE) {
        let message = format!("`{}` is a core WebAssembly module, not a component", path.value);
        return wrong(message, "build it for `wasm32-wasip2`, or wrap it with `wasm-tools component new`");
    }
    let message = format!("`{}` is not a WebAssembly component", path.value);
    wrong(message, "name the `.wasm` file that a component toolchain wrote")
}

fn read_limits(table: Table<'_>, settings: &mut FunctionSettings) -> Result<(), Wrong> {
    let streams = ["request", "response", "response_headers", "log", "egress_calls", "egress"];
    table.only(&[&["memory", "cpu", "wall", "concurrency", "cells"][..], &streams].concat())?;
    let limits = &mut settings.limits;
    let size = |key| -> Result<Option<u64>, Wrong> {
        let given = table.text(key)?;
        given.map(|text| Ok(text.try_map("the size", |text| units::bytes(text))?.value)).transpose()
    };
    let time = |key| -> Result<Option<u64>, Wrong> {
        let given = table.text(key)?;
        given.map(|text| Ok(text.try_map("the time", |text| units::milliseconds(text))?.value)).transpose()
    };
    let count = |key| -> Result<Option<u32>, Wrong> {
        let small = |number: &u64| u32::try_from(*number).map_err(|_| "write a smaller number".to_owned());
        table.number(key)?.map(|number| Ok(number.try_map("the number", small)?.value)).transpose()
    };
    let small = |bytes: u64| u32::try_from(bytes).unwrap_or(u32::MAX);
    limits.memory_bytes = size("memory")?.unwrap_or(limits.memory_bytes);
    limits.cpu_ms = time("cpu")?.unwrap_or(limits.cpu_ms);
    limits.wall_ms = time("wall")?.unwrap_or(limits.wall_ms);
    limits.concurrency = count("concurrency")?.unwrap_or(limits.concurrency);
    limits.cells = count("cells")?.unwrap_or(limits.cells);
    limits.request_bytes = size("request")?.unwrap_or(limits.request_bytes);
    limits.response_bytes = size("response")?.unwrap_or(limits.response_bytes);
    limits.response_header_bytes = size("response_headers")?.map_or(limits.response_header_bytes, small);
    limits.log_bytes = size("log")?.unwrap_or(limits.log_bytes);
    limits.egress_calls = count("egress_calls")?.unwrap_or(limits.egress_calls);
    limits.egress_bytes = size("egress")?.unwrap_or(limits.egress_bytes);
    Ok(())
}

fn read_recycle(table: Table<'_>, settings: &mut FunctionSettings) -> Result<(), Wrong> {
    table.only(&["after_calls", "after", "idle", "memory"])?;
    let recycle = &mut settings.recycle;
    let time = |key| -> Result<Option<u64>, Wrong> {
        let given = table.text(key)?;
        given.map(|text| Ok(text.try_map("the time", |text| units::seconds(text))?.value)).transpose()
    };
    recycle.after_calls = table.number("after_calls")?.map_or(recycle.after_calls, |number| number.value);
    recycle.after_seconds = time("after")?.unwrap_or(recycle.after_seconds);
    recycle.idle_seconds = time("idle")?.unwrap_or(recycle.idle_seconds);
    if let Some(text) = table.text("memory")? {
        recycle.memory_bytes = text.try_map("the size", |text| units::bytes(text))?.value;
    }
    Ok(())
}

fn routes(tables: Vec<Table<'_>>, functions: &[Function]) -> Result<Vec<RouteSpec>, Wrong> {
    let mut routes: Vec<RouteSpec> = Vec::new();
    for table in tables {
        let span = table.span.clone();
        let (spec, path) = route(table, functions)?;
        if let Some((one, other)) = routes.iter().find_map(|earlier| routes_conflict(&spec, earlier)) {
            let message = format!("route `{one}` conflicts with `{other}`");
            return Err(Wrong::new(path, message, "no two routes may take the same request"));
        }
        check_route(&spec).map_err(|error| refused(span, &error))?;
        routes.push(spec);
    }
    Ok(routes)
}

/// One route, and where its path stands.
fn route(table: Table<'_>, functions: &[Function]) -> Result<(RouteSpec, std::ops::Range<usize>), Wrong> {
    table.only(&["host", "path", "methods", "function", "public", "audit", "limit", "body", "receipt"])?;
    let (host, path) = (table.need_text("host")?, table.need_text("path")?);
    let function = table.need_text("function")?;
    let methods = table.texts("methods")?;
    let audit = table.text("audit")?.map(|text| text.try_map("the level", |text| level(text))).transpose()?;
    let body = table.text("body")?.map(|text| text.try_map("the size", |text| units::bytes(text))).transpose()?;
    let limit = table.table("limit")?.map(rate).transpose()?;
    let public = table.flag("public")?.is_some_and(|flag| flag.value);
    let receipt = table.flag("receipt")?.is_some_and(|flag| flag.value);
    let known: Vec<_> = functions.iter().map(|function| function.name.as_str()).collect();
    if !known.contains(&function.value.as_str()) {
        let message = format!("function `{}` is not in this manifest", function.value);
        return Err(Wrong::new(function.span, message, did_you_mean(&function.value, &known)));
    }
    let mut spec = RouteSpec {
        host: "a".to_owned(),
        path: "/".to_owned(),
        methods: Vec::new(),
        function: function.value,
        public,
        audit: audit.map(|level| level.value).unwrap_or_default(),
        limit: limit.as_ref().map(|limit| limit.value),
        body_bytes: body.map(|body| body.value),
        receipt,
    };
    // One after the other, so that each is refused at its own place.
    check_route(&spec).map_err(|error| refused(limit.map_or(0..0, |limit| limit.span), &error))?;
    spec.host = host.value;
    check_route(&spec).map_err(|error| refused(host.span, &error))?;
    spec.path = path.value;
    check_route(&spec).map_err(|error| refused(path.span.clone(), &error))?;
    for method in methods {
        spec.methods.push(method.value);
        check_route(&spec).map_err(|error| refused(method.span, &error))?;
    }
    Ok((spec, path.span))
}

fn level(text: &str) -> Result<Level, String> {
    let names: Vec<_> = Level::ALL.iter().map(|level| level.as_str()).collect();
    let found = Level::ALL.iter().copied().find(|level| level.as_str() == text);
    found.ok_or_else(|| did_you_mean(text, &names))
}

fn rate(table: Table<'_>) -> Result<Spanned<Rate>, Wrong> {
    table.only(&["per_second", "burst"])?;
    let number = |key| -> Result<u32, Wrong> {
        let small = |number: &u64| u32::try_from(*number).map_err(|_| "write a smaller number".to_owned());
        let given = table.number(key)?.ok_or_else(|| table.missing(key))?;
        Ok(given.try_map("the rate", small)?.value)
    };
    let value = Rate { per_second: number("per_second")?, burst: number("burst")? };
    Ok(Spanned { value, span: table.span })
}

fn policies(table: Table<'_>, open: Opener<'_>) -> Result<Vec<Policy>, Wrong> {
    table.only(&["files"])?;
    let mut policies: Vec<Policy> = Vec::new();
    for file in table.texts("files")? {
        let path = PathBuf::from(&file.value);
        let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default().to_owned();
        if !is_name(&name) {
            let message = format!("`{name}` cannot be the name of a policy");
            return Err(Wrong::new(
                file.span,
                message,
                "name the file with `a-z`, `0-9` and `-`, as in `orders.cedar`",
            ));
        }
        if policies.iter().any(|policy| policy.name == name) {
            let message = format!("two files would both be policy `{name}`");
            return Err(Wrong::new(file.span, message, "rename one of them"));
        }
        let bytes = open(&path).map_err(|error| {
            let message = format!("cannot read policy `{}`: {error}", file.value);
            Wrong::new(file.span.clone(), message, "the path is looked for beside the manifest")
        })?;
        let text = String::from_utf8(bytes).map_err(|_| {
            Wrong::new(file.span.clone(), format!("`{}` is not UTF-8 text", file.value), "policies are Cedar text")
        })?;
        policies.push(Policy { name, text, file: path });
    }
    Ok(policies)
}

fn name(text: Spanned<String>) -> Result<Spanned<String>, Wrong> {
    if is_name(&text.value) {
        return Ok(text);
    }
    let remedy = "use 1 to 63 of `a-z`, `0-9` and `-`, beginning with a letter and not ending with `-`";
    Err(Wrong::new(text.span, format!("`{}` is not a name", text.value), remedy))
}

fn env_name(text: Spanned<String>) -> Result<Spanned<String>, Wrong> {
    if is_env_name(&text.value) {
        return Ok(text);
    }
    let remedy = "use 1 to 64 of `A-Z`, `a-z`, `0-9` and `_`, not beginning with a digit";
    Err(Wrong::new(text.span, format!("`{}` cannot name an environment entry", text.value), remedy))
}

/// A rule of the server's, broken at a place of ours.
fn refused(span: std::ops::Range<usize>, error: &ControlError) -> Wrong {
    match error {
        ControlError::Invalid { field, value, reason } => {
            Wrong::new(span, format!("{field} `{value}` is not valid"), reason.clone())
        }
        other => Wrong::new(span, other.to_string(), other.hint().unwrap_or("ask for less")),
    }
}

fn failure(path: &Path, text: &str, wrong: Wrong) -> Failure {
    let (line, column) = position(text, wrong.span.start);
    Failure::new(Kind::Invalid, wrong.message).hint(wrong.remedy).at(Place { file: path.into(), line, column })
}

/// Line and column, from 1, in characters.
pub(crate) fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
    (line, column)
}

/// Reads a whole file, unless it is larger than anything of its kind may be.
fn read(path: &Path, most: u64) -> std::io::Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(std::io::Error::other(format!("it is larger than {most} bytes")));
    }
    Ok(bytes)
}
