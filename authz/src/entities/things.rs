//! Resources as entities, each with the tenant and the function it belongs to.
//!
//! Owns what the schema says of each kind. Must never take a resource for a tenant's whose id says otherwise.

use std::collections::HashSet;

use cedar_policy::{Entity, EntityUid, RestrictedExpression};
use cofferdam_model::id::platform_tenant;
use cofferdam_model::{FunctionId, Resource, TenantId};

use super::{Attributes, Unaskable, Vocabulary, text};

impl Vocabulary {
    /// The resource's id, with it and what it is in among the entities; the tenant is there in any case.
    pub(super) fn resource(
        &self,
        resource: &Resource,
        tenant: &TenantId,
        entities: &mut Vec<Entity>,
    ) -> Result<EntityUid, Unaskable> {
        // An operation whose resource is not in its own tenant was put together wrongly.
        let owner = resource.tenant();
        if owner.as_ref().map_or_else(|| *tenant != platform_tenant(), |owner| owner != tenant) {
            return Err(Unaskable("resource"));
        }
        let home = self.uid("Tenant", tenant.as_str())?;
        let entity = match resource {
            Resource::Platform => Entity::with_uid(self.platform.clone()),
            Resource::Tenant(_) => return Ok(home),
            Resource::Function { id, name } => self.function(id, name, tenant)?,
            Resource::Secret { function, function_name, name } => {
                entities.push(self.function(function, function_name, tenant)?);
                self.secret(function, function_name, name, tenant)?
            }
            Resource::Api { name, .. } => {
                self.owned("Api", &resource.id(), home, tenant, [("app".to_owned(), text(name))])?
            }
            Resource::Account { name, roles, .. } => {
                let parents = roles.iter().map(|role| self.uid("Role", role));
                let mut parents = parents.collect::<Result<HashSet<_>, _>>()?;
                parents.insert(home.clone());
                let attributes = Attributes::from([
                    ("id".to_owned(), text(name)),
                    ("tenant".to_owned(), RestrictedExpression::new_entity_uid(home)),
                    ("roles".to_owned(), RestrictedExpression::new_set(roles.iter().map(|role| text(role)))),
                ]);
                let uid = self.uid("Account", &resource.id())?;
                Entity::new(uid, attributes, parents).map_err(|_| Unaskable("account"))?
            }
            Resource::ApiKey(_) => self.owned("ApiKey", &resource.id(), home, tenant, [])?,
            Resource::AuditLog(_) => self.owned("AuditLog", &resource.id(), home, tenant, [])?,
            Resource::PolicySet { policy, .. } => {
                self.owned("PolicySet", &resource.id(), home, tenant, [("policy".to_owned(), text(policy))])?
            }
        };
        let uid = entity.uid();
        entities.push(entity);
        Ok(uid)
    }

    pub(super) fn function(&self, id: &FunctionId, name: &str, tenant: &TenantId) -> Result<Entity, Unaskable> {
        let home = self.uid("Tenant", tenant.as_str())?;
        self.owned("Function", id.as_str(), home, tenant, [("name".to_owned(), text(name))])
    }

    pub(super) fn secret(
        &self,
        function: &FunctionId,
        function_name: &str,
        name: &str,
        tenant: &TenantId,
    ) -> Result<Entity, Unaskable> {
        let of = self.uid("Function", function.as_str())?;
        let attributes = [
            ("name".to_owned(), text(function_name)),
            ("function".to_owned(), RestrictedExpression::new_entity_uid(of.clone())),
            ("secret".to_owned(), text(name)),
        ];
        self.owned("Secret", &format!("{function}|{name}"), of, tenant, attributes)
    }

    /// An entity of a tenant, in its tenant or in something of it.
    pub(super) fn owned<const N: usize>(
        &self,
        kind: &'static str,
        id: &str,
        parent: EntityUid,
        tenant: &TenantId,
        attributes: [(String, RestrictedExpression); N],
    ) -> Result<Entity, Unaskable> {
        let mut attributes = Attributes::from(attributes);
        let home = self.uid("Tenant", tenant.as_str())?;
        attributes.insert("tenant".to_owned(), RestrictedExpression::new_entity_uid(home));
        Entity::new(self.uid(kind, id)?, attributes, HashSet::from([parent])).map_err(|_| Unaskable(kind))
    }
}
