//! A control group of its own for each cell, where the kernel lets us make one.
//!
//! Owns the directories below one of this node's. What memory and processes a cell may have is bounded in the cell
//! already, by what the cell is; here the kernel bounds it, whatever became of the cell. Must never keep a node from
//! starting, and never touch a group that is not ours.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cofferdam_model::{CellId, FunctionLimits};

/// Where the kernel shows its groups.
const ROOT: &str = "/sys/fs/cgroup";
/// Memory of a cell beside what its guests may hold: its own code, stacks and buffers.
const OVERHEAD: u64 = 64 * 1024 * 1024;
/// Processes and threads of a cell: the guardian, the jailed process, its ticker, and room for a few more.
const PROCESSES: &str = "16";
/// How often, and how long apart, the removal of a group is tried whose last process is not quite gone.
const REMOVALS: (u32, Duration) = (50, Duration::from_millis(20));
/// How directories of ours begin.
const OURS: &str = "cofferdam-";

/// The two versions of the kernel's interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    /// A directory for each resource.
    One,
    /// One directory for all.
    Two,
}

/// The directories of this node, one for each hierarchy.
#[derive(Debug)]
struct Parents {
    version: Version,
    dirs: Vec<PathBuf>,
}

/// All groups of a node.
pub(crate) struct Cgroups {
    parents: Option<Parents>,
    warned: AtomicBool,
}

impl Cgroups {
    /// No groups.
    #[cfg(test)]
    pub(crate) fn none() -> Self {
        Self { parents: None, warned: AtomicBool::new(false) }
    }

    /// Finds out where groups can be made: below the directory given, or else below this process's own group. Where
    /// there is no place, that is said, and cells go without.
    pub(crate) fn open(given: Option<&Path>) -> Self {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let parents = match find(given, &own, Path::new(ROOT)) {
            Ok(parents) => {
                let dirs: Vec<String> = parents.dirs.iter().map(|dir| dir.display().to_string()).collect();
                tracing::info!(below = dirs.join(" "), "each cell gets a control group of its own");
                Some(parents)
            }
            Err(reason) => {
                tracing::warn!(reason, "cells get no control group: the kernel does not bound their memory");
                None
            }
        };
        Self { parents, warned: AtomicBool::new(false) }
    }

    /// A group for a cell that was just started, with the cell in it. Blocks.
    pub(crate) fn place(&self, id: &CellId, pid: u32) -> Option<Cgroup> {
        let parents = self.parents.as_ref()?;
        let dirs = parents.dirs.iter().map(|parent| parent.join(id.as_str())).collect();
        let group = Cgroup { version: parents.version, dirs };
        match group.fill(pid) {
            Ok(()) => Some(group),
            Err(error) => {
                group.clear();
                if !self.warned.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "a cell could not be put into a control group; this is not said again");
                }
                None
            }
        }
    }

    /// Takes this node's directories away when the groups of its last cells are gone. One that stays is swept by the
    /// next node.
    pub(crate) async fn close(&self) {
        let gone = |dir: &PathBuf| fs::remove_dir(dir).is_ok() || !dir.exists();
        for _ in 0..REMOVALS.0 {
            if self.parents.iter().flat_map(|parents| &parents.dirs).all(gone) {
                return;
            }
            tokio::time::sleep(REMOVALS.1).await;
        }
    }
}

/// The group of one cell.
pub(crate) struct Cgroup {
    version: Version,
    dirs: Vec<PathBuf>,
}

impl Cgroup {
    fn fill(&self, pid: u32) -> io::Result<()> {
        for dir in &self.dirs {
            fs::create_dir(dir)?;
        }
        self.set(&["pids.max"], PROCESSES)?;
        // The process may have forked its jailed half by now; whatever it forks later is born in the group.
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        for dir in &self.dirs {
            fs::write(dir.join("cgroup.procs"), pid.to_string())?;
            for child in children.split_whitespace() {
                fs::write(dir.join("cgroup.procs"), child)?;
            }
        }
        Ok(())
    }

    /// Bounds its memory by what the function's calls may use at once.
    pub(crate) fn limit(&self, limits: &FunctionLimits, calls: u32) {
        let bytes = limits.memory_bytes.saturating_mul(u64::from(calls.max(1))).saturating_add(OVERHEAD).to_string();
        let done = match self.version {
            Version::One => self.set(&["memory.limit_in_bytes"], &bytes),
            Version::Two => {
                // Without these two the bound holds too: what is swapped counts elsewhere, a cell may die in part.
                let _ = self.set(&["memory.swap.max"], "0");
                let _ = self.set(&["memory.oom.group"], "1");
                self.set(&["memory.max"], &bytes)
            }
        };
        if let Err(error) = done {
            tracing::warn!(%error, "the memory of a cell could not be bounded by its control group");
        }
    }

