//! Components and what they were compiled to: found, made when missing, kept ready.
//!
//! Owns the directory of both and the rules of reuse. An artifact belongs to one component and to what decided its
//! machine code; it is used only after its MAC was verified, and made anew from the component, which its digest
//! verifies, where it does not fit. What no version refers to any more is deleted. Must never compile the same
//! component twice at once, nor remember a failure that may not have been the component's, nor delete what something
//! under way needs.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::{digest, hmac};
use bytes::Bytes;
use cofferdam_model::{Digest, TenantId};

use crate::artifact::{Framed, Header, Sealed};
use crate::compile::{Compiler, NotCompiled};
use crate::config::SandboxConfig;
use crate::error::SandboxError;
use crate::store;
use crate::turns::Turns;

/// Artifacts kept in memory, and their bytes in all. Cells that map one keep it alive beyond that.
const KEPT: usize = 64;
const KEPT_BYTES: u64 = 512 * 1024 * 1024;
/// Refusals remembered.
const REFUSALS: usize = 1024;

/// A component that compiled and can be deployed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// SHA-256 of the component's bytes.
    pub component: Digest,
    /// The interfaces it imports.
    pub imports: Vec<String>,
}

/// A component that is being taken in or loaded. It is not deleted as long as this lives.
#[must_use]
pub struct Hold {
    library: Arc<Library>,
    component: Digest,
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut held = self.library.held();
        if let Some(count) = held.counts.get_mut(&self.component) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                held.counts.remove(&self.component);
            }
        }
    }
}

/// The store of components and artifacts.
pub(crate) struct Library {
    dir: PathBuf,
    key: hmac::Key,
    build: Digest,
    compiler: Compiler,
    component_bytes: u64,
    /// Bytes everything stored may take.
    room: u64,
    turns: Arc<Turns>,
    kept: Mutex<Kept>,
    /// Never locked for longer than a moment: calls and cells on their way take it.
    held: Mutex<Held>,
    /// One collection at a time. Only those take it.
    collecting: Mutex<()>,
}

#[derive(Default)]
struct Held {
    /// Components in use by something under way, and by how many.
    counts: HashMap<Digest, usize>,
    /// While there is a collection: those that were in use at any moment since it began.
    since: Option<HashSet<Digest>>,
}

/// A collection under way. Whatever is taken in use while it lives is known to it, also when it is let go of again.
struct Collection<'a> {
    library: &'a Library,
    _only: MutexGuard<'a, ()>,
}

impl Drop for Collection<'_> {
    fn drop(&mut self) {
        self.library.held().since = None;
    }
}

#[derive(Default)]
struct Kept {
    /// Most recently used last.
    artifacts: VecDeque<(Digest, Arc<Sealed>)>,
    refusals: VecDeque<(Digest, String, String)>,
}

impl Library {
    /// Opens the directory. Reads the compiler's file, to know what its output depends on.
    pub(crate) fn open(config: &SandboxConfig) -> Result<Self, SandboxError> {
        store::private_dir(&config.artifacts)?;
        store::sweep(&config.artifacts)?;
        let limits = &config.limits;
        Ok(Self {
            dir: config.artifacts.clone(),
            key: hmac::Key::new(hmac::HMAC_SHA256, &*config.mac_key),
            build: build(&config.compiler)?,
            compiler: Compiler {
                path: config.compiler.clone(),
                most: limits.artifact_bytes,
                within: Duration::from_millis(limits.compile_ms),
                required: config.required,
            },
            component_bytes: limits.component_bytes,
            room: limits.artifact_store_bytes,
            turns: Turns::new(limits.compiles.max(1), limits.queued_compiles),
            kept: Mutex::default(),
            held: Mutex::default(),
            collecting: Mutex::default(),
        })
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hold(self: &Arc<Self>, component: Digest) -> Hold {
        let mut held = self.held();
        let count = held.counts.entry(component).or_default();
        *count = count.saturating_add(1);
        if let Some(since) = &mut held.since {
            since.insert(component);
        }
        drop(held);
        Hold { library: self.clone(), component }
    }

    /// Begins to look for what nobody needs.
    fn collection(&self) -> Collection<'_> {
        let only = self.collecting.lock().unwrap_or_else(PoisonError::into_inner);
        let mut held = self.held();
        held.since = Some(held.counts.keys().copied().collect());
        drop(held);
        Collection { library: self, _only: only }
    }

