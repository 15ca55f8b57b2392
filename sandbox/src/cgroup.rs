//! A control group of its own for each cell, where the kernel lets us make one.
//!
//! Owns the directories below one of this node's. What memory and processes a cell may have is bounded in the cell
//! already, by what the cell is; here the kernel bounds it, whatever became of the cell, and shares the processors out
//! between cells, and between them and the node. Must never keep a node from starting, and never touch a group that is
//! not ours.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cofferdam_model::{CellId, FunctionLimits};
use rustix::fs::{Access, access};
use rustix::io::Errno;

/// Where the kernel shows its groups.
const ROOT: &str = "/sys/fs/cgroup";
/// Memory of a cell beside what its guests may hold: its own code, stacks and buffers.
const OVERHEAD: u64 = 64 * 1024 * 1024;
/// Processes and threads of a cell: the guardian, the jailed process, its ticker, and room for a few more.
const PROCESSES: &str = "16";
/// How often, and how long apart, the removal of a group is tried whose last process is not quite gone.
const REMOVALS: (u32, Duration) = (50, Duration::from_millis(20));
/// What all cells of a node weigh together where processors are short: a tenth of what the node itself does, by the
/// scales of version 1 and of version 2. It is the node that answers; a tenant's cells must not keep it from that.
const WEIGHT: (&str, &str) = ("100", "10");
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

/// A directory, and the resource it is for; that of version 2 is for all.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Dir {
    resource: &'static str,
    path: PathBuf,
}

impl Dir {
    fn below(&self, name: &str) -> Self {
        Self { resource: self.resource, path: self.path.join(name) }
    }
}

/// The directories of this node, one for each hierarchy.
#[derive(Debug)]
struct Parents {
    version: Version,
    dirs: Vec<Dir>,
}

/// All groups of a node.
pub(crate) struct Cgroups {
    parents: Option<Parents>,
    warned: AtomicBool,
}

/// Where a node on this host, with this setting, would make a control group for each cell; or why it would not. Changes
/// nothing.
pub fn cgroups(given: Option<&Path>) -> Result<String, String> {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let plan = find(given, &own, Path::new(ROOT))?;
    let dirs: Vec<String> = plan.dirs.iter().map(|dir| format!("`{}`", dir.path.display())).collect();
    Ok(format!("{} below {}", plan.version.as_str(), dirs.join(", ")))
}

impl Version {
    fn as_str(self) -> &'static str {
        match self {
            Self::One => "v1",
            Self::Two => "v2",
        }
    }
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
        let parents = match find(given, &own, Path::new(ROOT)).and_then(|plan| plan.carry_out()) {
            Ok(parents) => {
                let dirs: Vec<String> = parents.dirs.iter().map(|dir| dir.path.display().to_string()).collect();
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

    /// Which of the kernel's interfaces cells have groups by: `v1`, `v2` or `none`.
    pub(crate) fn kind(&self) -> &'static str {
        self.parents.as_ref().map_or("none", |parents| parents.version.as_str())
    }

    /// A group for a cell that was just started, with the cell in it. Blocks.
    pub(crate) fn place(&self, id: &CellId, pid: u32) -> Option<Cgroup> {
        let parents = self.parents.as_ref()?;
        let dirs = parents.dirs.iter().map(|parent| parent.below(id.as_str())).collect();
        let group = Cgroup { version: parents.version, dirs };
        match group.fill(pid) {
            Ok(()) => Some(group),
            Err(error) => {
                group.clear();
                // One that is gone already needs no group, and says nothing about the next one.
                if !is_gone(&error) && !self.warned.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "a cell could not be put into a control group; this is not said again");
                }
                None
            }
        }
    }

    /// Takes this node's directories away when the groups of its last cells are gone. One that stays is swept by the
    /// next node.
    pub(crate) async fn close(&self) {
        let gone = |dir: &Dir| fs::remove_dir(&dir.path).is_ok() || !dir.path.exists();
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
    dirs: Vec<Dir>,
}

