//! Reading all there is when a node starts.
//!
//! Owns which policies are compiled then: those that no earlier start or change of this very release has found good,
//! several at a time. Must never skip what does not compile, nor let it through on the defaults.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use cofferdam_authz::{Authorizer, TenantPolicies};
use cofferdam_model::{FunctionLimits, PolicyTier, TenantLimits, UnixNanos};

use crate::error::ControlError;
use crate::machine;
use crate::snapshot::{Entry, OrganisationEntry, Snapshot, TenantEntry, compile, unread};
use crate::store::{self, SetRow, Store, TenantState};

/// A tenant's policies as they came out.
type Compiled = Result<Arc<TenantPolicies>, ControlError>;

/// Reads all there is. A tenant whose policies no longer compile (an older release took them) is shut: everyone of it
/// is refused until its policies are put right.
pub(crate) fn load(
    store: &mut dyn Store,
    authorizer: &Authorizer,
    ceiling: &FunctionLimits,
    limits: &Arc<TenantLimits>,
    now: UnixNanos,
) -> Result<Snapshot, ControlError> {
    let rules = authorizer.rules();
    store::run(store, |tx| {
        tx.forget_revocations(now)?;
        let mut snapshot = Snapshot::default();
        for state in tx.organisations()? {
            snapshot.put(Entry::Organisation(OrganisationEntry::unread(authorizer, state)?));
        }
        let mut states = Vec::new();
        for row in tx.tenants()? {
            states.extend(tx.tenant(&row.id)?);
        }
        let compiled = compile_all(authorizer, &states, &rules)?;
        for (mut state, (policies, anew)) in states.into_iter().zip(compiled) {
            let owner = state.tenant.id.as_str();
            let policies = match policies {
                Ok(policies) if anew => {
                    tx.found_good(PolicyTier::Tenant, owner, &rules)?;
                    tx.found_good(PolicyTier::Boundary, owner, &rules)?;
                    policies
                }
                Ok(policies) => policies,
                Err(error) => shut(authorizer, &mut state, &error)?,
            };
            let authorities = machine::authorities(&state, None);
            let entry = TenantEntry::build(state, policies, authorities, (ceiling, limits.clone()));
            snapshot.put(Entry::Tenant(Box::new(entry)));
        }
        let generation = tx.next_generation()?;
        Ok(snapshot.at(generation))
    })
}

/// Shuts a tenant whose policies do not compile. They stay what is asked, so that whatever is asked of them fails.
pub(crate) fn shut(
    authorizer: &Authorizer,
    state: &mut TenantState,
    error: &ControlError,
) -> Result<Arc<TenantPolicies>, ControlError> {
    let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    let (tenant, id) = (&state.tenant.name, &state.tenant.id);
    tracing::error!(tenant, %id, cause, "policies do not compile, the tenant is shut");
    state.tenant.active = false;
    unread(authorizer, state)
}

/// Every tenant's policies, each with whether it was compiled just now.
fn compile_all(
    authorizer: &Authorizer,
    states: &[TenantState],
    rules: &str,
) -> Result<Vec<(Compiled, bool)>, ControlError> {
    let known = |set: &SetRow, texts: usize| texts == 0 || set.rules.as_deref() == Some(rules);
    let good = |state: &TenantState| {
        known(&state.policies_set, state.policies.len()) && known(&state.boundary_set, state.boundary.len())
    };
    let unsure: Vec<usize> = (0..).zip(states).filter(|(_, state)| !good(state)).map(|(at, _)| at).collect();
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some(at) = unsure.get(next.fetch_add(1, Ordering::Relaxed)) {
            let Some(state) = states.get(*at) else { continue };
            let compiled = compile(authorizer, state, None);
            done.lock().unwrap_or_else(PoisonError::into_inner).push((*at, compiled));
        }
    };
    let threads = thread::available_parallelism().map_or(1, NonZeroUsize::get).min(unsure.len());
    thread::scope(|scope| {
        // This thread works too, so it goes on where no other can be had.
        for _ in 1..threads {
            let _ = thread::Builder::new().spawn_scoped(scope, work);
        }
        work();
    });
    let mut all: Vec<(Compiled, bool)> = states.iter().map(|state| (unread(authorizer, state), false)).collect();
    for (at, compiled) in done.into_inner().unwrap_or_else(PoisonError::into_inner) {
        if let Some(place) = all.get_mut(at) {
            *place = (compiled, true);
        }
    }
    Ok(all)
}