    /// Deletes what nobody refers to and nothing under way holds; gives the bytes that became free. Blocks.
    pub(crate) fn collect(&self, referenced: impl FnOnce() -> Option<HashSet<Digest>>) -> Result<u64, SandboxError> {
        let collection = self.collection();
        let mut files = Vec::new();
        for entry in self.dir.read_dir().map_err(SandboxError::file("list", &self.dir))? {
            let entry = entry.map_err(SandboxError::file("list", &self.dir))?;
            let name = entry.file_name();
            let component = name.to_str().filter(|name| name.ends_with(".wasm") || name.ends_with(".artifact"));
            let component = component.and_then(|name| name.split_once('.')).map(|(digest, _)| digest.to_owned());
            files.extend(component.and_then(|digest| Digest::try_from(digest).ok()).map(|digest| (digest, entry)));
        }
        // What was let go of before the collection began is referred to by now, or not wanted. What was in use at any
        // moment since may have come to be referred to after this was asked; it is left for the next time.
        let Some(referenced) = referenced() else { return Ok(0) };
        let mut freed = 0u64;
        for (component, entry) in files.iter().filter(|(component, _)| !referenced.contains(component)) {
            freed = freed.saturating_add(self.discard(component, &entry.path())?);
        }
        let held = self.held();
        let in_use = |component: &Digest| held.since.as_ref().is_some_and(|since| since.contains(component));
        self.kept().artifacts.retain(|(component, _)| referenced.contains(component) || in_use(component));
        drop(held);
        drop(collection);
        if freed > 0 {
            tracing::info!(bytes = freed, "components that no version refers to any more were deleted");
        }
        Ok(freed)
    }

