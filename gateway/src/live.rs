//! What the data plane reads: one immutable picture of the state and the routes, swapped as a whole.
//!
//! Owns the swap. Must never be half new: whoever loaded it keeps a consistent picture until the call ends.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arc_swap::ArcSwap;
use cofferdam_control::{Control, ControlError, FunctionEntry, Snapshot, TenantEntry};
use cofferdam_model::{FunctionId, Invoke, Level, TenantId};
use cofferdam_sandbox::{BoxError, Deployment, SecretsUnavailable};

use crate::doors::{Doors, Standing, Turn};
use crate::egress::{Egress, MayConnect, Scope};
use crate::routes::{RouteTable, Target};

/// One picture.
pub struct Picture {
    /// What exists.
    pub snapshot: Arc<Snapshot>,
    /// How requests find it.
    pub routes: RouteTable,
    /// Hosts at which machines show certificates.
    pub(crate) doors: Doors,
    deployments: Deployments,
}

/// How the functions of each active tenant are run.
pub(crate) type Deployments = HashMap<TenantId, Arc<HashMap<FunctionId, Arc<Deployment>>>>;

impl Picture {
    fn of(control: &Arc<Control>, egress: &Arc<Egress>) -> Self {
        let snapshot = control.snapshot();
        let active = snapshot.tenants().filter(|tenant| tenant.active);
        let deployments = active.map(|tenant| (tenant.id.clone(), deployments(control, egress, tenant))).collect();
        let routes = RouteTable::build(&snapshot, &deployments);
        let doors = Doors::of(&snapshot);
        Self { snapshot, routes, doors, deployments }
    }

    /// The picture of now, with all of this one that did not change since: a change of one tenant costs what that
    /// tenant has, and its neighbours on the hosts it uses.
    fn then(&self, control: &Arc<Control>, egress: &Arc<Egress>) -> Self {
        let snapshot = control.snapshot();
        let (mut all, mut hosts) = (HashMap::with_capacity(self.deployments.len()), HashSet::new());
        let mut turned: Vec<Turn<'_>> = Vec::new();
        for tenant in snapshot.tenants() {
            let before = self.snapshot.tenant(&tenant.id);
            let same = before.is_some_and(|before| Arc::ptr_eq(before, tenant));
            if !same {
                let routes = before.into_iter().chain([tenant]).flat_map(|tenant| tenant.routes());
                hosts.extend(routes.map(|route| route.spec.host.as_str()));
                turned.push((before.and_then(|before| Standing::of(before)), Standing::of(tenant)));
            }
            let kept = self.deployments.get(&tenant.id).filter(|_| same).cloned();
            if tenant.active {
                let deployments = kept.unwrap_or_else(|| deployments(control, egress, tenant));
                all.insert(tenant.id.clone(), deployments);
            }
        }
        let doors = self.doors.then(&turned, |tenant| Standing::of(snapshot.tenant(tenant)?));
        let routes = self.routes.then(&snapshot, &all, (&hosts, &doors.owners(&hosts)));
        Self { routes, doors, deployments: all, snapshot: snapshot.clone() }
    }

    /// A function called by name, without a route.
    pub fn direct(&self, tenant: &str, function: &str) -> Option<Target> {
        let tenant = self.snapshot.tenant_by_name(tenant)?;
        let function = self.snapshot.function(&tenant.id, function)?;
        let version = function.current.as_ref()?;
        let invoke = Invoke {
            tenant: tenant.id.clone(),
            function: function.id.clone(),
            function_name: function.name.clone(),
            version: version.id.clone(),
            component: version.component,
            route: None,
            public: false,
            audit: Level::Standard,
            limits: function.limits.clone(),
            secrets: function.given.clone(),
            egress: !function.settings.egress.is_empty(),
        };
        Some(Target::direct(invoke, self.deployments.get(&tenant.id)?.get(&function.id)?.clone()))
    }
}

/// What could not be opened, told apart by whether it may pass.
fn unopened(error: ControlError) -> BoxError {
    match &error {
        ControlError::Vault(cause) if cause.is_root_unavailable() => Box::new(SecretsUnavailable(error.into())),
        _ => error.into(),
    }
}

/// How the functions of a tenant are run.
fn deployments(
    control: &Arc<Control>,
    egress: &Arc<Egress>,
    tenant: &TenantEntry,
) -> Arc<HashMap<FunctionId, Arc<Deployment>>> {
    let each = tenant.functions().map(|function| {
        let outlet = (!function.settings.egress.is_empty()).then(|| outlet(control, egress, tenant, function));
        let (control, id) = (control.clone(), function.id.clone());
        let deployment = Deployment {
            generation: function.generation,
            tenant: tenant.limits.clone(),
            recycle: function.settings.recycle.clone(),
            ready: Some(ready(control.clone(), id.clone())),
            unseal: Arc::new(move || control.unseal(&id).map_err(unopened)),
            outlet,
        };
        (function.id.clone(), Arc::new(deployment))
    });
    Arc::new(each.collect())
}

/// What is waited for before a cell is taken for a function: the keys its secrets are opened with.
fn ready(control: Arc<Control>, function: FunctionId) -> cofferdam_sandbox::Ready {
    Arc::new(move || {
        let (control, function) = (control.clone(), function.clone());
        Box::pin(async move { control.at_hand(&function).await.map_err(unopened) })
    })
}

/// How the cells of a function get their way out.
fn outlet(
    control: &Arc<Control>,
    egress: &Arc<Egress>,
    tenant: &TenantEntry,
    function: &FunctionEntry,
) -> cofferdam_sandbox::OpenOutlet {
    let ceiling = tenant.egress.clone().unwrap_or_else(|| Arc::new(egress.default_ceiling().clone()));
    let (connections, requests) = (tenant.limits.egress_connections, tenant.limits.egress_requests);
    let tenant = tenant.id.clone();
    let (control, egress, id) = (control.clone(), egress.clone(), function.id.clone());
    Arc::new(move || {
        let cofferdam_control::Egress { rules, credentials } = control.egress(&id).map_err(unopened)?;
        let (tenant, ceiling) = (tenant.clone(), ceiling.clone());
        let control = control.clone();
        let policies: Arc<MayConnect> = Arc::new(move |errand, way, secret| control.may_connect(errand, way, secret));
        Ok(egress.outlet(Scope { tenant, rules, ceiling, connections, requests, secrets: credentials, policies })?)
    })
}

/// The current picture, and how to get a new one.
pub struct Live {
    control: Arc<Control>,
    egress: Arc<Egress>,
    picture: ArcSwap<Picture>,
}

impl Live {
    /// Takes the first picture.
    pub fn new(control: Arc<Control>, egress: Arc<Egress>) -> Self {
        let picture = ArcSwap::from_pointee(Picture::of(&control, &egress));
        Self { control, egress, picture }
    }

    /// The picture of this moment.
    pub fn load(&self) -> Arc<Picture> {
        self.picture.load_full()
    }

    /// What the picture is taken of.
    pub fn control(&self) -> &Arc<Control> {
        &self.control
    }

    /// Takes a new picture after a change. A later change may already be in it, never an earlier one missing.
    pub fn refresh(&self) {
        self.picture.rcu(|before| before.then(&self.control, &self.egress));
    }
}
