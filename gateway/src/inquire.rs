//! What a tenant may ask of its own policies and records: what would be decided, and what was.
//!
//! Owns how much may be asked at once. Must never answer about another tenant, and never decide anything.

use cofferdam_audit::select::Wanted;
use cofferdam_authz::{Owner, SuppositionError, TenantPolicies, Texts};
use cofferdam_control::Snapshot;
use cofferdam_model::id::platform_tenant;
use cofferdam_model::{AuditRange, Simulation, Supposition, TenantId, UnixNanos};
use serde_json::{Value, json};

use crate::node::Node;
use crate::refusal::Refusal;

/// Suppositions answered at once.
pub(crate) const SUPPOSITIONS: usize = 2_000;
/// Those answered with their reasons, which take each policy apart.
pub(crate) const EXPLAINED: usize = 8;

fn wrong(message: String) -> Refusal {
    Refusal::Invalid { message }
}

/// Answers what policies would decide. Texts of what binds a tenant from above are for operators.
pub(crate) fn simulate(
    node: &Node,
    tenant: &TenantId,
    simulation: &Simulation,
    by_operator: bool,
) -> Result<Value, Refusal> {
    let most = if simulation.explain { EXPLAINED } else { SUPPOSITIONS };
    if simulation.requests.len() > most {
        let asked = simulation.requests.len();
        return Err(wrong(format!("{asked} requests, at most {most} are answered at once: ask several times")));
    }
    let snapshot = node.live.control().snapshot();
    let mut policies = (*snapshot.policies(tenant).ok_or(Refusal::NotFound)?).clone();
    if let Some(sources) = &simulation.policies {
        // In the place of what the tenant grants: what binds it from above stays.
        let texts = Texts { version: 0, sources: sources.clone() };
        let owner = Owner::Tenant(tenant.clone());
        let granted = node.authorizer.tier(owner, texts, Some(policies.grants()));
        policies = policies.granting(granted.map_err(|error| wrong(error.to_string()))?);
    }
    let (now, explain) = (node.clock.now(), simulation.explain);
    let answers = simulation.requests.iter().enumerate().map(|(place, asked)| {
        let asked = known(&snapshot, tenant, asked);
        answer(node, (&policies, &asked), (explain, by_operator), now)
            .map_err(|error| wrong(format!("request {}: {error}", place + 1)))
    });
    let answers: Vec<Value> = answers.collect::<Result<_, _>>()?;
    Ok(json!({ "answers": answers, "policy_set": policies.digest() }))
}

fn answer(
    node: &Node,
    (policies, asked): (&TenantPolicies, &Supposition),
    (explain, by_operator): (bool, bool),
    now: UnixNanos,
) -> Result<Value, SuppositionError> {
    if explain {
        let told = node.authorizer.simulate_in_full(policies, asked, now)?;
        return Ok(if by_operator { json!(told) } else { json!(told.for_tenants()) });
    }
    node.authorizer.simulate(policies, asked, now).map(|answer| json!(answer))
}

/// The supposition with the id of the function it names, and nobody's tenant but the asking one's and the platform's:
/// which others there are is nothing a tenant may find out.
fn known(snapshot: &Snapshot, tenant: &TenantId, asked: &Supposition) -> Supposition {
    let mut asked = asked.clone();
    if asked.function_id.is_none() {
        let function = asked.function.as_deref().and_then(|name| snapshot.function(tenant, name));
        asked.function_id = function.map(|function| function.id.to_string());
    }
    let home = asked.principal.tenant.take();
    asked.principal.tenant = home.map(|home| {
        let own = snapshot.tenant(tenant).is_some_and(|entry| *entry.name == *home) || home == tenant.as_str();
        if own {
            tenant.to_string()
        } else if home == "platform" || home == platform_tenant().as_str() {
            platform_tenant().to_string()
        } else {
            cofferdam_authz::explain::foreign_tenant().to_string()
        }
    });
    asked
}

/// Some of a tenant's records.
pub(crate) fn records(node: &Node, tenant: &TenantId, range: &AuditRange) -> Result<Value, Refusal> {
    let wanted = Wanted {
        tenant: Some(tenant.as_str()),
        request: range.request.as_deref(),
        since: range.since,
        until: range.until,
        from: range.from,
        records: range.records,
    };
    let page = node.log.select(&wanted).map_err(|error| {
        tracing::error!(%error, "records of the log could not be read");
        Refusal::Internal
    })?;
    let records: Vec<Value> = page.lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect();
    Ok(json!({ "records": records, "next": page.next }))
}
