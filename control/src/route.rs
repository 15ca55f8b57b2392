//! Routes: which may be declared, and which stand in each other's way.
//!
//! Owns three rules. Two routes that could take the same request are refused. A host belongs to the tenant whose
//! routes are on it, for two tenants on one host share an origin in every browser, and with it cookies and storage:
//! only an operator may put a second tenant there, on a first path segment of its own, which that tenant then holds
//! for as long as it has a route under it. The host `*` is given out in the same way. Must never match a request:
//! that is the gateway's.

use std::collections::HashMap;

use cofferdam_model::id::platform_tenant;
use cofferdam_model::{FunctionLimits, Rate, RouteId, RouteSpec, TenantId};
use serde_json::json;

use crate::apply::Change;
use crate::error::ControlError;
use crate::store::{RouteRow, TenantState};
use crate::tenant::{Done, check_name};

/// Routes of one tenant, all apps together.
const ROUTES: usize = 1_000;
const PATH_BYTES: usize = 1_024;
const SEGMENTS: usize = 64;
const HOST_BYTES: usize = 253;
const METHODS: usize = 16;
/// Highest rate a route may declare; above it a limit limits nothing.
const RATE: u32 = 1_000_000;
/// The platform's own paths, on every host.
const RESERVED: &str = "-";

impl Change<'_> {
    pub(crate) fn put_routes(&mut self, tenant: &TenantId, app: &str, specs: &[RouteSpec]) -> Done {
        check_name("app name", app)?;
        if *tenant == platform_tenant() {
            return Err(ControlError::invalid("app", app, "the platform's own tenant has no routes"));
        }
        let state = self.state(tenant)?;
        let kept = state.routes.iter().filter(|route| route.app != app).count();
        if kept + specs.len() > ROUTES {
            return Err(ControlError::TooMany { what: "routes", limit: ROUTES });
        }
        let mut rows = Vec::with_capacity(specs.len());
        for spec in specs {
            rows.push(self.check_route(&state, app, spec)?);
        }
        self.check_conflicts(&state, app, &rows)?;
        self.tx.replace_routes(tenant, app, &rows)?;
        let routes: Vec<_> = rows.iter().map(|row| json!({ "id": row.id, "takes": show(&row.spec) })).collect();
        Ok(json!({ "tenant": tenant, "app": app, "routes": routes }))
    }

    fn check_route(&self, state: &TenantState, app: &str, spec: &RouteSpec) -> Result<RouteRow, ControlError> {
        check_spec(spec)?;
        if spec.host == "*" && !self.by_operator && !holds(state, spec) {
            return Err(ControlError::OperatorsOnly { what: "a new place on the host `*`" });
        }
        let function = state.functions.iter().map(|(row, _)| row).find(|row| row.name == spec.function);
        let Some(function) = function else {
            return Err(ControlError::not_found("function", &spec.function));
        };
        check_body(spec.body_bytes, &function.settings.limits)?;
        // The same route keeps its id through every apply, so the log speaks of one thing by one name.
        let same = |row: &&RouteRow| {
            row.app == app
                && (&row.spec.host, &row.spec.path, &row.spec.methods) == (&spec.host, &spec.path, &spec.methods)
        };
        let id = state.routes.iter().find(same).map(|row| row.id.clone());
        Ok(RouteRow {
            id: id.unwrap_or_else(|| RouteId::mint(&state.tenant.id, self.means.random)),
            app: app.to_owned(),
            spec: spec.clone(),
            function: function.id.clone(),
        })
    }

    fn check_conflicts(&mut self, state: &TenantState, app: &str, rows: &[RouteRow]) -> Result<(), ControlError> {
        let tenant = &state.tenant.id;
        let mut hosts: HashMap<&str, Vec<RouteRow>> = HashMap::new();
        for row in rows {
            let host = row.spec.host.as_str();
            if !hosts.contains_key(host) {
                let mut there = self.tx.routes_on(host)?;
                there.retain(|route| route.app != app || route.id.tenant() != *tenant);
                hosts.insert(host, there);
            }
            let there = hosts.get(host).map(Vec::as_slice).unwrap_or_default();
            self.check_neighbours(state, &row.spec, there)?;
        }
        for row in rows {
            let Some(there) = hosts.get_mut(row.spec.host.as_str()) else { continue };
            if let Some(other) = there.iter().find(|other| conflicts(&row.spec, &other.spec)) {
                let other = format!("{} (app `{}`)", show(&other.spec), other.app);
                return Err(ControlError::RouteConflict { route: show(&row.spec), other });
            }
            there.push(row.clone());
        }
        Ok(())
    }

    /// Refuses a route on a host of another tenant, unless it keeps to a first segment of its own that an operator
    /// gives, or gave, to this one.
    fn check_neighbours(&self, state: &TenantState, spec: &RouteSpec, there: &[RouteRow]) -> Result<(), ControlError> {
        let mut others = there.iter().filter(|route| route.id.tenant() != state.tenant.id).peekable();
        if others.peek().is_none() {
            return Ok(());
        }
        let own = place(&spec.path);
        let apart =
            own.is_some() && others.all(|other| place(&other.spec.path).is_some_and(|other| Some(other) != own));
        if apart && (self.by_operator || holds(state, spec)) {
            return Ok(());
        }
        // Whose it is, and what is there, is not told.
        Err(ControlError::HostTaken { route: show(spec) })
    }
}

