//! One cell process, from its start to the moment it serves.
//!
//! Owns how a cell is started, told what it is and ended. Must never give it an environment, an argument, a
//! descriptor or a directory it does not need, and never wait for it without a limit.

use std::ffi::OsStr;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use cofferdam_model::frame::{self, HEADER_BYTES, Header, Kind};
use cofferdam_model::{CellId, FunctionLimits, Isolation};
use rustix::cmsg_space;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::cells::{Place, Share};
use crate::cgroup::{Cgroup, Cgroups};
use crate::error::SandboxError;
use crate::logs::escape;

/// Bytes of a program's standard error that are looked at.
pub(crate) const COMPLAINT_BYTES: u64 = 4096;
/// Most bytes a cell may say about why it cannot load a version.
const REASON_BYTES: usize = 4096;
/// How long the words of a dead process are waited for.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// Starts cells. A trait so that tests can put something else in a process's place.
pub(crate) trait Spawn: Send + Sync {
    /// Starts one; it is to say `Ready` on the socket.
    fn spawn(&self) -> Result<(UnixStream, Process), SandboxError>;
}

/// Starts the worker program.
pub(crate) struct Program {
    /// Absolute path of it.
    pub(crate) path: PathBuf,
}

impl Spawn for Program {
    fn spawn(&self) -> Result<(UnixStream, Process), SandboxError> {
        let failed = |source| SandboxError::Program { path: self.path.clone(), source };
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(failed)?;
        ours.set_nonblocking(true).map_err(failed)?;
        let mut child = bare(&self.path)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let complaint = child.stderr.take().map(|stderr| tokio::spawn(listen(stderr)));
        let weigh = child.id().map(weigh);
        let process = Process { child: Some(child), complaint, weigh, ..Process::default() };
        Ok((UnixStream::from_std(ours).map_err(failed)?, process))
    }
}

/// A command that inherits nothing: no environment, no directory. What it starts leaves the terminal's session by
/// itself, which the leader of a process group could not.
pub(crate) fn bare(path: &Path) -> Command {
    let mut command = Command::new::<&OsStr>(path.as_ref());
    command.env_clear().current_dir("/").kill_on_drop(true);
    command
}

/// Collects the first words of a program's standard error, then closes it.
pub(crate) async fn listen(stderr: impl tokio::io::AsyncRead + Unpin) -> String {
    let mut words = Vec::new();
    // Words cut short are as good as any.
    let _ = stderr.take(COMPLAINT_BYTES).read_to_end(&mut words).await;
    escape(words.trim_ascii())
}

/// Reads how much memory a cell holds, in bytes; nothing where that cannot be known. Must not block.
pub(crate) type Weigh = Arc<dyn Fn() -> Option<u64> + Send + Sync>;

/// Resident memory of the jailed process below a guardian.
fn weigh(guardian: u32) -> Weigh {
    let jailed = OnceLock::new();
    Arc::new(move || {
        if jailed.get().is_none() {
            let children = std::fs::read_to_string(format!("/proc/{guardian}/task/{guardian}/children")).ok()?;
            let _ = jailed.set(children.split_whitespace().next()?.parse::<u32>().ok()?);
        }
        let status = std::fs::read_to_string(format!("/proc/{}/status", jailed.get()?)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kib.saturating_mul(1024))
    })
}

/// What is behind a cell's socket.
pub(crate) struct Process {
    child: Option<Child>,
    complaint: Option<JoinHandle<String>>,
    weigh: Option<Weigh>,
    cgroup: Option<Cgroup>,
    /// The isolation it can reach at most, whatever it says of itself.
    most: Isolation,
    /// Its tenant's right to it, once it is somebody's.
    share: Option<Share>,
    /// Its place among the cells that may be alive at once.
    pub(crate) place: Option<Place>,
}

impl Default for Process {
    fn default() -> Self {
        let most = Isolation::Full;
        Self { child: None, complaint: None, weigh: None, cgroup: None, most, share: None, place: None }
    }
}

impl Process {
    /// Nothing but something that tells what it holds, for tests.
    #[cfg(test)]
    pub(crate) fn weighing(weigh: Weigh) -> Self {
        Self { weigh: Some(weigh), ..Self::default() }
    }

    /// What reads how much memory it holds.
    pub(crate) fn weigh(&self) -> Option<Weigh> {
        self.weigh.clone()
    }

    /// Puts it into a control group of its own, where there are such. Takes the kernel a moment.
    pub(crate) async fn enter(&mut self, groups: &Arc<Cgroups>, id: &CellId) {
        if let Some(pid) = self.child.as_ref().and_then(Child::id) {
            let (groups, id) = (groups.clone(), id.clone());
            self.cgroup = tokio::task::spawn_blocking(move || groups.place(&id, pid)).await.unwrap_or_default();
            if self.cgroup.is_none() {
                self.most = Isolation::Reduced;
            }
        }
    }

    /// Whether it has ended.
    fn has_ended(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| !matches!(child.try_wait(), Ok(None)))
    }

    /// Waits for it to end by itself.
    pub(crate) async fn ended(&mut self) {
        match &mut self.child {
            // An error here means there is nothing left to wait for.
            Some(child) => drop(child.wait().await),
            None => std::future::pending().await,
        }
    }

    /// Ends it, waits for that, and gives its last words.
    pub(crate) async fn end(mut self) -> String {
        if let Some(child) = &mut self.child {
            // Fails only where it has ended already.
            let _ = child.start_kill();
            let _ = child.wait().await;
        }
        if let Some(group) = self.cgroup.take() {
            tokio::spawn(group.remove());
        }
        match self.complaint.take() {
            Some(words) => timeout(LAST_WORDS, words).await.ok().and_then(Result::ok).unwrap_or_default(),
            None => String::new(),
        }
    }
}

