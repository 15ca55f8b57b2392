//! A call as Cedar sees it: a request, and the few entities it is about.
//!
//! Owns the mapping from principals, operations and circumstances to the schema's words. The slice holds everything
//! a policy can reach in the two steps it may look, so nothing is ever missing. Must never parse text of policies or
//! JSON, and never leave out an attribute the schema requires.

mod things;
mod work;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use cedar_policy::{
    Context, Entities, Entity, EntityId, EntityTypeName, EntityUid, Request, RestrictedExpression, Schema,
};
use cofferdam_model::{Action, Circumstances, Operation, OrganisationId, PrincipalKind, RouteId, TenantId};

pub use self::work::Way;
pub(crate) use self::work::Work;

use crate::error::PolicyError;
use crate::identity::Principal;
use crate::policy::index::{Actions, Asked, Bits, Reach, bit};

/// The schema's words, made once.
pub(crate) struct Vocabulary {
    kinds: HashMap<&'static str, EntityTypeName>,
    platform: EntityUid,
    actions: HashMap<Action, Doing>,
}

/// An action as the schema has it.
struct Doing {
    /// With the groups it is in.
    entity: Entity,
    bit: Actions,
    /// Kind of what it is done to.
    resource: String,
    /// Whether it is done by somebody, not by a function at work.
    by_people: bool,
}

/// Kinds of entities that are made here.
const KINDS: &[&str] = &[
    "Organisation",
    "Role",
    "Group",
    "Tenant",
    "User",
    "ServiceAccount",
    "Anonymous",
    "Workload",
    "Function",
    "Version",
    "Secret",
    "Destination",
    "Account",
    "Api",
    "Route",
    "ApiKey",
    "PolicySet",
    "AuditLog",
    "Platform",
];

/// What a decision is asked of.
pub(crate) struct Question {
    pub(crate) request: Request,
    pub(crate) entities: Arc<Entities>,
    principal: Reach,
    resource: Reach,
    action: Actions,
}

impl Question {
    fn new(bits: &Bits, request: Request, entities: Arc<Entities>, action: Actions) -> Result<Self, Unaskable> {
        let principal = bits.reach(request.principal().ok_or(Unaskable("principal"))?, &entities);
        let resource = bits.reach(request.resource().ok_or(Unaskable("resource"))?, &entities);
        Ok(Self { request, entities, principal, resource, action })
    }

    /// As an index takes it.
    pub(crate) fn asked(&self) -> Asked<'_> {
        Asked {
            request: &self.request,
            entities: &self.entities,
            principal: &self.principal,
            resource: &self.resource,
            action: self.action,
        }
    }
}

/// Why a call cannot be put into the schema's words. A defect of ours; it denies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unaskable(pub(crate) &'static str);

/// What is known of the tenant a call happens in.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Home<'a> {
    pub(crate) suspended: bool,
    pub(crate) organisation: Option<&'a OrganisationId>,
}

/// An entity's attributes.
type Attributes = HashMap<String, RestrictedExpression>;

impl Vocabulary {
    pub(crate) fn of(schema: &Schema) -> Result<Self, PolicyError> {
        let broken = |what: &str| PolicyError::BuiltIn(format!("the schema lacks {what}"));
        let named = |name: &str| name.parse::<EntityTypeName>().map_err(|_| broken(name));
        let entities = schema.action_entities().map_err(|error| PolicyError::BuiltIn(error.to_string()))?;
        let mut actions = HashMap::new();
        for action in Action::ALL {
            let uid = EntityUid::from_type_name_and_id(named("Action")?, EntityId::new(action.as_str()));
            let entity = entities.get(&uid).ok_or_else(|| broken(action.as_str()))?;
            let mut to = schema.resources_for_action(&uid).ok_or_else(|| broken(action.as_str()))?;
            let mut by = schema.principals_for_action(&uid).ok_or_else(|| broken(action.as_str()))?;
            let (Some(resource), None) = (to.next(), to.next()) else {
                return Err(broken("one kind of resource for each action"));
            };
            let resource = resource.basename().to_owned();
            let by_people = by.any(|kind| kind.basename() != "Workload");
            actions.insert(*action, Doing { entity: entity.clone(), bit: bit(*action)?, resource, by_people });
        }
        let mut kinds = HashMap::new();
        for kind in KINDS {
            let known = schema.entity_types().find(|known| known.basename() == *kind);
            kinds.insert(*kind, known.ok_or_else(|| broken(kind))?.clone());
        }
        let platform = EntityUid::from_type_name_and_id(named("Platform")?, EntityId::new("platform"));
        Ok(Self { kinds, platform, actions })
    }

