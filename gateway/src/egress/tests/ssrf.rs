//! Evidence that no spelling leads to an address that must not be reached.
//!
//! Rules and ceiling allow everything here, so that the check of the address is all that stands between.

use super::server::{Reply, Server, ok};
use super::*;

use EgressEnd::{DeniedAddress, DeniedByRule, Malformed, NameFailed};

/// What a function may write, and how that ends. Names are those of `script`.
const CORPUS: &[(&str, EgressEnd)] = &[
    // Addresses as they are.
    ("127.0.0.1", DeniedAddress),
    ("127.0.0.1:80", DeniedAddress),
    ("127.0.0.1:8080", DeniedAddress),
    ("127.1.2.3", DeniedAddress),
    ("127.255.255.254", DeniedAddress),
    ("0.0.0.0", DeniedAddress),
    ("0.1.2.3", DeniedAddress),
    ("10.0.0.1", DeniedAddress),
    ("10.255.255.255", DeniedAddress),
    ("172.16.0.1", DeniedAddress),
    ("172.31.255.255", DeniedAddress),
    ("192.168.1.1", DeniedAddress),
    ("100.64.0.1", DeniedAddress),
    ("169.254.169.254", DeniedAddress),
    ("169.254.170.2", DeniedAddress),
    ("100.100.100.200", DeniedAddress),
    ("192.0.0.192", DeniedAddress),
    ("168.63.129.16", DeniedAddress),
    ("198.18.0.1", DeniedAddress),
    ("192.0.2.1", DeniedAddress),
    ("203.0.113.9", DeniedAddress),
    ("224.0.0.1", DeniedAddress),
    ("240.0.0.1", DeniedAddress),
    ("255.255.255.255", DeniedAddress),
    ("[::1]", DeniedAddress),
    ("[::1]:8443", DeniedAddress),
    ("[0:0:0:0:0:0:0:1]", DeniedAddress),
    ("[0000:0000:0000:0000:0000:0000:0000:0001]", DeniedAddress),
    ("[::]", DeniedAddress),
    ("[fe80::1]", DeniedAddress),
    ("[fc00::1]", DeniedAddress),
    ("[fd00:ec2::254]", DeniedAddress),
    ("[FD20:CE::254]", DeniedAddress),
    ("[fec0::1]", DeniedAddress),
    ("[ff02::1]", DeniedAddress),
    ("[2001:db8::1]", DeniedAddress),
    ("[100::1]", DeniedAddress),
    ("[5f00::1]", DeniedAddress),
    // Addresses inside of others.
    ("[::ffff:127.0.0.1]", DeniedAddress),
    ("[::ffff:7f00:1]", DeniedAddress),
    ("[::FFFF:169.254.169.254]", DeniedAddress),
    ("[0:0:0:0:0:ffff:a9fe:a9fe]", DeniedAddress),
    ("[::ffff:8.8.8.8]", DeniedAddress),
    ("[::127.0.0.1]", DeniedAddress),
    ("[::7f00:1]", DeniedAddress),
    ("[::ffff:0:127.0.0.1]", DeniedAddress),
    ("[64:ff9b::7f00:1]", DeniedAddress),
    ("[64:ff9b::169.254.169.254]", DeniedAddress),
    ("[64:ff9b:1::a00:1]", DeniedAddress),
    ("[2002:7f00:1::]", DeniedAddress),
    ("[2002:a9fe:a9fe::1]", DeniedAddress),
    ("[2001:0:7f00:1::]", DeniedAddress),
    ("[2600::5efe:7f00:1]", DeniedAddress),
    // Other forms of an address.
    ("127.1", Malformed),
    ("127.0.1", Malformed),
    ("2130706433", Malformed),
    ("017700000001", Malformed),
    ("0x7f000001", Malformed),
    ("0x7f.0x0.0x0.0x1", Malformed),
    ("0x7f.1", Malformed),
    ("0177.0.0.1", Malformed),
    ("127.0.0.01", Malformed),
    ("0127.0.0.1", Malformed),
    ("00.00.00.00", Malformed),
    ("127.0.0.0x1", Malformed),
    ("127.0.0.1.", Malformed),
    ("169.254.43518", Malformed),
    ("2852039166", Malformed),
    ("0xA9FEA9FE", Malformed),
    ("256.256.256.256", Malformed),
    ("425.510.425.510", Malformed),
    ("1.2.3.4.5", Malformed),
    ("0", Malformed),
    ("[127.0.0.1]", Malformed),
    ("[::1", Malformed),
    ("::1", Malformed),
    ("[::1]x", Malformed),
    ("[::1%25lo]", Malformed),
    ("[fe80::1%eth0]", Malformed),
    ("[::ffff:127.1]", Malformed),
    ("[::ffff:0x7f.0.0.1]", Malformed),
    // Two readings of one authority.
    ("allowed.example@127.0.0.1", Malformed),
    ("user:pass@169.254.169.254", Malformed),
    ("127.0.0.1#@public.example", Malformed),
    ("127.0.0.1/@public.example", Malformed),
    ("127.0.0.1\\@public.example", Malformed),
    ("public.example\\.127.0.0.1", Malformed),
    ("http://127.0.0.1", Malformed),
    ("//127.0.0.1", Malformed),
    ("127.0.0.1 public.example", Malformed),
    ("127.0.0.1\tpublic.example", Malformed),
    ("127.0.0.1\r\nhost: public.example", Malformed),
    ("127.0.0.1\0public.example", Malformed),
    ("127.0.0.1?public.example", Malformed),
    ("127.0.0.1;public.example", Malformed),
    ("127.0.0.1,public.example", Malformed),
    ("127.0.0.1:80:443", Malformed),
    ("127.0.0.1:80@public.example:443", Malformed),
    ("127.0.0.1:0", Malformed),
    ("127.0.0.1:65616", Malformed),
    ("127.0.0.1:080", Malformed),
    ("127.0.0.1:+80", Malformed),
    ("127.0.0.1:", Malformed),
    ("127.0.0.1:22", DeniedByRule),
    ("public.example:6379", DeniedByRule),
    ("", Malformed),
    (":80", Malformed),
    (".", Malformed),
    // Encodings.
    ("%31%32%37.0.0.1", Malformed),
    ("127%2e0%2e0%2e1", Malformed),
    ("%6c%6f%63alhost", Malformed),
    ("localhost%00.public.example", Malformed),
    ("127\u{3002}0\u{3002}0\u{3002}1", Malformed),
    ("127\u{ff0e}0\u{ff0e}0\u{ff0e}1", Malformed),
    ("127\u{ff61}0.0.1", Malformed),
    ("\u{ff11}\u{ff12}\u{ff17}.0.0.1", Malformed),
    ("\u{2460}\u{2461}\u{2466}.0.0.1", Malformed),
    ("\u{661}\u{662}\u{667}.0.0.1", Malformed),
    ("127.0.0.1\u{200b}", Malformed),
    ("local\u{ad}host", Malformed),
    ("\u{24db}ocalhost", Malformed),
    ("loc\u{430}lhost", Malformed),
    ("localho\u{17f}t", Malformed),
    // Names that lead inside.
    ("localhost", DeniedAddress),
    ("LOCALHOST", DeniedAddress),
    ("localhost.", DeniedAddress),
    ("localhost..", Malformed),
    ("LocalHost.:8080", DeniedAddress),
    ("a.localhost", DeniedAddress),
    ("ip6-localhost", DeniedAddress),
    ("localhost.localdomain", DeniedAddress),
    ("127.0.0.1.wild.example", DeniedAddress),
    ("private.example", DeniedAddress),
    ("PRIVATE.example.", DeniedAddress),
    ("mapped.example", DeniedAddress),
    ("nat64.example", DeniedAddress),
    ("sixtofour.example", DeniedAddress),
    ("zero.example", DeniedAddress),
    ("mixed.example", DeniedAddress),
    ("mixed-last.example", DeniedAddress),
    ("mixed-families.example", DeniedAddress),
    ("metadata.google.internal", DeniedAddress),
    ("metadata.google.internal.", DeniedAddress),
    ("metadata", DeniedAddress),
    ("metadata.tencentyun.com", DeniedAddress),
    ("instance-data", DeniedAddress),
    ("kubernetes.default.svc", DeniedAddress),
    ("host.docker.internal", DeniedAddress),
    ("xn--lcalhost-5za.example", NameFailed),
    ("nowhere.example", NameFailed),
];

