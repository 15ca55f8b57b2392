//! Routes: what is refused, and who owns a host.

use super::*;
use serde_json::json;

fn put(tenant: &TenantId, app: &str, routes: Vec<RouteSpec>) -> Manage {
    Manage::PutRoutes { tenant: tenant.clone(), app: app.into(), routes }
}

fn spec(host: &str, path: &str, methods: &[&str]) -> RouteSpec {
    route(json!({ "host": host, "path": path, "methods": methods, "function": "pay" }))
}

fn world() -> (World, TenantId, String) {
    let world = World::new();
    let (tenant, key) = world.tenant("acme");
    world.function(&tenant, &key, "pay", FunctionSettings::default());
    (world, tenant, key)
}

#[test]
fn conflicting_routes_are_refused_naming_both() {
    let (world, tenant, key) = world();
    let within = vec![spec("a.example", "/x/{id}", &["GET"]), spec("a.example", "/x/{name}", &["GET"])];
    let refused = world.ask(&key, put(&tenant, "shop", within)).unwrap_err().to_string();
    assert!(refused.contains("/x/{id}") && refused.contains("/x/{name}"), "{refused}");
    world.ask(&key, put(&tenant, "shop", vec![spec("a.example", "/x", &["GET"])])).unwrap();
    let across = world.ask(&key, put(&tenant, "blog", vec![spec("a.example", "/x", &[])])).unwrap_err().to_string();
    assert!(across.contains("`* a.example/x`") && across.contains("`GET a.example/x (app `shop`)`"), "{across}");
    world.ask(&key, put(&tenant, "blog", vec![spec("a.example", "/x", &["PUT"])])).unwrap();
}

#[test]
fn host_belongs_to_one_tenant_until_its_routes_are_gone() {
    let (world, acme, acme_key) = world();
    let (globex, globex_key) = world.tenant("globex");
    world.function(&globex, &globex_key, "pay", FunctionSettings::default());
    world.ask(&acme_key, put(&acme, "shop", vec![spec("a.example", "/x", &[])])).unwrap();
    let other_path = || put(&globex, "shop", vec![spec("a.example", "/y", &[])]);
    let refused = world.ask(&globex_key, other_path()).unwrap_err();
    assert!(matches!(refused, ControlError::HostTaken { .. }));
    assert!(!refused.to_string().contains("acme"), "whose it is is nobody's business");
    world.ask(&acme_key, put(&acme, "shop", vec![])).unwrap();
    world.ask(&globex_key, other_path()).unwrap();
}

#[test]
fn operator_gives_a_second_tenant_a_place_on_a_host_and_it_keeps_it() {
    let (world, acme, acme_key) = world();
    let (globex, globex_key) = world.tenant("globex");
    world.function(&globex, &globex_key, "pay", FunctionSettings::default());
    world.ask(&acme_key, put(&acme, "shop", vec![spec("a.example", "/acme/x", &[])])).unwrap();
    let taken = |result: Result<Value, ControlError>| assert!(matches!(result, Err(ControlError::HostTaken { .. })));
    for path in ["/acme/y", "/{any}", "/{*rest}", "/"] {
        taken(world.operate(put(&globex, "shop", vec![spec("a.example", path, &[])])));
    }
    world.operate(put(&globex, "shop", vec![spec("a.example", "/globex/x", &[])])).unwrap();
    // From now on it deploys there by itself, but goes no further.
    let more = vec![spec("a.example", "/globex/x", &[]), spec("a.example", "/globex/y", &[])];
    world.ask(&globex_key, put(&globex, "shop", more)).unwrap();
    taken(world.ask(&globex_key, put(&globex, "blog", vec![spec("a.example", "/more", &[])])));
    // The first tenant is held to the same.
    taken(world.ask(&acme_key, put(&acme, "blog", vec![spec("a.example", "/{*rest}", &[])])));
    world.ask(&acme_key, put(&acme, "blog", vec![spec("a.example", "/acme/z", &[])])).unwrap();
}

#[test]
fn every_host_is_given_out_by_operators() {
    let (world, tenant, key) = world();
    let any = |path| put(&tenant, "shop", vec![spec("*", path, &[])]);
    assert!(matches!(world.ask(&key, any("/x")), Err(ControlError::OperatorsOnly { .. })));
    world.operate(any("/x")).unwrap();
    world.ask(&key, any("/x/{id}")).unwrap();
    assert!(matches!(world.ask(&key, any("/y")), Err(ControlError::OperatorsOnly { .. })));
}

#[test]
fn route_needs_its_function_and_stays_under_its_limits() {
    let (world, tenant, key) = world();
    let missing = route(json!({ "host": "a.example", "path": "/", "function": "nope" }));
    let refused = world.ask(&key, put(&tenant, "shop", vec![missing])).unwrap_err();
    assert!(matches!(refused, ControlError::NotFound { what: "function", .. }));
    let large = route(json!({ "host": "a.example", "path": "/", "function": "pay", "body_bytes": 8_388_609 }));
    let refused = world.ask(&key, put(&tenant, "shop", vec![large])).unwrap_err().to_string();
    assert!(refused.contains("8388608"), "{refused}");
}

#[test]
fn unchanged_route_keeps_its_id() {
    let (world, tenant, key) = world();
    let (one, two) = (spec("a.example", "/x", &[]), spec("a.example", "/y", &[]));
    let first = world.ask(&key, put(&tenant, "shop", vec![one.clone()])).unwrap();
    let public = RouteSpec { public: true, ..one };
    let second = world.ask(&key, put(&tenant, "shop", vec![two, public])).unwrap();
    assert_eq!(first["routes"][0]["id"], second["routes"][1]["id"]);
    assert_ne!(first["routes"][0]["id"], second["routes"][0]["id"]);
    let snapshot = world.control.snapshot();
    assert_eq!(snapshot.routes().filter(|route| route.spec.public).count(), 1);
    assert_eq!(snapshot.routes().count(), 2);
}

#[test]
fn too_many_routes_are_refused() {
    let (world, tenant, key) = world();
    let many = |n| (0..n).map(|n| spec("a.example", &format!("/r{n}"), &[])).collect::<Vec<_>>();
    let refused = world.ask(&key, put(&tenant, "shop", many(1001))).unwrap_err();
    assert!(matches!(refused, ControlError::TooMany { what: "routes", limit: 1000 }));
}
