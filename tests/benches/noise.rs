//! The noisy tenant's callers, and the server outside that its functions ask: a process of their own, which has no
//! precedence over the node but the opposite.
//!
//! They stand for other machines, whose work costs the node nothing: what they do here may only take what the node
//! leaves, or their own work would be measured as the node's.

use std::io::{BufRead, BufReader, Lines, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use cofferdam_tests::outside::Outside;
use cofferdam_tests::{Broken, Client, Node};
use http::StatusCode;

/// Argument that makes this program that process.
pub(crate) const ROLE: &str = "noise";
/// Connections of the noisy tenant, each calling as fast as it is answered: as many as its function takes at once.
const CONNECTIONS: usize = 64;
/// What a caller waits that is told to come back later.
const BACK_OFF: Duration = Duration::from_millis(10);

/// That process, as the bench holds it.
pub(crate) struct Noise {
    child: Child,
    to: ChildStdin,
    from: Lines<BufReader<ChildStdout>>,
    /// Port of the server outside.
    pub(crate) port: u16,
    /// Where its certificate is.
    pub(crate) certificate: String,
}

impl Noise {
    /// Starts it.
    pub(crate) fn start() -> Result<Self, Broken> {
        // In a session of its own: that is what the kernel shares the processors between.
        let mut child = Command::new("setsid")
            .arg(std::env::current_exe()?)
            .arg(ROLE)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (to, from) = (child.stdin.take().ok_or("no stdin")?, child.stdout.take().ok_or("no stdout")?);
        let mut from = BufReader::new(from).lines();
        let said = from.next().ok_or("the noise ended early")??;
        let (port, certificate) = said.split_once('\t').ok_or("an odd greeting")?;
        let (port, certificate) = (port.parse()?, certificate.to_owned());
        Ok(Self { child, to, from, port, certificate })
    }

    /// Has it call a path of a node until it is told to stop.
    pub(crate) fn begin(&mut self, node: &Node, token: &str, path: &str) -> Result<(), Broken> {
        let (port, certificate) = (node.port, node.certificate().display());
        Ok(writeln!(self.to, "{port}\t{certificate}\t{token}\t{path}")?)
    }

    /// Has it stop, and tells how many calls were answered and what the server outside was asked so far.
    pub(crate) fn end(&mut self) -> Result<(usize, usize), Broken> {
        writeln!(self.to)?;
        let said = self.from.next().ok_or("the noise ended early")??;
        let (calls, asked) = said.split_once('\t').ok_or("an odd count")?;
        Ok((calls.parse()?, asked.parse()?))
    }
}

impl Drop for Noise {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What that process does: one line of standard input begins a noise, an empty one ends it.
pub(crate) async fn run() -> Result<(), Broken> {
    let _ = std::fs::write("/proc/self/autogroup", "19");
    let outside = Outside::start().await?;
    println!("{}\t{}", outside.port, outside.certificate().display());
    let mut lines = std::io::stdin().lines();
    while let Some(line) = lines.next() {
        let line = line?;
        let [port, certificate, token, path] = line.split('\t').collect::<Vec<_>>()[..] else {
            return Err("an odd order".into());
        };
        let (stop, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut callers = Vec::new();
        for _ in 0..CONNECTIONS {
            let client = Client::connect(port.parse()?, certificate.as_ref()).await?.with(token);
            callers.push(tokio::spawn(call(client, path.to_owned(), stop.clone(), calls.clone())));
        }
        tokio::task::block_in_place(|| lines.next().transpose())?;
        stop.store(true, Relaxed);
        for caller in callers {
            caller.await?;
        }
        println!("{}\t{}", calls.load(Relaxed), outside.asked());
    }
    Ok(())
}

async fn call(mut client: Client, path: String, stop: Arc<AtomicBool>, calls: Arc<AtomicUsize>) {
    while !stop.load(Relaxed) {
        let answer = client.get(&path).await.expect("some answer");
        calls.fetch_add(1, Relaxed);
        if answer.status == StatusCode::TOO_MANY_REQUESTS {
            tokio::time::sleep(BACK_OFF).await;
        }
    }
}
