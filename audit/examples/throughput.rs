//! Measures how many calls a second can be recorded durably, at several numbers of calls in flight, with one sync at a
//! time and with two.
//!
//! Owns nothing and must never be taken for a benchmark of the node: it runs the log alone, on the disk of the
//! directory given (or the system's temporary one).

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cofferdam_audit::{Log, LogConfig, Signer, verify};
use cofferdam_model::{
    CallFacts, Circumstances, Clock, Ending, Level, Origin, OsRandom, OutcomeFacts, Reply, RequestId, Subject,
    SystemClock, TlsVersion, Usage, Way,
};

const ORIGIN: &str = "cofferdam.local/throughput";
const RECORDS: usize = 40_000;

struct Call(CallFacts);

impl Subject for Call {
    fn facts(&self) -> CallFacts {
        self.0.clone()
    }

    fn level(&self) -> Level {
        Level::Standard
    }
}

struct Answer;

impl Reply for Answer {
    fn outcome(&self) -> OutcomeFacts {
        OutcomeFacts {
            status: 200,
            origin: Origin::Function,
            ending: Ending::Answered,
            code: None,
            usage: Usage::default(),
            body: None,
            streamed: false,
            cell: None,
            isolation: None,
            way: Way::default(),
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let base = std::env::args_os().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let home = tempfile::tempdir_in(base)?;
    for (in_flight, syncs) in [1, 16, 64, 256, 1024].into_iter().flat_map(|each| [(each, 1), (each, 2)]) {
        let name = format!("{in_flight}-{syncs}");
        let dir = home.path().join(format!("log-{name}"));
        let signer = Signer::create(&home.path().join(format!("key-{name}")), ORIGIN, &OsRandom)?;
        let vkey = signer.verifier_key();
        let clock = Arc::new(SystemClock::default());
        let (log, _) =
            Log::open(LogConfig { syncs, ..LogConfig::new(&dir, ORIGIN) }, signer, clock.clone(), Arc::new(OsRandom))?;
        let records = if in_flight == 1 { RECORDS / 40 } else { RECORDS };
        let took = tokio::runtime::Builder::new_current_thread().build()?.block_on(measure(
            &log,
            &*clock,
            in_flight,
            records / in_flight,
        ))?;
        drop(log);
        let verified = verify::verify(&dir, &vkey)?;
        let rate = verified.size as f64 / took.as_secs_f64();
        let size = verified.size;
        println!("{in_flight:5} in flight, {syncs} at a time: {rate:8.0} records/s ({size} records, {took:.2?})");
    }
    Ok(())
}

async fn measure(log: &Log, clock: &dyn Clock, in_flight: usize, each: usize) -> Result<Duration, Box<dyn Error>> {
    let circumstances = Circumstances {
        request: RequestId::mint(&OsRandom),
        at: clock.now(),
        source: "192.0.2.1".parse()?,
        tls: TlsVersion::Tls13,
        method: "GET".into(),
        host: "api.example.com".into(),
        path: "/v1/orders/12345".into(),
        connection: None,
        headers: None,
    };
    let start = clock.monotonic();
    let tasks: Vec<_> = (0..in_flight)
        .map(|_| {
            let (log, facts) = (log.clone(), CallFacts::of(&circumstances));
            tokio::spawn(async move {
                for _ in 0..each {
                    log.enter(Call(facts.clone()))?.close(Answer).await?.into_value();
                }
                Ok::<(), cofferdam_audit::AuditError>(())
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    Ok(clock.monotonic().saturating_sub(start))
}
