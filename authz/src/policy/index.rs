//! Which of many policies a call has to be asked of.
//!
//! Owns the index that is built when policies are published: by what a policy's scope says of principal, resource,
//! action and kinds. Must never leave out a policy whose scope holds for a call: what is left out is what the scope
//! alone makes false, so that neither its condition nor an error of it could have counted.

use std::collections::HashMap;

use cedar_policy::{
    ActionConstraint, Authorizer, Entities, EntityTypeName, EntityUid, Policy, PolicySet, PrincipalConstraint, Request,
    ResourceConstraint, Schema,
};
use cofferdam_model::Action;

use crate::error::PolicyError;

/// Actions, one bit each, in the order of the catalogue.
pub(crate) type Actions = u128;
/// Kinds of entities, one bit each.
type Kinds = u32;

/// What is between a principal or a resource and the policies that are about it.
struct Scoped<T> {
    any: T,
    equal: HashMap<EntityUid, T>,
    within: HashMap<EntityUid, T>,
}

impl<T: Default> Default for Scoped<T> {
    fn default() -> Self {
        Self { any: T::default(), equal: HashMap::new(), within: HashMap::new() }
    }
}

/// Where in a `Scoped` a policy belongs.
enum Place {
    Any,
    Equal(EntityUid),
    Within(EntityUid),
}

impl<T: Default> Scoped<T> {
    fn at(&mut self, place: Place) -> &mut T {
        match place {
            Place::Any => &mut self.any,
            Place::Equal(uid) => self.equal.entry(uid).or_default(),
            Place::Within(uid) => self.within.entry(uid).or_default(),
        }
    }

    /// All that can be about this entity.
    fn about(&self, reach: &Reach) -> impl Iterator<Item = &T> {
        let equal = self.equal.get(&reach.uid);
        // Nearly all sets speak of few groups: do not look for what there is none of.
        let above = (!self.within.is_empty()).then(|| std::iter::once(&reach.uid).chain(&reach.above));
        let within = above.into_iter().flatten().filter_map(|uid| self.within.get(uid));
        std::iter::once(&self.any).chain(equal).chain(within)
    }
}

/// Policies of one place that are for the same actions and kinds.
struct Part {
    actions: Actions,
    principals: Kinds,
    resources: Kinds,
    policies: PolicySet,
}

/// An entity a call is about, with all it is in.
pub(crate) struct Reach {
    uid: EntityUid,
    above: Vec<EntityUid>,
    kind: Kinds,
}

/// The schema's actions and kinds as bits.
pub(crate) struct Bits {
    /// Every action, and every group as all that is in it.
    actions: HashMap<EntityUid, Actions>,
    kinds: HashMap<EntityTypeName, Kinds>,
}

impl Reach {
    /// Whether a policy for these principals is for this one.
    pub(crate) fn fits(&self, principal: &PrincipalConstraint) -> bool {
        let within = |uid: &EntityUid| *uid == self.uid || self.above.contains(uid);
        match principal {
            PrincipalConstraint::Any => true,
            PrincipalConstraint::Is(kind) => self.uid.type_name() == kind,
            PrincipalConstraint::In(uid) => within(uid),
            PrincipalConstraint::IsIn(kind, uid) => self.uid.type_name() == kind && within(uid),
            PrincipalConstraint::Eq(uid) => *uid == self.uid,
        }
    }
}

impl Bits {
    pub(crate) fn of(schema: &Schema) -> Result<Self, PolicyError> {
        let broken = |what: &str| PolicyError::BuiltIn(what.to_owned());
        let entities = schema.action_entities().map_err(|error| PolicyError::BuiltIn(error.to_string()))?;
        let mut actions: HashMap<EntityUid, Actions> = HashMap::new();
        for action in Action::ALL {
            let named = |uid: &&EntityUid| uid.id().unescaped() == action.as_str();
            let uid = schema.actions().find(named).ok_or_else(|| broken("the schema lacks an action"))?;
            let above = entities.ancestors(uid).into_iter().flatten();
            for uid in above.chain([uid]) {
                *actions.entry(uid.clone()).or_default() |= bit(*action)?;
            }
        }
        let kinds = schema.entity_types().enumerate().map(|(place, kind)| {
            let bit = u32::try_from(place).ok().and_then(|place| 1u32.checked_shl(place));
            bit.map(|bit| (kind.clone(), bit)).ok_or_else(|| broken("the schema has more than 32 kinds of entities"))
        });
        Ok(Self { actions, kinds: kinds.collect::<Result<_, _>>()? })
    }

    /// The actions that a name stands for, be it an action's or a group's.
    pub(crate) fn named(&self, name: &str) -> Option<Actions> {
        self.actions.iter().find(|(uid, _)| uid.id().unescaped() == name).map(|(_, actions)| *actions)
    }

    /// What a call is about on one of its sides.
    pub(crate) fn reach(&self, uid: &EntityUid, entities: &Entities) -> Reach {
        Reach {
            uid: uid.clone(),
            above: entities.ancestors(uid).into_iter().flatten().cloned().collect(),
            kind: self.kind(uid.type_name()),
        }
    }