    /// Writes a setting where its hierarchy has it.
    fn set(&self, files: &[&str], text: &str) -> io::Result<()> {
        for file in files {
            let resource = file.split('.').next().unwrap_or_default();
            for dir in self.dirs.iter().filter(|dir| self.version == Version::Two || of(dir, resource)) {
                fs::write(dir.join(file), text)?;
            }
        }
        Ok(())
    }

    /// Whether all of it is gone.
    fn clear(&self) -> bool {
        self.dirs.iter().fold(true, |gone, dir| match fs::remove_dir(dir) {
            Ok(()) => gone,
            Err(error) => gone && error.kind() == io::ErrorKind::NotFound,
        })
    }

    /// Kills what is left in it and takes it away, in the background: the last process may take a moment to go.
    pub(crate) async fn remove(self) {
        if self.version == Version::Two {
            // Linux 5.14. Before that the parent-death signal alone has to do.
            let _ = self.set(&["cgroup.kill"], "1");
        }
        for _ in 0..REMOVALS.0 {
            if self.clear() {
                return;
            }
            tokio::time::sleep(REMOVALS.1).await;
        }
        tracing::warn!(dirs = ?self.dirs, "a control group could not be removed");
    }
}

/// Whether a directory of version 1 is in the hierarchy of a resource.
fn of(dir: &Path, resource: &str) -> bool {
    dir.components().any(|part| part.as_os_str() == resource)
}

/// The directories for this node's cells, made.
fn find(given: Option<&Path>, own: &str, root: &Path) -> Result<Parents, String> {
    let below = |text: &str| root.join(text.trim_start_matches('/'));
    if let Some(dir) = given {
        return match dir.join("cgroup.controllers").is_file() {
            true => second(dir, false),
            false => first(&dir.join("memory"), &dir.join("pids")),
        };
    }
    let unified = own.lines().find_map(|line| line.strip_prefix("0::")).map(below);
    if let Some(dir) = unified.filter(|dir| dir.join("cgroup.controllers").is_file()) {
        return second(&dir, true);
    }
    let of = |resource: &str| {
        let path = own.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            (parts.next()?.split(',').any(|name| name == resource)).then(|| parts.next())?
        });
        path.map(|path| root.join(resource).join(path.trim_start_matches('/')))
    };
    match (of("memory"), of("pids")) {
        (Some(memory), Some(pids)) => first(&memory, &pids),
        _ => Err("this host has no cgroups of memory and pids".into()),
    }
}

fn name() -> String {
    format!("{OURS}{}", std::process::id())
}

/// Version 1: any directory may have both processes and directories.
fn first(memory: &Path, pids: &Path) -> Result<Parents, String> {
    let mut dirs = Vec::new();
    for dir in [memory, pids] {
        sweep(dir);
        let parent = dir.join(name());
        make(&parent)?;
        dirs.push(parent);
    }
    Ok(Parents { version: Version::One, dirs })
}

/// Version 2: a directory that hands resources on may hold no process, so we leave our own for a leaf of it.
fn second(dir: &Path, leave: bool) -> Result<Parents, String> {
    let failed = |what: &str, error: &io::Error| format!("`{}`: {what}: {error}", dir.display());
    let controllers = fs::read_to_string(dir.join("cgroup.controllers")).unwrap_or_default();
    let has = |name: &str| controllers.split_whitespace().any(|had| had == name);
    if !has("memory") || !has("pids") {
        let had = controllers.trim();
        return Err(format!("`{}` has controllers `{had}`; memory and pids are needed", dir.display()));
    }
    sweep(dir);
    let enable = if has("cpu") { "+memory +pids +cpu" } else { "+memory +pids" };
    let leaf = dir.join(format!("{OURS}node"));
    if leave {
        make(&leaf)?;
        fs::write(leaf.join("cgroup.procs"), "0").map_err(|error| failed("moving this process", &error))?;
    }
    if let Err(error) = fs::write(dir.join("cgroup.subtree_control"), enable) {
        if leave {
            // Back to where it was found; others are there, and it is not ours to move them.
            let _ = fs::write(dir.join("cgroup.procs"), "0").and_then(|()| fs::remove_dir(&leaf));
        }
        return Err(failed("handing on its controllers", &error));
    }
    let parent = dir.join(name());
    make(&parent)?;
    fs::write(parent.join("cgroup.subtree_control"), enable)
        .map_err(|error| failed("handing them on again", &error))?;
    Ok(Parents { version: Version::Two, dirs: vec![parent] })
}

fn make(dir: &Path) -> Result<(), String> {
    match fs::create_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(format!("`{}` cannot be made: {error}", dir.display()))
        }
        _ => Ok(()),
    }
}

