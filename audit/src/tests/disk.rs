//! A disk that can fail any one call, hold its breath, and show what a power cut would leave.
//!
//! Must never be kinder than a real one: what was not synced may be there after a crash, or not, or in part.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use crate::storage::{Disk, Storage, StoredFile};

/// How a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Nothing of it happened.
    Lost,
    /// All of it happened, but the caller is told otherwise.
    Persisted,
    /// Half of what was to be written was. Other calls are lost.
    Half,
}

/// What a power cut leaves of what was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    Nothing,
    Everything,
    /// The first half of the operations, the last of those in half.
    Half,
}

/// The real disk, but for waiting: for tests about what a kill leaves, which the kernel keeps, synced or not.
pub(super) struct QuickDisk;

struct QuickFile(Box<dyn StoredFile>);

impl Storage for QuickDisk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        Disk.create_dir(dir)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn StoredFile>> {
        Ok(Box::new(QuickFile(Disk.create(path)?)))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn StoredFile>> {
        Ok(Box::new(QuickFile(Disk.open(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        Disk.rename(from, to)
    }

    fn seal(&self, path: &Path) -> io::Result<()> {
        Disk.seal(path)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        Disk.remove(path)
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        Disk.free_bytes(dir)
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
}

impl StoredFile for QuickFile {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, bytes)
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Clone, Default)]
pub(super) struct TestDisk(Arc<Inner>);

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    calls: usize,
    fail_at: Option<(usize, Fault)>,
    failed: bool,
    held: bool,
    /// Syncs that wait for the release, and the numbers of their calls.
    waiting: usize,
    syncs: Vec<usize>,
    released: Option<usize>,
    failing: Option<usize>,
    /// Bytes there is room for, where that is not without bounds, and bytes that were written.
    free: Option<u64>,
    used: u64,
    /// What there was after each call, where that is kept.
    moments: Option<Vec<Moment>>,
    /// What the test has been told is safe.
    told: u64,
    renames: usize,
    files: Vec<Content>,
    names: HashMap<PathBuf, usize>,
    durable_names: HashMap<PathBuf, usize>,
}

/// All there is after a call: what is durable, and what is not.
#[derive(Clone)]
pub(super) struct Moment {
    pub(super) files: Vec<Content>,
    pub(super) names: HashMap<PathBuf, usize>,
    pub(super) durable_names: HashMap<PathBuf, usize>,
    pub(super) told: u64,
}

/// Content that is durable, and what was done to it since.
#[derive(Default, Clone)]
pub(super) struct Content {
    /// Bytes written to it.
    reserved: u64,
    pub(super) durable: Vec<u8>,
    /// With the number of the call: a sync is about those of a lower number only.
    pub(super) since: Vec<(usize, Op)>,
}

impl Content {
    /// Makes everything durable that was done before call `number`.
    fn sync(&mut self, number: usize) {
        let later = self.since.partition_point(|(call, _)| *call < number);
        let done = self.since.drain(..later);
        done.for_each(|(_, op)| op.apply(&mut self.durable));
    }
}

#[derive(Clone)]
pub(super) enum Op {
    Write(usize, Vec<u8>),
    SetLen(usize),
}

impl Op {
    pub(super) fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Self::Write(at, bytes) => {
                to.resize(to.len().max(at + bytes.len()), 0);
                to[*at..at + bytes.len()].copy_from_slice(bytes);
            }
            Self::SetLen(len) => to.resize(*len, 0),
        }
    }
}

impl TestDisk {
    /// A disk whose `call`-th call (from 0) fails.
    pub(super) fn failing(call: usize, fault: Fault) -> Self {
        let disk = Self::default();
        disk.lock().fail_at = Some((call, fault));
        disk
    }

    /// Keeps what there is after each call from now on.
    pub(super) fn keep_moments(&self) {
        self.lock().moments = Some(Vec::new());
    }

    pub(super) fn moments(&self) -> Vec<Moment> {
        self.lock().moments.clone().unwrap_or_default()
    }

    /// Notes how many records the test was told are safe by now.
    pub(super) fn was_told(&self, records: u64) {
        self.lock().told = records;
    }