fn script(script: &Script) {
    let names: &[(&str, &[&str])] = &[
        ("public.example", &["93.184.216.34"]),
        ("allowed.example", &["93.184.216.34"]),
        ("localhost", &["127.0.0.1", "::1"]),
        ("a.localhost", &["127.0.0.1"]),
        ("ip6-localhost", &["::1"]),
        ("localhost.localdomain", &["127.0.0.1"]),
        ("127.0.0.1.wild.example", &["127.0.0.1"]),
        ("private.example", &["192.168.1.10"]),
        ("mapped.example", &["::ffff:127.0.0.1"]),
        ("nat64.example", &["64:ff9b::7f00:1"]),
        ("sixtofour.example", &["2002:7f00:1::"]),
        ("zero.example", &["0.0.0.0"]),
        ("mixed.example", &["10.0.0.1", "93.184.216.34"]),
        ("mixed-last.example", &["93.184.216.34", "93.184.216.35", "10.0.0.1"]),
        ("mixed-families.example", &["93.184.216.34", "::1"]),
        ("metadata.google.internal", &["169.254.169.254"]),
        ("metadata", &["169.254.169.254"]),
        ("metadata.tencentyun.com", &["169.254.0.23"]),
        ("instance-data", &["fd00:ec2::254"]),
        ("kubernetes.default.svc", &["10.96.0.1"]),
        ("host.docker.internal", &["172.17.0.1"]),
    ];
    for (name, addresses) in names {
        script.answer(name, addresses);
    }
}