impl Cgroup {
    fn fill(&self, pid: u32) -> io::Result<()> {
        for dir in &self.dirs {
            fs::create_dir(&dir.path)?;
        }
        self.set("pids.max", PROCESSES)?;
        self.enter(pid)?;
        // What a process forks once it is in the group is born there; what it forked before that is among its children
        // by now. So it is the process first and then its children, and theirs, until there are none left outside.
        let mut inside = vec![pid];
        loop {
            let born: Vec<u32> =
                inside.iter().flat_map(|pid| children(*pid)).filter(|pid| !inside.contains(pid)).collect();
            if born.is_empty() {
                return Ok(());
            }
            for child in born {
                match self.enter(child) {
                    Err(error) if !is_gone(&error) => return Err(error),
                    _ => inside.push(child),
                }
            }
        }
    }

    fn enter(&self, pid: u32) -> io::Result<()> {
        self.dirs.iter().try_for_each(|dir| fs::write(dir.path.join("cgroup.procs"), pid.to_string()))
    }

    /// Bounds its memory by what the function's calls may use at once.
    pub(crate) fn limit(&self, limits: &FunctionLimits, calls: u32) {
        let bytes = limits.memory_bytes.saturating_mul(u64::from(calls.max(1))).saturating_add(OVERHEAD).to_string();
        let done = match self.version {
            Version::One => self.set("memory.limit_in_bytes", &bytes),
            Version::Two => {
                // Without these two the bound holds too: what is swapped counts elsewhere, a cell may die in part.
                let _ = self.set("memory.swap.max", "0");
                let _ = self.set("memory.oom.group", "1");
                self.set("memory.max", &bytes)
            }
        };
        if let Err(error) = done {
            tracing::warn!(%error, "the memory of a cell could not be bounded by its control group");
        }
    }

    /// Writes a setting where its hierarchy has it.
    fn set(&self, file: &str, text: &str) -> io::Result<()> {
        let resource = file.split('.').next().unwrap_or_default();
        let has = |dir: &&Dir| self.version == Version::Two || dir.resource == resource;
        self.dirs.iter().filter(has).try_for_each(|dir| fs::write(dir.path.join(file), text))
    }

    /// Whether all of it is gone.
    fn clear(&self) -> bool {
        self.dirs.iter().fold(true, |gone, dir| match fs::remove_dir(&dir.path) {
            Ok(()) => gone,
            Err(error) => gone && error.kind() == io::ErrorKind::NotFound,
        })
    }