    /// The call in these words. `schema` is given by tests only: what is built here is the same for every call of a
    /// kind, so checking it each time would find nothing a test does not.
    pub(crate) fn question<A: Operation>(
        &self,
        bits: &Bits,
        principal: &Principal,
        operation: &A,
        circumstances: &Circumstances,
        home: Home<'_>,
        schema: Option<&Schema>,
    ) -> Result<Question, Unaskable> {
        let tenant = operation.tenant();
        let doing = self.actions.get(&operation.action()).ok_or(Unaskable("action"))?;
        let mut entities = Vec::with_capacity(8);
        let resource = self.resource(&operation.resource(), &tenant, &mut entities)?;
        let who = self.principal_entity(principal)?;
        let who_uid = who.uid();
        entities.push(who);
        self.home(&tenant, home, &mut entities)?;
        if let Some(own) = principal.tenant().filter(|own| **own != tenant) {
            // Identified a moment ago, which takes an active tenant.
            entities.push(self.tenant_entity(own, Home::default())?);
        }
        if let Some(route) = operation.route() {
            entities.push(self.route(route, &tenant)?);
        }
        let action_uid = doing.entity.uid();
        entities.push(doing.entity.clone());
        let context = self.context(principal, operation, circumstances)?;
        let request = Request::new(who_uid, action_uid, resource, context, schema).map_err(|_| Unaskable("request"))?;
        let entities = Entities::from_entities(entities, schema).map_err(|_| Unaskable("entities"))?;
        Question::new(bits, request, Arc::new(entities), doing.bit)
    }

    /// Kind of what an action is done to, where somebody can do it at all; a function at work is nobody.
    pub(crate) fn done_to(&self, action: Action) -> Option<&str> {
        self.actions.get(&action).filter(|doing| doing.by_people).map(|doing| doing.resource.as_str())
    }

    fn uid(&self, kind: &'static str, id: &str) -> Result<EntityUid, Unaskable> {
        let kind = self.kinds.get(kind).ok_or(Unaskable("kind"))?.clone();
        Ok(EntityUid::from_type_name_and_id(kind, EntityId::new(id)))
    }

    /// The tenant a call happens in, and its organisation.
    fn home(&self, tenant: &TenantId, home: Home<'_>, entities: &mut Vec<Entity>) -> Result<(), Unaskable> {
        if let Some(organisation) = home.organisation {
            entities.push(Entity::with_uid(self.uid("Organisation", organisation.as_str())?));
        }
        entities.push(self.tenant_entity(tenant, home)?);
        Ok(())
    }

    fn tenant_entity(&self, tenant: &TenantId, home: Home<'_>) -> Result<Entity, Unaskable> {
        let mut attributes = Attributes::from([("suspended".to_owned(), flag(home.suspended))]);
        let mut parents = HashSet::new();
        if let Some(organisation) = home.organisation {
            let organisation = self.uid("Organisation", organisation.as_str())?;
            attributes.insert("organisation".to_owned(), RestrictedExpression::new_entity_uid(organisation.clone()));
            parents.insert(organisation);
        }
        Entity::new(self.uid("Tenant", tenant.as_str())?, attributes, parents).map_err(|_| Unaskable("tenant"))
    }

    fn route(&self, route: &RouteId, tenant: &TenantId) -> Result<Entity, Unaskable> {
        if route.tenant() != *tenant {
            return Err(Unaskable("route"));
        }
        self.owned("Route", route.as_str(), self.uid("Tenant", tenant.as_str())?, tenant, [])
    }

