//! What deciding costs: by the number of a tenant's policies, and of tenants on a node.
//!
//! Owns the sets it asks. The policies of a large set are about others but for the few that every set has, as those of
//! a tenant with many people are. Must never count the making of a call's facts for the decision.

use std::sync::Arc;
use std::time::Duration;

use cofferdam_authz::{
    ApiKeyRecord, Authorizer, Credential, Directory, FetchError, Identities, JwksSource, Owner, Pepper, RevokedBy,
    Shown, TenantPolicies, Texts, UserRecord, api_key,
};
use cofferdam_model::random::SeededRandom;
use cofferdam_model::{
    Circumstances, Digest, FunctionId, FunctionLimits, Invoke, KeyId, Level, RequestId, SystemClock, TenantId,
    TlsVersion, UnixNanos, VersionId,
};

use crate::tenants;
use crate::times::{Times, now};

/// Decisions measured for each set.
const DECISIONS: usize = 20_000;
struct Keys(Arc<ApiKeyRecord>);

impl Directory for Keys {
    fn tenant_named(&self, _: &str) -> Option<TenantId> {
        None
    }

    fn tenant_active(&self, _: &TenantId) -> bool {
        true
    }

    fn member_roles(&self, _: &TenantId, _: &str, _: &str) -> Vec<String> {
        Vec::new()
    }

    fn revoked(&self, _: &Shown<'_>) -> Option<RevokedBy> {
        None
    }

    fn user(&self, _: &TenantId, _: &str) -> Option<Arc<UserRecord>> {
        None
    }

    fn api_key(&self, key: &KeyId) -> Option<Arc<ApiKeyRecord>> {
        (self.0.id == *key).then(|| self.0.clone())
    }
}

pub(crate) struct NoNetwork;

impl JwksSource for NoNetwork {
    fn fetch<'a>(
        &'a self,
        url: &'a str,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<Vec<u8>, FetchError>> + Send + 'a>> {
        Box::pin(async move { Err(FetchError::new(url, "no network in a bench")) })
    }
}

/// `count` policies: a rule for everybody, and for the rest one for each of so many accounts, roles and functions.
pub(crate) fn texts(tenant: &TenantId, count: usize) -> Texts {
    let random = SeededRandom::new(3);
    let mut statements = vec![r#"forbid (principal, action, resource) when { context.tls != "1.3" };"#.to_owned()];
    while statements.len() < count {
        let n = statements.len();
        statements.push(match n % 4 {
            0 => format!("permit (principal in Role::\"team-{n}\", action in Action::\"Data\", resource);"),
            1 => format!(
                "permit (principal == ServiceAccount::\"{tenant}|a-{n}\", action in Action::\"Deploy\", resource);"
            ),
            2 => {
                let function = FunctionId::mint(tenant, &random);
                format!("forbid (principal, action, resource in Function::\"{function}\") when {{ context.public }};")
            }
            _ => format!(
                "permit (principal in Role::\"night-{n}\", action == Action::\"Invoke\", resource) \
                 when {{ context.source.isInRange(ip(\"10.0.0.0/8\")) }};"
            ),
        });
    }
    let text = |(place, some): (usize, &[String])| (format!("p{place}"), some.join("\n"));
    Texts { version: 1, sources: statements.chunks(200).enumerate().map(text).collect() }
}

pub(crate) async fn run() {
    println!("== decisions: one caller, one call, all tiers\n");
    println!("policies   compile ms   p50 us   p99 us");
    let authorizer = Authorizer::new().expect("the built-in policies");
    let random = SeededRandom::new(1);
    let tenant = TenantId::mint(&random);
    for count in [10, 100, 1_000, 10_000] {
        let at = now();
        let grants =
            authorizer.tier(Owner::Tenant(tenant.clone()), texts(&tenant, count), None).expect("good policies");
        let compiled = at.elapsed();
        let policies = authorizer.of_tenant(&tenant, grants);
        let mut times = decisions(&authorizer, &policies, &tenant).await;
        let us = |time: Duration| time.as_secs_f64() * 1e6;
        let (p50, p99) = (us(times.percentile(50)), us(times.percentile(99)));
        println!("{count:>8}   {:>10.1}   {p50:>6.1}   {p99:>6.1}", compiled.as_secs_f64() * 1e3);
    }
    println!();
    tenants::run().await;
}

async fn decisions(authorizer: &Authorizer, policies: &TenantPolicies, tenant: &TenantId) -> Times {
    let random = SeededRandom::new(2);
    let (id, text, mac) = api_key::create(tenant, &Pepper::new([7; 32]), &random);
    let record = ApiKeyRecord {
        id,
        account: "robot".into(),
        roles: vec!["invoker".into(), "team-4".into()],
        scopes: None,
        mac,
        expires: UnixNanos(u64::MAX),
        revoked: false,
        settings: Default::default(),
    };
    let keys = Keys(Arc::new(record));
    let clock = Arc::new(SystemClock::default());
    let identities = Identities::new(vec![], Pepper::new([7; 32]), Arc::new(NoNetwork), clock).expect("no issuers");
    let function = FunctionId::mint(tenant, &random);
    let invoke = Invoke {
        tenant: tenant.clone(),
        version: VersionId::mint(&function, &random),
        function,
        function_name: "orders".into(),
        component: Digest([3; 32]),
        route: None,
        public: false,
        audit: Level::Standard,
        limits: Arc::new(FunctionLimits::default()),
        secrets: Arc::default(),
        egress: false,
    };
    let circumstances = Circumstances {
        request: RequestId::mint(&random),
        at: UnixNanos::from_seconds(1_795_171_080),
        source: [192, 0, 2, 7].into(),
        tls: TlsVersion::Tls13,
        method: "GET".into(),
        host: "api.example".into(),
        path: "/orders/1".into(),
        connection: None,
        headers: None,
    };
    let mut times = Times::default();
    for _ in 0..DECISIONS {
        let who = identities.identify(Credential::ApiKey(text.expose()), &keys).await.expect("a good key");
        let (operation, around) = (invoke.clone(), circumstances.clone());
        let at = now();
        let decided = authorizer.decide(policies, who, operation, around);
        times.push(at.elapsed());
        assert!(decided.is_ok(), "an invoker invokes");
    }
    times
}
