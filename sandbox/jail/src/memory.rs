//! Memory for keys: locked into place, kept out of dumps and children, wiped when it is let go of.
//!
//! Owns its slots, and says what the host did not allow. Must never hand a slot to two at once.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use crate::sys::Pages;

/// Bytes of a key.
const SLOT: usize = 32;
/// Keys that can be held at once.
const SLOTS: usize = 2048;

/// Memory for keys.
#[derive(Clone)]
pub struct KeyPages(Arc<Shared>);

struct Shared {
    pages: Pages,
    free: Mutex<Vec<usize>>,
    locked: Result<(), String>,
    hidden: Result<(), String>,
}

/// One key's place. Wiped and given back on drop.
pub struct KeySlot {
    shared: Arc<Shared>,
    at: usize,
}

impl KeyPages {
    /// Memory for keys, as well kept as the host allows.
    pub fn new() -> io::Result<Self> {
        let pages = Pages::map(SLOT * SLOTS)?;
        let said = |error: io::Error| error.to_string();
        let (locked, hidden) = (pages.lock().map_err(said), pages.hide().map_err(said));
        let free = (0..SLOTS).rev().map(|slot| slot * SLOT).collect();
        Ok(Self(Arc::new(Shared { pages, free: Mutex::new(free), locked, hidden })))
    }

    /// Whether it cannot get into swap; else why it can.
    pub fn locked(&self) -> Result<(), &str> {
        self.0.locked.as_ref().copied().map_err(String::as_str)
    }

    /// Whether it is kept out of core dumps; else why not.
    pub fn hidden(&self) -> Result<(), &str> {
        self.0.hidden.as_ref().copied().map_err(String::as_str)
    }

    /// Keeps a copy of a key; none where there is no room.
    pub fn keep(&self, key: &[u8; SLOT]) -> Option<KeySlot> {
        let at = self.0.free().pop()?;
        self.0.pages.set(at, key);
        Some(KeySlot { shared: self.0.clone(), at })
    }
}

impl Shared {
    fn free(&self) -> std::sync::MutexGuard<'_, Vec<usize>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl KeySlot {
    /// The key.
    pub fn expose(&self) -> &[u8; SLOT] {
        // A slot is only ever made of a place that is there.
        self.shared.pages.slot(self.at).unwrap_or(&[0; SLOT])
    }
}

impl Drop for KeySlot {
    fn drop(&mut self) {
        self.shared.pages.set(self.at, &[0; SLOT]);
        self.shared.free().push(self.at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_kept_apart_and_wiped_when_let_go_of() {
        let pages = KeyPages::new().unwrap();
        let (one, two) = (pages.keep(&[1; 32]).unwrap(), pages.keep(&[2; 32]).unwrap());
        assert_eq!((one.expose(), two.expose()), (&[1; 32], &[2; 32]));
        let at = one.at;
        drop(one);
        assert_eq!(pages.0.pages.slot(at), Some(&[0; 32]));
        assert_eq!(two.expose(), &[2; 32]);
        let again = pages.keep(&[3; 32]).unwrap();
        assert_eq!(again.at, at, "its place is given to the next");
    }

    #[test]
    fn there_is_an_end_to_the_room_and_it_comes_back() {
        let pages = KeyPages::new().unwrap();
        let all: Vec<_> = (0..SLOTS).map(|_| pages.keep(&[7; 32]).unwrap()).collect();
        assert!(pages.keep(&[7; 32]).is_none());
        drop(all);
        assert!(pages.keep(&[7; 32]).is_some());
        assert!(pages.0.pages.slot(SLOT * SLOTS - SLOT + 1).is_none(), "nothing lies beyond the end");
    }

    #[test]
    fn pages_of_keys_are_locked_and_out_of_dumps_where_the_host_allows_it() {
        let pages = KeyPages::new().unwrap();
        let slot = pages.keep(&[5; 32]).unwrap();
        let address = slot.expose().as_ptr() as usize;
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let (mut inside, mut flags) = (false, None);
        for line in maps.lines() {
            let range = line.split(' ').next().and_then(|range| range.split_once('-'));
            let bound = |text: &str| usize::from_str_radix(text, 16).ok();
            if let Some((from, to)) = range.and_then(|(from, to)| Some((bound(from)?, bound(to)?))) {
                inside = (from..to).contains(&address);
            }
            if let (true, Some(found)) = (inside, line.strip_prefix("VmFlags:")) {
                flags = Some(found.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
            }
        }
        let flags = flags.unwrap();
        let has = |flag: &str| flags.iter().any(|found| found == flag);
        assert_eq!((has("lo"), has("dd")), (pages.locked().is_ok(), pages.hidden().is_ok()), "{flags:?}");
    }
}