    /// Takes what lies in `dir` as durable.
    pub(super) fn adopt(&self, dir: &Path) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                self.adopt(&path);
            } else {
                let mut state = self.lock();
                let id = state.files.len();
                state.files.push(Content { durable: fs::read(&path).unwrap(), ..Content::default() });
                state.names.insert(path.clone(), id);
                state.durable_names.insert(path, id);
            }
        }
    }

    pub(super) fn has_failed(&self) -> bool {
        self.lock().failed
    }

    /// Lets every sync wait until `release`.
    pub(super) fn hold(&self) {
        self.lock().held = true;
    }

    pub(super) fn release(&self) {
        self.lock().held = false;
        self.0.changed.notify_all();
    }

    /// Waits until so many syncs wait for the release.
    pub(super) fn wait_for_syncs(&self, syncs: usize) {
        drop(self.0.changed.wait_while(self.lock(), |state| state.waiting < syncs).unwrap());
    }

    /// Lets one of the syncs that wait go on: the one that began last.
    pub(super) fn release_the_last(&self) {
        let mut state = self.lock();
        state.released = state.syncs.pop();
        self.0.changed.notify_all();
    }

    /// Waits until one of so many syncs is over.
    pub(super) fn wait_for_one_sync_less(&self, syncs: usize) {
        drop(self.0.changed.wait_while(self.lock(), |state| state.waiting >= syncs).unwrap());
    }

    /// Has the sync that began first fail, with nothing of it done.
    pub(super) fn fail_the_first_sync(&self) {
        let mut state = self.lock();
        state.failing = state.syncs.first().copied();
    }

    /// Waits until there were this many renames in all.
    pub(super) fn wait_for_renames(&self, renames: usize) {
        drop(self.0.changed.wait_while(self.lock(), |state| state.renames < renames).unwrap());
    }

    /// Writes into `to` what a power cut now would leave of the log in `from`.
    pub(super) fn power_cut(&self, from: &Path, to: &Path, left: Left) {
        let state = self.lock();
        let names = if left == Left::Nothing { &state.durable_names } else { &state.names };
        fs::create_dir_all(to.join("segments")).unwrap();
        for (path, id) in names {
            let Content { durable, since, .. } = &state.files[*id];
            let mut content = durable.clone();
            match left {
                Left::Nothing => {}
                Left::Everything => since.iter().for_each(|(_, op)| op.apply(&mut content)),
                Left::Half => {
                    for (number, (_, op)) in since.iter().take(since.len().div_ceil(2)).enumerate() {
                        match op {
                            Op::Write(at, bytes) if number + 1 == since.len().div_ceil(2) => {
                                Op::Write(*at, bytes[..bytes.len() / 2].to_vec()).apply(&mut content);
                            }
                            op => op.apply(&mut content),
                        }
                    }
                }
            }
            let path = to.join(path.strip_prefix(from).unwrap());
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap()
    }

    /// Counts a call; whether it is to happen, and the error to give after that.
    fn call(&self) -> (bool, io::Result<()>) {
        let mut state = self.lock();
        let number = state.calls;
        state.calls += 1;
        if state.moments.is_some() {
            let (files, names) = (state.files.clone(), state.names.clone());
            let (durable_names, told) = (state.durable_names.clone(), state.told);
            state.moments.get_or_insert_default().push(Moment { files, names, durable_names, told });
        }
        match state.fail_at {
            Some((at, fault)) if at == number => {
                state.failed = true;
                (fault == Fault::Persisted, Err(io::Error::other("the disk says no")))
            }
            _ => (true, Ok(())),
        }
    }

    /// A disk with room for this many bytes more.
    pub(super) fn leave_room(&self, bytes: u64) {
        let mut state = self.lock();
        state.free = Some(state.used + bytes);
    }

    fn has_room_for(&self, id: usize, bytes: u64) -> bool {
        let mut state = self.lock();
        let fits = state.free.is_none_or(|free| state.used + bytes <= free);
        if fits {
            state.used += bytes;
            state.files[id].reserved += bytes;
        }
        fits
    }

    /// Notes what was done to a file.
    fn done(&self, id: usize, op: Op) {
        let mut state = self.lock();
        let call = state.calls - 1;
        state.files[id].since.push((call, op));
    }

    fn half(&self) -> bool {
        let state = self.lock();
        state.fail_at == Some((state.calls - 1, Fault::Half))
    }

    fn file(&self, id: usize, file: Box<dyn StoredFile>) -> Box<dyn StoredFile> {
        Box::new(TestFile { disk: self.clone(), id, file })
    }
}

