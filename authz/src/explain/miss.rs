//! How far a permit was from permitting.
//!
//! Owns the taking apart of a policy into what must hold of a call, each part judged by itself, and which permit lacked
//! least. Must never say of a part that it failed where it could not be told.

use std::sync::Arc;

use cedar_policy::pst::{
    ActionConstraint, BinaryOp, Clause, Effect, Expr, Policy as Tree, PolicyID, PrincipalConstraint,
    ResourceConstraint, StaticPolicy, Template, UnaryOp,
};
use cedar_policy::{Effect as Says, Policy};
use cofferdam_model::PolicyTier;
use serde::Serialize;

use super::PolicyText;
use crate::decide::Weighed;

/// Parts that are judged for one answer: a tenant's policies may have many more, and each takes some microseconds.
const PARTS: usize = 10_000;

/// A permit that does not permit, and what it lacked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Miss {
    /// In which tier.
    pub tier: &'static str,
    /// The permit.
    pub policy: PolicyText,
    /// What must hold and does not.
    pub lacks: Vec<Part>,
    /// How many parts do hold.
    pub holds: usize,
}

/// Something that must hold for a policy to apply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Part {
    /// As Cedar writes it.
    pub text: String,
    /// `false`; or `unknown` where it could not be told, as something before it must hold first.
    pub is: &'static str,
}

/// The permit that lacks least, of the tiers that must permit and do not. One that is about another action is only
/// taken where all are.
pub(super) fn nearest(weighed: &Weighed<'_>) -> Option<Miss> {
    let mut permits: Vec<_> = weighed.lacking().filter(|(_, policy)| policy.effect() == Says::Permit).collect();
    permits.sort_by(|(_, a), (_, b)| a.id().cmp(b.id()));
    let mut looked_at = 0;
    let misses = permits.into_iter().filter_map(|(tier, policy)| {
        let parts = Parts::of(policy).filter(|_| looked_at < PARTS)?;
        looked_at += parts.scope.len() + parts.conjuncts.len();
        let (other_action, miss) = parts.judged(weighed, (tier, policy));
        (!miss.lacks.is_empty()).then_some((other_action, miss))
    });
    let nearer = misses.min_by_key(|(other, miss)| (*other, miss.lacks.len(), usize::MAX - miss.holds));
    nearer.map(|(_, miss)| miss)
}

/// What must hold for a policy to apply: its scope, and each conjunct of its conditions.
struct Parts {
    scope: Vec<(Template, String)>,
    conjuncts: Vec<Expr>,
}

impl Parts {
    fn of(policy: &Policy) -> Option<Self> {
        let tree = policy.to_pst().ok()?;
        let body = tree.body();
        let mut scope = Vec::new();
        if body.action != ActionConstraint::Any {
            let only = bare(PrincipalConstraint::Any, body.action.clone(), ResourceConstraint::Any);
            scope.push((only, format!("action {}", body.action)));
        }
        if body.principal != PrincipalConstraint::Any {
            let only = bare(body.principal.clone(), ActionConstraint::Any, ResourceConstraint::Any);
            scope.push((only, format!("principal {}", body.principal)));
        }
        if body.resource != ResourceConstraint::Any {
            let only = bare(PrincipalConstraint::Any, ActionConstraint::Any, body.resource.clone());
            scope.push((only, format!("resource {}", body.resource)));
        }
        let mut conjuncts = Vec::new();
        for clause in body.clauses() {
            match clause {
                Clause::When(expr) => flatten(expr, true, &mut conjuncts),
                Clause::Unless(expr) => flatten(expr, false, &mut conjuncts),
            }
        }
        Some(Self { scope, conjuncts })
    }

    /// What of it does not hold, and whether that is the action.
    fn judged(self, weighed: &Weighed<'_>, (tier, policy): (PolicyTier, &Policy)) -> (bool, Miss) {
        let (mut lacks, mut holds, mut other_action) = (Vec::new(), 0, false);
        let mut judge = |template: Template, text: String| {
            let is = match judged(weighed, template) {
                Some(true) => return holds += 1,
                Some(false) => "false",
                None => "unknown",
            };
            other_action |= text.starts_with("action ");
            lacks.push(Part { text, is });
        };
        for (template, text) in self.scope {
            judge(template, text);
        }
        for expr in self.conjuncts {
            let text = expr.to_string();
            let any = bare(PrincipalConstraint::Any, ActionConstraint::Any, ResourceConstraint::Any);
            if let Ok(template) = any.try_with_clauses([Clause::When(Arc::new(expr))]) {
                judge(template, text);
            }
        }
        (other_action, Miss { tier: tier.as_str(), policy: PolicyText::of(policy), lacks, holds })
    }
}

/// What must all hold for a policy's conditions to hold, each as a policy of its own; none where it cannot be taken
/// apart.
pub(crate) fn conjuncts(policy: &Policy) -> Vec<Policy> {
    let each = |expr| {
        let any = bare(PrincipalConstraint::Any, ActionConstraint::Any, ResourceConstraint::Any);
        let part = any.try_with_clauses([Clause::When(Arc::new(expr))]).ok()?;
        Policy::from_pst(Tree::Static(StaticPolicy::try_from(part).ok()?)).ok()
    };
    Parts::of(policy).into_iter().flat_map(|parts| parts.conjuncts).filter_map(each).collect()
}

fn bare(principal: PrincipalConstraint, action: ActionConstraint, resource: ResourceConstraint) -> Template {
    Template::new(PolicyID("part".into()), Effect::Permit, principal, action, resource)
}

fn judged(weighed: &Weighed<'_>, template: Template) -> Option<bool> {
    let policy = StaticPolicy::try_from(template).ok()?;
    weighed.holds(Policy::from_pst(Tree::Static(policy)).ok()?)
}

/// What must all hold for `expr` to be `wanted`. Depth is that of the policy, which is bounded.
fn flatten(expr: &Expr, wanted: bool, out: &mut Vec<Expr>) {
    match expr {
        Expr::BinaryOp { op: BinaryOp::And, left, right } if wanted => {
            flatten(left, true, out);
            flatten(right, true, out);
        }
        Expr::BinaryOp { op: BinaryOp::Or, left, right } if !wanted => {
            flatten(left, false, out);
            flatten(right, false, out);
        }
        Expr::UnaryOp { op: UnaryOp::Not, expr } => flatten(expr, !wanted, out),
        other if wanted => out.push(other.clone()),
        other => out.push(Expr::UnaryOp { op: UnaryOp::Not, expr: Arc::new(other.clone()) }),
    }
}