/// Takes away what nodes that were killed left. A group with a process in it cannot be removed, nor one with others
/// below it; what a node made that still lives is left alone.
fn sweep(dir: &Path) {
    let lives = |name: &str| name.parse::<u32>().is_ok_and(|pid| Path::new(&format!("/proc/{pid}")).exists());
    for old in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = old.file_name();
        if name.to_string_lossy().strip_prefix(OURS).is_some_and(|pid| !lives(pid)) {
            for cell in fs::read_dir(old.path()).into_iter().flatten().flatten() {
                let _ = fs::remove_dir(cell.path());
            }
            let _ = fs::remove_dir(old.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cofferdam_model::random::SeededRandom;

    fn id() -> CellId {
        CellId::mint(&SeededRandom::new(1))
    }

    fn read(path: PathBuf) -> String {
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    fn groups(parents: Result<Parents, String>) -> Cgroups {
        Cgroups { parents: Some(parents.unwrap()), warned: AtomicBool::new(false) }
    }

    fn function() -> FunctionLimits {
        FunctionLimits { memory_bytes: 1024 * 1024, ..FunctionLimits::default() }
    }

    #[test]
    fn version_two_gets_a_directory_for_each_cell_below_one_without_processes() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("service");
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("cgroup.controllers"), "cpu memory pids\n").unwrap();
        let groups = groups(find(None, "0::/service\n", root.path()));
        assert_eq!(read(dir.join("cofferdam-node/cgroup.procs")), "0");
        assert_eq!(read(dir.join("cgroup.subtree_control")), "+memory +pids +cpu");
        let cell = groups.place(&id(), 4_000_000).unwrap();
        cell.limit(&function(), 3);
        let made = dir.join(name()).join(id().as_str());
        assert_eq!(read(made.join("cgroup.procs")), "4000000");
        assert_eq!(read(made.join("memory.max")), (3 * 1024 * 1024 + 64 * 1024 * 1024).to_string());
        assert_eq!((read(made.join("pids.max")).as_str(), read(made.join("memory.oom.group")).as_str()), ("16", "1"));
    }

    #[test]
    fn version_one_sets_each_limit_where_its_hierarchy_is() {
        let root = tempfile::tempdir().unwrap();
        for resource in ["memory", "pids"] {
            fs::create_dir_all(root.path().join(resource).join("a/b")).unwrap();
        }
        let groups = groups(find(None, "9:name=systemd:/\n8:pids:/a\n4:memory:/a/b\n0::/\n", root.path()));
        let cell = groups.place(&id(), 4_000_000).unwrap();
        cell.limit(&function(), 1);
        let (memory, pids) = (root.path().join("memory/a/b").join(name()), root.path().join("pids/a").join(name()));
        let (memory, pids) = (memory.join(id().as_str()), pids.join(id().as_str()));
        assert_eq!(read(memory.join("memory.limit_in_bytes")), (65 * 1024 * 1024).to_string());
        assert_eq!(read(pids.join("pids.max")), "16");
        assert!(!memory.join("pids.max").exists() && !pids.join("memory.limit_in_bytes").exists());
        assert_eq!((read(memory.join("cgroup.procs")), read(pids.join("cgroup.procs"))).0, "4000000");
    }

    #[test]
    fn what_cannot_be_had_is_said_and_nothing_fails() {
        let root = tempfile::tempdir().unwrap();
        assert!(find(None, "", root.path()).unwrap_err().contains("no cgroups"));
        assert!(find(Some(&root.path().join("none")), "", root.path()).unwrap_err().contains("cannot be made"));
        fs::write(root.path().join("cgroup.controllers"), "cpu\n").unwrap();
        let refused = find(None, "0::/\n", root.path()).unwrap_err();
        assert!(refused.contains("controllers `cpu`"), "{refused}");
        assert!(Cgroups::none().place(&id(), 1).is_none());
    }

    #[tokio::test]
    async fn a_group_of_the_real_kernel_holds_the_process_and_goes_with_it() {
        let groups = Cgroups::open(None);
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let placed = groups.place(&id(), child.id());
        assert!(groups.parents.is_some() || placed.is_none());
        let dirs = placed.as_ref().map(|group| group.dirs.clone()).unwrap_or_default();
        if let Some(group) = &placed {
            group.limit(&function(), 1);
            let seen = read(format!("/proc/{}/cgroup", child.id()).into());
            assert_eq!(seen.matches(id().as_str()).count(), dirs.len(), "{seen}");
        }
        child.kill().unwrap();
        child.wait().unwrap();
        if let Some(group) = placed {
            group.remove().await;
        }
        groups.close().await;
        assert!(dirs.iter().all(|dir| !dir.exists()), "{dirs:?}");
    }
}
