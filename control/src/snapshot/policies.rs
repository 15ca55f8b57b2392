//! The policies of a tenant and of an organisation, compiled out of what is stored.
//!
//! Owns which set each text goes into. Must never leave a text out, or take one for another owner's.

use std::sync::Arc;

use cofferdam_authz::{Authorizer, Owner, TenantPolicies, Texts, TierPolicies};

use super::{OrganisationEntry, TenantEntry};
use crate::error::ControlError;
use crate::store::{OrganisationRow, OrganisationState, PolicyRow, TenantState};

impl OrganisationEntry {
    /// An organisation whose ceiling is compiled now, or what is wrong with it and where.
    pub(crate) fn compiled(
        authorizer: &Authorizer,
        state: OrganisationState,
        before: Option<&TierPolicies>,
    ) -> Result<Self, ControlError> {
        let compile = |owner, texts| authorizer.tier(owner, texts, before).map_err(ControlError::Policy);
        Self::with(state, compile)
    }

    /// An organisation whose ceiling is compiled when it is first asked. One that cannot be lets nothing through.
    pub(crate) fn unread(authorizer: &Authorizer, state: OrganisationState) -> Result<Self, ControlError> {
        Self::with(state, |owner, texts| Ok(authorizer.tier_unread(owner, texts)))
    }

    fn with(
        state: OrganisationState,
        compile: impl FnOnce(Owner, Texts) -> Result<TierPolicies, ControlError>,
    ) -> Result<Self, ControlError> {
        let OrganisationState { organisation: OrganisationRow { id, name, created }, ceiling: sources, set } = state;
        let texts = texts(set.version, &sources);
        let ceiling = (!sources.is_empty()).then(|| compile(Owner::Organisation(id.clone()), texts)).transpose()?;
        Ok(Self { id, name: name.into(), created, ceiling, sources })
    }
}

fn texts(version: u64, rows: &[PolicyRow]) -> Texts {
    Texts { version, sources: rows.iter().map(|row| (row.name.clone(), row.text.clone())).collect() }
}

/// Compiles a tenant's policies and those that bound it, or says what is wrong with them and where.
pub(crate) fn compile(
    authorizer: &Authorizer,
    state: &TenantState,
    before: Option<&Arc<TenantEntry>>,
) -> Result<Arc<TenantPolicies>, ControlError> {
    let before = before.map(|before| before.compiled());
    let grants = before.map(TenantPolicies::grants);
    let boundary = before.and_then(TenantPolicies::boundary);
    let compile = |owner: Owner, texts| {
        let before = if matches!(owner, Owner::Boundary(_)) { boundary } else { grants };
        authorizer.tier(owner, texts, before).map_err(ControlError::Policy)
    };
    policies(authorizer, state, compile)
}

/// The same for policies that this release found good before: compiled when they are first asked.
pub(crate) fn unread(authorizer: &Authorizer, state: &TenantState) -> Result<Arc<TenantPolicies>, ControlError> {
    policies(authorizer, state, |owner, texts| Ok(authorizer.tier_unread(owner, texts)))
}

fn policies(
    authorizer: &Authorizer,
    state: &TenantState,
    compile: impl Fn(Owner, Texts) -> Result<TierPolicies, ControlError>,
) -> Result<Arc<TenantPolicies>, ControlError> {
    let id = &state.tenant.id;
    let grants = compile(Owner::Tenant(id.clone()), texts(state.policies_set.version, &state.policies))?;
    let boundary = (!state.boundary.is_empty())
        .then(|| compile(Owner::Boundary(id.clone()), texts(state.boundary_set.version, &state.boundary)))
        .transpose()?;
    let policies = authorizer.of_tenant(id, grants).within(boundary);
    Ok(Arc::new(policies.suspended(!state.tenant.active)))
}
