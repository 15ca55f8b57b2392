//! A root key of this host: in a file of its owner's, or a credential that systemd hands over.
//!
//! Owns reading it, wrapping with it, and the order of files in which a new one takes its place, each step of which a
//! crash may follow. Must never keep it in memory nobody vouches for, and never lose the one before while anything is
//! still wrapped with it.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use cofferdam_model::Random;

use super::crypto::{self, V1, V2, WRAPPED_BYTES};
use super::envelope;
use super::memory::{Kept, KeyMemory};
use super::root::{FIRST_ROOT, RootError, RootKey, WrapContext, Wrapped};
use crate::error::{ControlError, VaultError};
use crate::keyfile::{self, KeyBytes};

/// What keys are called that others took the place of, behind the name of the file.
const RETIRED: &str = "retired-";

/// Where the key is.
enum Source {
    /// In a file that may be replaced.
    File(PathBuf),
    /// Where somebody else puts it.
    Given(String),
}

struct Key {
    name: String,
    kept: Box<dyn Kept>,
}

/// A root key of this host.
pub struct LocalRoot {
    source: Source,
    memory: Arc<dyn KeyMemory>,
    random: Arc<dyn Random>,
    /// The one to wrap with first, then those before it.
    keys: RwLock<Vec<Key>>,
}

impl LocalRoot {
    /// The key in a file, and the one that is to take its place where a rotation was cut off.
    pub fn file(path: &Path, memory: Arc<dyn KeyMemory>, random: Arc<dyn Random>) -> Result<Self, ControlError> {
        let next = next_of(path);
        let mut keys = Vec::new();
        // One that was cut off while it was written is not whole, and nothing is wrapped with it.
        match fs::metadata(&next) {
            Ok(about) if about.len() < keyfile::KEY_BYTES as u64 && path.exists() => {
                fs::remove_file(&next).map_err(|source| ControlError::Io { path: next, source })?;
            }
            Ok(_) => keys.push(Key::new(&keyfile::load(&next)?, &*memory)?),
            Err(_) => {}
        }
        keys.push(Key::new(&keyfile::load(path)?, &*memory)?);
        Ok(Self { source: Source::File(path.to_owned()), memory, random, keys: RwLock::new(keys) })
    }

    /// A credential of this service, as systemd hands it over, and those before it.
    pub fn credential(
        dir: &Path,
        names: &[String],
        memory: Arc<dyn KeyMemory>,
        random: Arc<dyn Random>,
    ) -> Result<Self, ControlError> {
        let load =
            |name: &String| Ok::<_, ControlError>(Key::new(&keyfile::load_credential(&dir.join(name))?, &*memory)?);
        let keys = names.iter().map(load).collect::<Result<Vec<_>, _>>()?;
        let name = names.first().cloned().unwrap_or_default();
        Ok(Self { source: Source::Given(name), memory, random, keys: RwLock::new(keys) })
    }

    /// A key had from elsewhere.
    pub fn of(key: &KeyBytes, memory: Arc<dyn KeyMemory>, random: Arc<dyn Random>) -> Result<Self, VaultError> {
        let keys = RwLock::new(vec![Key::new(key, &*memory)?]);
        Ok(Self { source: Source::Given("a key in memory".into()), memory, random, keys })
    }

    fn with<T>(&self, work: impl FnOnce(&[Key]) -> T) -> T {
        work(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn wrap_with(&self, with: &Key, context: &WrapContext<'_>, key: &KeyBytes) -> Result<Wrapped, RootError> {
        let bound = context.bytes(&with.name);
        let sealed = crypto::seal(&V2, with.kept.expose(), crypto::salt(&*self.random), &bound, key.as_slice());
        let sealed = sealed.map_err(|error| RootError::Nonsense(error.to_string()))?;
        let bytes = [sealed.salt.as_slice(), &sealed.commitment, &sealed.ciphertext].concat();
        Ok(Wrapped { root: with.name.clone(), bytes })
    }
}

impl Key {
    fn new(key: &KeyBytes, memory: &dyn KeyMemory) -> Result<Self, VaultError> {
        let id: String = crypto::key_id(key)?.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { name: format!("local:{id}"), kept: memory.keep(key) })
    }
}

fn opened(key: &Key, context: &WrapContext<'_>, wrapped: &Wrapped) -> Result<KeyBytes, VaultError> {
    if wrapped.root == FIRST_ROOT {
        let sealed = envelope::decode(&wrapped.bytes)?;
        let parts = (&sealed.salt, &sealed.commitment, sealed.ciphertext.as_slice());
        return crypto::as_key(&crypto::open(&V1, key.kept.expose(), &context.first(), parts)?);
    }
    let (salt, rest) = wrapped.bytes.split_first_chunk::<32>().ok_or(VaultError::Malformed)?;
    let (commitment, sealed) = rest.split_first_chunk::<32>().ok_or(VaultError::Malformed)?;
    if sealed.len() != WRAPPED_BYTES {
        return Err(VaultError::Malformed);
    }
    crypto::as_key(&crypto::open(&V2, key.kept.expose(), &context.bytes(&wrapped.root), (salt, commitment, sealed))?)
}

impl RootKey for LocalRoot {
    fn describe(&self) -> String {
        let name = self.with(|keys| keys.first().map(|key| key.name.clone()).unwrap_or_default());
        match &self.source {
            Source::File(_) => format!("file {name}"),
            Source::Given(credential) => format!("credential {credential} {name}"),
        }
    }

