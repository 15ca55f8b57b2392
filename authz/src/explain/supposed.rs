//! From a supposition to what the policies are asked.
//!
//! Owns how what was left out is filled in. Must never turn a supposition into anything that `decide` takes.

use std::sync::Arc;

use aws_lc_rs::digest;
use cofferdam_model::id::platform_tenant;
use cofferdam_model::{
    Action, Asker, Circumstances, FunctionId, KeyId, Operation, PrincipalKind, RequestId, Resource, RouteId,
    Supposition, TenantId, UnixNanos,
};

use crate::decide::Authorizer;
use crate::error::SuppositionError;
use crate::identity::{Principal, Supposed};

/// Name of a thing that nobody named.
const ANY: &str = "any";

/// A call that nobody made.
pub(super) struct Call {
    action: Action,
    pub(super) tenant: TenantId,
    resource: Resource,
    route: Option<RouteId>,
    public: bool,
}

impl Operation for Call {
    fn action(&self) -> Action {
        self.action
    }

    fn tenant(&self) -> TenantId {
        self.tenant.clone()
    }

    fn resource(&self) -> Resource {
        self.resource.clone()
    }

    fn route(&self) -> Option<&RouteId> {
        self.route.as_ref()
    }

    fn public(&self) -> bool {
        self.public
    }
}

pub(super) fn operation(
    authorizer: &Authorizer,
    tenant: &TenantId,
    supposition: &Supposition,
) -> Result<Call, SuppositionError> {
    let action = supposition.action;
    let wrong = |problem: &'static str| SuppositionError::Resource { action: action.as_str(), problem };
    let kind = authorizer.done_to(action).ok_or_else(|| wrong("a function at work does it, nobody who calls"))?;
    let of_function = matches!(kind, "Function" | "Secret");
    let function = match supposition.function.as_deref() {
        Some(_) if !of_function => return Err(wrong("it is not about a function: name none")),
        None if of_function => return Err(wrong("it is about a function: name one")),
        name => name.map(|name| Ok((function(supposition, tenant).map_err(wrong)?, Arc::from(name)))).transpose()?,
    };
    let thing = supposition.thing.as_ref();
    let name = thing.map_or(ANY, |thing| &thing.name).to_owned();
    let roles = thing.map(|thing| thing.roles.clone()).unwrap_or_default();
    let owner = tenant.clone();
    let resource = match (kind, function) {
        ("Function", Some((id, name))) => Resource::Function { id, name },
        ("Secret", Some((function, function_name))) => Resource::Secret { function, function_name, name: name.into() },
        ("Tenant", _) => Resource::Tenant(owner),
        ("Platform", _) => Resource::Platform,
        ("Api", _) => Resource::Api { tenant: owner, name },
        ("Account", _) => Resource::Account { tenant: owner, name, roles },
        ("ApiKey", _) => Resource::ApiKey(key(thing.map(|thing| &*thing.name), tenant).map_err(wrong)?),
        ("PolicySet", _) => Resource::PolicySet { tenant: owner, policy: name },
        ("AuditLog", _) => Resource::AuditLog(owner),
        _ => return Err(wrong("it is about nothing that can be supposed")),
    };
    let tenant = if resource == Resource::Platform { platform_tenant() } else { tenant.clone() };
    let route = supposition.context.route.as_deref();
    let route = route.map(|route| RouteId::parse(route).ok().filter(|route| route.tenant() == tenant));
    let route =
        route.map(|route| route.ok_or_else(|| wrong("the route's id is not one of this tenant"))).transpose()?;
    Ok(Call { action, tenant, resource, route, public: supposition.context.public })
}

fn function(supposition: &Supposition, tenant: &TenantId) -> Result<FunctionId, &'static str> {
    let id = match &supposition.function_id {
        Some(id) => FunctionId::parse(id).ok().filter(|id| id.tenant() == *tenant),
        None => function_of(tenant),
    };
    id.ok_or("the function's id is not one of this tenant")
}

fn key(id: Option<&str>, tenant: &TenantId) -> Result<KeyId, &'static str> {
    let none = || format!("{tenant}.k_0000000000000000");
    let id = KeyId::parse(&id.map_or_else(none, str::to_owned)).ok().filter(|id| id.tenant() == *tenant);
    id.ok_or("the key's id is not one of this tenant")
}

/// A function that nobody has.
pub(crate) fn function_of(tenant: &TenantId) -> Option<FunctionId> {
    FunctionId::parse(&format!("{tenant}.f_0000000000000000")).ok()
}

pub(super) fn principal(asker: &Asker, own: &TenantId) -> Result<Principal, SuppositionError> {
    supposed(asker, own).map(Principal::supposed)
}

pub(crate) fn supposed(asker: &Asker, own: &TenantId) -> Result<Supposed, SuppositionError> {
    let tenant = match (asker.kind, &asker.tenant) {
        (PrincipalKind::Anonymous, _) => None,
        (_, None) => Some(own.clone()),
        (_, Some(id)) => Some(TenantId::parse(id).map_err(|_| SuppositionError::Tenant(id.clone()))?),
    };
    // Nobody has neither roles nor an issuer nor a session, whatever is supposed of him.
    let anonymous = asker.kind == PrincipalKind::Anonymous;
    let known = |text: &Option<String>| text.clone().filter(|_| !anonymous);
    Ok(Supposed {
        kind: asker.kind,
        id: if anonymous { "anonymous" } else { &asker.id }.to_owned(),
        issuer: known(&asker.issuer),
        tenant,
        roles: if anonymous { Vec::new() } else { asker.roles.clone() },
        groups: asker.groups.clone(),
        credential: asker.shows(),
        bound: asker.bound,
        scopes: asker.scopes.clone().filter(|_| !anonymous),
        certificate: known(&asker.certificate),
        session: asker.session.clone().filter(|_| !anonymous),
    })
}

pub(super) fn circumstances(supposition: &Supposition, now: UnixNanos) -> Result<Circumstances, SuppositionError> {
    let context = &supposition.context;
    let at = supposition.now().unwrap_or(Ok(now)).map_err(|text| SuppositionError::Time(text.to_owned()))?;
    let request = context.request.as_deref().unwrap_or("req_0000000000000000");
    let request = RequestId::parse(request).map_err(|_| SuppositionError::Request(request.to_owned()))?;
    Ok(Circumstances {
        request,
        at,
        source: context.source,
        tls: context.tls,
        method: context.method.clone(),
        host: context.host.clone(),
        path: context.path.clone(),
        connection: None,
        headers: None,
    })
}

/// An id made of a name, for tenants that only exist in somebody's files.
pub(super) fn named_tenant(name: &str) -> TenantId {
    let hash = digest::digest(&digest::SHA256, name.as_bytes());
    let body: String = hash.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    TenantId::parse(&format!("t_{body}")).unwrap_or_else(|_| platform_tenant())
}

/// A tenant that is neither the one asked nor the platform's own: what all others look like from there.
pub fn foreign_tenant() -> TenantId {
    named_tenant("another")
}
