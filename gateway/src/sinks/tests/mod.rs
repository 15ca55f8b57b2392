//! Sinks, tried against receivers of their protocols: real TLS, started by the test.

mod arrival;
mod bucket;
mod receivers;
mod server;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use cofferdam_audit::query::{Filter, export};
use cofferdam_audit::{LogConfig, Note, Signer};
use cofferdam_model::random::SeededRandom;
use cofferdam_model::{OsRandom, SystemClock};

use super::*;
use server::{Does, Pki, Script, Seen, https};

/// A log, and what its sinks are made of.
struct Place {
    dir: tempfile::TempDir,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Signer::create(&dir.path().join("key"), "cofferdam.test/node", &SeededRandom::new(3)).unwrap();
        Self { dir, clock: Arc::new(SystemClock::default()), random: Arc::new(OsRandom) }
    }

    fn log_dir(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    fn open(&self) -> Log {
        let signer = Signer::load(&self.dir.path().join("key")).unwrap();
        let config = LogConfig::new(self.log_dir(), "cofferdam.test/node");
        Log::open(config, signer, self.clock.clone(), self.random.clone()).unwrap().0
    }

    fn try_start(&self, log: &Log, sinks: &str) -> Result<Sinks, SinkError> {
        let text = format!("origin = \"cofferdam.test/node\"\n{sinks}");
        let config = crate::config::ServerConfig::parse(&text, &self.dir.path().join("node.toml")).unwrap();
        Sinks::start(&config.audit.sinks, log, &self.clock, &self.random)
    }

    fn start(&self, log: &Log, sinks: &str) -> Sinks {
        self.try_start(log, sinks).unwrap()
    }

    /// Every line of the log.
    fn lines(&self) -> Vec<String> {
        let mut out = Vec::new();
        export(&self.log_dir(), &Filter::default(), &mut out).unwrap();
        String::from_utf8(out).unwrap().lines().map(str::to_owned).collect()
    }

    /// Events of a kind that the log has.
    fn events(&self, kind: &str) -> Vec<String> {
        let mark = format!("\"event\":\"{kind}\"");
        self.lines().into_iter().filter(|line| line.contains(&mark)).collect()
    }
}

/// Settings of a sink; what its destination is comes last.
fn sink(name: &str, more: &str, to: &str) -> String {
    format!("[[audit.sinks]]\nname = \"{name}\"\nbatch_ms = 10\n{more}\n[audit.sinks.to.{to}\n")
}

fn webhook(pki: &Pki, port: u16, more: &str) -> String {
    format!("webhook]\nurl = \"https://localhost:{port}/in?x=1\"\ntls = {{ ca = {:?} }}\n{more}", pki.path("ca.pem"))
}

/// Adds records, and waits until they are durable.
async fn notes(log: &Log, range: std::ops::Range<usize>) {
    for number in range {
        log.note(Note::Event { kind: "test".into(), detail: format!("number={number}") }).await.unwrap();
    }
}

/// Looks until it is so.
async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let looking = async {
        while !is() {
            tokio::task::yield_now().await;
        }
    };
    let looked = tokio::time::timeout(Duration::from_secs(60), looking).await;
    assert!(looked.is_ok(), "never {what}");
}

/// Lines that were acknowledged.
type Arrived = Arc<Mutex<Vec<String>>>;

fn keep(arrived: &Arrived, body: &[u8]) {
    let text = String::from_utf8(body.to_vec()).unwrap();
    assert!(text.ends_with('\n'));
    arrived.lock().unwrap().extend(text.lines().map(str::to_owned));
}

/// Takes everything.
fn taking(arrived: &Arrived) -> Script {
    let arrived = arrived.clone();
    Arc::new(move |seen: &Seen| {
        keep(&arrived, &seen.body);
        Does::status(204)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_a_sink_is_refused_by_name_before_anything_is_sent() {
    let (place, pki) = (Place::new(), Pki::new());
    let parse = |text: &str| {
        let text = format!("origin = \"a/b\"\n{text}");
        let parsed = crate::config::ServerConfig::parse(&text, std::path::Path::new("/n/node.toml"));
        parsed.map(|_| ()).unwrap_err().to_string()
    };
    let file = "file]\npath = \"x\"";
    for (text, says) in [
        (sink("A B", "", file), "/n/node.toml:3:8: sink `A B`: its name is not one"),
        (sink("a", "", file) + &sink("a", "", file), "sink `a`: another sink has the same name"),
        (sink("a", "kinds = [\"call\", \"cal\"]", file), "node.toml:5:9: sink `a`: `cal` is no kind of record"),
        (sink("a", "tenants = [\"acme\"]", file), "`acme` is no id of a tenant"),
        (sink("a", "batch_records = 0", file), "`batch_records` must be from 1 to 10000"),
        (sink("a", "from = \"end\"", file), "unknown variant"),
        (sink("a", "form = \"jsonl\"", file), "unknown field `form`"),
        (sink("a", "", "webhook]\nurl = \"http://a/\""), "only `https` is spoken"),
        (sink("a", "", "webhook]\nurl = \"https://a/\"\ntls = { key = \"k\" }"), "needs its key"),
        (sink("a", "", "syslog]\naddress = \"siem.example\""), "`address` is none"),
        (sink("a", "", "syslog]\naddress = \"a:6514\"\nfacility = 24"), "`facility` must be from 0 to 23"),
        (
            sink("a", "", "s3]\nbucket = \"b/c\"\nregion = \"eu\"\ncredentials_file = \"c\""),
            "`bucket` does not name one",
        ),
        (
            sink("a", "", "s3]\nbucket = \"bbb\"\nregion = \"eu\"\nprefix = \"a/../b\"\ncredentials_file = \"c\""),
            "`prefix` cannot begin the name of an object",
        ),
    ] {
        let said = parse(&text);
        assert!(said.contains(says), "{said}\nfor\n{text}");
    }
    let many: String = (0..17).map(|number| sink(&format!("s{number}"), "", file)).collect();
    assert!(parse(&many).contains("more than 16 sinks"));

    let log = place.open();
    let refused = |more: &str| {
        let error = place.try_start(&log, &sink("hook", "", &webhook(&pki, 9, more))).map(|_| ()).unwrap_err();
        format!("{error}: {}", std::error::Error::source(&error).unwrap())
    };
    std::fs::write(pki.dir.path().join("open"), "0123456789abcdef").unwrap();
    let open = refused(&format!("secret_file = {:?}", pki.path("open")));
    assert!(open.contains("sink `hook` cannot be set up") && open.contains("restrict it with `chmod 600`"), "{open}");
    pki.private("weak", "too-short");
    assert!(refused(&format!("secret_file = {:?}", pki.path("weak"))).contains("less than 16 bytes"));
    assert!(refused("authorization_file = \"nowhere\"").contains("cannot read the credential"));
    assert_eq!(place.lines().len(), 0);
}