    fn knows(&self, root: &str) -> bool {
        root.starts_with("local:")
    }

    fn is_elsewhere(&self) -> bool {
        false
    }

    fn check(&self) -> Result<(), RootError> {
        Ok(())
    }

    fn wrap(&self, context: &WrapContext<'_>, key: &KeyBytes) -> Result<Wrapped, RootError> {
        self.with(|keys| match keys.first() {
            Some(newest) => self.wrap_with(newest, context, key),
            None => Err(RootError::Refused("there is no root key".into())),
        })
    }

    fn unwrap(&self, context: &WrapContext<'_>, wrapped: &Wrapped) -> Result<KeyBytes, RootError> {
        self.with(|keys| {
            let fits = |key: &&Key| wrapped.root == FIRST_ROOT || wrapped.root == key.name;
            let mut last = RootError::WrongKey(format!("`{}` is not here", wrapped.root));
            for key in keys.iter().filter(fits) {
                match opened(key, context, wrapped) {
                    Ok(key) => return Ok(key),
                    Err(error) => last = RootError::WrongKey(error.to_string()),
                }
            }
            Err(last)
        })
    }

    fn rewrap(&self, context: &WrapContext<'_>, wrapped: &Wrapped) -> Result<Option<Wrapped>, RootError> {
        if self.with(|keys| keys.first().is_some_and(|newest| newest.name == wrapped.root)) {
            return Ok(None);
        }
        let key = self.unwrap(context, wrapped)?;
        self.wrap(context, &key).map(Some)
    }

    fn begin_rotation(&self) -> Result<(), RootError> {
        let Source::File(path) = &self.source else {
            // Whoever hands the key over hands a new one over, with the old one as the one before, at the start.
            return Ok(());
        };
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        if keys.len() > 1 {
            return Ok(());
        }
        let fresh = keyfile::fresh(&*self.random);
        let failed = |error: &dyn std::error::Error| RootError::Refused(format!("a new key cannot be kept: {error}"));
        keyfile::create(&next_of(path), fresh.as_slice()).map_err(|error| failed(&error))?;
        keys.insert(0, Key::new(&fresh, &*self.memory).map_err(|error| failed(&error))?);
        Ok(())
    }

    fn is_current(&self, root: &str) -> bool {
        self.with(|keys| keys.first().is_some_and(|newest| newest.name == root))
    }

    fn rotating(&self) -> bool {
        matches!(self.source, Source::File(_)) && self.with(|keys| keys.len() > 1)
    }

    fn end_rotation(&self, destroy: bool) -> Result<(), RootError> {
        let Source::File(path) = &self.source else {
            let what = "everything is under the new key; take the old credential out of the unit, and destroy it there";
            return if destroy { Err(RootError::Unsupported(what.into())) } else { Ok(()) };
        };
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        if keys.len() < 2 {
            return Ok(());
        }
        let old = keys.last().map(|key| key.name.replace(':', "-")).unwrap_or_default();
        replace(path, &retired_of(path, &old), destroy)
            .map_err(|error| RootError::Refused(format!("the key files cannot be changed: {error}")))?;
        keys.truncate(1);
        Ok(())
    }
}

/// Puts the next key in the place of the first, which gets a name of its own before. After a crash in between, what was
/// done is done again.
fn replace(path: &Path, retired: &Path, destroy: bool) -> std::io::Result<()> {
    match fs::hard_link(path, retired) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let sync = || match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => File::open(dir)?.sync_all(),
        _ => Ok(()),
    };
    sync()?;
    fs::rename(next_of(path), path)?;
    sync()?;
    if destroy {
        destroy_retired(path)?;
        sync()?;
    }
    Ok(())
}

/// Overwrites and removes every key that was in this place before, also of rotations that kept theirs.
fn destroy_retired(path: &Path) -> std::io::Result<()> {
    let first = beside(path, RETIRED);
    let first = first.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    for entry in fs::read_dir(dir.unwrap_or_else(|| Path::new(".")))? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&first) {
            let mut file = fs::OpenOptions::new().write(true).open(entry.path())?;
            file.write_all(&[0; keyfile::KEY_BYTES])?;
            file.sync_all()?;
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn next_of(path: &Path) -> PathBuf {
    beside(path, "next")
}

fn retired_of(path: &Path, name: &str) -> PathBuf {
    beside(path, &format!("{RETIRED}{name}"))
}

fn beside(path: &Path, more: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(more);
    path.with_file_name(name)
}
