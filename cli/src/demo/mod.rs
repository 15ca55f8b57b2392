//! `cofferdam demo`: a node with two tenants on embedded defaults, and a tour of what it does.
//!
//! Owns a data directory of its own, which it makes anew each time, and the processes it starts. Must never touch a
//! directory it did not make: it is marked, and an unmarked one is refused.

mod tour;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use clap::Args;
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};

use self::tour::{SECRET, Step, steps};
use crate::failure::Failure;

/// Everything the demo deploys is part of the program.
const FILES: &[(&str, &[u8])] = &[
    ("whoami.wasm", include_bytes!("../../../examples/whoami/whoami.wasm")),
    ("hello-c.wasm", include_bytes!("../../../examples/hello-c/hello-c.wasm")),
    ("faults.wasm", include_bytes!("../../../examples/faults/faults.wasm")),
    ("acme.toml", include_bytes!("acme.toml")),
    ("globex.toml", include_bytes!("globex.toml")),
];

/// People of the demo: name, tenant, role.
const PEOPLE: &[(&str, &str, &str)] = &[
    ("alice", "acme", "invoker"),
    ("bob", "globex", "invoker"),
    ("carol", "acme", "auditor"),
    ("dave", "acme", "viewer"),
];

const MARK: &str = "made-by-cofferdam-demo";

/// Arguments of `cofferdam demo`.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Take the tour, check each expectation, and exit 0 or 1
    #[arg(long)]
    check: bool,
    /// Directory of the demo, made anew each time
    #[arg(long, default_value = ".demo")]
    dir: PathBuf,
    /// Port on localhost; --check takes a free one unless told
    #[arg(long)]
    port: Option<u16>,
}

/// Runs the demo until Ctrl-C, or with `--check` until the tour ends.
pub(crate) fn run(args: &DemoArgs) -> Result<(), Failure> {
    fresh(&args.dir)?;
    let demo = Demo {
        program: std::env::current_exe().map_err(|e| internal("finding this program", &e))?,
        data: args.dir.clone(),
    };
    demo.command(&["init"], None)?;
    let mark = args.dir.join(MARK);
    std::fs::write(&mark, "").map_err(|e| internal("marking the directory", &e))?;
    let port = args.port.unwrap_or(if args.check { 0 } else { 8443 });
    let (mut server, url) = demo.serve(port)?;
    demo.deploy(&url)?;
    demo.tour(&url, args.check)?;
    if args.check { Ok(()) } else { stay(&mut server) }
}

/// Stays until Ctrl-C, SIGTERM or the node's own end, and gives the node the time to stop well.
fn stay(server: &mut Server) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| internal("starting the runtime", &e))?;
    runtime.block_on(async {
        let hear = |kind| signal(kind).map_err(|e| internal("listening for signals", &e));
        let (mut interrupt, mut terminate) = (hear(SignalKind::interrupt())?, hear(SignalKind::terminate())?);
        let mut look = tokio::time::interval(Duration::from_millis(250));
        loop {
            tokio::select! {
                _ = interrupt.recv() => break,
                _ = terminate.recv() => break,
                _ = look.tick() => match server.0.try_wait() {
                    Ok(None) => {}
                    _ => break,
                },
            }
        }
        Ok::<(), Failure>(())
    })?;
    match server.stop() {
        Some(status) if status.success() => Ok(()),
        status => Err(Failure::internal(format!("the node did not end well: {status:?}"))),
    }
}

/// Makes the directory anew, but only one of the demo's own making.
fn fresh(dir: &Path) -> Result<(), Failure> {
    if !dir.exists() {
        return Ok(());
    }
    if !dir.join(MARK).is_file() {
        return Err(Failure::usage(format!(
            "`{}` is there and was not made by the demo: name another with --dir, or remove it",
            dir.display()
        )));
    }
    std::fs::remove_dir_all(dir).map_err(|e| internal("removing the last demo", &e))
}

fn internal(doing: &str, error: &dyn std::fmt::Display) -> Failure {
    Failure::internal(format!("{doing}: {error}"))
}

struct Demo {
    program: PathBuf,
    data: PathBuf,
}

/// The serving process; asked to stop when dropped.
struct Server(Child);

impl Server {
    /// Asks it to stop, unless it has ended, and waits; gives how it ended.
    fn stop(&mut self) -> Option<ExitStatus> {
        if let Ok(None) = self.0.try_wait() {
            let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        }
        self.0.wait().ok()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}

impl Demo {
    /// Runs one of our own commands, as a user would, with `input` on its standard input.
    fn command(&self, arguments: &[&str], input: Option<&[u8]>) -> Result<String, Failure> {
        let mut command = Command::new(&self.program);
        command.args(arguments).arg("--data").arg(&self.data).stdout(Stdio::piped());
        command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
        let mut child = command.spawn().map_err(|e| internal("starting a command", &e))?;
        if let (Some(bytes), Some(mut stdin)) = (input, child.stdin.take()) {
            stdin.write_all(bytes).map_err(|e| internal("writing to a command", &e))?;
        }
        let output = child.wait_with_output().map_err(|e| internal("waiting for a command", &e))?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            Err(Failure::internal(format!("`cofferdam {}` ended with {}", arguments.join(" "), output.status)))
        }
    }

