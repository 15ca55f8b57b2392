//! A function at work as Cedar sees it: its workload, what it may be given, and whom it asks.
//!
//! Owns the slice for a workload's decisions, built once for a call and asked as often as it needs. Must never be of
//! another function, version or call than the permit it is made for.

use std::collections::HashSet;
use std::sync::Arc;

use cedar_policy::{Context, Entities, Entity, EntityUid, Request, RestrictedExpression, Schema};
use cofferdam_model::{Action, Circumstances, Invoke, Operation};

use super::{Attributes, Home, Question, Unaskable, Vocabulary, flag, text};
use crate::identity::Principal;
use crate::policy::index::Bits;

/// A function at work for one call.
pub(crate) struct Work {
    workload: EntityUid,
    function: EntityUid,
    context: Context,
    /// The workload, its version and its function. The tenant comes with each question, as it is by then.
    entities: Vec<Entity>,
}

/// One request to the outside, as it would be sent.
#[derive(Debug, Clone, Copy)]
pub struct Way<'a> {
    /// Host, lower case, without port.
    pub host: &'a str,
    /// Port.
    pub port: u16,
    /// Whether over TLS.
    pub tls: bool,
    /// Method, upper case.
    pub method: &'a str,
    /// The egress rule that allows it, as the log writes it.
    pub rule: &'a str,
}

impl Vocabulary {
    /// The workload of the function that a call runs.
    pub(crate) fn work(
        &self,
        principal: &Principal,
        invoke: &Invoke,
        circumstances: &Circumstances,
    ) -> Result<Work, Unaskable> {
        let tenant = &invoke.tenant;
        if invoke.function.tenant() != *tenant {
            return Err(Unaskable("resource"));
        }
        let mut entities = Vec::with_capacity(8);
        let function = self.function(&invoke.function, &invoke.function_name, tenant)?;
        let function_uid = function.uid();
        entities.push(function);
        let version = [
            ("name".to_owned(), text(&invoke.function_name)),
            ("digest".to_owned(), text(&invoke.component.to_string())),
        ];
        let version = self.owned("Version", invoke.version.as_str(), function_uid.clone(), tenant, version)?;
        let owner = self.uid("Tenant", tenant.as_str())?;
        let attributes = Attributes::from([
            ("id".to_owned(), text(&invoke.function_name)),
            ("tenant".to_owned(), RestrictedExpression::new_entity_uid(owner.clone())),
            ("roles".to_owned(), RestrictedExpression::new_set([])),
            ("groups".to_owned(), RestrictedExpression::new_set([])),
            ("function".to_owned(), RestrictedExpression::new_entity_uid(function_uid.clone())),
            ("version".to_owned(), RestrictedExpression::new_entity_uid(version.uid())),
        ]);
        entities.push(version);
        let workload = self.uid("Workload", invoke.function.as_str())?;
        let parents = HashSet::from([owner, function_uid.clone()]);
        entities.push(Entity::new(workload.clone(), attributes, parents).map_err(|_| Unaskable("workload"))?);
        if let Some(route) = invoke.route() {
            entities.push(self.route(route, tenant)?);
        }
        let context = self.context(principal, invoke, circumstances)?;
        Ok(Work { workload, function: function_uid, context, entities })
    }

    /// Whether it may be given each of these secrets: one question for each, all on one slice.
    pub(crate) fn uses(
        &self,
        bits: &Bits,
        (work, home): (&Work, Home<'_>),
        names: &[Arc<str>],
        invoke: &Invoke,
        schema: Option<&Schema>,
    ) -> Result<Vec<Question>, Unaskable> {
        let mut entities = work.entities.clone();
        self.home(&invoke.tenant, home, &mut entities)?;
        let mut secrets = Vec::with_capacity(names.len());
        for name in names {
            let secret = self.secret(&invoke.function, &invoke.function_name, name, &invoke.tenant)?;
            secrets.push(secret.uid());
            entities.push(secret);
        }
        let doing = self.actions.get(&Action::UseSecret).ok_or(Unaskable("action"))?;
        entities.push(doing.entity.clone());
        let entities = Entities::from_entities(entities, schema).map_err(|_| Unaskable("entities"))?;
        let (entities, action) = (Arc::new(entities), doing.entity.uid());
        let question = |secret: EntityUid| {
            let request = Request::new(work.workload.clone(), action.clone(), secret, work.context.clone(), schema);
            Question::new(bits, request.map_err(|_| Unaskable("request"))?, entities.clone(), doing.bit)
        };
        secrets.into_iter().map(question).collect()
    }

    /// Whether it may send one request to the outside.
    pub(crate) fn connection(
        &self,
        bits: &Bits,
        (work, home): (&Work, Home<'_>),
        invoke: &Invoke,
        way: Way<'_>,
        schema: Option<&Schema>,
    ) -> Result<Question, Unaskable> {
        let id = format!("{}|{}:{}", invoke.function, way.host, way.port);
        let attributes = [
            ("name".to_owned(), text(&invoke.function_name)),
            ("function".to_owned(), RestrictedExpression::new_entity_uid(work.function.clone())),
            ("host".to_owned(), text(way.host)),
            ("port".to_owned(), RestrictedExpression::new_long(way.port.into())),
            ("tls".to_owned(), flag(way.tls)),
            ("method".to_owned(), text(way.method)),
            ("rule".to_owned(), text(way.rule)),
        ];
        let destination = self.owned("Destination", &id, work.function.clone(), &invoke.tenant, attributes)?;
        let doing = self.actions.get(&Action::Connect).ok_or(Unaskable("action"))?;
        let uid = destination.uid();
        let mut entities: Vec<Entity> = work.entities.clone();
        self.home(&invoke.tenant, home, &mut entities)?;
        entities.extend([destination, doing.entity.clone()]);
        let entities = Entities::from_entities(entities, schema).map_err(|_| Unaskable("entities"))?;
        let request = Request::new(work.workload.clone(), doing.entity.uid(), uid, work.context.clone(), schema);
        Question::new(bits, request.map_err(|_| Unaskable("request"))?, Arc::new(entities), doing.bit)
    }
}
