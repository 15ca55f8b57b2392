//! A look into the memory of processes of a node, through `/proc`.
//!
//! Owns finding bytes in everything a process can write to. Must never change anything there.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;

const PAGE: u64 = 4096;
/// Bytes looked at in one go.
const CHUNK: u64 = 1024 * 1024;

/// A mapping that can be written to.
#[derive(Debug, Clone)]
pub struct Mapping {
    from: u64,
    to: u64,
    /// What it is of; empty where it is of nothing.
    pub name: String,
    /// The kernel's flags of it: `lo` is locked, `dd` is left out of dumps.
    pub flags: Vec<String>,
    resident: bool,
}

/// Where bytes were found.
#[derive(Debug, Clone)]
pub struct Found {
    /// Address.
    pub at: u64,
    /// In which mapping.
    pub mapping: Mapping,
}

/// Every mapping of a process that can be written to.
pub fn mappings(pid: u32) -> io::Result<Vec<Mapping>> {
    let mut found: Vec<Mapping> = Vec::new();
    let mut taken = false;
    for line in fs::read_to_string(format!("/proc/{pid}/smaps"))?.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let range = words.first().and_then(|range| range.split_once('-'));
        let bound = |text: &str| u64::from_str_radix(text, 16).ok();
        if let Some((from, to)) = range.and_then(|(from, to)| Some((bound(from)?, bound(to)?))) {
            taken = words.get(1).is_some_and(|access| access.starts_with("rw"));
            if taken {
                let name = words.get(5..).unwrap_or_default().join(" ");
                found.push(Mapping { from, to, name, flags: Vec::new(), resident: false });
            }
            continue;
        }
        let Some(mapping) = found.last_mut().filter(|_| taken) else { continue };
        match words.as_slice() {
            ["Rss:", size, ..] | ["Swap:", size, ..] => mapping.resident |= *size != "0",
            ["VmFlags:", flags @ ..] => mapping.flags = flags.iter().map(|flag| (*flag).to_owned()).collect(),
            _ => {}
        }
    }
    Ok(found)
}

/// Every place where a process has these bytes in memory it can write to.
pub fn find(pid: u32, needle: &[u8]) -> io::Result<Vec<Found>> {
    let (memory, pages) = (File::open(format!("/proc/{pid}/mem"))?, File::open(format!("/proc/{pid}/pagemap"))?);
    let mut found = Vec::new();
    for mapping in mappings(pid)?.into_iter().filter(|mapping| mapping.resident) {
        for (from, to) in present(&pages, &mapping)? {
            let mut at = from;
            while at < to {
                // A little of the next one too, so that nothing is missed where two of them meet.
                let end = (at + CHUNK + needle.len() as u64).min(to);
                let mut bytes = vec![0; usize::try_from(end - at).map_err(io::Error::other)?];
                // A page may go between two looks; then there is nothing in it.
                if memory.read_exact_at(&mut bytes, at).is_ok() {
                    let place = |offset: usize| Found { at: at + offset as u64, mapping: mapping.clone() };
                    found.extend(memchr::memmem::find_iter(&bytes, needle).map(place));
                }
                at += CHUNK;
            }
        }
    }
    found.sort_by_key(|found| found.at);
    found.dedup_by_key(|found| found.at);
    Ok(found)
}

/// The parts of a mapping that are there, in memory or in swap: much of a reservation never is.
fn present(pages: &File, mapping: &Mapping) -> io::Result<Vec<(u64, u64)>> {
    const ENTRIES: u64 = 64 * 1024;
    let mut runs: Vec<(u64, u64)> = Vec::new();
    let mut at = mapping.from;
    while at < mapping.to {
        let count = ((mapping.to - at) / PAGE).min(ENTRIES);
        let mut entries = vec![0; usize::try_from(count * 8).map_err(io::Error::other)?];
        pages.read_exact_at(&mut entries, at / PAGE * 8)?;
        for entry in entries.chunks_exact(8) {
            let there = entry.last().is_some_and(|top| top & 0b1100_0000 != 0);
            match runs.last_mut() {
                Some(last) if there && last.1 == at => last.1 = at + PAGE,
                _ if there => runs.push((at, at + PAGE)),
                _ => {}
            }
            at += PAGE;
        }
    }
    Ok(runs)
}
