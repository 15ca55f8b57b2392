//! What a manifest means, and where each mistake in one is found.

use super::*;

fn files(path: &Path) -> std::io::Result<Vec<u8>> {
    match path.to_str() {
        Some("api.wasm") => Ok([COMPONENT.as_slice(), b"rest"].concat()),
        Some("core.wasm") => Ok(MODULE.to_vec()),
        Some("text.wasm") => Ok(b"hello".to_vec()),
        Some("p/orders.cedar" | "q/orders.cedar" | "p/Bad_Name.cedar") => Ok(b"permit ();".to_vec()),
        Some("p/latin.cedar") => Ok(vec![0xe9]),
        _ => Err(std::io::ErrorKind::NotFound.into()),
    }
}

const HEAD: &str = "manifest = 1\n[app]\nname = \"shop\"\ntenant = \"acme\"\n";
const FUNCTION: &str = "[functions.api]\nsource = { path = \"api.wasm\" }\n";

/// Line, column, message and remedy of what is wrong with a text.
fn wrong(text: &str) -> (usize, usize, String, String) {
    let wrong = Manifest::parse(text, &files).expect_err(text);
    let (line, column) = position(text, wrong.span.start);
    (line, column, wrong.message, wrong.remedy)
}

const EVERYTHING: &str = r#"
manifest = 1
[app]
name = "shop"
tenant = "acme"

[functions.api]
source = { path = "api.wasm" }
limits = { memory = "64MiB", cpu = "50ms", wall = "5s", concurrency = 8, cells = 1, request = "1MiB",
           response = "2MiB", response_headers = "4KiB", log = "8KiB" }
recycle = { after_calls = 100, after = "5m", idle = "30s", memory = "96MiB" }
env = { MODE = "test" }
secrets = ["TOKEN"]

[[routes]]
host = "shop.example"
path = "/orders/{id}"
methods = ["GET", "PUT"]
function = "api"
public = true
audit = "strict"
limit = { per_second = 5, burst = 10 }
body = "1KiB"

[[routes]]
host = "shop.example"
path = "/{*rest}"
function = "api"

[policies]
files = ["p/orders.cedar"]
"#;

#[test]
fn everything_can_be_declared() {
    let text = EVERYTHING;
    let manifest = Manifest::parse(text, &files).unwrap();
    assert_eq!((manifest.app.as_str(), manifest.tenant.as_str()), ("shop", "acme"));
    let settings = &manifest.functions[0].settings;
    assert_eq!(
        (settings.limits.memory_bytes, settings.limits.cpu_ms, settings.limits.wall_ms),
        (67_108_864, 50, 5_000)
    );
    assert_eq!((settings.limits.response_header_bytes, settings.limits.log_bytes), (4096, 8192));
    assert_eq!(
        (settings.recycle.after_calls, settings.recycle.after_seconds, settings.recycle.idle_seconds),
        (100, 300, 30)
    );
    assert_eq!(settings.recycle.memory_bytes, 96 * 1024 * 1024);
    assert_eq!((settings.env["MODE"].as_str(), settings.secrets.as_slice()), ("test", &["TOKEN".to_owned()][..]));
    let route = &manifest.routes[0];
    assert_eq!((route.audit, route.public, route.body_bytes), (Level::Strict, true, Some(1024)));
    assert_eq!(route.limit, Some(Rate { per_second: 5, burst: 10 }));
    assert_eq!((manifest.routes.len(), manifest.policies[0].name.as_str()), (2, "orders"));
}

#[test]
fn head_of_a_manifest_must_be_complete() {
    for (text, place, about) in [
        ("", (1, 1), "manifest = 1"),
        ("manifest = 2\n", (1, 12), "not known"),
        ("manifest = \"1\"\n", (1, 12), "a string"),
        ("manifest = 1\n", (1, 1), "`app`"),
        ("manifest = 1\napp = 3\n", (2, 7), "an integer"),
        ("manifest = 1\n[app]\ntenant = \"acme\"\n", (2, 1), "no `name`"),
        ("manifest = 1\n[app]\nname = \"Shop\"\ntenant = \"acme\"\n", (3, 8), "`Shop` is not a name"),
        ("manifest = 1\n[app]\nname = \"shop\"\ntennant = \"acme\"\n", (4, 1), "did you mean `tenant`?"),
        ("manifest = 1\n[app\n", (2, 5), ""),
        ("manifest = 1\nmanifest = 1\n", (2, 1), "duplicate"),
    ] {
        let (line, column, message, remedy) = wrong(text);
        assert_eq!((line, column), place, "{text}: {message}; {remedy}");
        assert!(message.contains(about) || remedy.contains(about), "{text}: {message}; {remedy}");
    }
}

