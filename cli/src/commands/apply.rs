//! `apply`: brings a tenant to what a manifest says.
//!
//! Owns the order (policies, functions, routes: what restricts comes before what opens) and doing no more than is
//! needed. Must never remove a function or a policy: what a manifest no longer names stays until it is removed by name.

use std::path::PathBuf;

use aws_lc_rs::digest;
use bytes::Bytes;
use clap::Args;
use cofferdam_model::{Digest, FunctionSettings, RouteSpec};
use http::Method;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::access::placed;
use super::{Context, tenant_path};
use crate::failure::{Failure, Kind};
use crate::manifest::{Function, Manifest};
use crate::output::items;
use crate::remote::{Remote, RemoteArgs, segment};

/// Arguments of `cofferdam apply`.
#[derive(Debug, Args)]
pub(crate) struct ApplyArgs {
    #[command(flatten)]
    remote: RemoteArgs,
    /// The manifest
    #[arg(default_value = "app.toml")]
    manifest: PathBuf,
    /// Check the manifest and the files it names, and send nothing
    #[arg(long)]
    check: bool,
}

/// One thing that was, or did not need to be, done.
#[derive(Debug, PartialEq, Eq)]
struct Step {
    what: &'static str,
    name: String,
    did: &'static str,
}

const UNCHANGED: &str = "unchanged";

/// Runs `cofferdam apply`.
pub(crate) fn run(args: &ApplyArgs, context: &Context) -> Result<(), Failure> {
    let manifest = Manifest::load(&args.manifest)?;
    if args.check {
        let (app, tenant) = (&manifest.app, &manifest.tenant);
        let told = json!({ "app": app, "tenant": tenant, "valid": true });
        return context.output.result(&told, || vec![format!("{} is valid", args.manifest.display())]);
    }
    let remote = args.remote.open(&context.layout)?;
    let there = remote.call(Method::GET, &tenant_path(&manifest.tenant), None).map_err(|failure| {
        if failure.exit_code() != Kind::NotFound.exit_code() {
            return failure;
        }
        let message = format!("tenant `{}` does not exist, or is not yours", manifest.tenant);
        let hint = format!("an operator makes it: `cofferdam tenant create {}`", manifest.tenant);
        Failure::new(Kind::NotFound, message).code("not_found").hint(hint)
    })?;
    let apply = Apply { remote, manifest: &manifest, there, file: &args.manifest };
    let steps = apply.all(&mut |step| context.output.note(&step.line()))?;
    let did: Vec<_> = steps.iter().map(|s| json!({ "what": s.what, "name": s.name, "did": s.did })).collect();
    let changed = steps.iter().filter(|step| step.did != UNCHANGED).count();
    let told = json!({ "app": manifest.app, "tenant": manifest.tenant, "changed": changed, "steps": did });
    context.output.result(&told, || {
        vec![format!("{} of {}: {changed} changed, {} unchanged", manifest.app, manifest.tenant, steps.len() - changed)]
    })
}

impl Step {
    fn line(&self) -> String {
        format!("{} {}: {}", self.what, self.name, self.did)
    }
}

struct Apply<'a> {
    remote: Remote,
    manifest: &'a Manifest,
    /// The tenant as the node described it.
    there: Value,
    file: &'a PathBuf,
}

impl Apply<'_> {
    fn all(&self, told: &mut dyn FnMut(&Step)) -> Result<Vec<Step>, Failure> {
        let mut steps = Vec::new();
        let mut done = |step: Step| {
            told(&step);
            steps.push(step);
        };
        for policy in &self.manifest.policies {
            let there = named(items(&self.there, "policies"), &policy.name);
            let did = if there.and_then(|there| there.get("text")).and_then(Value::as_str) == Some(&policy.text) {
                UNCHANGED
            } else {
                let path = format!("{}/policies/{}", tenant_path(&self.manifest.tenant), segment(&policy.name));
                let file = self.file.parent().map(|base| base.join(&policy.file));
                let put = self.remote.call(Method::PUT, &path, Some(&json!({ "text": policy.text })));
                put.map_err(|failure| placed(failure, file.as_ref()))?;
                if there.is_some() { "updated" } else { "created" }
            };
            done(Step { what: "policy", name: policy.name.clone(), did });
        }
        for function in &self.manifest.functions {
            for step in self.function(function)? {
                done(step);
            }
        }
        done(self.routes()?);
        Ok(steps)
    }

    fn function(&self, function: &Function) -> Result<[Step; 2], Failure> {
        let path = format!("{}/functions/{}", tenant_path(&self.manifest.tenant), segment(&function.name));
        let there = named(items(&self.there, "functions"), &function.name);
        let settings: Option<FunctionSettings> = there.and_then(|there| member(there, "settings"));
        let did = if settings.as_ref() == Some(&function.settings) {
            UNCHANGED
        } else {
            let body = serde_json::to_value(&function.settings).map_err(|e| Failure::internal(e.to_string()))?;
            self.remote.call(Method::PUT, &path, Some(&body))?;
            if there.is_some() { "updated" } else { "created" }
        };
        let first = Step { what: "function", name: function.name.clone(), did };
        let current = there.and_then(|there| there.get("current"));
        let current: Option<Digest> = current.and_then(|current| member(current, "component"));
        let did = if current == Some(sha256(&function.component)) {
            UNCHANGED
        } else {
            let body = Bytes::copy_from_slice(&function.component);
            let uploaded = self.remote.upload(Method::POST, &format!("{path}/versions"), "application/wasm", body);
            uploaded.map_err(|failure| failure.within(&format!("component of function `{}`", function.name)))?;
            "published"
        };
        Ok([first, Step { what: "component", name: function.name.clone(), did }])
    }

    fn routes(&self) -> Result<Step, Failure> {
        let wanted = &self.manifest.routes;
        let of_app = |route: &&Value| route.get("app").and_then(Value::as_str) == Some(&self.manifest.app);
        let there = items(&self.there, "routes").iter().filter(of_app);
        let there: Option<Vec<RouteSpec>> = there.map(|route| member(route, "spec")).collect();
        // The node keeps them in an order of its own.
        let same =
            there.is_some_and(|there| there.len() == wanted.len() && wanted.iter().all(|spec| there.contains(spec)));
        let did = if same {
            UNCHANGED
        } else {
            let path = format!("{}/apps/{}/routes", tenant_path(&self.manifest.tenant), segment(&self.manifest.app));
            let body = serde_json::to_value(wanted).map_err(|e| Failure::internal(e.to_string()))?;
            self.remote.call(Method::PUT, &path, Some(&body))?;
            "replaced"
        };
        Ok(Step { what: "routes", name: format!("{} of {}", wanted.len(), self.manifest.app), did })
    }
}

fn named<'a>(all: &'a [Value], name: &str) -> Option<&'a Value> {
    all.iter().find(|value| value.get("name").and_then(Value::as_str) == Some(name))
}

/// A member of what the node described; none where it cannot be read, which then counts as different.
fn member<T: DeserializeOwned>(value: &Value, name: &str) -> Option<T> {
    serde_json::from_value(value.get(name)?.clone()).ok()
}

fn sha256(bytes: &[u8]) -> Digest {
    let mut out = [0u8; 32];
    out.iter_mut().zip(digest::digest(&digest::SHA256, bytes).as_ref()).for_each(|(to, from)| *to = *from);
    Digest(out)
}
