//! A call as Cedar sees it: a request, and the few entities it is about.
//!
//! Owns the mapping from principals, operations and circumstances to the schema's words. The slice holds everything
//! a policy can reach in the two steps it may look, so nothing is ever missing. Must never parse text of policies or
//! JSON, and never leave out an attribute the schema requires.

use std::collections::{HashMap, HashSet};

use cedar_policy::{
    Context, Entities, Entity, EntityId, EntityTypeName, EntityUid, Request, RestrictedExpression, Schema,
};
use cofferdam_model::id::platform_tenant;
use cofferdam_model::{Action, Circumstances, Operation, PrincipalKind, Resource, TenantId};

use crate::error::PolicyError;
use crate::identity::Principal;

/// The schema's words, made once.
pub(crate) struct Vocabulary {
    role: EntityTypeName,
    tenant: EntityTypeName,
    user: EntityTypeName,
    service_account: EntityTypeName,
    anonymous: EntityTypeName,
    function: EntityTypeName,
    platform: EntityUid,
    /// Each action with the groups it is in.
    actions: HashMap<Action, Entity>,
}

/// What a decision is asked of.
pub(crate) struct Question {
    pub(crate) request: Request,
    pub(crate) entities: Entities,
}

/// Why a call cannot be put into the schema's words. A defect of ours; it denies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unaskable(pub(crate) &'static str);

impl Vocabulary {
    pub(crate) fn of(schema: &Schema) -> Result<Self, PolicyError> {
        let broken = |what: &str| PolicyError::BuiltIn(format!("the schema lacks {what}"));
        let named = |name: &str| name.parse::<EntityTypeName>().map_err(|_| broken(name));
        let entities = schema.action_entities().map_err(|error| PolicyError::BuiltIn(error.to_string()))?;
        let mut actions = HashMap::new();
        for action in Action::ALL {
            let uid = EntityUid::from_type_name_and_id(named("Action")?, EntityId::new(action.as_str()));
            let entity = entities.get(&uid).ok_or_else(|| broken(action.as_str()))?;
            actions.insert(*action, entity.clone());
        }
        Ok(Self {
            role: named("Role")?,
            tenant: named("Tenant")?,
            user: named("User")?,
            service_account: named("ServiceAccount")?,
            anonymous: named("Anonymous")?,
            function: named("Function")?,
            platform: EntityUid::from_type_name_and_id(named("Platform")?, EntityId::new("platform")),
            actions,
        })
    }

    /// The call in these words. `schema` is given by tests only: what is built here is the same for every call of a
    /// kind, so checking it each time would find nothing a test does not.
    pub(crate) fn question<A: Operation>(
        &self,
        principal: &Principal,
        operation: &A,
        circumstances: &Circumstances,
        suspended: bool,
        schema: Option<&Schema>,
    ) -> Result<Question, Unaskable> {
        let tenant = operation.tenant();
        let action = self.actions.get(&operation.action()).ok_or(Unaskable("action"))?.clone();
        let mut entities = Vec::with_capacity(5);
        let resource = match operation.resource() {
            Resource::Platform if tenant == platform_tenant() => self.platform.clone(),
            // The tenant is an entity of the slice in any case.
            Resource::Tenant(id) if id == tenant => self.tenant_uid(&id),
            Resource::Function { id, name } if id.tenant() == tenant => {
                let function = self.function_entity(id.as_str(), &name, &tenant)?;
                let uid = function.uid();
                entities.push(function);
                uid
            }
            // An operation whose resource is not in its own tenant was put together wrongly.
            _ => return Err(Unaskable("resource")),
        };
        if resource == self.platform {
            entities.push(Entity::with_uid(resource.clone()));
        }
        let who = self.principal_entity(principal)?;
        let who_uid = who.uid();
        entities.push(who);
        entities.push(self.tenant_entity(&tenant, suspended)?);
        if let Some(own) = principal.tenant().filter(|own| **own != tenant) {
            // Identified a moment ago, which takes an active tenant.
            entities.push(self.tenant_entity(own, false)?);
        }
        let action_uid = action.uid();
        entities.push(action);
        let context = context(principal, operation, circumstances)?;
        let request = Request::new(who_uid, action_uid, resource, context, schema).map_err(|_| Unaskable("request"))?;
        let entities = Entities::from_entities(entities, schema).map_err(|_| Unaskable("entities"))?;
        Ok(Question { request, entities })
    }

    fn tenant_uid(&self, tenant: &TenantId) -> EntityUid {
        EntityUid::from_type_name_and_id(self.tenant.clone(), EntityId::new(tenant.as_str()))
    }