    /// The actions a policy's scope allows for.
    pub(crate) fn actions(&self, policy: &Policy) -> Actions {
        let of = |uid: &EntityUid| self.actions.get(uid).copied().unwrap_or_default();
        match policy.action_constraint() {
            ActionConstraint::Any => Actions::MAX,
            ActionConstraint::Eq(uid) => of(&uid),
            ActionConstraint::In(uids) => uids.iter().fold(0, |all, uid| all | of(uid)),
        }
    }

    fn kind(&self, kind: &EntityTypeName) -> Kinds {
        self.kinds.get(kind).copied().unwrap_or_default()
    }
}

/// The bit of an action.
pub(crate) fn bit(action: Action) -> Result<Actions, PolicyError> {
    let place = Action::ALL.iter().position(|each| *each == action).and_then(|place| u32::try_from(place).ok());
    let too_many = || PolicyError::BuiltIn("more than 128 actions".to_owned());
    place.and_then(|place| 1u128.checked_shl(place)).ok_or_else(too_many)
}

/// What policies say of one call. Each list is in order, without doubles.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Those that permit.
    pub(crate) permits: Vec<String>,
    /// Those that forbid.
    pub(crate) forbids: Vec<String>,
    /// Those that failed to evaluate, and how.
    pub(crate) failures: Vec<(String, String)>,
}

/// Policies, so arranged that a call is asked of few.
#[derive(Default)]
pub(crate) struct Index {
    places: Scoped<Scoped<Vec<Part>>>,
}

impl Index {
    pub(crate) fn of<'a>(bits: &Bits, policies: impl Iterator<Item = &'a Policy>) -> Result<Self, PolicyError> {
        let mut index = Self::default();
        for policy in policies {
            index.add(bits, policy)?;
        }
        Ok(index)
    }

    fn add(&mut self, bits: &Bits, policy: &Policy) -> Result<(), PolicyError> {
        let (principal, principals) = match policy.principal_constraint() {
            PrincipalConstraint::Any => (Place::Any, Kinds::MAX),
            PrincipalConstraint::Is(kind) => (Place::Any, bits.kind(&kind)),
            PrincipalConstraint::In(uid) => (Place::Within(uid), Kinds::MAX),
            PrincipalConstraint::IsIn(kind, uid) => (Place::Within(uid), bits.kind(&kind)),
            PrincipalConstraint::Eq(uid) => (Place::Equal(uid), Kinds::MAX),
        };
        let (resource, resources) = match policy.resource_constraint() {
            ResourceConstraint::Any => (Place::Any, Kinds::MAX),
            ResourceConstraint::Is(kind) => (Place::Any, bits.kind(&kind)),
            ResourceConstraint::In(uid) => (Place::Within(uid), Kinds::MAX),
            ResourceConstraint::IsIn(kind, uid) => (Place::Within(uid), bits.kind(&kind)),
            ResourceConstraint::Eq(uid) => (Place::Equal(uid), Kinds::MAX),
        };
        let actions = bits.actions(policy);
        let parts = self.places.at(principal).at(resource);
        let same =
            |part: &&mut Part| (part.actions, part.principals, part.resources) == (actions, principals, resources);
        let twice = |error: cedar_policy::PolicySetError| PolicyError::BuiltIn(error.to_string());
        match parts.iter_mut().find(same) {
            Some(part) => part.policies.add(policy.clone()).map_err(twice),
            None => {
                let mut policies = PolicySet::new();
                policies.add(policy.clone()).map_err(twice)?;
                parts.push(Part { actions, principals, resources, policies });
                Ok(())
            }
        }
    }

    /// Adds what these policies say of a call to what others said.
    pub(crate) fn ask(&self, cedar: &Authorizer, asked: &Asked<'_>, answer: &mut Answer) {
        for places in self.places.about(asked.principal) {
            for part in places.about(asked.resource).flatten() {
                let concerned = part.actions & asked.action != 0
                    && part.principals & asked.principal.kind != 0
                    && part.resources & asked.resource.kind != 0;
                if concerned {
                    answer.take(&cedar.is_authorized(asked.request, &part.policies, asked.entities), &part.policies);
                }
            }
        }
    }
}

/// A call as an index is asked of it.
pub(crate) struct Asked<'a> {
    pub(crate) request: &'a Request,
    pub(crate) entities: &'a Entities,
    pub(crate) principal: &'a Reach,
    pub(crate) resource: &'a Reach,
    pub(crate) action: Actions,
}

impl Answer {
    /// Cedar names what decided: forbids where one forbids, permits otherwise.
    pub(crate) fn take(&mut self, response: &cedar_policy::Response, policies: &PolicySet) {
        for id in response.diagnostics().reason() {
            let forbids = policies.policy(id).is_none_or(|policy| policy.effect() == cedar_policy::Effect::Forbid);
            if forbids { &mut self.forbids } else { &mut self.permits }.push(id.to_string());
        }
        for error in response.diagnostics().errors() {
            let cedar_policy::AuthorizationError::PolicyEvaluationError(error) = error;
            self.failures.push((error.policy_id().to_string(), error.to_string()));
        }
    }

    /// Cedar's order is that of a hash map; a record should not depend on it.
    pub(crate) fn sort(&mut self) {
        self.permits.sort_unstable();
        self.forbids.sort_unstable();
        self.failures.sort_unstable();
    }
}
