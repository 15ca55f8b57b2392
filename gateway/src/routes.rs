//! From host, path and method to exactly one function version. An immutable table, rebuilt when the state changes.
//!
//! Owns matching. Must never look at who is calling, and never normalise a path: it sees the one canonical form that
//! the policies see too.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use cofferdam_control::{RouteEntry, Snapshot};
use cofferdam_model::{Invoke, Rate, RouteId, TenantId};
use cofferdam_sandbox::Deployment;
use http::Method;

use crate::live::Deployments;

/// Where a matched request goes.
pub struct Target {
    /// What would be asked for, complete but for the caller.
    pub invoke: Invoke,
    /// What the sandbox must know to run it.
    pub deployment: Arc<Deployment>,
    /// Limit of the route, all callers together.
    pub limit: Option<(RouteId, Rate)>,
    /// Most bytes of a request body.
    pub body_bytes: u64,
    /// Whether its answers carry receipts, whoever calls.
    pub receipt: bool,
    methods: Vec<Method>,
}

impl Target {
    /// A target that takes every method and has no limit of its own.
    pub fn direct(invoke: Invoke, deployment: Arc<Deployment>) -> Self {
        let body_bytes = invoke.limits.request_bytes;
        Self { invoke, deployment, limit: None, body_bytes, receipt: false, methods: Vec::new() }
    }

    fn takes(&self, method: &Method) -> bool {
        self.methods.is_empty() || self.methods.contains(method)
    }
}

/// What the table says.
pub enum Found<'a> {
    /// One route takes it.
    Target(&'a Arc<Target>),
    /// The path is known, the method is not; these are, as `Allow` lists them.
    Methods(String),
    /// Nothing takes it.
    Nothing,
}

type Paths = matchit::Router<Vec<Arc<Target>>>;

/// Routes by host, then path, then method.
#[derive(Default)]
pub struct RouteTable {
    hosts: HashMap<String, Arc<Paths>>,
}

/// What stands for every host that has no routes of its own, and for the paths of others that they do not take.
const ANY_HOST: &str = "*";

impl RouteTable {
    /// Builds the table from what exists. Routes whose function has no version yet lead nowhere and are left out;
    /// conflicting patterns were refused when they were declared, so a late one is logged and left out.
    pub(crate) fn build(snapshot: &Snapshot, deployments: &Deployments) -> Self {
        Self { hosts: paths(snapshot.routes(), snapshot, deployments) }
    }

    /// The table of what exists now, where only these hosts can have changed since this one was built, and these
    /// tenants are all that have routes there.
    pub(crate) fn then(
        &self,
        snapshot: &Snapshot,
        deployments: &Deployments,
        (changed, owners): (&HashSet<&str>, &BTreeSet<&TenantId>),
    ) -> Self {
        let mut hosts = self.hosts.clone();
        hosts.retain(|host, _| !changed.contains(host.as_str()));
        let owners = owners.iter().filter_map(|owner| snapshot.tenant(owner)).filter(|owner| owner.active);
        let routes = owners.flat_map(|owner| owner.routes());
        let routes = routes.filter(|route| changed.contains(route.spec.host.as_str()));
        hosts.extend(paths(routes, snapshot, deployments));
        Self { hosts }
    }

    /// Finds the route of a canonical request.
    pub fn find(&self, host: &str, path: &str, method: &Method) -> Found<'_> {
        let on = |host: &str| self.hosts.get(host).and_then(|paths| paths.at(path).ok());
        // Names of hosts have no star, so nobody asks for any host by name.
        let Some(matched) = on(host).or_else(|| on(ANY_HOST)) else { return Found::Nothing };
        match matched.value.iter().find(|target| target.takes(method)) {
            Some(target) => Found::Target(target),
            None => {
                let known: Vec<&str> = matched.value.iter().flat_map(|t| &t.methods).map(Method::as_str).collect();
                Found::Methods(known.join(", "))
            }
        }
    }
}

/// The paths of the hosts of these routes.
fn paths<'a>(
    routes: impl Iterator<Item = &'a Arc<RouteEntry>>,
    snapshot: &Snapshot,
    deployments: &Deployments,
) -> HashMap<String, Arc<Paths>> {
    let mut grouped: HashMap<(&str, &str), Vec<Arc<Target>>> = HashMap::new();
    for route in routes {
        let Some(function) = snapshot.function_by_id(&route.function_id) else { continue };
        let deployment = deployments.get(&function.tenant).and_then(|of_tenant| of_tenant.get(&function.id));
        let (Some(version), Some(deployment)) = (&function.current, deployment) else { continue };
        let invoke = Invoke {
            tenant: function.tenant.clone(),
            function: function.id.clone(),
            function_name: function.name.clone(),
            version: version.id.clone(),
            component: version.component,
            route: Some(route.id.clone()),
            public: route.spec.public,
            audit: route.spec.audit,
            limits: function.limits.clone(),
            secrets: function.given.clone(),
            egress: !function.settings.egress.is_empty(),
        };
        let body_bytes = route.spec.body_bytes.unwrap_or(u64::MAX).min(invoke.limits.request_bytes);
        let methods = route.spec.methods.iter().filter_map(|m| m.parse().ok()).collect();
        let limit = route.spec.limit.map(|rate| (route.id.clone(), rate));
        let receipt = route.spec.receipt;
        let target = Target { invoke, deployment: deployment.clone(), limit, body_bytes, receipt, methods };
        grouped.entry((&route.spec.host, &route.spec.path)).or_default().push(Arc::new(target));
    }
    let mut hosts: HashMap<String, Paths> = HashMap::new();
    for ((host, path), targets) in grouped {
        if let Err(conflict) = hosts.entry(host.to_owned()).or_default().insert(path, targets) {
            tracing::error!(host, path, %conflict, "route left out: its pattern conflicts with another");
        }
    }
    hosts.into_iter().map(|(host, paths)| (host, Arc::new(paths))).collect()
}
