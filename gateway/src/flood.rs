//! A budget for HTTP/2 frames that cost the peer nothing and us an answer.
//!
//! Owns the count of control frames (PING, SETTINGS, PRIORITY, WINDOW_UPDATE, RST_STREAM, unknown ones) against what
//! the connection earns by time, by requests and by what it takes of its answers. Reads frame headers only, and must
//! never judge what a frame says: that is left to the HTTP/2 library.

use std::time::Duration;

use tokio::time::Instant;

const PREFACE_BYTES: u64 = 24;
/// Frames a connection may send beyond what it earned.
const BURST: u64 = 2_000;
/// Frames earned by time.
const PER_SECOND: u64 = 100;
/// Frames earned by a request.
const PER_REQUEST: u64 = 8;
/// Bytes of answer that earn one frame: clients open their window about twice in 16 KiB at the most.
const BYTES_PER_FRAME: usize = 4 * 1024;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;

/// The reader and the budget. One per connection.
#[derive(Debug)]
pub(crate) struct Flood {
    /// Bytes to skip before the next frame header.
    skip: u64,
    header: [u8; 9],
    have: usize,
    spent: u64,
    earned: u64,
    unrewarded: usize,
    since: Instant,
}

impl Flood {
    /// Before the preface.
    pub(crate) fn new() -> Self {
        Self {
            skip: PREFACE_BYTES,
            header: [0; 9],
            have: 0,
            spent: 0,
            earned: BURST,
            unrewarded: 0,
            since: Instant::now(),
        }
    }

    /// Bytes came in.
    pub(crate) fn read(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len());
            self.skip -= u64::try_from(skipped).unwrap_or(self.skip);
            bytes = bytes.get(skipped..).unwrap_or_default();
            if self.skip > 0 {
                return;
            }
            let Some(space) = self.header.get_mut(self.have..) else { return };
            let count = space.len().min(bytes.len());
            for (to, from) in space.iter_mut().zip(bytes) {
                *to = *from;
            }
            self.have += count;
            bytes = bytes.get(count..).unwrap_or_default();
            if self.have == self.header.len() {
                self.have = 0;
                self.count();
            }
        }
    }

    fn count(&mut self) {
        let [a, b, c, kind, ..] = self.header;
        self.skip = u64::from(u32::from_be_bytes([0, a, b, c]));
        match kind {
            DATA if self.skip > 0 => {}
            CONTINUATION => {}
            HEADERS => self.earned = self.earned.saturating_add(PER_REQUEST),
            _ => self.spent = self.spent.saturating_add(1),
        }
    }

    /// Bytes went out.
    pub(crate) fn wrote(&mut self, count: usize) {
        let total = self.unrewarded.saturating_add(count);
        self.earned = self.earned.saturating_add(u64::try_from(total / BYTES_PER_FRAME).unwrap_or(0));
        self.unrewarded = total % BYTES_PER_FRAME;
    }

    /// Whether the budget is used up. Asks for the time only when it seems so.
    pub(crate) fn is_over(&mut self) -> bool {
        if self.spent <= self.earned {
            // What was earned and not needed must not pile up without end.
            self.earned = self.earned.min(self.spent.saturating_add(BURST));
            return false;
        }
        let elapsed = self.since.elapsed();
        let by_time = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).saturating_mul(PER_SECOND) / 1000;
        if by_time > 0 {
            self.since += Duration::from_millis(by_time * 1000 / PER_SECOND);
            self.earned = self.earned.saturating_add(by_time).min(self.spent.saturating_add(BURST));
        }
        self.spent > self.earned
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const PING: u8 = 6;

    fn frame(kind: u8, payload: usize) -> Vec<u8> {
        let length = u32::try_from(payload).unwrap().to_be_bytes();
        let mut bytes = vec![length[1], length[2], length[3], kind, 0, 0, 0, 0, 0];
        bytes.resize(9 + payload, 0xaa);
        bytes
    }

    fn after(frames: &[Vec<u8>], piece: usize) -> Flood {
        let mut flood = Flood::new();
        let bytes = [PREFACE.to_vec(), frames.concat()].concat();
        bytes.chunks(piece).for_each(|part| flood.read(part));
        flood
    }

    #[tokio::test(start_paused = true)]
    async fn a_ping_flood_ends_at_the_burst_however_it_is_cut() {
        for piece in [1, 7, 9, 1000, 1 << 20] {
            let calm = vec![frame(PING, 8); usize::try_from(BURST).unwrap()];
            assert!(!after(&calm, piece).is_over(), "piece {piece}");
            let flood = vec![frame(PING, 8); usize::try_from(BURST).unwrap() + 1];
            assert!(after(&flood, piece).is_over(), "piece {piece}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn time_requests_and_answers_earn_frames() {
        let mut flood = after(&vec![frame(PING, 8); 2_001], 64);
        assert!(flood.is_over());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!flood.is_over());
        let mut flood = after(&[vec![frame(HEADERS, 20); 100], vec![frame(8, 4); 2_700]].concat(), 64);
        assert!(!flood.is_over());
        let mut flood = after(&vec![frame(8, 4); 2_500], 64);
        (0..200).for_each(|_| flood.wrote(16 * 1024));
        assert!(!flood.is_over());
    }

    #[tokio::test(start_paused = true)]
    async fn bodies_cost_nothing_but_empty_pieces_of_them_do() {
        assert!(!after(&vec![frame(DATA, 100); 5_000], 4096).is_over());
        assert!(after(&vec![frame(DATA, 0); 5_000], 4096).is_over());
    }
}
