//! The function's log: what it writes to stdout and stderr, as `Log` frames, up to the call's limit.
//!
//! What is over the limit is counted and dropped; the guest is not told, because a guest must not fail for talking too
//! much. Must never interpret or keep what was written.

use std::future::poll_fn;
use std::sync::Arc;

use bytes::Bytes;
use cofferdam_model::frame::{Kind, put};
use wasmtime::component::{HasData, Linker, Resource};
use wasmtime_wasi::async_trait;
use wasmtime_wasi::p2::bindings::cli::{stderr, stdin, stdout};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, InputStream, OutputStream, Pollable, StreamError};

use super::{Host, With};
use crate::channel::Outbox;
use crate::state::CallState;

/// Bytes of one frame of log.
const PIECE_BYTES: usize = 16 * 1024;
const STDOUT: u8 = 1;
/// The number of the stream errors go to.
pub(crate) const STDERR: u8 = 2;

/// The log of one call.
#[derive(Clone)]
pub(super) struct Log {
    pub(super) state: Arc<CallState>,
    pub(super) outbox: Arc<Outbox>,
}

struct Streams;

impl HasData for Streams {
    type Data<'a> = With<'a, Log>;
}

/// Links the three streams.
pub(super) fn link(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    fn get(host: &mut Host) -> With<'_, Log> {
        With { capability: &mut host.log, table: &mut host.table }
    }
    stdin::add_to_linker::<Host, Streams>(linker, get)?;
    stdout::add_to_linker::<Host, Streams>(linker, get)?;
    stderr::add_to_linker::<Host, Streams>(linker, get)
}

impl With<'_, Log> {
    fn stream(&mut self, number: u8) -> wasmtime::Result<Resource<DynOutputStream>> {
        let stream: DynOutputStream = Box::new(LogStream { log: self.capability.clone(), number });
        Ok(self.table.push(stream)?)
    }
}

impl stdin::Host for With<'_, Log> {
    fn get_stdin(&mut self) -> wasmtime::Result<Resource<DynInputStream>> {
        let stream: DynInputStream = Box::new(EmptyInput);
        Ok(self.table.push(stream)?)
    }
}

impl stdout::Host for With<'_, Log> {
    fn get_stdout(&mut self) -> wasmtime::Result<Resource<DynOutputStream>> {
        self.stream(STDOUT)
    }
}

impl stderr::Host for With<'_, Log> {
    fn get_stderr(&mut self) -> wasmtime::Result<Resource<DynOutputStream>> {
        self.stream(STDERR)
    }
}

struct LogStream {
    log: Log,
    number: u8,
}

#[async_trait]
impl Pollable for LogStream {
    async fn ready(&mut self) {
        poll_fn(|cx| self.log.outbox.poll_room(cx)).await;
    }
}

#[async_trait]
impl OutputStream for LogStream {
    fn write(&mut self, bytes: Bytes) -> Result<(), StreamError> {
        let kept = self.log.state.admit_log(bytes.len());
        for piece in bytes.get(..kept).unwrap_or_default().chunks(PIECE_BYTES) {
            write_piece(&self.log.outbox, self.log.state.number, self.number, piece);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StreamError> {
        Ok(())
    }

    fn check_write(&mut self) -> Result<usize, StreamError> {
        Ok(if self.log.outbox.has_room() { PIECE_BYTES } else { 0 })
    }
}

/// Adds one frame of log. The piece must be shorter than a payload.
pub(crate) fn write_piece(outbox: &Outbox, call: u32, stream: u8, piece: &[u8]) {
    let mut payload = Vec::with_capacity(piece.len() + 1);
    payload.push(stream);
    payload.extend_from_slice(piece);
    // Too long a piece would be our own mistake; losing it beats losing the cell.
    let _ = outbox.add(|out| put(out, Kind::Log, false, call, &payload));
}

/// A standard input that is at its end.
struct EmptyInput;

#[async_trait]
impl Pollable for EmptyInput {
    async fn ready(&mut self) {}
}

impl InputStream for EmptyInput {
    fn read(&mut self, _: usize) -> Result<Bytes, StreamError> {
        Err(StreamError::Closed)
    }
}