/// A jailed cell that is nobody's yet.
pub(crate) struct Blank {
    pub(crate) id: CellId,
    pub(crate) isolation: Isolation,
    stream: UnixStream,
    process: Process,
}

/// Why a cell did not take what it was handed, and whether another one may.
pub(crate) struct NotTaken {
    pub(crate) error: SandboxError,
    pub(crate) retry: bool,
}

impl Blank {
    /// Waits until a fresh process says that it is jailed.
    pub(crate) async fn settle(
        id: CellId,
        mut stream: UnixStream,
        process: Process,
        within: Duration,
    ) -> Result<Self, SandboxError> {
        let said = timeout(within, read_frame(&mut stream, 1)).await;
        let ready = match said {
            Ok(Ok((Kind::Ready, payload))) => frame::decode_ready(&payload).map_err(|error| error.to_string()),
            Ok(Ok((kind, _))) => Err(format!("it said `{kind:?}` before it was ready")),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("it was not ready within {} ms", within.as_millis())),
        };
        match ready {
            Ok(isolation) => Ok(Self { id, isolation: isolation.at_most(process.most), stream, process }),
            Err(reason) => Err(start_error(reason, process).await),
        }
    }

    /// Whether it is still there.
    pub(crate) fn is_alive(&mut self) -> bool {
        !self.process.has_ended()
    }

    /// Has the kernel bound what it will hold.
    pub(crate) fn limit(&self, limits: &FunctionLimits, calls: u32) {
        if let Some(group) = &self.process.cgroup {
            group.limit(limits, calls);
        }
    }

    /// Makes it somebody's.
    pub(crate) fn hold(&mut self, share: Option<Share>) {
        self.process.share = share;
    }

    /// What it is made of, once it is loaded.
    pub(crate) fn into_parts(self) -> (CellId, Isolation, UnixStream, Process) {
        (self.id, self.isolation, self.stream, self.process)
    }

    /// Ends it.
    pub(crate) async fn end(self) {
        self.process.end().await;
    }

    /// Hands over a version and waits until it is loaded. `handover` is the encoded payload.
    pub(crate) async fn assign(
        mut self,
        handover: &[u8],
        artifact: OwnedFd,
        within: Duration,
    ) -> Result<Self, NotTaken> {
        let mut frame = zeroize::Zeroizing::new(Vec::with_capacity(HEADER_BYTES.saturating_add(handover.len())));
        if let Err(error) = frame::put(&mut frame, Kind::Handover, false, 0, handover) {
            let reason = format!("its environment is too large: {error}");
            self.end().await;
            return Err(NotTaken { error: SandboxError::Load { reason }, retry: false });
        }
        let taken = timeout(within, async {
            send_with(&mut self.stream, &frame, artifact.as_fd()).await?;
            read_frame(&mut self.stream, REASON_BYTES).await
        });
        let (reason, retry) = match taken.await {
            Ok(Ok((Kind::Loaded, payload))) if payload.is_empty() => return Ok(self),
            Ok(Ok((Kind::Failed, payload))) => (escape(&payload), false),
            Ok(Ok((kind, _))) => (format!("the cell said `{kind:?}` while it loaded"), false),
            // It may have died before it was ever handed anything.
            Ok(Err(error)) => {
                return Err(NotTaken { error: start_error(error.to_string(), self.process).await, retry: true });
            }
            Err(_) => (format!("it was not loaded within {} ms", within.as_millis()), false),
        };
        self.end().await;
        Err(NotTaken { error: SandboxError::Load { reason }, retry })
    }
}

async fn start_error(mut reason: String, process: Process) -> SandboxError {
    let words = process.end().await;
    if !words.is_empty() {
        reason = format!("{reason}; it wrote `{words}`");
    }
    SandboxError::CellStart { reason, source: None }
}

/// Reads one frame about the cell itself, with a payload of at most `most` bytes, and not a byte beyond it.
async fn read_frame(stream: &mut UnixStream, most: usize) -> io::Result<(Kind, Vec<u8>)> {
    let bad = |what| io::Error::new(io::ErrorKind::InvalidData, what);
    let mut bytes = [0; HEADER_BYTES];
    stream.read_exact(&mut bytes).await?;
    let header = Header::decode(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    if header.call != 0 || header.end {
        return Err(bad("a frame of a call before there was one"));
    }
    if header.length > most {
        return Err(bad("a frame longer than its kind may be"));
    }
    let mut payload = vec![0; header.length];
    stream.read_exact(&mut payload).await?;
    Ok((header.kind, payload))
}

/// Sends bytes with a descriptor beside the first of them.
async fn send_with(stream: &mut UnixStream, bytes: &[u8], descriptor: BorrowedFd<'_>) -> io::Result<()> {
    let sent = stream
        .async_io(Interest::WRITABLE, || {
            let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            let descriptors = [descriptor];
            if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
                return Err(io::ErrorKind::OutOfMemory.into());
            }
            Ok(sendmsg(&*stream, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?)
        })
        .await?;
    match bytes.get(sent..) {
        Some(rest) if sent > 0 => stream.write_all(rest).await,
        _ => Err(io::ErrorKind::WriteZero.into()),
    }
}

#[cfg(test)]
mod tests;