/// The fixed first segment of a path; none where it could take any first segment, or has none.
fn place(path: &str) -> Option<&str> {
    let segment = path.strip_prefix('/')?.split('/').next()?;
    (!segment.is_empty() && !segment.starts_with('{')).then_some(segment)
}

/// Whether the tenant already has a route in the same place of the same host.
fn holds(state: &TenantState, spec: &RouteSpec) -> bool {
    let mut same_host = state.routes.iter().filter(|route| route.spec.host == spec.host);
    same_host.any(|route| place(&route.spec.path) == place(&spec.path))
}

/// Whether the two could take the same request, or could not be kept in one routing table.
fn conflicts(one: &RouteSpec, other: &RouteSpec) -> bool {
    if one.path == other.path {
        return one.methods.is_empty()
            || other.methods.is_empty()
            || one.methods.iter().any(|method| other.methods.contains(method));
    }
    // Asked of the very table the gateway matches with, so that what is accepted here can be served there.
    let mut table = matchit::Router::new();
    table.insert(one.path.as_str(), ()).is_err() || table.insert(other.path.as_str(), ()).is_err()
}

/// Whether two routes of one tenant stand in each other's way, and if so how people name the two.
pub fn conflict(one: &RouteSpec, other: &RouteSpec) -> Option<(String, String)> {
    (one.host == other.host && conflicts(one, other)).then(|| (show(one), show(other)))
}

/// A route as people name it.
fn show(spec: &RouteSpec) -> String {
    let methods = if spec.methods.is_empty() { "*".to_owned() } else { spec.methods.join(",") };
    format!("{methods} {}{}", spec.host, spec.path)
}

/// Refuses a route that is not well formed, whatever else there is. The command line asks the same before it sends.
pub fn check_spec(spec: &RouteSpec) -> Result<(), ControlError> {
    check_host(&spec.host)?;
    check_path(&spec.path)?;
    check_methods(&spec.methods)?;
    check_name("function name", &spec.function)?;
    check_rate(spec.limit.as_ref())
}

