//! Calls worth asking two sets of policies about.
//!
//! Owns the reading of what policies look at (roles, names, addresses, paths, moments), and the calls that meet each
//! such value and miss it. Must never give more calls than it was allowed, and say how many it left out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use cedar_policy::pst::{BinaryOp, Clause, Expr, Literal, PatternElem, UnaryOp, Var};
use cofferdam_model::{Action, Asker, PrincipalKind, Supposition, Surroundings, TlsVersion, UnixNanos};

use super::supposed::foreign_tenant;
use crate::decide::Authorizer;
use crate::policy::TenantPolicies;

/// A value that no policy is likely to name.
const OTHER: &str = "some-other";
/// Values of one kind that are tried.
const VALUES: usize = 24;
/// Names and roles that are tried together.
const PAIRED: usize = 8;

/// Calls, in an order that does not depend on chance.
#[derive(Debug, Clone, Default)]
pub struct Witnesses {
    /// To be asked about.
    pub requests: Vec<Supposition>,
    /// How many more there would have been.
    pub left_out: u64,
}

/// What policies compare with what.
#[derive(Default)]
struct Seen {
    roles: BTreeSet<String>,
    groups: BTreeSet<String>,
    /// By what they are compared with: `principal.id`, `context.path` and so on.
    texts: BTreeMap<String, BTreeSet<String>>,
    ranges: BTreeSet<String>,
    moments: BTreeSet<String>,
}

impl Witnesses {
    /// Calls that tell these sets apart where anything they look at can: at most `most`. `known` are callers to be
    /// among them.
    pub fn of(authorizer: &Authorizer, sets: &[&TenantPolicies], known: &[Asker], most: usize) -> Self {
        let mut seen = Seen::default();
        for policy in sets.iter().flat_map(|set| authorizer.in_force(set)) {
            let Ok(tree) = policy.to_pst() else { continue };
            for uid in policy.entity_literals() {
                match uid.type_name().basename() {
                    "Role" => seen.roles.insert(uid.id().unescaped().to_owned()),
                    "Group" => seen.groups.insert(uid.id().unescaped().to_owned()),
                    _ => continue,
                };
            }
            for clause in tree.body().clauses() {
                let (Clause::When(expr) | Clause::Unless(expr)) = clause;
                seen.look(expr);
            }
        }
        let (askers, contexts) = (seen.askers(known), seen.contexts());
        let mut names: Vec<Option<String>> = seen.values("resource.name").into_iter().map(Some).collect();
        names.push(Some(OTHER.to_owned()));
        let mut found = Self::default();
        for context in &contexts {
            for action in Action::ALL.iter().filter(|action| authorizer.done_to(**action).is_some()) {
                let nameless = [None];
                let names = if authorizer.about_functions(*action) { names.as_slice() } else { &nameless };
                for (function, principal) in names.iter().flat_map(|name| askers.iter().map(move |who| (name, who))) {
                    if found.requests.len() >= most {
                        found.left_out += 1;
                        continue;
                    }
                    found.requests.push(Supposition {
                        principal: principal.clone(),
                        action: *action,
                        function: function.clone(),
                        function_id: None,
                        thing: None,
                        context: context.clone(),
                    });
                }
            }
        }
        found
    }
}

impl Seen {
    /// Remembers every literal an expression compares something with.
    fn look(&mut self, expr: &Expr) {
        match expr {
            Expr::BinaryOp { op, left, right } => {
                self.compared(*op, left, right);
                self.compared(*op, right, left);
                self.look(left);
                self.look(right);
            }
            Expr::Like { expr, pattern } => {
                for star in ["", "x"] {
                    let text = pattern.iter().map(|element| match element {
                        PatternElem::Char(c) => c.to_string(),
                        PatternElem::Wildcard => star.to_owned(),
                    });
                    self.text(expr, text.collect());
                }
                self.look(expr);
            }
            Expr::UnaryOp { expr, .. } | Expr::GetAttr { expr, .. } | Expr::HasAttr { expr, .. } => self.look(expr),
            Expr::Is { expr, in_expr, .. } => {
                self.look(expr);
                in_expr.iter().for_each(|expr| self.look(expr));
            }
            Expr::IfThenElse { cond, then_expr, else_expr } => {
                [cond, then_expr, else_expr].into_iter().for_each(|expr| self.look(expr));
            }
            Expr::Set(items) => items.iter().for_each(|item| self.look(item)),
            Expr::Record(fields) => fields.values().for_each(|field| self.look(field)),
            _ => {}
        }
    }

    fn compared(&mut self, op: BinaryOp, what: &Expr, with: &Expr) {
        match with {
            Expr::Literal(Literal::String(text)) => self.text(what, text.to_string()),
            Expr::Set(items) => items.iter().for_each(|item| self.compared(op, what, item)),
            Expr::UnaryOp { op: UnaryOp::Ip, expr } => {
                if let Expr::Literal(Literal::String(text)) = &**expr {
                    self.ranges.insert(text.to_string());
                }
            }
            Expr::UnaryOp { op: UnaryOp::Datetime, expr } => {
                if let Expr::Literal(Literal::String(text)) = &**expr {
                    self.moments.insert(text.to_string());
                }
            }
            Expr::Literal(Literal::EntityUID(uid)) if op == BinaryOp::In && uid.ty.to_string() == "Role" => {
                self.roles.insert(uid.eid.to_string());
            }
            _ => {}
        }
    }