    /// Deletes a file unless its component was in use since the collection began; gives its bytes. Nothing can take it
    /// in use between the look and the deletion.
    fn discard(&self, component: &Digest, path: &Path) -> Result<u64, SandboxError> {
        // As long as it is open its blocks are not given back, which takes long: that comes after the lock.
        let Ok(file) = File::open(path) else { return Ok(0) };
        let bytes = file.metadata().map_or(0, |about| about.len());
        let held = self.held();
        if held.since.as_ref().is_none_or(|since| since.contains(component)) {
            return Ok(0);
        }
        let removed = std::fs::remove_file(path);
        drop(held);
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(SandboxError::file("remove", path)(error)),
            _ => Ok(bytes),
        }
    }

    #[cfg(test)]
    pub(crate) async fn prepare(
        self: &Arc<Self>,
        tenant: &TenantId,
        component: Bytes,
    ) -> Result<Prepared, SandboxError> {
        self.take_in(tenant, component).await.map(|(prepared, _)| prepared)
    }

    /// Takes in a component: compiles it unless that was done before, and stores both.
    pub(crate) async fn take_in(
        self: &Arc<Self>,
        tenant: &TenantId,
        component: Bytes,
    ) -> Result<(Prepared, Hold), SandboxError> {
        let bytes = u64::try_from(component.len()).unwrap_or(u64::MAX);
        if bytes > self.component_bytes {
            return Err(SandboxError::TooLarge { bytes, limit: self.component_bytes });
        }
        let content = component.clone();
        let digest = blocking(move || Ok(sha256(&content))).await?;
        let hold = self.hold(digest);
        let sealed = match self.find(digest).await? {
            Some(sealed) => sealed,
            None => self.make(tenant, digest, component).await?,
        };
        Ok((Prepared { component: digest, imports: sealed.header.imports.clone() }, hold))
    }

    /// The artifact of a component taken in before.
    pub(crate) async fn artifact(
        self: &Arc<Self>,
        tenant: &TenantId,
        component: Digest,
    ) -> Result<Arc<Sealed>, SandboxError> {
        let _hold = self.hold(component);
        if let Some(sealed) = self.find(component).await? {
            return Ok(sealed);
        }
        let library = self.clone();
        let content = blocking(move || library.read_component(component)).await?;
        self.make(tenant, component, content).await
    }

    /// A verified artifact, from memory or from its file.
    async fn find(self: &Arc<Self>, component: Digest) -> Result<Option<Arc<Sealed>>, SandboxError> {
        {
            let mut kept = self.kept();
            if let Some((_, code, reason)) = kept.refusals.iter().find(|(digest, ..)| *digest == component) {
                return Err(SandboxError::Refused { code: code.clone(), reason: reason.clone() });
            }
            if let Some(at) = kept.artifacts.iter().position(|(digest, _)| *digest == component) {
                let found = kept.artifacts.remove(at);
                kept.artifacts.extend(found.clone());
                return Ok(found.map(|(_, sealed)| sealed));
            }
        }
        let library = self.clone();
        blocking(move || library.load(component)).await
    }

    /// From its file. One that does not verify is as good as missing: it will be made anew.
    fn load(&self, component: Digest) -> Result<Option<Arc<Sealed>>, SandboxError> {
        let path = self.dir.join(self.artifact_name(component));
        match Sealed::load(&path, &self.key, self.compiler.most) {
            Ok(sealed) if sealed.header.component == component && sealed.header.build == self.build => {
                Ok(Some(self.keep(component, Arc::new(sealed))))
            }
            Ok(_) => {
                tracing::error!(path = %path.display(), "artifact is another one's; it is made anew");
                Ok(None)
            }
            Err(SandboxError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error @ SandboxError::Tampered { .. }) => {
                tracing::error!(%error, "artifact does not verify; it is made anew");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn keep(&self, component: Digest, sealed: Arc<Sealed>) -> Arc<Sealed> {
        let mut kept = self.kept();
        kept.artifacts.retain(|(digest, _)| *digest != component);
        kept.artifacts.push_back((component, sealed.clone()));
        let bytes = |kept: &Kept| kept.artifacts.iter().map(|(_, sealed)| sealed.bytes).sum::<u64>();
        while kept.artifacts.len() > KEPT || (kept.artifacts.len() > 1 && bytes(&kept) > KEPT_BYTES) {
            kept.artifacts.pop_front();
        }
        sealed
    }

    /// Compiles, one turn at a time.
    async fn make(
        self: &Arc<Self>,
        tenant: &TenantId,
        component: Digest,
        content: Bytes,
    ) -> Result<Arc<Sealed>, SandboxError> {
        let _turn = self.turns.take(tenant).await.ok_or(SandboxError::Busy { what: "compiles" })?;
        // Another may have made it while this one waited.
        if let Some(sealed) = self.find(component).await? {
            return Ok(sealed);
        }
        let compiled = match self.compiler.run(&content).await {
            Ok(compiled) => compiled,
            Err(NotCompiled { error, lasting }) => {
                if lasting {
                    self.remember(component, &error);
                }
                return Err(error);
            }
        };
        let library = self.clone();
        let stored = blocking(move || {
            let header = Header {
                component,
                build: library.build,
                engine: compiled.about.engine,
                compiler: compiled.about.compiler,
                imports: compiled.about.imports,
            };
            let framed = Framed::new(&library.key, &header, &compiled.code)?;
            library.check_room(component, content.len() + compiled.code.len())?;
            store::write_once(&library.dir, &component_name(component), &[&content])?;
            store::write_once(&library.dir, &library.artifact_name(component), &framed.parts(&compiled.code))?;
            library.load(component)
        });
        stored.await?.ok_or(SandboxError::Missing { component })
    }

    /// Whether another component still fits. One that is there already may always be compiled again.
    fn check_room(&self, component: Digest, more: usize) -> Result<(), SandboxError> {
        let more = u64::try_from(more).unwrap_or(u64::MAX);
        if self.dir.join(component_name(component)).exists() {
            return Ok(());
        }
        if store::used(&self.dir)?.saturating_add(more) > self.room {
            return Err(SandboxError::StoreFull { limit: self.room });
        }
        Ok(())
    }

    /// Puts an artifact in as if it had been compiled.
    #[cfg(test)]
    pub(crate) fn put(&self, component: Digest, code: &[u8]) {
        let header = Header {
            component,
            build: self.build,
            engine: Digest([0; 32]),
            compiler: "none".into(),
            imports: Vec::new(),
        };
        let framed = Framed::new(&self.key, &header, code).unwrap();
        store::write_once(&self.dir, &self.artifact_name(component), &framed.parts(code)).unwrap();
    }

    fn remember(&self, component: Digest, error: &SandboxError) {
        if let SandboxError::Refused { code, reason } = error {
            let mut kept = self.kept();
            if kept.refusals.len() >= REFUSALS {
                kept.refusals.pop_front();
            }
            kept.refusals.push_back((component, code.clone(), reason.clone()));
        }
    }

    fn read_component(&self, component: Digest) -> Result<Bytes, SandboxError> {
        let path = self.dir.join(component_name(component));
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(SandboxError::Missing { component }),
            opened => opened.map_err(SandboxError::file("open", &path))?,
        };
        let mut content = Vec::new();
        file.take(self.component_bytes).read_to_end(&mut content).map_err(SandboxError::file("read", &path))?;
        if sha256(&content) != component {
            return Err(SandboxError::Tampered { path, what: "its digest does not fit" });
        }
        Ok(content.into())
    }

    fn artifact_name(&self, component: Digest) -> String {
        let build: String = self.build.to_string().chars().take(16).collect();
        format!("{component}.{build}.artifact")
    }
}

fn component_name(component: Digest) -> String {
    format!("{component}.wasm")
}

/// What decides the machine code a component is compiled to: the compiler, byte by byte, and what this machine's CPU
/// can do. A change of either makes every artifact a stranger, to be made anew.
fn build(compiler: &Path) -> Result<Digest, SandboxError> {
    let program = |source| SandboxError::Program { path: compiler.to_owned(), source };
    let mut context = digest::Context::new(&digest::SHA256);
    let mut file = File::open(compiler).map_err(program)?;
    let mut chunk = vec![0; 256 * 1024];
    loop {
        let read = file.read(&mut chunk).map_err(program)?;
        match chunk.get(..read) {
            Some(piece) if !piece.is_empty() => context.update(piece),
            _ => break,
        }
    }
    // Missing on some platforms, where there is then nothing to tell two machines apart by.
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    Ok(with_processor(context, std::env::consts::ARCH, &cpu))
}

/// Adds the processor to what is known of the compiler.
fn with_processor(mut compiler: digest::Context, arch: &str, cpu: &str) -> Digest {
    let features = cpu.lines().find(|line| line.starts_with("flags") || line.starts_with("Features"));
    compiler.update(arch.as_bytes());
    compiler.update(features.unwrap_or_default().as_bytes());
    digest_of(&compiler.finish())
}

pub(crate) fn sha256(bytes: &[u8]) -> Digest {
    digest_of(&digest::digest(&digest::SHA256, bytes))
}

fn digest_of(digest: &digest::Digest) -> Digest {
    let mut out = [0; 32];
    out.iter_mut().zip(digest.as_ref()).for_each(|(to, from)| *to = *from);
    Digest(out)
}

/// Does what blocks where it may.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SandboxError> + Send + 'static,
) -> Result<T, SandboxError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(SandboxError::Closing))
}

#[cfg(test)]
mod tests;
