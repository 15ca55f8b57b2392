//! What binds tenants from above: organisations with their ceilings, and the boundaries of tenants.
//!
//! Owns the rules these must keep. Must never let a boundary rest on the platform's own tenant: it would bind nobody.

use cofferdam_authz::TierPolicies;
use cofferdam_model::id::platform_tenant;
use cofferdam_model::{Govern, OrganisationId, PolicyTier, TenantId};
use serde_json::{Value, json};

use crate::apply::{Change, Touched};
use crate::error::ControlError;
use crate::snapshot::Snapshot;
use crate::store::{OrganisationRow, PolicyRow};
use crate::tenant::{PLATFORM_NAME, check_name, check_policy};

const ORGANISATIONS: usize = 1_000;

/// What a change made another one of, and what it answers.
type Governed = Result<(Touched, Value), ControlError>;

impl Change<'_> {
    pub(crate) fn govern(&mut self, govern: &Govern) -> Governed {
        match govern {
            Govern::CreateOrganisation { name } => self.create_organisation(name),
            Govern::ListOrganisations => Err(ControlError::NotAChange { action: "ListOrganisations" }),
            Govern::AssignTenant { tenant, organisation } => {
                self.bindable(tenant)?;
                let to = organisation.as_ref();
                self.tx.assign_tenant(tenant, to.map(|organisation| &organisation.id))?;
                let name = to.map(|organisation| &organisation.name);
                Ok((Touched::Tenant(tenant.clone()), json!({ "tenant": tenant, "organisation": name })))
            }
            Govern::PutCeiling { organisation, name, text } => {
                self.put(PolicyTier::Organisation, organisation.id.as_str(), (name, text))?;
                let answer = json!({ "organisation": organisation.name, "name": name });
                Ok((Touched::Organisation(organisation.id.clone()), answer))
            }
            Govern::RemoveCeiling { organisation, name } => {
                self.remove(PolicyTier::Organisation, organisation.id.as_str(), name)?;
                let answer = json!({ "organisation": organisation.name, "name": name, "removed": true });
                Ok((Touched::Organisation(organisation.id.clone()), answer))
            }
            Govern::PutBoundary { tenant, name, text } => {
                self.bindable(tenant)?;
                self.put(PolicyTier::Boundary, tenant.as_str(), (name, text))?;
                Ok((Touched::Tenant(tenant.clone()), json!({ "tenant": tenant, "name": name })))
            }
            Govern::RemoveBoundary { tenant, name } => {
                self.remove(PolicyTier::Boundary, tenant.as_str(), name)?;
                Ok((Touched::Tenant(tenant.clone()), json!({ "tenant": tenant, "name": name, "removed": true })))
            }
        }
    }

    fn create_organisation(&mut self, name: &str) -> Governed {
        check_name("organisation name", name)?;
        if self.tx.organisations()?.len() >= ORGANISATIONS {
            return Err(ControlError::TooMany { what: "organisations", limit: ORGANISATIONS });
        }
        let id = OrganisationId::mint(self.means.random);
        let row = OrganisationRow { id: id.clone(), name: name.to_owned(), created: self.means.now };
        self.tx.insert_organisation(&row)?;
        let answer = json!({ "id": id, "name": name });
        Ok((Touched::Organisation(id), answer))
    }

    fn bindable(&mut self, tenant: &TenantId) -> Result<(), ControlError> {
        if *tenant == platform_tenant() {
            let reason = "operators are bound by the guard-rails alone";
            return Err(ControlError::invalid("tenant", PLATFORM_NAME, reason));
        }
        self.state(tenant).map(|_| ())
    }

    /// Whether it compiles shows when the next snapshot is built, before anything is committed.
    fn put(&mut self, tier: PolicyTier, owner: &str, (name, text): (&str, &str)) -> Result<(), ControlError> {
        check_policy(&self.tx.ceiling(tier, owner)?, name, text)?;
        self.tx.put_ceiling(tier, owner, &PolicyRow { name: name.to_owned(), text: text.to_owned() })
    }

    fn remove(&mut self, tier: PolicyTier, owner: &str, name: &str) -> Result<(), ControlError> {
        match self.tx.remove_ceiling(tier, owner, name)? {
            true => Ok(()),
            false => Err(ControlError::not_found("policy", name)),
        }
    }
}

/// What binds a tenant from above, as it is told: that there is something, in which state, and what decisions call it.
/// The texts are the operators', who may have written in them what is not this tenant's to know.
pub(crate) fn bound_by(rows: &[PolicyRow], set: Option<&TierPolicies>, by_operator: bool) -> (Value, Value) {
    let told = rows.iter().map(|row| match by_operator {
        true => json!({ "name": row.name, "text": row.text }),
        false => json!({ "name": row.name }),
    });
    let set = set.map(TierPolicies::facts);
    let set = set.map(|set| json!({ "version": set.version, "sha256": set.digest }));
    (told.collect(), json!(set))
}

/// Organisations, each with its tenants and the texts of its ceiling.
pub(crate) fn list(snapshot: &Snapshot) -> Value {
    let describe = |organisation: &crate::snapshot::OrganisationEntry| {
        let own = snapshot.tenants().filter(|tenant| tenant.organisation.as_ref() == Some(&organisation.id));
        let mut tenants: Vec<&str> = own.map(|tenant| &*tenant.name).collect();
        tenants.sort_unstable();
        let ceiling = organisation.sources.iter().map(|row| json!({ "name": row.name, "text": row.text }));
        json!({
            "id": organisation.id,
            "name": &*organisation.name,
            "created": organisation.created.to_string(),
            "tenants": tenants,
            "ceiling": ceiling.collect::<Vec<_>>(),
        })
    };
    let mut all: Vec<_> = snapshot.organisations().collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    json!({ "organisations": all.into_iter().map(|organisation| describe(organisation)).collect::<Vec<_>>() })
}