impl Storage for TestDisk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let (happens, result) = self.call();
        if happens {
            Disk.create_dir(dir)?;
        }
        result
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn StoredFile>> {
        let (happens, result) = self.call();
        if !happens {
            return result.map(|()| unreachable!());
        }
        let file = Disk.create(path)?;
        let mut state = self.lock();
        let fresh = state.files.len();
        let id = *state.names.entry(path.to_owned()).or_insert(fresh);
        if id == fresh {
            state.files.push(Content::default());
        } else {
            let call = state.calls;
            state.files[id].since.push((call, Op::SetLen(0)));
        }
        drop(state);
        result.map(|()| self.file(id, file))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn StoredFile>> {
        let (_, result) = self.call();
        let id = self.lock().names[path];
        let file = Disk.open(path)?;
        result.map(|()| self.file(id, file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (happens, result) = self.call();
        if happens {
            Disk.rename(from, to)?;
            let mut state = self.lock();
            let id = state.names.remove(from).unwrap();
            state.names.insert(to.to_owned(), id);
            state.renames += 1;
            self.0.changed.notify_all();
        }
        result
    }

    fn seal(&self, path: &Path) -> io::Result<()> {
        let (happens, result) = self.call();
        if happens {
            Disk.seal(path)?;
        }
        result
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let (happens, result) = self.call();
        if happens {
            Disk.remove(path)?;
            let mut state = self.lock();
            if let Some(id) = state.names.remove(path) {
                state.used -= state.files[id].reserved;
            }
        }
        result
    }

    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        let state = self.lock();
        Ok(state.free.unwrap_or(u64::MAX).saturating_sub(state.used))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let (happens, result) = self.call();
        if happens {
            let mut state = self.lock();
            let here = |path: &Path| path.parent() == Some(dir);
            let live: Vec<_> =
                state.names.iter().filter(|(path, _)| here(path)).map(|(p, i)| (p.clone(), *i)).collect();
            state.durable_names.retain(|path, _| !here(path));
            state.durable_names.extend(live);
        }
        result
    }
}

struct TestFile {
    disk: TestDisk,
    id: usize,
    file: Box<dyn StoredFile>,
}

impl StoredFile for TestFile {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let (happens, result) = self.disk.call();
        if !self.disk.has_room_for(self.id, bytes.len() as u64) {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        let half = self.disk.half();
        let bytes = if half { &bytes[..bytes.len() / 2] } else { bytes };
        if happens || half {
            self.file.write_at(offset, bytes)?;
            self.disk.done(self.id, Op::Write(usize::try_from(offset).unwrap(), bytes.to_vec()));
        }
        result
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        let (happens, result) = self.disk.call();
        if happens {
            self.file.set_len(len)?;
            self.disk.done(self.id, Op::SetLen(usize::try_from(len).unwrap()));
        }
        result
    }

    fn sync(&mut self) -> io::Result<()> {
        let (happens, result) = self.disk.call();
        let mut state = self.disk.lock();
        let number = state.calls;
        state.waiting += 1;
        state.syncs.push(number);
        self.disk.0.changed.notify_all();
        let waits = |state: &mut State| state.held && state.released != Some(number);
        let mut state = self.disk.0.changed.wait_while(state, waits).unwrap();
        state.waiting -= 1;
        state.syncs.retain(|sync| *sync != number);
        self.disk.0.changed.notify_all();
        if state.failing == Some(number) {
            return Err(io::Error::other("the disk says no"));
        }
        if happens {
            state.files[self.id].sync(number);
        }
        result
    }
}
