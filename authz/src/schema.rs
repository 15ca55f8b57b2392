//! What comes with the software: the schema, and the policies of the platform, of every tenant and of operators.
//!
//! Owns their texts, compiled in so that no file on a node can weaken them. Must never list a file that is not in
//! `policies/`, nor leave one out (a test compares).

/// What policies can speak of.
pub(crate) const SCHEMA: &str = include_str!("../../policies/schema.cedarschema");

/// A text and the folder it is from, which starts the ids of its policies. No policy of a tenant can have such an
/// id: names start with a letter.
pub(crate) type BuiltIn = (&'static str, &'static str);

/// The guard-rails: forbids only, asked first, for every call.
pub(crate) const GUARD_RAILS: &[BuiltIn] =
    &[("00-platform", include_str!("../../policies/00-platform/guardrails.cedar"))];

/// Where every tenant's policies begin.
pub(crate) const DEFAULTS: &[BuiltIn] = &[("10-defaults", include_str!("../../policies/10-defaults/roles.cedar"))];

/// What holds for the platform's own principals, everywhere.
pub(crate) const OPERATORS: &[BuiltIn] =
    &[("20-platform-tenant", include_str!("../../policies/20-platform-tenant/operator.cedar"))];
