//! Puts the pieces a guest writes together to whole lines, and counts them.
//!
//! Owns the bound on what one call may say. Must never hold more than one line per stream back.

use cofferdam_model::RequestId;

/// Longest line; longer ones are broken there.
pub(crate) const LINE_BYTES: usize = 4096;

/// Bytes over a call's own bound that a cell of ours may still be found to send (notices it adds itself).
const SLACK: usize = 8192;

/// Where a guest wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

impl Stream {
    /// As frames name it.
    pub(crate) fn from_tag(tag: u8) -> Option<Self> {
        match tag {
            1 => Some(Self::Out),
            2 => Some(Self::Err),
            _ => None,
        }
    }

    /// As files name it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Out => "out",
            Self::Err => "err",
        }
    }
}

/// One or more whole lines of one stream of one call.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// Of which request.
    pub(crate) request: RequestId,
    /// Of which stream.
    pub(crate) stream: Stream,
    /// What was written, as it was written.
    pub(crate) text: Vec<u8>,
}

impl Line {
    /// Changes what it says, as text. What is not changed stays as it was, whether it is text or not.
    pub(crate) fn change(&mut self, change: impl FnOnce(&mut String)) {
        let before = String::from_utf8_lossy(&self.text);
        let mut after = before.clone().into_owned();
        change(&mut after);
        if after != before {
            self.text = after.into_bytes();
        }
    }

    /// The lines in it, without the empty ones, each at most [`LINE_BYTES`] long.
    pub(crate) fn lines(&self) -> impl Iterator<Item = &[u8]> {
        self.text
            .split(|byte| *byte == b'\n')
            .flat_map(|line| line.strip_suffix(b"\r").unwrap_or(line).chunks(LINE_BYTES))
    }

    /// How many those are.
    pub(crate) fn count(&self) -> u64 {
        u64::try_from(self.lines().count()).unwrap_or(u64::MAX)
    }
}

/// More than the call may say.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooMuch;

/// The unfinished lines of one call.
#[derive(Default)]
pub(crate) struct Assembler {
    taken: usize,
    charged: usize,
    out: Vec<u8>,
    err: Vec<u8>,
}

impl Assembler {
    /// Takes a piece; whole lines go to `to`.
    pub(crate) fn take(
        &mut self,
        request: &RequestId,
        stream: Stream,
        piece: &[u8],
        cap: usize,
        to: &mut Vec<Line>,
    ) -> Result<(), TooMuch> {
        // An empty piece costs a byte, so that there cannot be any number of them.
        self.charged = self.charged.saturating_add(piece.len().max(1));
        if self.charged > cap.saturating_add(SLACK) {
            return Err(TooMuch);
        }
        self.taken = self.taken.saturating_add(piece.len());
        let held = match stream {
            Stream::Out => &mut self.out,
            Stream::Err => &mut self.err,
        };
        let whole = piece.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at.saturating_add(1));
        let (whole, rest) = piece.split_at_checked(whole).unwrap_or((piece, &[]));
        if !whole.is_empty() {
            held.extend_from_slice(whole);
            to.push(Line { request: request.clone(), stream, text: std::mem::take(held) });
        }
        held.extend_from_slice(rest);
        if held.len() >= LINE_BYTES {
            to.push(Line { request: request.clone(), stream, text: std::mem::take(held) });
        }
        Ok(())
    }

    /// The lines that never ended, at the end of the call.
    pub(crate) fn flush(&mut self, request: &RequestId, to: &mut Vec<Line>) {
        for (stream, held) in [(Stream::Out, &mut self.out), (Stream::Err, &mut self.err)] {
            if !held.is_empty() {
                to.push(Line { request: request.clone(), stream, text: std::mem::take(held) });
            }
        }
    }

    /// Bytes taken in all.
    pub(crate) fn taken(&self) -> u64 {
        u64::try_from(self.taken).unwrap_or(u64::MAX)
    }
}
