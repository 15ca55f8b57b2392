//! Which routes are well formed, and which are in each other's way.

use super::*;

fn spec(methods: &[&str], path: &str) -> RouteSpec {
    RouteSpec {
        host: "shop.example".into(),
        path: path.into(),
        methods: methods.iter().map(|method| (*method).to_owned()).collect(),
        function: "orders".into(),
        public: false,
        audit: Default::default(),
        limit: None,
        body_bytes: None,
        receipt: false,
    }
}

#[test]
fn well_formed_routes_are_taken() {
    for path in ["/", "/orders", "/orders/", "/orders/{id}", "/files/{*rest}", "/a/{x}/b/{y}", "/a.b/~c", "/dash-/x"] {
        assert!(check_spec(&spec(&["GET", "M-SEARCH"], path)).is_ok(), "{path}");
    }
    for host in ["*", "localhost", "a.b-c.example", "127.0.0.1"] {
        assert!(check_spec(&RouteSpec { host: host.into(), ..spec(&[], "/") }).is_ok(), "{host}");
    }
}

#[test]
fn malformed_paths_are_refused() {
    let long = format!("/{}", "a".repeat(1100));
    let deep = "/a".repeat(65);
    for path in [
        "",
        "orders",
        "//",
        "/a//b",
        "/a/../b",
        "/.",
        "/a b",
        "/a%2fb",
        "/a?x",
        "/a#x",
        "/{id",
        "/id}",
        "/x{id}",
        "/{*rest}/more",
        "/{}",
        "/{*}",
        "/{Id}",
        "/a;b",
        "/{a}/{a}",
        "/-/health",
        "/-",
        "/é",
        &long,
        &deep,
    ] {
        assert!(check_spec(&spec(&[], path)).is_err(), "{path}");
    }
}

#[test]
fn malformed_hosts_are_refused() {
    let long = "a.".repeat(127);
    for host in
        ["", "Shop.example", "shop.example:8443", "*.example", "a..b", "-a.b", "a-.b", "a_b", ".", "[::1]", &long]
    {
        assert!(check_spec(&RouteSpec { host: host.into(), ..spec(&[], "/") }).is_err(), "{host}");
    }
}

#[test]
fn malformed_methods_and_rates_are_refused() {
    for methods in [&["get"][..], &["CONNECT"], &["TRACE"], &["GET", "GET"], &[""], &["GE T"]] {
        assert!(check_spec(&spec(methods, "/")).is_err(), "{methods:?}");
    }
    for (per_second, burst) in [(0, 1), (1, 0), (RATE + 1, 1), (1, RATE + 1)] {
        let limited = RouteSpec { limit: Some(Rate { per_second, burst }), ..spec(&[], "/") };
        assert!(check_spec(&limited).is_err(), "{per_second} {burst}");
    }
}

#[test]
fn routes_that_could_take_the_same_request_conflict() {
    for (one, other) in [
        (spec(&["GET"], "/a"), spec(&["GET", "PUT"], "/a")),
        (spec(&[], "/a"), spec(&["GET"], "/a")),
        (spec(&["GET"], "/a/{id}"), spec(&["PUT"], "/a/{name}")),
        (spec(&["GET"], "/a/{id}"), spec(&["GET"], "/a/{*rest}")),
    ] {
        assert!(conflicts(&one, &other) && conflicts(&other, &one), "{} {}", show(&one), show(&other));
    }
}

#[test]
fn routes_that_cannot_are_kept_side_by_side() {
    for (one, other) in [
        (spec(&["GET"], "/a"), spec(&["PUT"], "/a")),
        (spec(&["GET"], "/a/new"), spec(&["GET"], "/a/{id}")),
        (spec(&["GET"], "/a"), spec(&["GET"], "/a/")),
        (spec(&["GET"], "/a"), spec(&["GET"], "/{*rest}")),
    ] {
        assert!(!conflicts(&one, &other) && !conflicts(&other, &one), "{} {}", show(&one), show(&other));
    }
}
