//! One compile in a process of its own.
//!
//! Owns that process: what goes in, how much may come out, how long it may take. Must never give it a key, a name or a
//! path, and must never take what it says for more than bytes.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use bytes::Bytes;
use cofferdam_model::{Digest, Isolation};
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Child;
use tokio::time::timeout;

use crate::cell::{bare, listen};
use crate::error::SandboxError;
use crate::logs::escape;

/// Most bytes of what the compiler says about the component, before the code.
const ABOUT_BYTES: usize = 256 * 1024;
/// Most bytes of a reason that is shown.
const REASON_BYTES: usize = 1024;
/// How long a program of ours may take to say its version.
const VERSION_WITHIN: Duration = Duration::from_secs(10);
/// Most bytes of a version.
const VERSION_BYTES: u64 = 1024;

/// The compiler program and its bounds.
pub(crate) struct Compiler {
    /// Absolute path of it.
    pub(crate) path: PathBuf,
    /// Most bytes of code.
    pub(crate) most: u64,
    /// Longest time.
    pub(crate) within: Duration,
    /// The least isolation it must reach.
    pub(crate) required: Isolation,
}

/// What a compile gave.
#[derive(Debug)]
pub(crate) struct Compiled {
    /// What the compiler says of it.
    pub(crate) about: About,
    /// Machine code.
    pub(crate) code: Bytes,
}

/// Why there is no machine code.
#[derive(Debug)]
pub(crate) struct NotCompiled {
    /// What the caller is told.
    pub(crate) error: SandboxError,
    /// Whether it would be so every time. What a limit on time or memory ended may only have met a busy host.
    pub(crate) lasting: bool,
}

impl From<SandboxError> for NotCompiled {
    fn from(error: SandboxError) -> Self {
        Self { error, lasting: false }
    }
}

/// What the compiler says of machine code. It says more than is of use here.
#[derive(Debug, Deserialize)]
pub(crate) struct About {
    /// How well it was jailed.
    pub(crate) isolation: Isolation,
    /// Which engines may load the code.
    pub(crate) engine: Digest,
    /// Version of the compiler.
    pub(crate) compiler: String,
    /// Interfaces the component imports.
    pub(crate) imports: Vec<String>,
    artifact_bytes: u64,
}

#[derive(Deserialize)]
struct Refusal {
    code: String,
    message: String,
}