    fn text(&mut self, what: &Expr, text: String) {
        let Expr::GetAttr { expr, attr } = what else { return };
        let of = match &**expr {
            Expr::Var(Var::Principal) => "principal",
            Expr::Var(Var::Resource) => "resource",
            Expr::Var(Var::Context) => "context",
            _ => return,
        };
        if of == "principal" && attr.as_str() == "roles" {
            self.roles.insert(text);
        } else if of == "principal" && attr.as_str() == "groups" {
            self.groups.insert(text);
        } else {
            self.texts.entry(format!("{of}.{attr}")).or_default().insert(text);
        }
    }

    fn values(&self, of: &str) -> Vec<String> {
        self.texts.get(of).into_iter().flatten().take(VALUES).cloned().collect()
    }

    /// Nobody, everybody known, somebody of each role, of each name, and of elsewhere.
    fn askers(&self, known: &[Asker]) -> Vec<Asker> {
        let mut askers = vec![Asker::anonymous()];
        let mut add = |asker: Asker| {
            if !askers.contains(&asker) {
                askers.push(asker);
            }
        };
        for kind in [PrincipalKind::User, PrincipalKind::ServiceAccount] {
            add(Asker::new(kind, OTHER, &[]));
            for role in self.roles.iter().take(VALUES) {
                add(Asker::new(kind, OTHER, std::slice::from_ref(role)));
                add(Asker {
                    tenant: Some(foreign_tenant().to_string()),
                    ..Asker::new(kind, OTHER, std::slice::from_ref(role))
                });
            }
            for id in self.values("principal.id").iter().take(PAIRED) {
                add(Asker::new(kind, id, &[]));
                for role in self.roles.iter().take(PAIRED) {
                    add(Asker::new(kind, id, std::slice::from_ref(role)));
                }
            }
            for issuer in self.values("principal.issuer") {
                add(Asker { issuer: Some(issuer), ..Asker::new(kind, OTHER, &[]) });
            }
        }
        for group in self.groups.iter().take(VALUES) {
            add(Asker { groups: vec![group.clone()], ..Asker::new(PrincipalKind::User, OTHER, &[]) });
        }
        known.iter().for_each(|asker| add(asker.clone()));
        askers
    }

    /// What is usual, and what meets one value of everything policies look at; and for each value, both with that one.
    fn contexts(&self) -> Vec<Surroundings> {
        let usual = Surroundings::default();
        let first = |of: &str, usual: &Arc<str>| match self.values(of).first() {
            Some(text) => text.as_str().into(),
            None => usual.clone(),
        };
        let met = Surroundings {
            source: self.addresses().first().copied().unwrap_or(usual.source),
            method: first("context.method", &usual.method),
            host: first("context.host", &usual.host),
            path: first("context.path", &usual.path),
            ..usual.clone()
        };
        let mut contexts = Vec::new();
        for base in [usual, met] {
            for context in self.around(&base) {
                if !contexts.contains(&context) {
                    contexts.push(context);
                }
            }
        }
        contexts
    }

    /// An address of each network.
    fn addresses(&self) -> Vec<IpAddr> {
        let addresses = self.ranges.iter().filter_map(|range| range.split('/').next()?.parse().ok());
        addresses.take(VALUES).collect()
    }

    /// The base, and the base with each value policies compare with.
    fn around(&self, base: &Surroundings) -> Vec<Surroundings> {
        let with = |change: &dyn Fn(&mut Surroundings)| {
            let mut context = base.clone();
            change(&mut context);
            context
        };
        let mut contexts = vec![base.clone(), with(&|context| context.public = true)];
        for text in self.values("context.method") {
            contexts.push(with(&|context| context.method = text.as_str().into()));
        }
        for text in self.values("context.host") {
            contexts.push(with(&|context| context.host = text.as_str().into()));
        }
        for text in self.values("context.path") {
            contexts.push(with(&|context| context.path = text.as_str().into()));
        }
        if self.texts.contains_key("context.tls") {
            contexts.push(with(&|context| context.tls = TlsVersion::Tls12));
        }
        for source in self.addresses() {
            contexts.push(with(&|context| context.source = source));
        }
        for moment in self.moments.iter().take(VALUES) {
            let day = || UnixNanos::parse(&format!("{moment}T00:00:00Z"));
            let Some(at) = UnixNanos::parse(moment).or_else(day) else { continue };
            for near in [at.0.saturating_sub(1_000_000), at.0, at.0.saturating_add(1_000_000)] {
                contexts.push(with(&|context| context.now = Some(UnixNanos(near).to_string())));
            }
        }
        contexts
    }
}
