//! Evidence for strict heads: tables of hosts, paths and fields that are refused, and of those that pass unchanged.

use super::*;
use cofferdam_model::{TlsVersion, UnixNanos};

fn circumstances() -> Circumstances {
    Circumstances {
        request: RequestId::mint(&cofferdam_model::random::SeededRandom::new(1)),
        at: UnixNanos(0),
        source: "192.0.2.1".parse().unwrap(),
        tls: TlsVersion::Tls13,
        method: "-".into(),
        host: "-".into(),
        path: "-".into(),
        connection: None,
        headers: None,
    }
}

type Read = (Circumstances, Option<String>, HeaderMap);

fn receive_parts(version: Version, method: &str, target: &str, fields: &[(&str, &str)]) -> Result<Read, Refusal> {
    let mut builder = http::Request::builder().version(version).method(method).uri(target);
    for (name, value) in fields {
        builder = builder.header(*name, http::HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    let (parts, ()) = builder.body(()).unwrap().into_parts();
    let mut known = circumstances();
    let limits = Limits { uri_bytes: 100, header_bytes: 300, header_count: 5, ..Limits::default() };
    read(parts, &limits, &mut known).map(|(_, query, headers)| (known, query, headers))
}

fn h1(target: &str, fields: &[(&str, &str)]) -> Result<Read, Refusal> {
    receive_parts(Version::HTTP_11, "GET", target, fields)
}

fn refused(read: Result<Read, Refusal>) -> Fault {
    match read.map(|(known, ..)| known.host) {
        Err(Refusal::BadRequest(fault)) => fault,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_host_is_taken_in_lower_case_and_without_its_port() {
    for (text, host) in [
        ("a.example", "a.example"),
        ("A.Example:8443", "a.example"),
        ("localhost", "localhost"),
        ("127.0.0.1:1", "127.0.0.1"),
        ("[::1]:8443", "[::1]"),
        ("[2001:DB8::1]", "[2001:db8::1]"),
        ("a_b.example", "a_b.example"),
    ] {
        let (known, ..) = h1("/", &[("host", text)]).unwrap();
        assert_eq!(&*known.host, host, "{text}");
    }
}

#[test]
fn odd_hosts_are_refused() {
    for text in [
        "",
        ".",
        "a.",
        "a..b",
        ".a",
        "a:",
        "a:0",
        "a:00443",
        "a:65536",
        "a:443:1",
        "a:b",
        "a@b",
        "a/b",
        "a b",
        "a,b",
        "-a",
        "a-",
        "a%2eb",
        "b\u{e9}",
        "[::1",
        "::1",
        "[::1]x",
        "[::1]:",
        "[a]",
        "1",
        "1.2.3",
        "0x7f.1",
        "127.1",
        "1.2.3.4.5",
        "256.1.1.1",
        "a#b",
        "a?b",
        "a\\b",
        "*",
        "a;b",
    ] {
        let fault = refused(h1("/", &[("host", text)]));
        assert_eq!(fault, Fault::HostInvalid, "{text:?}");
    }
    let long = format!("{}.example", "a".repeat(64));
    assert_eq!(refused(h1("/", &[("host", &long)])), Fault::HostInvalid);
}

#[test]
fn exactly_one_host_is_named_and_all_agree() {
    assert_eq!(refused(h1("/", &[])), Fault::HostMissing);
    assert_eq!(refused(h1("/", &[("host", "a"), ("host", "a")])), Fault::HostRepeated);
    assert_eq!(refused(h1("https://a/", &[])), Fault::HostMissing);
    assert_eq!(refused(h1("https://b/", &[("host", "a")])), Fault::HostMismatch);
    assert_eq!(refused(h1("https://a:1/", &[("host", "a")])), Fault::HostMismatch);
    assert_eq!(refused(h1("https://u@a/", &[("host", "a")])), Fault::HostInvalid);
    assert_eq!(refused(h1("ftp://a/", &[("host", "a")])), Fault::Target);
    assert_eq!(refused(h1("a:443", &[("host", "a")])), Fault::Target);
    assert!(h1("http://A/x", &[("host", "a")]).is_ok());
    let h2 = |target: &str, fields: &[(&str, &str)]| receive_parts(Version::HTTP_2, "GET", target, fields);
    assert_eq!(&*h2("https://a/x", &[]).unwrap().0.host, "a");
    assert!(h2("https://a/", &[("host", "A")]).is_ok());
    assert_eq!(refused(h2("https://a/", &[("host", "b")])), Fault::HostMismatch);
    assert_eq!(refused(h2("http://a/", &[])), Fault::Target);
    assert_eq!(refused(h2("/", &[])), Fault::HostMissing);
}

#[test]
fn plain_paths_pass_and_needless_encoding_is_undone() {
    for (path, canonical) in [
        ("/", "/"),
        ("/a/b", "/a/b"),
        ("/a/", "/a/"),
        ("/a.b/..c/...", "/a.b/..c/..."),
        ("/%61%7Eb", "/a~b"),
        ("/a%20b", "/a%20b"),
        ("/%c3%a9", "/%C3%A9"),
        ("/a:b@c!$&'()*+,=", "/a:b@c!$&'()*+,="),
        ("/-/health", "/-/health"),
        ("/%2D/health", "/-/health"),
    ] {
        assert_eq!(&*h1(path, &[("host", "a")]).unwrap().0.path, canonical);
    }
}

#[test]
fn paths_of_two_readings_are_refused() {
    for path in [
        "//",
        "//a",
        "/a//b",
        "/a//",
        "/.",
        "/..",
        "/./a",
        "/../a",
        "/a/.",
        "/a/..",
        "/a/../b",
        "/%2e",
        "/%2E%2e/a",
        "/.%2e/a",
        "/a/%2e%2e",
        "/a%2fb",
        "/a%2Fb",
        "/a%5cb",
        "/a%5Cb",
        "/a%00",
        "/a%0d%0a",
        "/a%7f",
        "/a%1F",
        "/%25",
        "/%252e%252e",
        "/%",
        "/%2",
        "/%zz",
        "/%u002e",
        "/a;b",
        "/a%3bb",
        "/a|b",
        "/a{b}",
        "/a\\b",
        "/a^b",
        "/a\"b",
    ] {
        assert_eq!(path::canonical(path, &Method::GET), Err(Fault::Path), "{path}");
    }
    assert_eq!(path::canonical("a", &Method::GET), Err(Fault::Target));
    assert_eq!(path::canonical("*", &Method::GET), Err(Fault::Target));
    assert_eq!(path::canonical("", &Method::GET), Err(Fault::Target));
    assert_eq!(path::canonical("*", &Method::OPTIONS), Ok("*".to_owned()));
}

#[test]
fn canonical_paths_are_their_own_canonical_form() {
    for path in ["/a%20b", "/%C3%A9/x", "/a~b", "/"] {
        assert_eq!(path::canonical(path, &Method::GET).as_deref(), Ok(path));
    }
}

#[test]
fn sizes_are_capped_in_both_versions() {
    let long = format!("/{}", "a".repeat(100));
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let ask = |target: &str, fields: &[(&str, &str)]| {
            let target = format!("https://a{target}");
            receive_parts(version, "GET", &target, &[&[("host", "a")], fields].concat()).map(|_| ())
        };
        assert_eq!(ask("/", &[]), Ok(()));
        assert_eq!(ask(&long, &[]), Err(Refusal::UriTooLong));
        assert_eq!(ask("/", &[("x", &"y".repeat(300))]), Err(Refusal::HeaderTooLarge));
        assert_eq!(ask("/", &[("x", "y"); 5]), Err(Refusal::HeaderTooLarge));
    }
}

#[test]
fn fields_between_hops_and_reserved_ones_never_get_in() {
    let limits = Limits::default();
    let request = http::Request::get("/?q=1")
        .header("host", "a")
        .header("connection", "close, X-Private, authorization")
        .header("x-private", "1")
        .header("keep-alive", "1")
        .header("te", "trailers")
        .header("upgrade", "websocket")
        .header("proxy-authorization", "x")
        .header("X-Cofferdam-Principal", "root")
        .header("x-cofferdam-anything", "1")
        .header("x-request-id", "mine")
        .header("authorization", "Bearer t")
        .header("accept", "a")
        .header("accept", "b");
    let (parts, ()) = request.body(()).unwrap().into_parts();
    let (_, query, headers) = read(parts, &limits, &mut circumstances()).unwrap();
    let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["accept", "authorization"]);
    assert_eq!(headers.get_all("accept").iter().count(), 2);
    assert_eq!(query.as_deref(), Some("q=1"));
}

#[test]
fn fields_that_would_overrule_method_or_target_are_refused() {
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let ask = |field: &str| {
            let fields = [("host", "a"), (field, "DELETE")];
            refused(receive_parts(version, "GET", "https://a/", &fields))
        };
        for field in [
            "X-HTTP-Method",
            "X-HTTP-Method-Override",
            "X-Method-Override",
            "X-Original-Method",
            "X-Original-URL",
            "X-Original-URI",
            "X-Original-Host",
            "X-Rewrite-URL",
            "X-Forwarded-Uri",
            "X-Forwarded-Path",
            "X-Forwarded-Method",
        ] {
            assert_eq!(ask(&field.to_ascii_lowercase()), Fault::Overruled, "{field}");
        }
    }
}

#[test]
fn methods_and_expectations_are_of_a_closed_kind() {
    let ask = |method: &str, expect: &str| {
        receive_parts(Version::HTTP_11, method, "/", &[("host", "a"), ("expect", expect)]).map(|_| ())
    };
    for method in ["get", "CONNECT", "TRACE", "G_T", "GET2"] {
        assert_eq!(ask(method, "100-continue"), Err(Refusal::MethodUnknown), "{method}");
    }
    assert_eq!(ask("PROPFIND", "100-Continue"), Ok(()));
    assert_eq!(ask("GET", "200-ok"), Err(Refusal::ExpectationFailed));
}

#[test]
fn framing_fields_are_refused_in_http_2() {
    let ask = |fields: &[(&str, &str)]| refused(receive_parts(Version::HTTP_2, "GET", "https://a/", fields));
    assert_eq!(ask(&[("transfer-encoding", "chunked")]), Fault::TransferEncoding);
    assert_eq!(ask(&[("content-length", "1"), ("content-length", "1")]), Fault::ContentLength);
    assert_eq!(ask(&[("content-length", "x")]), Fault::ContentLength);
}