impl Compiler {
    /// Compiles a component.
    pub(crate) async fn run(&self, component: &[u8]) -> Result<Compiled, NotCompiled> {
        let program = |source| SandboxError::Program { path: self.path.clone(), source };
        let mut child = bare(&self.path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(program)?;
        let done = timeout(self.within, self.exchange(&mut child, component)).await;
        if !matches!(done, Ok(Ok(_))) {
            // Fails only where it has ended already.
            let _ = child.start_kill();
            let _ = child.wait().await;
        }
        match done {
            Ok(Ok((status, out, words))) => self.judge(status, out, &words),
            Ok(Err(source)) => {
                Err(SandboxError::Compiler { reason: "its pipes broke".into(), source: Some(source) }.into())
            }
            Err(_) => Err(too_costly(format!("it takes longer than {} s to compile", self.within.as_secs())).into()),
        }
    }

    async fn exchange(&self, child: &mut Child, component: &[u8]) -> io::Result<(ExitStatus, Vec<u8>, String)> {
        let (Some(mut stdin), Some(stdout), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        let feed = async {
            // A compiler that has seen enough closes its end; its exit status says what it made of it.
            let length = u64::try_from(component.len()).unwrap_or(u64::MAX).to_be_bytes();
            if stdin.write_all(&length).await.is_ok() {
                let _ = stdin.write_all(component).await;
            }
            drop(stdin);
        };
        let most = self.most.saturating_add(u64::try_from(ABOUT_BYTES).unwrap_or(u64::MAX));
        let ((), out, words) = tokio::join!(feed, collect(stdout, most), listen(stderr));
        let out = out?;
        if u64::try_from(out.len()).is_ok_and(|length| length > most) {
            // It may still be writing; nobody reads it any more.
            child.start_kill()?;
        }
        Ok((child.wait().await?, out, words))
    }

    fn judge(&self, status: ExitStatus, out: Vec<u8>, words: &str) -> Result<Compiled, NotCompiled> {
        let failed = |reason: &str| {
            let reason = if words.is_empty() { reason.to_owned() } else { format!("{reason}; it wrote `{words}`") };
            Err(SandboxError::Compiler { reason, source: None }.into())
        };
        match status.code() {
            Some(0) => {}
            Some(code) => return failed(&format!("it exited with {code}")),
            // Its limits on time and memory end it by signal, as does a host that is short of memory.
            None => return Err(too_costly("it takes more time or memory to compile than allowed".into()).into()),
        }
        match decode(out) {
            Some(Reply::Compiled(compiled))
                if u64::try_from(compiled.code.len()).is_ok_and(|length| length > self.most) =>
            {
                let error = too_costly(format!("it compiles to more than {} bytes", self.most));
                Err(NotCompiled { error, lasting: true })
            }
            Some(Reply::Compiled(compiled)) if !compiled.about.isolation.reaches(self.required) => {
                Err(SandboxError::Isolation { reached: compiled.about.isolation, required: self.required }.into())
            }
            Some(Reply::Compiled(compiled)) => Ok(compiled),
            Some(Reply::Refused(refusal)) => Err(NotCompiled { error: refused(&refusal), lasting: true }),
            Some(Reply::Failed(refusal)) => failed(&shown(&refusal.message)),
            None => failed("its reply is malformed"),
        }
    }
}

/// A refusal in the compiler's words. Those may be the component's doing, so they are cut and escaped.
fn refused(refusal: &Refusal) -> SandboxError {
    let known = (1..=64).contains(&refusal.code.len())
        && refusal.code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    let code = if known { refusal.code.clone() } else { "component_refused".into() };
    SandboxError::Refused { code, reason: shown(&refusal.message) }
}

fn too_costly(reason: String) -> SandboxError {
    SandboxError::Refused { code: "component_too_costly".into(), reason }
}

fn shown(message: &str) -> String {
    escape(message.as_bytes().get(..REASON_BYTES).unwrap_or(message.as_bytes()))
}

enum Reply {
    Compiled(Compiled),
    Refused(Refusal),
    Failed(Refusal),
}

/// One byte (0 compiled, 1 refused, 2 failed), u32 length and JSON of what there is to say, then machine code.
fn decode(out: Vec<u8>) -> Option<Reply> {
    let out = Bytes::from(out);
    let (status, rest) = out.split_first()?;
    let length = usize::try_from(u32::from_be_bytes(*rest.first_chunk::<4>()?)).ok()?;
    let start = length.checked_add(5).filter(|_| length <= ABOUT_BYTES)?;
    let (json, code) = (out.get(5..start)?, out.slice(start..));
    match status {
        0 => {
            let about: About = serde_json::from_slice(json).ok()?;
            let whole = !code.is_empty() && u64::try_from(code.len()).ok() == Some(about.artifact_bytes);
            whole.then_some(Reply::Compiled(Compiled { about, code }))
        }
        1 if code.is_empty() => serde_json::from_slice(json).ok().map(Reply::Refused),
        2 if code.is_empty() => serde_json::from_slice(json).ok().map(Reply::Failed),
        _ => None,
    }
}

/// Reads up to one byte more than `most`.
async fn collect(from: impl AsyncRead + Unpin, most: u64) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    from.take(most.saturating_add(1)).read_to_end(&mut out).await?;
    Ok(out)
}

/// Asks a program of ours for its version: `<name> <version> <rest>`, where the first two must be as expected.
pub(crate) async fn version(path: &Path, name: &str) -> Result<String, SandboxError> {
    let program = |source| SandboxError::Program { path: path.to_owned(), source };
    if !path.is_absolute() {
        return Err(program(io::Error::new(io::ErrorKind::InvalidInput, "the path is not absolute")));
    }
    let mut child = bare(path)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(program)?;
    let said = timeout(VERSION_WITHIN, async {
        let stdout = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let said = collect(stdout, VERSION_BYTES).await?;
        child.wait().await.map(|_| said)
    });
    let said = said.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(program)?;
    let found = escape(said.trim_ascii());
    let expected = format!("{name} {}", env!("CARGO_PKG_VERSION"));
    let mut words = found.splitn(3, ' ');
    let known = [words.next().unwrap_or_default(), words.next().unwrap_or_default()].join(" ");
    if known != expected {
        return Err(SandboxError::Version { path: path.to_owned(), expected, found });
    }
    Ok(words.next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(status: u8, json: &str, code: &[u8]) -> Vec<u8> {
        let length = u32::try_from(json.len()).unwrap().to_be_bytes();
        [&[status], length.as_slice(), json.as_bytes(), code].concat()
    }

    fn about(bytes: usize) -> String {
        let engine = "ab".repeat(32);
        let rest = r#""compiler":"c 1","imports":["wasi:a/b"],"more":1"#;
        format!(r#"{{"isolation":"full","artifact_bytes":{bytes},"engine":"{engine}",{rest}}}"#)
    }

    #[test]
    fn a_reply_is_taken_whole_or_not_at_all() {
        let good = framed(0, &about(4), b"code");
        let Some(Reply::Compiled(compiled)) = decode(good.clone()) else { panic!("refused") };
        assert_eq!(
            (compiled.code.as_ref(), compiled.about.imports.as_slice()),
            (&b"code"[..], &["wasi:a/b".into()][..])
        );
        for cut in 0..good.len() {
            assert!(decode(good[..cut].to_vec()).is_none(), "cut at {cut}");
        }
        assert!(decode(framed(0, &about(0), b"")).is_none(), "no code");
        assert!(decode(framed(7, &about(4), b"code")).is_none(), "unknown status");
        assert!(decode([&[0, 255, 255, 255, 255], [0; 64].as_slice()].concat()).is_none(), "absurd length");
    }

    #[test]
    fn a_refusal_is_shown_without_control_characters_and_with_a_known_shape_of_code() {
        let Some(Reply::Refused(refusal)) =
            decode(framed(1, r#"{"code":"component_invalid","message":"bad \u001b[31m"}"#, b""))
        else {
            panic!("not a refusal")
        };
        assert_eq!(refused(&refusal).to_string(), r"the component is refused: bad \u{1b}[31m".replace(r"\\", r"\"));
        let odd = Refusal { code: "<script>".into(), message: "x".repeat(5000) };
        let SandboxError::Refused { code, reason } = refused(&odd) else { panic!("not refused") };
        assert_eq!((code.as_str(), reason.len()), ("component_refused", REASON_BYTES));
    }
}