    fn tenant_entity(&self, tenant: &TenantId, suspended: bool) -> Result<Entity, Unaskable> {
        let attributes = HashMap::from([("suspended".to_owned(), RestrictedExpression::new_bool(suspended))]);
        Entity::new(self.tenant_uid(tenant), attributes, HashSet::new()).map_err(|_| Unaskable("tenant"))
    }

    fn function_entity(&self, id: &str, name: &str, tenant: &TenantId) -> Result<Entity, Unaskable> {
        let owner = self.tenant_uid(tenant);
        let attributes = HashMap::from([
            ("name".to_owned(), RestrictedExpression::new_string(name.to_owned())),
            ("tenant".to_owned(), RestrictedExpression::new_entity_uid(owner.clone())),
        ]);
        let uid = EntityUid::from_type_name_and_id(self.function.clone(), EntityId::new(id));
        Entity::new(uid, attributes, HashSet::from([owner])).map_err(|_| Unaskable("function"))
    }

    fn principal_entity(&self, principal: &Principal) -> Result<Entity, Unaskable> {
        let kind = match principal.kind() {
            PrincipalKind::User => &self.user,
            PrincipalKind::ServiceAccount => &self.service_account,
            PrincipalKind::Anonymous => &self.anonymous,
        };
        let text = |text: &str| RestrictedExpression::new_string(text.to_owned());
        let mut attributes = HashMap::from([
            ("id".to_owned(), text(principal.id())),
            ("roles".to_owned(), RestrictedExpression::new_set(principal.roles().iter().map(|role| text(role)))),
        ]);
        if let Some(issuer) = principal.issuer() {
            attributes.insert("issuer".to_owned(), text(issuer));
        }
        let role = |role: &String| EntityUid::from_type_name_and_id(self.role.clone(), EntityId::new(role));
        let mut parents: HashSet<_> = principal.roles().iter().map(role).collect();
        if let Some(tenant) = principal.tenant() {
            let tenant = self.tenant_uid(tenant);
            attributes.insert("tenant".to_owned(), RestrictedExpression::new_entity_uid(tenant.clone()));
            parents.insert(tenant);
        }
        let uid = EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(principal.key()));
        Entity::new(uid, attributes, parents).map_err(|_| Unaskable("principal"))
    }
}

fn context<A: Operation>(
    principal: &Principal,
    operation: &A,
    circumstances: &Circumstances,
) -> Result<Context, Unaskable> {
    let text = |text: &str| RestrictedExpression::new_string(text.to_owned());
    // Cedar reads milliseconds, the log writes microseconds.
    let at = circumstances.at.to_string();
    let now = format!("{}Z", at.get(..23).ok_or(Unaskable("time"))?);
    let session = session(principal, circumstances);
    Context::from_pairs(
        [
            ("source".to_owned(), RestrictedExpression::new_ip(circumstances.source.to_string())),
            ("tls".to_owned(), text(circumstances.tls.as_str())),
            ("method".to_owned(), text(&circumstances.method)),
            ("host".to_owned(), text(&circumstances.host)),
            ("path".to_owned(), text(&circumstances.path)),
            ("public".to_owned(), RestrictedExpression::new_bool(operation.public())),
            ("credential".to_owned(), text(principal.credential().as_str())),
            ("now".to_owned(), RestrictedExpression::new_datetime(now)),
            ("request".to_owned(), text(circumstances.request.as_str())),
        ]
        .into_iter()
        .chain(session),
    )
    .map_err(|_| Unaskable("context"))
}

/// What a caller's token says of its session. What it does not say is not there, but for `mfa`: not said is no.
fn session(
    principal: &Principal,
    circumstances: &Circumstances,
) -> impl Iterator<Item = (String, RestrictedExpression)> {
    let text = |text: &String| RestrictedExpression::new_string(text.clone());
    let session = principal.session();
    let mfa = ("mfa".to_owned(), RestrictedExpression::new_bool(session.is_some_and(|session| session.mfa)));
    let scopes = session.and_then(|session| session.scopes.as_ref());
    let scopes = scopes.map(|scopes| ("scopes".to_owned(), RestrictedExpression::new_set(scopes.iter().map(text))));
    let age = session.and_then(|session| session.authenticated).map(|at| {
        let age = i64::try_from(circumstances.at.seconds().saturating_sub(at)).unwrap_or(i64::MAX);
        ("auth_age".to_owned(), RestrictedExpression::new_long(age))
    });
    let actor = session.and_then(|session| session.actor.as_ref()).map(|actor| ("actor".to_owned(), text(actor)));
    let client = session.and_then(|session| session.client.as_ref()).map(|client| ("client".to_owned(), text(client)));
    std::iter::once(mfa).chain(scopes).chain(age).chain(actor).chain(client)
}
