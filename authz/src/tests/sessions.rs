//! What a token says of its session, what of it was revoked, and what policies can make of both.

use cofferdam_model::{PrincipalKind, Session};
use serde_json::{Value, json};

use super::tokens::{Signer, claims, set};
use super::{NOW, Scripted, World, circumstances, clock, issuer, pepper};
use crate::identity::Identities;
use crate::{Authorizer, Credential, IdentityError, Outcome, Principal, RevokedBy};

const ISS: &str = "https://issuer.test";

struct Setting {
    signer: Signer,
    identities: Identities,
    world: World,
}

impl Setting {
    fn new() -> Self {
        let signer = Signer::ed();
        let mut config = issuer(ISS, "EdDSA");
        config.mfa_acr = vec!["urn:strong".into()];
        config.roles_claim = Some("roles".into());
        let source = Scripted::with(set(&[signer.jwk("k1")]));
        let identities = Identities::new(vec![config], pepper(), source, clock()).unwrap();
        Self { signer, identities, world: World::new() }
    }

    fn token(&self, more: &[(&str, Value)]) -> String {
        let mut claims = claims(ISS);
        more.iter().for_each(|(name, value)| claims[*name] = value.clone());
        self.signer.token("EdDSA", "k1", &claims)
    }

    async fn ask(&self, token: &str) -> Result<Principal, IdentityError> {
        self.identities.identify(Credential::Bearer(token), &self.world).await
    }

    async fn session(&self, more: &[(&str, Value)]) -> Session {
        self.ask(&self.token(more)).await.unwrap().session().unwrap().clone()
    }
}

#[tokio::test]
async fn scopes_factors_times_and_actors_are_read_as_typed_facts() {
    let setting = Setting::new();
    let plain = setting.session(&[]).await;
    let expected = Session {
        client: Some("app".into()),
        audiences: vec!["cofferdam".into()],
        expires: Some(NOW + 300),
        ..Session::default()
    };
    assert_eq!(plain, expected);
    for (name, value) in
        [("scope", json!("write  read write")), ("scp", json!("write read")), ("scp", json!(["read", "write"]))]
    {
        let scopes = setting.session(&[(name, value)]).await.scopes;
        assert_eq!(scopes, Some(vec!["read".to_owned(), "write".to_owned()]), "{name}");
    }
    assert_eq!(setting.session(&[("scope", json!(""))]).await.scopes, Some(vec![]), "none is not the same as any");
    let both = setting.token(&[("scope", json!("read")), ("scp", json!(["read", "write"]))]);
    assert!(setting.ask(&both).await.is_err(), "they contradict each other");

    for (name, value, mfa) in [
        ("amr", json!(["pwd"]), false),
        ("amr", json!(["pwd", "mfa"]), true),
        ("acr", json!("urn:strong"), true),
        ("acr", json!("urn:weak"), false),
    ] {
        assert_eq!(setting.session(&[(name, value)]).await.mfa, mfa, "{name}");
    }
    assert_eq!(setting.session(&[("auth_time", json!(NOW - 70))]).await.authenticated, Some(NOW - 70));
    let act = json!({"sub": "service", "act": {"sub": "earlier"}});
    let alice = setting.ask(&setting.token(&[("act", act)])).await.unwrap();
    assert_eq!(alice.session().unwrap().actor.as_deref(), Some("service"));
    assert_eq!(alice.facts().session.unwrap().actor.as_deref(), Some("service"), "the log says so too");
}

#[tokio::test]
async fn policies_can_demand_scopes_factors_and_a_fresh_login() {
    let setting = Setting::new();
    let (authorizer, acme) = (Authorizer::new().unwrap(), &setting.world.acme);
    let strict = "@id(\"strict\") forbid (principal is User, action == Action::\"Invoke\", resource) unless { \
                  context.mfa && context has scopes && context.scopes.contains(\"call\") && \
                  context has auth_age && context.auth_age <= 300 && !(context has actor) };";
    let policies = authorizer.compile(acme, &[("strict".to_owned(), strict.to_owned())]).unwrap();
    let role = ("roles", json!(["invoker"]));
    let good = [role, ("scope", json!("call")), ("amr", json!(["mfa"])), ("auth_time", json!(NOW - 300))];
    let outcome = async |more: &[(&str, Value)]| {
        let who = setting.ask(&setting.token(more)).await.unwrap();
        let asked = authorizer.decide(&policies, who, setting.world.invoke(acme, false), circumstances());
        asked.map_or_else(|denied| denied.outcome(), |_| Outcome::Allow)
    };
    assert_eq!(outcome(&good).await, Outcome::Allow);
    for left_out in 1..good.len() {
        let mut less = good.to_vec();
        less.remove(left_out);
        assert_eq!(outcome(&less).await, Outcome::ExplicitDeny, "{left_out}");
    }
    for (name, value) in [("scope", json!("other")), ("auth_time", json!(NOW - 301)), ("act", json!({"sub": "x"}))] {
        let mut other = good.to_vec();
        other.retain(|(known, _)| *known != name);
        other.push((name, value));
        assert_eq!(outcome(&other).await, Outcome::ExplicitDeny, "{name}");
    }
}

#[tokio::test]
async fn a_token_remembered_as_verified_is_refused_once_it_is_revoked() {
    let setting = Setting::new();
    let token = setting.token(&[]);
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.as_bytes());
    let digest: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    for (name, by) in [
        ("token-1", RevokedBy::Token),
        (digest.as_str(), RevokedBy::Token),
        ("k1", RevokedBy::SigningKey),
        ("alice", RevokedBy::Epoch),
    ] {
        assert!(setting.ask(&token).await.is_ok(), "{name}");
        setting.world.revoked.lock().unwrap().insert(name.to_owned(), by);
        for _ in 0..2 {
            match setting.ask(&token).await {
                Err(IdentityError::Revoked { who, by: told, .. }) => {
                    assert_eq!((&*who.id, who.kind, told), ("alice", PrincipalKind::User, by), "{name}");
                }
                other => panic!("{name}: {other:?}"),
            }
        }
        setting.world.revoked.lock().unwrap().clear();
    }
    let forged = Signer::ed().token("EdDSA", "k1", &claims(ISS));
    setting.world.revoked.lock().unwrap().insert("alice".to_owned(), RevokedBy::Subject);
    let refused = setting.ask(&forged).await;
    assert!(matches!(refused, Err(IdentityError::Refused(_))), "what is not genuine tells nobody what is revoked");
}