#[test]
fn mistake_in_a_function_is_found_where_it_is() {
    let source = "source = { path = \"api.wasm\" }\n";
    for (rest, place, about) in [
        ("[functions.api]\nsorce = { path = \"api.wasm\" }\n".to_owned(), (6, 1), "did you mean `source`?"),
        ("[functions.api]\n".to_owned(), (5, 1), "no `source`"),
        ("[functions.Api]\nsource = { path = \"api.wasm\" }\n".to_owned(), (5, 12), "`Api` is not a name"),
        ("[functions]\napi = 3\n".to_owned(), (6, 1), "a table"),
        ("[functions.api]\nsource = { path = \"none.wasm\" }\n".to_owned(), (6, 19), "cannot read component"),
        ("[functions.api]\nsource = { path = \"core.wasm\" }\n".to_owned(), (6, 19), "not a component"),
        ("[functions.api]\nsource = { path = \"text.wasm\" }\n".to_owned(), (6, 19), "not a WebAssembly component"),
        (format!("[functions.api]\n{source}limits = {{ memory = \"64MB\" }}\n"), (7, 21), "`64MiB`"),
        (format!("[functions.api]\n{source}limits = {{ memory = 64 }}\n"), (7, 21), "a text in quotes"),
        (format!("[functions.api]\n{source}limits = {{ cpu = \"50\" }}\n"), (7, 18), "`250ms`"),
        (format!("[functions.api]\n{source}limits = {{ cpus = \"50ms\" }}\n"), (7, 12), "did you mean `cpu`?"),
        (format!("[functions.api]\n{source}limits = {{ concurrency = -1 }}\n"), (7, 26), "0 or more"),
        (format!("[functions.api]\n{source}limits = {{ cells = 0 }}\n"), (5, 1), "limit `cells` `0`"),
        (format!("[functions.api]\n{source}recycle = {{ idle = \"1500ms\" }}\n"), (7, 20), "whole number of seconds"),
        (format!("[functions.api]\n{source}env = {{ \"1A\" = \"x\" }}\n"), (7, 9), "`1A`"),
        (format!("[functions.api]\n{source}env = {{ A = 1 }}\n"), (7, 13), "a text in quotes"),
        (format!("[functions.api]\n{source}secrets = [\"A\", \"A\"]\n"), (7, 17), "twice"),
        (format!("[functions.api]\n{source}env = {{ A = \"x\" }}\nsecrets = [\"A\"]\n"), (8, 12), "keep one"),
        (format!("[functions.api]\n{source}secrets = \"A\"\n"), (7, 11), "a list"),
    ] {
        let text = format!("{HEAD}{rest}");
        let (line, column, message, remedy) = wrong(&text);
        assert_eq!((line, column), place, "{rest}: {message}; {remedy}");
        assert!(message.contains(about) || remedy.contains(about), "{rest}: {message}; {remedy}");
    }
}

#[test]
fn mistake_in_a_route_is_found_where_it_is() {
    let good = "host = \"a.example\"\npath = \"/x\"\nfunction = \"api\"\n";
    for (rest, place, about) in [
        ("[[routes]]\npath = \"/x\"\nfunction = \"api\"\n".to_owned(), (7, 1), "no `host`"),
        ("[routes]\nhost = \"a\"\n".to_owned(), (7, 1), "`[[routes]]`"),
        ("[[routes]]\nhost = \"A.example\"\npath = \"/x\"\nfunction = \"api\"\n".to_owned(), (8, 8), "lower case"),
        ("[[routes]]\nhost = \"a.example\"\npath = \"x\"\nfunction = \"api\"\n".to_owned(), (9, 8), "begin with `/`"),
        (
            "[[routes]]\nhost = \"a.example\"\npath = \"/x\"\nfunction = \"apy\"\n".to_owned(),
            (10, 12),
            "did you mean `api`?",
        ),
        (format!("[[routes]]\n{good}methods = [\"GET\", \"get\"]\n"), (11, 19), "upper case"),
        (format!("[[routes]]\n{good}public = \"yes\"\n"), (11, 10), "`true` or `false`"),
        (format!("[[routes]]\n{good}audit = \"stict\"\n"), (11, 9), "did you mean `strict`?"),
        (format!("[[routes]]\n{good}limit = {{ per_second = 5 }}\n"), (11, 9), "no `burst`"),
        (format!("[[routes]]\n{good}limit = {{ per_second = 0, burst = 1 }}\n"), (11, 9), "per_second"),
        (format!("[[routes]]\n{good}body = \"1 KiB\"\n"), (11, 8), "`64KiB`"),
        (format!("[[routes]]\n{good}hots = \"x\"\n"), (11, 1), "did you mean `host`?"),
        (format!("[[routes]]\n{good}[[routes]]\n{good}"), (13, 8), "conflicts"),
    ] {
        let text = format!("{HEAD}{FUNCTION}{rest}");
        let (line, column, message, remedy) = wrong(&text);
        assert_eq!((line, column), place, "{rest}: {message}; {remedy}");
        assert!(message.contains(about) || remedy.contains(about), "{rest}: {message}; {remedy}");
    }
}

