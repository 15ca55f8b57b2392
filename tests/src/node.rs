//! A node on a directory of its own, as a process that can be asked to stop and can be killed.
//!
//! Owns its life and its command line. Must never end a process it did not start.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::JoinHandle;

use serde_json::Value;
use tempfile::TempDir;

use crate::client::{Broken, Client};
use crate::guests::binary;

/// The directory of a node: keys, state, artifacts, log. Outlives the processes that serve it.
pub struct Site {
    folder: TempDir,
}

impl Site {
    /// Makes one with `cofferdam init`.
    pub fn init() -> Result<Self, Broken> {
        Self::init_with(&[])
    }

    /// The same with further arguments.
    pub fn init_with(arguments: &[&str]) -> Result<Self, Broken> {
        let site = Self { folder: tempfile::tempdir()? };
        site.run(&[&["init"], arguments].concat())?;
        Ok(site)
    }

    /// Makes one whose certificate is good for these hosts, too.
    pub fn init_for(hosts: &[&str]) -> Result<Self, Broken> {
        let site = Self { folder: tempfile::tempdir()? };
        let hosts = hosts.iter().flat_map(|host| ["--host", host]);
        site.run(&std::iter::once("init").chain(hosts).collect::<Vec<_>>())?;
        Ok(site)
    }

    /// Where it is.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// A file beside the data directory.
    pub fn file(&self, name: &str, text: &str) -> Result<PathBuf, Broken> {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text)?;
        Ok(path)
    }

    /// Runs a `cofferdam` command on it, whatever its exit code.
    pub fn try_run(&self, arguments: &[&str]) -> Result<Output, Broken> {
        let mut command = Command::new(binary("cofferdam"));
        command.args(arguments).arg("--data").arg(self.data()).env_remove("COFFERDAM_URL").stdin(Stdio::null());
        Ok(command.output()?)
    }

    /// The same with a line of standard input.
    pub fn try_run_with(&self, arguments: &[&str], line: &str) -> Result<Output, Broken> {
        let mut command = Command::new(binary("cofferdam"));
        command.args(arguments).arg("--data").arg(self.data()).env_remove("COFFERDAM_URL");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        // Dropped at once, which ends the input.
        writeln!(child.stdin.take().ok_or("no stdin")?, "{line}")?;
        Ok(child.wait_with_output()?)
    }

    /// Runs a `cofferdam` command on it that must succeed; gives its standard output.
    pub fn run(&self, arguments: &[&str]) -> Result<String, Broken> {
        let output = self.try_run(arguments)?;
        if output.status.success() {
            Ok(String::from_utf8(output.stdout)?)
        } else {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            Err(format!("`cofferdam {}` ended with {}: {said}", arguments.join(" "), output.status).into())
        }
    }

    /// A token of the development issuer, as an `authorization` value.
    pub fn token(&self, tenant: &str, subject: &str, role: &str) -> Result<String, Broken> {
        let token = self.run(&["token", "--tenant", tenant, "--subject", subject, "--role", role])?;
        Ok(format!("Bearer {}", token.trim()))
    }

    /// Every record of the log, oldest first.
    pub fn records(&self) -> Result<Vec<Value>, Broken> {
        let exported = self.run(&["audit", "export"])?;
        Ok(exported.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
    }
}

/// A serving process.
pub struct Node {
    child: Child,
    complaints: Option<JoinHandle<String>>,
    /// Port it listens on.
    pub port: u16,
    certificate: PathBuf,
}

impl Node {
    /// Starts a node and waits until it listens.
    pub fn start(site: &Site) -> Result<Self, Broken> {
        Self::start_with(site, &[])
    }

    /// Starts a node with further arguments.
    pub fn start_with(site: &Site, arguments: &[&str]) -> Result<Self, Broken> {
        // In a session of its own, so that the kernel shares the processors between the node and its callers as between
        // programs that have nothing to do with each other.
        let mut child = Command::new("setsid")
            .arg(binary("cofferdam"))
            .args(["serve", "--json", "--listen", "127.0.0.1:0", "--data"])
            .arg(site.data())
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let stderr = child.stderr.take().ok_or("no stderr")?;
        let complaints = std::thread::spawn(move || {
            let mut said = String::new();
            let _ = BufReader::new(stderr).read_to_string(&mut said);
            said
        });
        let mut lines = BufReader::new(child.stdout.take().ok_or("no stdout")?).lines();
        let port = lines.find_map(|line| {
            let event: Value = serde_json::from_str(&line.ok()?).ok()?;
            event.get("listening")?.as_str()?.rsplit(':').next()?.parse().ok()
        });
        let Some(port) = port else {
            let status = child.wait()?;
            return Err(format!("the node ended with {status}: {}", complaints.join().unwrap_or_default()).into());
        };
        std::thread::spawn(move || lines.for_each(drop));
        Ok(Self { child, complaints: Some(complaints), port, certificate: site.data().join("tls/cert.pem") })
    }

    /// The node's address as commands take it.
    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.port)
    }

    /// Its certificate.
    pub fn certificate(&self) -> &Path {
        &self.certificate
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A new connection.
    pub async fn client(&self) -> Result<Client, Broken> {
        Client::connect(self.port, &self.certificate).await
    }

    /// Runs a `cofferdam` command against it that must succeed.
    pub fn run(&self, site: &Site, arguments: &[&str]) -> Result<String, Broken> {
        site.run(&[arguments, &["--url", &self.url()]].concat())
    }

    /// Ends it without a word, as a power cut would.
    pub fn kill(mut self) -> Result<(), Broken> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to stop, and waits until it has; gives whether it ended well.
    pub fn stop(mut self) -> Result<bool, Broken> {
        let pid = self.child.id().to_string();
        Command::new("kill").args(["-TERM", &pid]).status()?;
        Ok(self.child.wait()?.success())
    }
}

impl Node {
    /// Asks it to stop, and gives whether it ended well and everything it said on standard error.
    pub fn stop_and_tell(mut self) -> Result<(bool, String), Broken> {
        Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status()?;
        let ended_well = self.child.wait()?.success();
        let said = self.complaints.take().and_then(|said| said.join().ok()).unwrap_or_default();
        Ok((ended_well, said))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
