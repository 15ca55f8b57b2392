//! How many connections there are, in all and from one source.
//!
//! Owns the counts; a slot is what gives them back. Must never hold more entries than there are connections.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use cofferdam_model::Limits;

use crate::limits::source_key;

#[derive(Debug, Default, Clone, Copy)]
struct Count {
    open: usize,
    handshakes: usize,
}

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    by_source: HashMap<u128, Count>,
}

/// The counts. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Peers {
    counts: Arc<Mutex<Counts>>,
    most: usize,
    most_of_source: usize,
    most_handshakes_of_source: usize,
}

impl Peers {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            counts: Arc::default(),
            most: limits.connections,
            most_of_source: limits.connections_per_source,
            // Four sources it takes at least to use up all handshakes.
            most_handshakes_of_source: limits.handshakes.div_ceil(4),
        }
    }

    /// A slot for a new connection, unless there are too many.
    pub(crate) fn enter(&self, address: IpAddr) -> Option<PeerSlot> {
        let source = source_key(address);
        self.with(|counts| {
            if counts.all >= self.most {
                return None;
            }
            let open = counts.by_source.get(&source).map_or(0, |count| count.open);
            if open >= self.most_of_source {
                return None;
            }
            counts.all += 1;
            counts.by_source.entry(source).or_default().open += 1;
            Some(PeerSlot { peers: self.clone(), source })
        })
    }

    /// Open connections in all.
    pub(crate) fn open(&self) -> usize {
        self.with(|counts| counts.all)
    }

    fn with<T>(&self, change: impl FnOnce(&mut Counts) -> T) -> T {
        change(&mut self.counts.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One open connection. Dropping it makes room for another.
#[derive(Debug)]
#[must_use]
pub(crate) struct PeerSlot {
    peers: Peers,
    source: u128,
}

impl PeerSlot {
    /// A share of the handshakes under way, unless the source has more than its part.
    pub(crate) fn begin_handshake(&self) -> Option<HandshakeShare> {
        let most = self.peers.most_handshakes_of_source;
        self.peers.with(|counts| {
            let count = counts.by_source.get_mut(&self.source)?;
            if count.handshakes >= most {
                return None;
            }
            count.handshakes += 1;
            Some(HandshakeShare { peers: self.peers.clone(), source: self.source })
        })
    }
}

impl Drop for PeerSlot {
    fn drop(&mut self) {
        self.peers.with(|counts| {
            counts.all = counts.all.saturating_sub(1);
            if let Some(count) = counts.by_source.get_mut(&self.source) {
                count.open = count.open.saturating_sub(1);
                if count.open == 0 {
                    counts.by_source.remove(&self.source);
                }
            }
        });
    }
}

/// One handshake under way.
#[derive(Debug)]
#[must_use]
pub(crate) struct HandshakeShare {
    peers: Peers,
    source: u128,
}

impl Drop for HandshakeShare {
    fn drop(&mut self) {
        self.peers.with(|counts| {
            if let Some(count) = counts.by_source.get_mut(&self.source) {
                count.handshakes = count.handshakes.saturating_sub(1);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn connections_are_counted_in_all_and_by_network() {
        let peers = Peers::new(&Limits { connections: 3, connections_per_source: 2, ..Limits::default() });
        let first = peers.enter(address("2001:db8::1"));
        let second = peers.enter(address("2001:db8::2"));
        assert!(first.is_some() && second.is_some());
        assert!(peers.enter(address("2001:db8::3")).is_none(), "one /64 is one source");
        let third = peers.enter(address("192.0.2.1"));
        assert!(third.is_some());
        assert!(peers.enter(address("192.0.2.2")).is_none(), "three in all");
        drop(first);
        assert!(peers.enter(address("2001:db8::3")).is_some());
    }

    #[test]
    fn nothing_is_remembered_of_peers_that_left() {
        let peers = Peers::new(&Limits::default());
        for last in 0..100 {
            let slot = peers.enter(address(&format!("192.0.2.{last}"))).unwrap();
            drop(slot.begin_handshake());
        }
        assert_eq!(peers.open(), 0);
        assert!(peers.with(|counts| counts.by_source.is_empty()));
    }

    #[test]
    fn one_source_has_a_quarter_of_the_handshakes() {
        let peers = Peers::new(&Limits { handshakes: 8, ..Limits::default() });
        let slots: Vec<_> = (0..3).map(|_| peers.enter(address("192.0.2.1")).unwrap()).collect();
        let shares: Vec<_> = slots.iter().map(PeerSlot::begin_handshake).collect();
        assert_eq!(shares.iter().flatten().count(), 2);
    }
}