fn check_host(host: &str) -> Result<(), ControlError> {
    if host == "*" {
        return Ok(());
    }
    let refuse = |reason| Err(ControlError::invalid("route host", host, reason));
    if host.is_empty() || host.len() > HOST_BYTES {
        return refuse("1 to 253 characters are expected");
    }
    if host.bytes().any(|b| b.is_ascii_uppercase()) {
        return refuse("hosts are written in lower case");
    }
    if host.contains(':') {
        return refuse("a host is written without a port");
    }
    let label_ok = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if !host.split('.').all(label_ok) {
        return refuse("labels of `a-z`, `0-9` and `-` are expected, joined by dots; or `*` for every host");
    }
    Ok(())
}

fn check_path(path: &str) -> Result<(), ControlError> {
    let refuse = |reason: &str| Err(ControlError::invalid("route path", path, reason));
    let Some(rest) = path.strip_prefix('/') else { return refuse("it must begin with `/`") };
    if path.len() > PATH_BYTES {
        return refuse("it is longer than 1024 bytes");
    }
    if rest.is_empty() {
        return Ok(());
    }
    let segments: Vec<_> = rest.split('/').collect();
    if segments.len() > SEGMENTS {
        return refuse("it has more than 64 segments");
    }
    if segments.first() == Some(&RESERVED) {
        return refuse("paths under `/-` are the platform's own on every host");
    }
    let mut names = Vec::new();
    for (at, segment) in segments.iter().enumerate() {
        let last = at + 1 == segments.len();
        match segment.strip_prefix('{') {
            Some(inner) => {
                let Some(inner) = inner.strip_suffix('}') else {
                    return refuse("a parameter is a whole segment, like `{id}`");
                };
                let name = inner.strip_prefix('*').unwrap_or(inner);
                if inner.starts_with('*') && !last {
                    return refuse("`{*rest}` may only come last");
                }
                if name.is_empty() || !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_') {
                    return refuse("a parameter's name is made of `a-z`, `0-9` and `_`");
                }
                if names.contains(&name) {
                    return refuse("two parameters have the same name");
                }
                names.push(name);
            }
            None if segment.is_empty() && last => {}
            None if segment.is_empty() => return refuse("it has an empty segment"),
            None if *segment == "." || *segment == ".." => return refuse("`.` and `..` are not allowed"),
            None if !segment.bytes().all(is_path_byte) => {
                return refuse("only letters, digits and `-._~!$&'()+,=:@` are allowed in a fixed segment");
            }
            None => {}
        }
    }
    Ok(())
}

fn is_path_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()+,=:@".contains(&byte)
}

fn check_methods(methods: &[String]) -> Result<(), ControlError> {
    if methods.len() > METHODS {
        return Err(ControlError::TooMany { what: "methods on a route", limit: METHODS });
    }
    for (at, method) in methods.iter().enumerate() {
        let refuse = |reason| Err(ControlError::invalid("route method", method, reason));
        if method == "CONNECT" || method == "TRACE" {
            return refuse("it is never forwarded to a function");
        }
        if !(1..=32).contains(&method.len()) || !method.bytes().all(|b| b.is_ascii_uppercase() || b == b'-') {
            return refuse("methods are written in upper case, like `GET`");
        }
        if methods.iter().take(at).any(|earlier| earlier == method) {
            return refuse("it is listed twice");
        }
    }
    Ok(())
}

fn check_rate(rate: Option<&Rate>) -> Result<(), ControlError> {
    let Some(rate) = rate else { return Ok(()) };
    for (field, given) in [("limit per_second", rate.per_second), ("limit burst", rate.burst)] {
        if !(1..=RATE).contains(&given) {
            return Err(ControlError::invalid(field, &given.to_string(), "1 to 1000000 is expected"));
        }
    }
    Ok(())
}

fn check_body(body_bytes: Option<u64>, limits: &FunctionLimits) -> Result<(), ControlError> {
    match body_bytes {
        Some(asked) if asked > limits.request_bytes => {
            let reason =
                format!("the function itself takes at most {} bytes (limit `request_bytes`)", limits.request_bytes);
            Err(ControlError::invalid("route body_bytes", &asked.to_string(), reason))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