    /// Kills what is left in it and takes it away, in the background: the last process may take a moment to go.
    pub(crate) async fn remove(self) {
        if self.version == Version::Two {
            // Linux 5.14. Before that the parent-death signal alone has to do.
            let _ = self.set("cgroup.kill", "1");
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

/// Whether a process was gone before it could be moved.
fn is_gone(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::SRCH.raw_os_error())
}

/// The processes a process of one thread has forked. None where it is gone.
fn children(pid: u32) -> Vec<u32> {
    let listed = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    listed.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// Where the groups of this node's cells are to be made. Nothing was done about it yet.
#[derive(Debug)]
struct Plan {
    version: Version,
    dirs: Vec<Dir>,
    /// Whether this process is in the directory itself.
    leave: bool,
}

/// Finds the directories for a node's cells.
fn find(given: Option<&Path>, own: &str, root: &Path) -> Result<Plan, String> {
    if let Some(dir) = given {
        return match dir.join("cgroup.controllers").is_file() {
            true => second(dir, false),
            false => first(|resource| Some(dir.join(resource))),
        };
    }
    let below = |text: &str| root.join(text.trim_start_matches('/'));
    let unified = own.lines().find_map(|line| line.strip_prefix("0::")).map(below);
    if let Some(dir) = unified.filter(|dir| dir.join("cgroup.controllers").is_file()) {
        return second(&dir, true);
    }
    first(|resource| {
        let path = own.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            (parts.next()?.split(',').any(|name| name == resource)).then(|| parts.next())?
        });
        path.map(|path| root.join(resource).join(path.trim_start_matches('/')))
    })
}

/// Version 1: any directory may have both processes and directories.
fn first(of: impl Fn(&str) -> Option<PathBuf>) -> Result<Plan, String> {
    let mut dirs = Vec::new();
    for resource in ["memory", "pids"] {
        let path = of(resource).ok_or("this host has no cgroups of memory and pids")?;
        writable(&path)?;
        dirs.push(Dir { resource, path });
    }
    // Good to have, where it can be had.
    let cpu = of("cpu").filter(|path| writable(path).is_ok());
    dirs.extend(cpu.map(|path| Dir { resource: "cpu", path }));
    Ok(Plan { version: Version::One, dirs, leave: false })
}

/// Version 2: one directory, which must have what is needed to hand on.
fn second(dir: &Path, leave: bool) -> Result<Plan, String> {
    let had = controllers(dir);
    if !has(&had, "memory") || !has(&had, "pids") {
        let had = had.trim();
        return Err(format!("`{}` has controllers `{had}`; memory and pids are needed", dir.display()));
    }
    writable(dir)?;
    Ok(Plan { version: Version::Two, dirs: vec![Dir { resource: "", path: dir.to_owned() }], leave })
}

fn controllers(dir: &Path) -> String {
    fs::read_to_string(dir.join("cgroup.controllers")).unwrap_or_default()
}

fn has(controllers: &str, name: &str) -> bool {
    controllers.split_whitespace().any(|had| had == name)
}

fn writable(dir: &Path) -> Result<(), String> {
    access(dir, Access::WRITE_OK | Access::EXEC_OK)
        .map_err(|error| format!("no directory can be made in `{}`: {}", dir.display(), io::Error::from(error)))
}

fn name() -> String {
    format!("{OURS}{}", std::process::id())
}

impl Plan {
    /// Makes a directory for this node's cells in each.
    fn carry_out(self) -> Result<Parents, String> {
        let mut parents = Parents { version: self.version, dirs: Vec::new() };
        for dir in &self.dirs {
            sweep(&dir.path);
            let parent = dir.below(&name());
            let made = match self.version {
                Version::One => make(&parent.path).and_then(|()| share(&parent, "cpu.shares", WEIGHT.0)),
                Version::Two => hand_on(&dir.path, &parent.path, self.leave),
            };
            match made {
                Err(reason) if dir.resource == "cpu" => {
                    tracing::warn!(reason, "cells and node share the processors as equals");
                    let _ = fs::remove_dir(&parent.path);
                }
                Err(reason) => return Err(reason),
                Ok(()) => parents.dirs.push(parent),
            }
        }
        Ok(parents)
    }
}

/// Sets what all cells weigh together, in the hierarchy that is for that.
fn share(parent: &Dir, file: &str, weight: &str) -> Result<(), String> {
    if parent.resource != "cpu" {
        return Ok(());
    }
    let path = parent.path.join(file);
    fs::write(&path, weight).map_err(|error| format!("`{}` cannot be set: {error}", path.display()))
}

/// Version 2: a directory that hands resources on may hold no process, so we leave our own for a leaf of it.
fn hand_on(dir: &Path, parent: &Path, leave: bool) -> Result<(), String> {
    let failed = |what: &str, error: &io::Error| format!("`{}`: {what}: {error}", dir.display());
    let enable = if has(&controllers(dir), "cpu") { "+memory +pids +cpu" } else { "+memory +pids" };
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
    make(parent)?;
    // Where it cannot be set, the cells weigh as much as the node, each within what is bounded otherwise.
    if let (true, Err(error)) = (enable.ends_with("cpu"), fs::write(parent.join("cpu.weight"), WEIGHT.1)) {
        tracing::warn!(%error, "cells and node share the processors as equals");
    }
    fs::write(parent.join("cgroup.subtree_control"), enable).map_err(|error| failed("handing them on again", &error))
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
mod tests;