#[tokio::test]
async fn no_spelling_of_a_forbidden_address_is_reached() {
    let scene = Scene::new().await;
    script(&scene.script);
    let outlet = scene.outlet(&anything());
    assert!(CORPUS.len() >= 60, "{}", CORPUS.len());
    for (authority, ending) in CORPUS {
        for tls in [false, true] {
            let outgoing = Outgoing { tls, ..get(authority) };
            let error = scene.failure(&*outlet, outgoing).await;
            assert_eq!(error.ending, *ending, "`{authority}`: {error}");
        }
    }
    assert_eq!(scene.leads.dialled(), [""; 0]);
    // The same rules let a public address through, so that the check is what has stopped the others.
    for authority in ["public.example", "public.example.:8443", "93.184.216.34", "[2606:2800:220:1::1]"] {
        assert_eq!(scene.failure(&*outlet, get(authority)).await.ending, EgressEnd::ConnectFailed, "{authority}");
    }
    let public = ["93.184.216.34:80", "93.184.216.34:8443", "93.184.216.34:80", "[2606:2800:220:1::1]:80"];
    assert_eq!(scene.leads.dialled(), public);
}

#[tokio::test]
async fn a_name_is_not_resolved_before_a_rule_and_the_ceiling_allow_it() {
    let scene = Scene::new().await;
    script(&scene.script);
    let narrow = scene.outlet(&[rule("api.example.com", 443, true), rule("*.allowed.example", 443, true)]);
    for authority in ["secret-data.evil.example", "api.example.com.evil.example", "allowed.example", "127.0.0.1"] {
        let outgoing = Outgoing { tls: true, ..get(authority) };
        assert_eq!(scene.failure(&*narrow, outgoing).await.ending, DeniedByRule, "{authority}");
    }
    for (method, tls, authority) in [
        (Method::CONNECT, true, "api.example.com"),
        (Method::TRACE, true, "api.example.com"),
        (Method::GET, false, "api.example.com:443"),
    ] {
        let outgoing = Outgoing { method, tls, ..get(authority) };
        assert_eq!(scene.failure(&*narrow, outgoing).await.ending, DeniedByRule);
    }
    let ceiling = serde_json::from_str(r#"{"rules": [{"host": "api.example.com", "methods": ["GET"]}]}"#).unwrap();
    let capped = Scope { ceiling: Arc::new(ceiling), ..scope(tenant(1), &anything()) };
    let capped = scene.egress.outlet(capped).unwrap();
    for outgoing in [
        Outgoing { tls: true, ..get("public.example") },
        Outgoing { tls: true, ..post("api.example.com", "x") },
        Outgoing { tls: true, ..get("api.example.com:8443") },
        get("api.example.com"),
    ] {
        assert_eq!(scene.failure(&*capped, outgoing).await.ending, DeniedByRule);
    }
    let nothing = Scope { ceiling: Arc::default(), ..scope(tenant(1), &anything()) };
    let nothing = scene.egress.outlet(nothing).unwrap();
    assert_eq!(scene.failure(&*nothing, get("public.example")).await.ending, DeniedByRule);
    assert_eq!((scene.script.asked(), scene.leads.dialled()), (vec![], vec![]));
}

#[tokio::test]
async fn a_name_that_moves_inside_is_refused_even_where_a_connection_is_kept() {
    let scene = Scene::new().await;
    let server = Server::plain(|_| Reply::Say(ok("hello"))).await;
    scene.leads.lead("93.184.216.34:80", server.address);
    scene.leads.lead("127.0.0.1:80", server.address);
    scene.script.answer("moving.example", &["93.184.216.34"]);
    scene.script.answer("moving.example", &["127.0.0.1"]);
    let outlet = scene.outlet(&anything());
    let (status, _, body) = scene.fetch(&*outlet, get("moving.example")).await.unwrap();
    assert_eq!((status, body.as_str()), (200, "hello"));
    // One lookup for the one request: what was checked is what was connected to.
    assert_eq!(scene.script.asked().len(), 1);
    assert_eq!(scene.failure(&*outlet, get("moving.example")).await.ending, DeniedAddress);
    assert_eq!((scene.script.asked().len(), scene.leads.dialled()), (2, vec!["93.184.216.34:80".to_owned()]));
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn redirects_are_not_followed_and_what_they_name_is_checked() {
    let scene = Scene::new().await;
    let location = "http://169.254.169.254/latest/meta-data/";
    let found = format!("HTTP/1.1 302 Found\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n");
    let server = Server::plain(move |_| Reply::Say(found.clone())).await;
    scene.leads.lead("93.184.216.34:80", server.address);
    scene.leads.lead("169.254.169.254:80", server.address);
    scene.script.answer("public.example", &["93.184.216.34"]);
    let outlet = scene.outlet(&anything());
    let (status, headers, _) = scene.fetch(&*outlet, get("public.example")).await.unwrap();
    assert_eq!((status, headers["location"].to_str().unwrap()), (302, location));
    assert_eq!(server.requests().len(), 1);
    let next = Outgoing { target: "/latest/meta-data/".into(), ..get("169.254.169.254") };
    assert_eq!(scene.failure(&*outlet, next).await.ending, DeniedAddress);
    assert_eq!(scene.leads.dialled(), ["93.184.216.34:80"]);
}

#[tokio::test]
async fn the_node_is_not_reached_from_its_own_inside() {
    let own = ["93.184.216.34:443", "0.0.0.0:8443"].map(|own| own.parse().unwrap()).to_vec();
    let config = EgressConfig { own, ..EgressConfig::default() };
    let scene = Scene::with(config, Arc::new(SystemClock::default())).await;
    let here: [IpAddr; 4] = ["93.184.216.35", "93.184.217.35", "127.0.0.1", "127.0.0.2"].map(|at| at.parse().unwrap());
    scene.leads.0.lock().unwrap().here.extend(here);
    let networks = vec!["93.184.217.0/24".into(), "127.0.0.0/8".into()];
    let ceiling = Arc::new(EgressCeiling { networks, ..wide() });
    let outlet = scene.egress.outlet(Scope { ceiling, ..scope(tenant(1), &anything()) }).unwrap();
    for (authority, ending) in [
        ("93.184.216.34:443", DeniedAddress),
        ("93.184.216.34:8443", EgressEnd::ConnectFailed),
        // An address of this machine, though it is public: nothing of it, whoever listens there.
        ("93.184.216.35:8443", DeniedAddress),
        ("93.184.216.35:443", DeniedAddress),
        ("93.184.216.35:80", DeniedAddress),
        // Others of this machine, which the ceiling opens: all but the node itself.
        ("93.184.217.35:443", EgressEnd::ConnectFailed),
        ("93.184.217.35:8443", DeniedAddress),
        ("127.0.0.1:8080", EgressEnd::ConnectFailed),
        ("127.0.0.1:8443", DeniedAddress),
        ("127.0.0.2:8080", EgressEnd::ConnectFailed),
        ("127.0.0.2:8443", DeniedAddress),
    ] {
        assert_eq!(scene.failure(&*outlet, get(authority)).await.ending, ending, "{authority}");
    }
}

#[tokio::test]
async fn what_a_ceiling_opens_is_reached_and_nothing_beside_it() {
    let scene = Scene::new().await;
    let ceiling = EgressCeiling { networks: vec!["10.1.0.0/16".into(), "169.254.0.0/16".into()], ..wide() };
    let outlet = scene.egress.outlet(Scope { ceiling: Arc::new(ceiling), ..scope(tenant(1), &anything()) }).unwrap();
    assert_eq!(scene.failure(&*outlet, get("10.1.2.3")).await.ending, EgressEnd::ConnectFailed);
    for authority in ["10.2.0.1", "127.0.0.1", "169.254.169.254", "[::ffff:10.1.2.3]", "[64:ff9b::a01:203]"] {
        assert_eq!(scene.failure(&*outlet, get(authority)).await.ending, DeniedAddress, "{authority}");
    }
    assert_eq!(scene.leads.dialled(), ["10.1.2.3:80"]);
}
