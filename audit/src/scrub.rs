//! Reading what nobody reads any more, so that a disk that forgets is found out before the records are needed.
//!
//! Owns the place reached and the pace. Each sealed segment is checked frame by frame, and its records against what is
//! signed of the tree before and after them. Must never hold more than one record, and never go faster than told.

use std::path::PathBuf;
use std::time::Duration;

use crate::resume::Resume;
use crate::segment::{self, Header, SegmentReader, Step, shown_name};
use crate::signer::Verifier;
use crate::tree::{Tree, leaf_hash_of_prefixed};

/// The scrub of one log.
pub(crate) struct Scrub {
    dir: PathBuf,
    origin: String,
    verifier: Verifier,
    /// Nothing is read where it is zero.
    bytes_per_second: u64,
    /// Bytes that may be read now.
    allowance: u64,
    /// The segment that comes next, or the one being read.
    number: u64,
    reading: Option<(SegmentReader, Tree)>,
}

impl Scrub {
    pub(crate) fn new(dir: PathBuf, origin: String, verifier: Verifier, bytes_per_second: u64) -> Self {
        Self { dir, origin, verifier, bytes_per_second, allowance: 0, number: 0, reading: None }
    }

    /// Goes on as far as `time` allows, and gives what is damaged.
    pub(crate) fn step(&mut self, time: Duration) -> Vec<String> {
        let mut found = Vec::new();
        if self.bytes_per_second == 0 {
            return found;
        }
        self.allowance = self.bytes_per_second.saturating_mul(time.as_secs().max(1));
        while self.allowance > 0 {
            match self.read() {
                Ok(true) => {}
                Ok(false) => break,
                Err(reason) => {
                    found.push(format!("file={} {reason}", shown_name(self.number)));
                    self.turn_to(self.number + 1);
                }
            }
        }
        found
    }

    fn turn_to(&mut self, number: u64) {
        (self.number, self.reading) = (number, None);
    }

    /// Reads on. False where there is nothing to read for now; an error says what is wrong.
    fn read(&mut self) -> Result<bool, String> {
        let Some((mut reader, mut tree)) = self.reading.take() else { return self.open() };
        while self.allowance > 0 {
            let (from, offset) = (reader.offset(), reader.offset());
            match reader.step().map_err(|error| error.to_string())? {
                Step::Frame(frame) => {
                    frame.payload.check().map_err(|reason| format!("offset={offset} {reason}"))?;
                    tree.append(leaf_hash_of_prefixed(frame.prefixed));
                    self.allowance = self.allowance.saturating_sub(frame.end - from);
                }
                Step::End => {
                    self.compare(&tree)?;
                    self.turn_to(self.number + 1);
                    return Ok(true);
                }
                Step::Zeros => return Err(format!("offset={offset} zeros in a sealed segment")),
                Step::Bad(reason) => return Err(format!("offset={offset} {reason}")),
            }
        }
        self.reading = Some((reader, tree));
        Ok(false)
    }

    /// Opens the segment that comes next, if it is sealed: another one follows it. After the last, from the start.
    fn open(&mut self) -> Result<bool, String> {
        if !segment::path(&self.dir, self.number + 1).exists() {
            let again = self.number > 0;
            self.turn_to(0);
            // One time round is enough for one step.
            self.allowance = 0;
            return Ok(again);
        }
        let failed = |error: std::io::Error| error.to_string();
        let before = match self.number {
            0 => Some(Tree::default()),
            number => Resume::read(&self.dir, number, &self.verifier).map_err(failed)?.map(|resume| resume.tree),
        };
        let before = before.ok_or("its resume file is missing or not signed")?;
        let header = Header::of(&self.origin, before.size());
        let reader = SegmentReader::open(&self.dir, self.number, header).map_err(failed)??;
        self.reading = Some((reader, before));
        Ok(true)
    }

    /// Compares the tree at a segment's end with what is signed of it.
    fn compare(&self, tree: &Tree) -> Result<(), String> {
        let after = Resume::read(&self.dir, self.number + 1, &self.verifier).map_err(|error| error.to_string())?;
        match after {
            Some(after) if after.tree != *tree => Err("its records are not those that were signed for".to_owned()),
            _ => Ok(()),
        }
    }
}