    fn principal_entity(&self, principal: &Principal) -> Result<Entity, Unaskable> {
        let kind = match principal.kind() {
            PrincipalKind::User => "User",
            PrincipalKind::ServiceAccount => "ServiceAccount",
            PrincipalKind::Anonymous => "Anonymous",
        };
        let mut attributes = Attributes::from([
            ("id".to_owned(), text(principal.id())),
            ("roles".to_owned(), RestrictedExpression::new_set(principal.roles().iter().map(|role| text(role)))),
        ]);
        let groups = RestrictedExpression::new_set(principal.groups().iter().map(|group| text(group)));
        attributes.insert("groups".to_owned(), groups);
        if let Some(issuer) = principal.issuer() {
            attributes.insert("issuer".to_owned(), text(issuer));
        }
        let roles = principal.roles().iter().map(|role| self.uid("Role", role));
        let groups = principal.groups().iter().map(|group| self.uid("Group", group));
        let mut parents = roles.chain(groups).collect::<Result<HashSet<_>, _>>()?;
        if let Some(tenant) = principal.tenant() {
            let tenant = self.uid("Tenant", tenant.as_str())?;
            attributes.insert("tenant".to_owned(), RestrictedExpression::new_entity_uid(tenant.clone()));
            parents.insert(tenant);
        }
        let uid = self.uid(kind, &principal.key())?;
        Entity::new(uid, attributes, parents).map_err(|_| Unaskable("principal"))
    }

    fn context<A: Operation>(
        &self,
        principal: &Principal,
        operation: &A,
        circumstances: &Circumstances,
    ) -> Result<Context, Unaskable> {
        // Cedar reads milliseconds, the log writes microseconds.
        let at = circumstances.at.to_string();
        let now = format!("{}Z", at.get(..23).ok_or(Unaskable("time"))?);
        let mut pairs = vec![
            ("source".to_owned(), RestrictedExpression::new_ip(circumstances.source.to_string())),
            ("tls".to_owned(), text(circumstances.tls.as_str())),
            ("method".to_owned(), text(&circumstances.method)),
            ("host".to_owned(), text(&circumstances.host)),
            ("path".to_owned(), text(&circumstances.path)),
            ("public".to_owned(), flag(operation.public())),
            ("credential".to_owned(), text(principal.credential().as_str())),
            ("now".to_owned(), RestrictedExpression::new_datetime(now)),
            ("request".to_owned(), text(circumstances.request.as_str())),
            ("bound".to_owned(), text(principal.bound().as_str())),
        ];
        if let Some(machine) = principal.certificate() {
            pairs.push(("certificate".to_owned(), text(machine)));
        }
        if let Some(route) = operation.route() {
            let route = self.uid("Route", route.as_str())?;
            pairs.push(("route".to_owned(), RestrictedExpression::new_entity_uid(route)));
        }
        Context::from_pairs(pairs.into_iter().chain(session(principal, circumstances)))
            .map_err(|_| Unaskable("context"))
    }
}

fn text(text: &str) -> RestrictedExpression {
    RestrictedExpression::new_string(text.to_owned())
}

fn flag(flag: bool) -> RestrictedExpression {
    RestrictedExpression::new_bool(flag)
}

/// What a caller's token says of its session. What it does not say is not there, but for `mfa`: not said is no.
fn session(
    principal: &Principal,
    circumstances: &Circumstances,
) -> impl Iterator<Item = (String, RestrictedExpression)> {
    let session = principal.session();
    let mfa = ("mfa".to_owned(), flag(session.is_some_and(|session| session.mfa)));
    let scopes = session.and_then(|session| session.scopes.as_ref());
    let scopes = scopes
        .map(|scopes| ("scopes".to_owned(), RestrictedExpression::new_set(scopes.iter().map(|scope| text(scope)))));
    let age = session.and_then(|session| session.authenticated).map(|at| {
        let age = i64::try_from(circumstances.at.seconds().saturating_sub(at)).unwrap_or(i64::MAX);
        ("auth_age".to_owned(), RestrictedExpression::new_long(age))
    });
    let actor = session.and_then(|session| session.actor.as_ref()).map(|actor| ("actor".to_owned(), text(actor)));
    let client = session.and_then(|session| session.client.as_ref()).map(|client| ("client".to_owned(), text(client)));
    std::iter::once(mfa).chain(scopes).chain(age).chain(actor).chain(client)
}