    /// Starts the node and waits until it listens; gives its address.
    fn serve(&self, port: u16) -> Result<(Server, String), Failure> {
        let mut child = Command::new(&self.program)
            .args(["serve", "--json", "--listen", &format!("127.0.0.1:{port}"), "--data"])
            .arg(&self.data)
            // The tour is to be read, not searched for between the node's own lines.
            .env("COFFERDAM_LOG", std::env::var("COFFERDAM_LOG").unwrap_or_else(|_| "error".into()))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| internal("starting the node", &e))?;
        let lines = BufReader::new(child.stdout.take().ok_or_else(|| Failure::internal("no output".into()))?).lines();
        let server = Server(child);
        for line in lines.map_while(Result::ok) {
            let event: Value = serde_json::from_str(&line).unwrap_or_default();
            let heard = event.get("listening").and_then(Value::as_str).and_then(|a| a.rsplit(':').next());
            if let Some(port) = heard {
                return Ok((server, format!("https://localhost:{port}")));
            }
        }
        Err(Failure::internal("the node ended before it listened; its last words are above".into()))
    }

    fn deploy(&self, url: &str) -> Result<(), Failure> {
        let folder = self.data.join("demo");
        std::fs::create_dir_all(&folder).map_err(|e| internal("making the demo's folder", &e))?;
        for (name, bytes) in FILES {
            std::fs::write(folder.join(name), bytes).map_err(|e| internal("writing the demo's files", &e))?;
        }
        for tenant in ["acme", "globex"] {
            self.command(&["tenant", "create", tenant, "--url", url], None)?;
            let manifest = folder.join(format!("{tenant}.toml"));
            self.command(&["apply", &manifest.display().to_string(), "--url", url], None)?;
        }
        self.command(&["secret", "set", "acme/whoami", "API_SECRET", "--url", url], Some(SECRET.as_bytes()))?;
        for (name, tenant, role) in PEOPLE {
            let token = self.command(&["token", "--tenant", tenant, "--subject", name, "--role", role], None)?;
            let token = token.trim();
            let write = |file: String, text: &str| std::fs::write(folder.join(file), text);
            write(format!("{name}.token"), token)
                .and_then(|()| write((*name).to_owned(), &format!("authorization: Bearer {token}\n")))
                .map_err(|e| internal("writing a token", &e))?;
        }
        Ok(())
    }

    fn tour(&self, url: &str, check: bool) -> Result<(), Failure> {
        let program = std::env::current_dir()
            .ok()
            .and_then(|here| self.program.strip_prefix(here).ok())
            .map_or_else(|| self.program.display().to_string(), |short| short.display().to_string());
        let steps = steps(&program, &self.data, url);
        if check { self.check(&steps, url) } else { self.print(&steps, url) }
    }

    fn print(&self, steps: &[Step], url: &str) -> Result<(), Failure> {
        let mut out = std::io::stdout().lock();
        let mut say = |text: String| writeln!(out, "{text}").map_err(|e| internal("printing", &e));
        say(format!(
            "\nCofferdam is serving two tenants on {url}. Take the tour in another terminal, from this directory:\n"
        ))?;
        say(format!("export COFFERDAM_URL={url}\n"))?;
        for (number, step) in (1..).zip(steps) {
            say(format!("{number}. {}\n\n{}\n\n   expect: {}\n", step.title, step.shell, step.expect))?;
        }
        say("Ctrl-C ends the demo.".into())
    }

    fn check(&self, steps: &[Step], url: &str) -> Result<(), Failure> {
        let mut failed = 0;
        for (number, step) in (1..).zip(steps) {
            let output = Command::new("sh")
                .args(["-c", &step.shell])
                .env("COFFERDAM_URL", url)
                .output()
                .map_err(|e| internal("running a step", &e))?;
            let said =
                format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            let missing: Vec<_> = step.must.iter().filter(|text| !said.contains(**text)).collect();
            let leaked: Vec<_> = step.must_not.iter().filter(|text| said.contains(**text)).collect();
            let held = missing.is_empty() && leaked.is_empty();
            println!("{} {number}. {}", if held { "ok  " } else { "FAIL" }, step.title);
            if !held {
                failed += 1;
                println!(
                    "{}\n--- it printed:\n{said}\n--- missing: {missing:?}, must not be there: {leaked:?}",
                    step.shell
                );
            }
        }
        println!("{} passed, {failed} failed", steps.len() - failed);
        if failed == 0 { Ok(()) } else { Err(Failure::internal(format!("{failed} steps of the tour did not hold"))) }
    }
}
