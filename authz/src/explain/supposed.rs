//! From a supposition to what the policies are asked.
//!
//! Owns how what was left out is filled in. Must never turn a supposition into anything that `decide` takes.

use aws_lc_rs::digest;
use cedar_policy::{EntityId, EntityTypeName, EntityUid};
use cofferdam_model::id::platform_tenant;
use cofferdam_model::{
    Action, Asker, Circumstances, FunctionId, Operation, PrincipalKind, RequestId, Resource, Supposition, TenantId,
    UnixNanos,
};

use crate::decide::Authorizer;
use crate::error::SuppositionError;
use crate::identity::Principal;

/// What an action is about, as the schema says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Function,
    Tenant,
    Platform,
}

/// A call that nobody made.
pub(super) struct Supposed {
    action: Action,
    pub(super) tenant: TenantId,
    resource: Resource,
    public: bool,
}

impl Operation for Supposed {
    fn action(&self) -> Action {
        self.action
    }

    fn tenant(&self) -> TenantId {
        self.tenant.clone()
    }

    fn resource(&self) -> Resource {
        self.resource.clone()
    }

    fn public(&self) -> bool {
        self.public
    }
}

pub(super) fn kind(authorizer: &Authorizer, action: Action) -> Option<Kind> {
    let group = "Action".parse::<EntityTypeName>().ok()?;
    let uid = EntityUid::from_type_name_and_id(group, EntityId::new(action.as_str()));
    let kinds = authorizer.schema().resources_for_action(&uid)?;
    kinds.into_iter().find_map(|kind| match kind.basename() {
        "Function" => Some(Kind::Function),
        "Tenant" => Some(Kind::Tenant),
        "Platform" => Some(Kind::Platform),
        _ => None,
    })
}

pub(super) fn operation(
    authorizer: &Authorizer,
    tenant: &TenantId,
    supposition: &Supposition,
) -> Result<Supposed, SuppositionError> {
    let action = supposition.action;
    let wrong = |problem: &'static str| SuppositionError::Resource { action: action.as_str(), problem };
    let kind = kind(authorizer, action).ok_or_else(|| wrong("it is about nothing that can be supposed"))?;
    let named = supposition.function.as_deref();
    let (tenant, resource) = match (kind, named) {
        (Kind::Function, Some(name)) => {
            let id = match &supposition.function_id {
                Some(id) => FunctionId::parse(id).ok().filter(|id| id.tenant() == *tenant),
                None => FunctionId::parse(&format!("{tenant}.f_0000000000000000")).ok(),
            };
            let id = id.ok_or_else(|| wrong("the function's id is not one of this tenant"))?;
            (tenant.clone(), Resource::Function { id, name: name.into() })
        }
        (Kind::Function, None) => return Err(wrong("it is about a function: name one")),
        (_, Some(_)) => return Err(wrong("it is not about a function: name none")),
        (Kind::Tenant, None) => (tenant.clone(), Resource::Tenant(tenant.clone())),
        (Kind::Platform, None) => (platform_tenant(), Resource::Platform),
    };
    Ok(Supposed { action, tenant, resource, public: supposition.context.public })
}

pub(super) fn principal(asker: &Asker, own: &TenantId) -> Result<Principal, SuppositionError> {
    let tenant = match (asker.kind, &asker.tenant) {
        (PrincipalKind::Anonymous, _) => None,
        (_, None) => Some(own.clone()),
        (_, Some(id)) => Some(TenantId::parse(id).map_err(|_| SuppositionError::Tenant(id.clone()))?),
    };
    let anonymous = asker.kind == PrincipalKind::Anonymous;
    let id = if anonymous { "anonymous" } else { &asker.id };
    // Nobody has neither roles nor an issuer, whatever is supposed of him.
    let roles = if anonymous { Vec::new() } else { asker.roles.clone() };
    let issuer = asker.issuer.as_deref().filter(|_| !anonymous);
    Ok(Principal::supposed((asker.kind, id, issuer), tenant, roles, asker.shows()))
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
