//! The narrowest tier: what a credential is good for at most.
//!
//! Owns what scopes mean. A name of an action or of a group narrows to it, `fn:NAME` to one function; both together to
//! both. Must never let a scope widen anything, and never take a word it does not know for a scope.

use aws_lc_rs::digest;
use cofferdam_model::id::is_name;
use cofferdam_model::{Action, Digest, Operation, PolicyTier, SetFacts};

use super::Authorizer;
use crate::identity::Principal;
use crate::policy::index::{Actions, Bits, bit};

/// What stands before the name of a function.
const FUNCTION: &str = "fn:";

/// What a credential is good for at most.
pub(super) struct Session<'a> {
    scopes: &'a [String],
    /// None, if no scope speaks of actions.
    actions: Option<Actions>,
}

impl<'a> Session<'a> {
    /// None for a credential that is good for all its principal may.
    pub(super) fn of(principal: &'a Principal, bits: &Bits) -> Option<Self> {
        principal.scopes().map(|scopes| Self { scopes, actions: actions(scopes, bits) })
    }

    /// Whether it is good for this. Whatever it is good for, a token for no more than that can be had for it.
    pub(super) fn allows<A: Operation>(&self, operation: &A) -> bool {
        if operation.action() == Action::IssueToken {
            return true;
        }
        let action = bit(operation.action()).unwrap_or_default();
        let resource = operation.resource();
        let mut functions = self.functions().peekable();
        let function_fits = functions.peek().is_none() || functions.any(|name| resource.function_name() == Some(name));
        !self.scopes.is_empty() && function_fits && self.actions.is_none_or(|actions| actions & action != 0)
    }

    fn functions(&self) -> impl Iterator<Item = &str> {
        self.scopes.iter().filter_map(|scope| scope.strip_prefix(FUNCTION))
    }

    pub(super) fn facts(&self, principal: &Principal) -> SetFacts {
        let mut context = digest::Context::new(&digest::SHA256);
        for scope in self.scopes {
            context.update(&u64::try_from(scope.len()).unwrap_or(u64::MAX).to_be_bytes());
            context.update(scope.as_bytes());
        }
        let mut out = [0u8; 32];
        out.iter_mut().zip(context.finish().as_ref()).for_each(|(to, from)| *to = *from);
        let owner = principal.credential_id().unwrap_or("-").into();
        SetFacts { tier: PolicyTier::Session, owner, version: 0, digest: Digest(out) }
    }
}

/// Whether scopes are good for no more than others. A part of them is not enough: who leaves out the last function
/// would be good for all functions.
pub fn narrows(less: &[String], most: &[String]) -> bool {
    let is_function = |scope: &&String| scope.starts_with(FUNCTION);
    let kept = |kind: &dyn Fn(&&String) -> bool| {
        !most.iter().any(|scope| kind(&scope)) || less.iter().any(|scope| kind(&scope))
    };
    let part = less.iter().all(|scope| most.contains(scope));
    less.is_empty() || (part && kept(&is_function) && kept(&|scope| !is_function(scope)))
}

/// The actions that scopes speak of. A word that is no scope speaks of none, and so narrows to nothing.
pub(super) fn actions(scopes: &[String], bits: &Bits) -> Option<Actions> {
    let mut named = scopes.iter().filter(|scope| !scope.starts_with(FUNCTION)).peekable();
    named.peek()?;
    Some(named.fold(0, |all, scope| all | bits.named(scope).unwrap_or_default()))
}

impl Authorizer {
    /// Whether these can be scopes of a credential; if not, the first that cannot.
    pub fn check_scopes<'a>(&self, scopes: &'a [String]) -> Result<(), &'a str> {
        let known = |scope: &&String| match scope.strip_prefix(FUNCTION) {
            Some(name) => is_name(name),
            None => self.compiler.bits.named(scope).is_some(),
        };
        scopes.iter().find(|scope| !known(scope)).map_or(Ok(()), |scope| Err(scope.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_that_leave_out_a_kind_are_no_narrower() {
        let list = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let narrows = |less: &str, most: &str| narrows(&list(less), &list(most));
        for (less, most) in
            [("Data", "Data"), ("Data", "Data Observe"), ("Data fn:a", "Data fn:a fn:b"), ("", "Data fn:a")]
        {
            assert!(narrows(less, most), "{less} of {most}");
        }
        for (less, most) in [("Data", "Data fn:a"), ("fn:a", "Data fn:a"), ("Data Observe", "Data"), ("Data", "fn:a")] {
            assert!(!narrows(less, most), "{less} of {most}");
        }
    }
}
