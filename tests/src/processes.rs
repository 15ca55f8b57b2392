//! A look at the processes of a node, through `/proc`.
//!
//! Owns finding and killing what a node started. Must never touch a process that is not below a node of ours.

use std::fs;
use std::process::Command;

/// Fields of `/proc/<pid>/stat` after the command name, which may hold spaces.
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(text.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect())
}

/// Every process below `root`, children before grandchildren.
pub fn below(root: u32) -> Vec<u32> {
    let all: Vec<(u32, u32)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, stat(pid)?.get(1)?.parse().ok()?)))
        .collect();
    let mut found = vec![root];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(all.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    found.split_off(1)
}

/// CPU time of a process in clock ticks, user and system.
pub fn cpu_ticks(pid: u32) -> u64 {
    let field = |fields: &[String], at: usize| fields.get(at).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0);
    stat(pid).map_or(0, |fields| field(&fields, 11) + field(&fields, 12))
}

/// CPU time of a process and of everything below it, in clock ticks: hundredths of a second on every Linux we support.
pub fn tree_ticks(root: u32) -> u64 {
    below(root).into_iter().map(cpu_ticks).sum::<u64>() + cpu_ticks(root)
}

/// Memory of a process in KiB, with each shared page divided among those that share it.
pub fn proportional_kib(pid: u32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// Resident memory of a process in KiB.
pub fn resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// Ends a process without a word.
pub fn kill(pid: u32) {
    let _ = Command::new("kill").args(["-KILL", &pid.to_string()]).status();
}
