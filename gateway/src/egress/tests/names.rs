//! Evidence for names: over real datagrams, of a server of the test.

use super::*;
use crate::egress::names::Dns;

use tokio::net::UdpSocket;

const A: u16 = 1;
const AAAA: u16 = 28;

/// Answers questions as it is told, and keeps what it was asked.
async fn server(
    answer: impl Fn(&str, u16) -> Option<Vec<IpAddr>> + Send + 'static,
) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let socket = UdpSocket::bind(("127.0.0.1", 0)).await.unwrap();
    let address = socket.local_addr().unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let kept = asked.clone();
    tokio::spawn(async move {
        let mut packet = [0; 1500];
        loop {
            let (length, from) = socket.recv_from(&mut packet).await.unwrap();
            let (name, kind, end) = question(&packet[..length]);
            kept.lock().unwrap().push(name.clone());
            let found = answer(&name, kind);
            let mut reply = packet[..end].to_vec();
            let code = if found.is_some() { 0 } else { 3 };
            let found = found.unwrap_or_default();
            reply[2..4].copy_from_slice(&[0x81, 0x80 | code]);
            reply[6..12].copy_from_slice(&[0, u8::try_from(found.len()).unwrap(), 0, 0, 0, 0]);
            for address in found {
                // A pointer to the name asked for, its kind, class, time to live, and the address.
                reply.extend_from_slice(&[0xc0, 12, 0, u8::try_from(kind).unwrap(), 0, 1, 0, 0, 0, 60]);
                let bytes = match address {
                    IpAddr::V4(address) => address.octets().to_vec(),
                    IpAddr::V6(address) => address.octets().to_vec(),
                };
                reply.extend_from_slice(&[0, u8::try_from(bytes.len()).unwrap()]);
                reply.extend_from_slice(&bytes);
            }
            socket.send_to(&reply, from).await.unwrap();
        }
    });
    (address, asked)
}

/// The name and kind asked for, and where the question ends.
fn question(packet: &[u8]) -> (String, u16, usize) {
    let (mut at, mut labels) = (12, Vec::new());
    while packet[at] != 0 {
        let length = usize::from(packet[at]);
        labels.push(String::from_utf8(packet[at + 1..at + 1 + length].to_vec()).unwrap());
        at += 1 + length;
    }
    (labels.join("."), u16::from_be_bytes([packet[at + 1], packet[at + 2]]), at + 5)
}

#[tokio::test]
async fn names_are_asked_of_the_servers_named_as_they_stand_and_in_both_families() {
    let (address, asked) = server(|name, kind| match (name, kind) {
        ("api.example.com", A) => Some(vec!["93.184.216.34".parse().unwrap(), "10.0.0.1".parse().unwrap()]),
        ("api.example.com", AAAA) => Some(vec!["2606:2800:220:1::1".parse().unwrap()]),
        ("four.example.com", A) => Some(vec!["93.184.216.34".parse().unwrap()]),
        ("four.example.com", AAAA) => Some(Vec::new()),
        ("many.example.com", A) => Some((1..=40).map(|last| IpAddr::from([93, 184, 216, last])).collect()),
        _ => None,
    })
    .await;
    let hosts = BTreeMap::from([("written.example.com".to_owned(), vec!["10.1.2.3".parse().unwrap()])]);
    let names = Dns::new(&[address], hosts).unwrap();
    let mut found = names.lookup("api.example.com").await.unwrap();
    found.sort_unstable();
    let all: [IpAddr; 3] = ["10.0.0.1", "93.184.216.34", "2606:2800:220:1::1"].map(|address| address.parse().unwrap());
    assert_eq!(found, all);
    assert_eq!(names.lookup("four.example.com").await.unwrap(), ["93.184.216.34".parse::<IpAddr>().unwrap()]);
    assert!(names.lookup("many.example.com").await.unwrap_err().0.contains("more than 32"));
    assert!(names.lookup("nowhere").await.is_err());
    // From the node's settings, without asking anybody.
    let before = asked.lock().unwrap().len();
    assert_eq!(names.lookup("written.example.com").await.unwrap(), ["10.1.2.3".parse::<IpAddr>().unwrap()]);
    // Remembered for as long as the answer says.
    names.lookup("api.example.com").await.unwrap();
    assert_eq!(asked.lock().unwrap().len(), before);
    let asked: std::collections::BTreeSet<String> = asked.lock().unwrap().drain(..).collect();
    // No search list has added anything.
    let expected = ["api.example.com", "four.example.com", "many.example.com", "nowhere"].map(str::to_owned);
    assert_eq!(asked, expected.into());
}

#[tokio::test]
async fn what_the_resolver_says_is_checked_like_everything_else() {
    let (address, _) =
        server(|_, kind| Some(if kind == A { vec!["127.0.0.1".parse().unwrap()] } else { Vec::new() })).await;
    let config = EgressConfig { resolvers: vec![address], ..EgressConfig::default() };
    let egress = Egress::new(config, Arc::new(SystemClock::default())).unwrap();
    let scene = Scene::new().await;
    let outlet = egress.outlet(scope(tenant(1), &anything())).unwrap();
    for authority in ["rebound.example.com", "localhost", "a.localhost"] {
        assert_eq!(scene.failure(&*outlet, get(authority)).await.ending, EgressEnd::DeniedAddress, "{authority}");
    }
    let unheard = EgressConfig {
        hosts: BTreeMap::from([("written.example.com".to_owned(), vec!["127.0.0.1".parse().unwrap()])]),
        ..EgressConfig::default()
    };
    let egress = Egress::new(unheard, Arc::new(SystemClock::default())).unwrap();
    let outlet = egress.outlet(scope(tenant(1), &anything())).unwrap();
    assert_eq!(scene.failure(&*outlet, get("written.example.com")).await.ending, EgressEnd::DeniedAddress);
}

#[test]
fn the_way_out_opens_before_there_is_a_runtime() {
    assert!(Egress::new(EgressConfig::default(), Arc::new(SystemClock::default())).is_ok());
}
