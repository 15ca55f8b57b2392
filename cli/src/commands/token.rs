//! `token`: a token of the development issuer.
//!
//! Owns its arguments. Must never make one for the platform: operators are known by their keys.

use std::time::Duration;

use clap::Args;
use cofferdam_control::PLATFORM_NAME;
use cofferdam_control::issuer::{Claims, DevelopmentIssuer};
use cofferdam_model::id::is_name;
use cofferdam_model::{Clock, Random};
use serde_json::json;

use super::{Context, duration};
use crate::failure::Failure;

/// Arguments of `cofferdam token`.
#[derive(Debug, Args)]
pub(crate) struct TokenArgs {
    /// Name of the tenant
    #[arg(long)]
    tenant: String,
    /// Who
    #[arg(long)]
    subject: String,
    /// A role; may be repeated
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<String>,
    /// A group; may be repeated
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<String>,
    /// How long it is good for, at most 24h
    #[arg(long, default_value = "1h", value_parser = duration, value_name = "TIME")]
    ttl: u64,
}

/// Runs `cofferdam token`.
pub(crate) fn run(args: &TokenArgs, context: &Context, clock: &dyn Clock, random: &dyn Random) -> Result<(), Failure> {
    let token = make(args, context, clock, random)?;
    let (roles, groups) = (&args.roles, &args.groups);
    let told =
        json!({ "token": token, "tenant": args.tenant, "subject": args.subject, "roles": roles, "groups": groups });
    context.output.result(&told, || vec![token.clone()])
}

fn make(args: &TokenArgs, context: &Context, clock: &dyn Clock, random: &dyn Random) -> Result<String, Failure> {
    if !is_name(&args.tenant) {
        return Err(Failure::usage(format!("`{}` is not the name of a tenant", args.tenant)));
    }
    if args.tenant == PLATFORM_NAME {
        let failure = Failure::usage("the development issuer makes no tokens for the platform itself");
        return Err(failure.hint("operators use API keys: `cofferdam key create platform ..`"));
    }
    if args.subject.is_empty() {
        return Err(Failure::usage("the subject is empty"));
    }
    if let Some(role) = args.roles.iter().find(|role| !is_name(role)) {
        return Err(Failure::usage(format!("`{role}` is not the name of a role")));
    }
    let issuer = DevelopmentIssuer::load(context.layout.data())?;
    let (tenant, subject, roles, groups) = (&args.tenant, &args.subject, &args.roles, &args.groups);
    let claims = Claims { tenant, subject, roles, groups, ttl: Duration::from_secs(args.ttl) };
    Ok(issuer.token(claims, clock, random)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Layout;
    use crate::output::Output;
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use cofferdam_model::UnixNanos;
    use cofferdam_model::clock::ManualClock;
    use cofferdam_model::random::SeededRandom;
    use serde_json::Value;

    fn args(tenant: &str, role: &str, ttl: u64) -> TokenArgs {
        TokenArgs { tenant: tenant.into(), subject: "alice".into(), roles: vec![role.into()], groups: vec![], ttl }
    }

    #[test]
    fn token_says_what_was_asked_and_verifies_with_the_published_key() {
        let dir = tempfile::tempdir().unwrap();
        let random = SeededRandom::new(3);
        let issuer = DevelopmentIssuer::create(dir.path(), &random).unwrap();
        let context = Context { layout: Layout::at(dir.path()), output: Output { json: false } };
        let clock = ManualClock::at(UnixNanos::from_seconds(1_795_171_080));
        let token = make(&args("acme", "invoker", 3600), &context, &clock, &random).unwrap();

        let (signed, signature) = token.rsplit_once('.').unwrap();
        let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap();
        let parts: Vec<Value> = signed.split('.').map(|part| serde_json::from_slice(&decode(part)).unwrap()).collect();
        assert_eq!((parts[0]["alg"].as_str(), parts[0]["typ"].as_str()), (Some("EdDSA"), Some("JWT")));
        assert_eq!((parts[1]["tenant"].as_str(), parts[1]["sub"].as_str()), (Some("acme"), Some("alice")));
        assert_eq!(parts[1]["roles"], json!(["invoker"]));
        assert_eq!((parts[1]["iat"].as_u64(), parts[1]["exp"].as_u64()), (Some(1_795_171_080), Some(1_795_174_680)));
        assert!(parts[1]["jti"].as_str().is_some_and(|id| id.len() == 22));

        let jwks: Value = serde_json::from_str(&issuer.jwks()).unwrap();
        assert_eq!(jwks["keys"][0]["kid"], parts[0]["kid"]);
        let key = decode(jwks["keys"][0]["x"].as_str().unwrap());
        let key = aws_lc_rs::signature::UnparsedPublicKey::new(&aws_lc_rs::signature::ED25519, key);
        assert!(key.verify(signed.as_bytes(), &decode(signature)).is_ok());
    }

    #[test]
    fn impossible_tokens_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let random = SeededRandom::new(3);
        DevelopmentIssuer::create(dir.path(), &random).unwrap();
        let context = Context { layout: Layout::at(dir.path()), output: Output { json: false } };
        let clock = ManualClock::at(UnixNanos::from_seconds(1_795_171_080));
        for (tenant, role, ttl) in [
            ("platform", "operator", 60),
            ("Acme", "invoker", 60),
            ("acme", "In Voker", 60),
            ("acme", "invoker", 0),
            ("acme", "invoker", 86_401),
        ] {
            assert!(make(&args(tenant, role, ttl), &context, &clock, &random).is_err(), "{tenant} {role} {ttl}");
        }
    }
}
