//! Puts the pieces a guest writes together to whole lines, and counts them.
//!
//! Owns the bound on what one call may say, and where lines without an end are cut. Must never hold more back than a
//! line and a credential's surroundings, and never cut where a credential could no longer be found by who blots it out.

use std::ops::Range;

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

/// One or more whole lines of one stream of one call, or a part of one that is too long.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// Of which request.
    pub(crate) request: RequestId,
    /// Of which stream.
    pub(crate) stream: Stream,
    /// What was written, as it was written. Where a line was cut, also what stands around the part.
    text: Vec<u8>,
    /// Bytes at the beginning that belong to the part before.
    before: usize,
    /// Bytes at the end that belong to the part after.
    after: usize,
}

impl Line {
    #[cfg(test)]
    pub(crate) fn new(request: RequestId, stream: Stream, text: Vec<u8>) -> Self {
        Self { request, stream, text, before: 0, after: 0 }
    }

    /// What of the text is the line's own.
    fn own(&self) -> Range<usize> {
        self.before..self.text.len().saturating_sub(self.after)
    }

    /// Changes what it says. The change is shown the text around it, too, which is let go of.
    pub(crate) fn change(&mut self, change: impl FnOnce(&[u8], Range<usize>) -> Vec<u8>) {
        self.text = change(&self.text, self.own());
        (self.before, self.after) = (0, 0);
    }

    /// What was written.
    pub(crate) fn text(&self) -> &[u8] {
        self.text.get(self.own()).unwrap_or_default()
    }

    /// The lines in it, without the empty ones, each at most [`LINE_BYTES`] long.
    pub(crate) fn lines(&self) -> impl Iterator<Item = &[u8]> {
        self.text()
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

/// What one stream has of an unfinished line.
#[derive(Default)]
struct Held {
    text: Vec<u8>,
    /// Bytes at its beginning that were given out already, kept for what stands around the next part.
    given: usize,
}

impl Held {
    /// Gives out all but so many bytes at the end.
    fn give(&mut self, request: &RequestId, stream: Stream, margin: usize, to: &mut Vec<Line>) {
        let upto = self.text.len().saturating_sub(margin);
        if upto <= self.given {
            return;
        }
        let kept = self.text.get(upto.saturating_sub(margin)..).unwrap_or_default().to_vec();
        let given = kept.len().saturating_sub(margin);
        let before = std::mem::replace(self, Self { text: kept, given });
        to.push(Line { request: request.clone(), stream, text: before.text, before: before.given, after: margin });
    }

    /// Gives out all there is, after which another line begins.
    fn end(&mut self, request: &RequestId, stream: Stream, to: &mut Vec<Line>) {
        self.give(request, stream, 0, to);
        *self = Self::default();
    }
}

/// The unfinished lines of one call.
#[derive(Default)]
pub(crate) struct Assembler {
    taken: usize,
    charged: usize,
    margin: usize,
    out: Held,
    err: Held,
}

impl Assembler {
    /// For lines in which something so long may have to be blotted out: where one is cut, that much on both sides of
    /// the cut is looked at with each part.
    pub(crate) fn new(longest: usize) -> Self {
        Self { margin: longest.saturating_sub(1), ..Self::default() }
    }

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
            held.text.extend_from_slice(whole);
            held.end(request, stream, to);
        }
        held.text.extend_from_slice(rest);
        if held.text.len().saturating_sub(held.given) >= LINE_BYTES.saturating_add(self.margin) {
            held.give(request, stream, self.margin, to);
        }
        Ok(())
    }

    /// The lines that never ended, at the end of the call.
    pub(crate) fn flush(&mut self, request: &RequestId, to: &mut Vec<Line>) {
        self.out.end(request, Stream::Out, to);
        self.err.end(request, Stream::Err, to);
    }

    /// Bytes held back of standard output.
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.out.text.len()
    }

    /// Bytes taken in all.
    pub(crate) fn taken(&self) -> u64 {
        u64::try_from(self.taken).unwrap_or(u64::MAX)
    }
}