#[test]
fn mistake_in_policies_is_found_where_it_is() {
    for (rest, place, about) in [
        ("[policies]\nfiles = [\"p/none.cedar\"]\n", (6, 10), "cannot read policy"),
        ("[policies]\nfiles = [\"p/Bad_Name.cedar\"]\n", (6, 10), "Bad_Name"),
        ("[policies]\nfiles = [\"p/orders.cedar\", \"q/orders.cedar\"]\n", (6, 28), "two files"),
        ("[policies]\nfiles = [\"p/latin.cedar\"]\n", (6, 10), "not UTF-8"),
        ("[policies]\nfile = [\"p/orders.cedar\"]\n", (6, 1), "did you mean `files`?"),
        ("[polices]\n", (5, 2), "did you mean `policies`?"),
    ] {
        let text = format!("{HEAD}{rest}");
        let (line, column, message, remedy) = wrong(&text);
        assert_eq!((line, column), place, "{rest}: {message}; {remedy}");
        assert!(message.contains(about) || remedy.contains(about), "{rest}: {message}; {remedy}");
    }
}

#[test]
fn failure_names_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.toml");
    std::fs::write(&path, format!("{HEAD}[functions.api]\nsorce = 1\n")).unwrap();
    let failure = Manifest::load(&path).unwrap_err();
    assert!(failure.text().starts_with(&format!("{}:6:1: ", path.display())), "{}", failure.text());
    assert_eq!(failure.exit_code(), 3);
    let missing = Manifest::load(&dir.path().join("none.toml")).unwrap_err();
    assert_eq!(missing.exit_code(), 4);
}

#[test]
fn files_are_looked_for_beside_the_manifest() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("api.wasm"), COMPONENT).unwrap();
    std::fs::write(dir.path().join("app.toml"), format!("{HEAD}{FUNCTION}")).unwrap();
    let manifest = Manifest::load(&dir.path().join("app.toml")).unwrap();
    assert_eq!(manifest.functions[0].component, COMPONENT);
}

#[test]
fn egress_rules_are_read_and_refused_at_their_place() {
    let rule = |body: &str| format!("{HEAD}{FUNCTION}secrets = [\"TOKEN\"]\n[[functions.api.egress]]\n{body}\n");
    let manifest = Manifest::parse(
        &rule(
            "host = \"*.example.com\"\nport = 8443\nmethods = [\"GET\"]\n\
             credential = { header = \"x-key\", secret = \"API_KEY\" }",
        ),
        &files,
    )
    .unwrap();
    let read = &manifest.functions[0].settings.egress[0];
    assert_eq!(read.to_string(), "https://*.example.com:8443");
    assert_eq!(read.credential.as_ref().map(|credential| credential.secret.as_str()), Some("API_KEY"));
    let plain = Manifest::parse(&rule("host = \"a.example\"\ntls = false"), &files).unwrap();
    assert_eq!(plain.functions[0].settings.egress[0].port, 80);
    for (body, line, part) in [
        ("host = \"https://a.example\"", 9, "the host is not valid"),
        ("host = \"a.example\"\nport = 70000", 10, "the port is not valid"),
        ("host = \"a.example\"\nmethods = [\"CONNECT\"]", 8, "egress rule `https://a.example:443`"),
        ("host = \"a.example\"\nca = \"no.pem\"", 10, "the file of certificate authorities"),
        ("host = \"a.example\"\ntls = false\ncredential = { header = \"x\", secret = \"S\" }", 8, "egress rule"),
        ("host = \"*\"\ncredential = { header = \"x\", secret = \"S\" }", 8, "egress rule"),
        ("host = \"a.example\"\ncredential = { header = \"host\", secret = \"S\" }", 8, "egress rule"),
        ("host = \"a.example\"\ncredential = { header = \"x-key\", secret = \"TOKEN\" }", 8, "egress rule"),
        ("hosts = \"a.example\"", 9, "unknown key `hosts`"),
    ] {
        let wrong = wrong(&rule(body));
        assert_eq!(wrong.0, line, "{body}: {wrong:?}");
        assert!(wrong.2.contains(part), "{body}: {wrong:?}");
    }
}

/// A bounded run over bent manifests, the same every time.
#[test]
fn a_bent_manifest_is_taken_or_refused_with_a_place() {
    const PIECES: [&str; 10] =
        ["\"", "]", "{ }", "\n", "=", "-1", "18446744073709551616", "\u{202e}", "[functions.api]", "\"9e99GiB\""];
    let mut state = 2026_u64;
    let mut below = |bound: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % bound.max(1)
    };
    let mut refused = 0;
    for round in 0..1000 {
        let mut bent: Vec<char> = EVERYTHING.chars().collect();
        for _ in 0..=below(4) {
            let at = below(bent.len());
            match below(4) {
                0 => drop(bent.remove(at)),
                1 => drop(bent.splice(at..at, PIECES[below(PIECES.len())].chars())),
                2 => drop(bent.splice(at..at, EVERYTHING.chars().skip(at).take(below(60)))),
                _ => bent.truncate(bent.len() - below(20)),
            }
        }
        let text: String = bent.into_iter().collect();
        if let Err(wrong) = Manifest::parse(&text, &files) {
            let (line, column) = position(&text, wrong.span.start);
            assert!(line <= text.lines().count() + 1 && column >= 1, "round {round}: {line}:{column}");
            assert!(!wrong.message.is_empty(), "round {round}");
            refused += 1;
        }
    }
    assert!(refused > 300, "only {refused} of 1000 were refused");
}
