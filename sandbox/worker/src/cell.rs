//! The cell: becomes one function version, then turns frames into calls until the gateway closes the socket.
//!
//! Owns the list of calls under way. Must never answer a frame that has no place in the protocol: the cell ends, and
//! the gateway, if it was not the one at fault, starts another.

use std::collections::HashMap;
use std::io::{self, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use cofferdam_model::clock::Clock;
use cofferdam_model::facts::Isolation;
use cofferdam_model::frame::{HEADER_BYTES, Header, Kind, RequestHead, decode_credit, decode_request, put, put_ready};
use cofferdam_model::handover::Handover;
use cofferdam_model::limits::FunctionLimits;
use cofferdam_model::random::Random;
use rustix::fs::OFlags;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use zeroize::Zeroizing;

use crate::call;
use crate::capability::Source;
use crate::channel::{Inbox, Outbox};
use crate::engine::{self, Loaded};
use crate::error::WorkerError;
use crate::state::CallState;
use crate::sys::Mapping;
use crate::turns::Turns;

/// Bytes of a reason why a version cannot be loaded.
const REASON_BYTES: usize = 4096;
/// Bytes of an artifact; far above what a component of the largest size compiles to.
const ARTIFACT_BYTES: u64 = 1024 * 1024 * 1024;

/// Turns of guests after which timers and the socket are looked at. A guest that computes has a turn of one tick each
/// time, so this many milliseconds a wall-clock stop or a cancellation may be late; left at 61 it was sixty.
const EVENT_INTERVAL: u32 = 4;

/// What a blank cell was given to become.
struct Assignment {
    handover: Handover,
    artifact: OwnedFd,
}

/// Says what this process is and waits to be told what to become; none where the gateway closes the socket instead.
fn await_assignment(socket: &mut UnixStream, isolation: Isolation) -> Result<Option<Assignment>, WorkerError> {
    let mut out = Vec::new();
    put_ready(&mut out, isolation)?;
    socket.write_all(&out).map_err(WorkerError::Channel)?;
    let mut head = [0; HEADER_BYTES];
    let Some((read, descriptor)) = receive_descriptor(socket, &mut head).map_err(WorkerError::Channel)? else {
        return Ok(None);
    };
    socket.read_exact(head.get_mut(read..).unwrap_or_default()).map_err(WorkerError::Channel)?;
    let header = Header::decode(&head)?;
    if (header.kind, header.call) != (Kind::Handover, 0) {
        return Err(WorkerError::Protocol("a blank cell was given something other than its assignment"));
    }
    let mut payload = Zeroizing::new(vec![0; header.length]);
    socket.read_exact(&mut payload).map_err(WorkerError::Channel)?;
    let handover = Handover::decode(&payload)?;
    let artifact = descriptor.ok_or(WorkerError::Protocol("an assignment without its artifact"))?;
    Ok(Some(Assignment { handover, artifact }))
}

/// Receives the first bytes of a frame and the descriptor that travels with them.
fn receive_descriptor(socket: &UnixStream, head: &mut [u8]) -> io::Result<Option<(usize, Option<OwnedFd>)>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::net::recvmsg(socket, &mut [IoSliceMut::new(head)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut descriptors = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    let descriptor = descriptors.next().and_then(|mut descriptors| descriptors.next());
    Ok((received.bytes > 0).then_some((received.bytes, descriptor)))
}

/// Maps and loads what was assigned.
fn load(
    artifact: &OwnedFd,
    bytes: u64,
    limits: &FunctionLimits,
    seal: impl FnOnce() -> Result<(), WorkerError>,
) -> Result<Loaded, WorkerError> {
    let size = rustix::fs::fstat(artifact).map_err(|error| WorkerError::Map(error.into()))?.st_size;
    if bytes > ARTIFACT_BYTES || u64::try_from(size).ok() != Some(bytes) {
        return Err(WorkerError::Artifact("not as long as announced"));
    }
    // The map is trusted for as long as the cell lives, so nobody may write to it: not even through this descriptor.
    let flags = rustix::fs::fcntl_getfl(artifact).map_err(|error| WorkerError::Map(error.into()))?;
    if flags.intersection(OFlags::ACCMODE) != OFlags::RDONLY {
        return Err(WorkerError::Artifact("writable"));
    }
    let length = usize::try_from(bytes).map_err(|_| WorkerError::Artifact("longer than memory"))?;
    engine::load(Mapping::of(artifact, length).map_err(WorkerError::Map)?, limits, seal)
}

/// Lives a cell's whole life on one socket. `seal` gives up what only loading needed.
pub(crate) fn live(
    mut socket: UnixStream,
    isolation: Isolation,
    seal: impl FnOnce() -> Result<(), WorkerError>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
) -> Result<(), WorkerError> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().event_interval(EVENT_INTERVAL).build().map_err(WorkerError::Runtime)?;
    let Some(Assignment { handover, artifact }) = await_assignment(&mut socket, isolation)? else { return Ok(()) };
    let Handover { limits, artifact_bytes, env } = handover;
    let loaded = load(&artifact, artifact_bytes, &limits, seal);
    drop(artifact);
    let mut out = Vec::new();
    match &loaded {
        Ok(_) => put(&mut out, Kind::Loaded, false, 0, &[])?,
        Err(error) => {
            let reason: String = error.to_string().chars().take(REASON_BYTES / 4).collect();
            put(&mut out, Kind::Failed, false, 0, reason.as_bytes())?;
        }
    }
    socket.write_all(&out).map_err(WorkerError::Channel)?;
    let loaded = loaded?;
    socket.set_nonblocking(true).map_err(WorkerError::Channel)?;
    runtime.block_on(async {
        let stream = Arc::new(tokio::net::UnixStream::from_std(socket).map_err(WorkerError::Channel)?);
        let outbox = Arc::new(Outbox::new(stream.clone(), clock.clone()));
        let shared = Shared {
            loaded,
            source: Source::new(env, clock, random, outbox.clone()),
            limits: Arc::new(limits),
            calls: Mutex::default(),
            turns: Turns::default(),
        };
        tokio::select! {
            ended = serve(Arc::new(shared), Inbox::new(stream)) => ended,
            failed = outbox.run() => failed,
        }
    })
}

/// What every call of the cell works with.
pub(crate) struct Shared {
    /// The function version.
    pub(crate) loaded: Loaded,
    /// Where capabilities come from.
    pub(crate) source: Source,
    /// Whose turn it is.
    pub(crate) turns: Turns,
    limits: Arc<FunctionLimits>,
    calls: Mutex<HashMap<u32, Arc<CallState>>>,
}

impl Shared {
    /// Takes an ended call off the list.
    pub(crate) fn forget(&self, call: u32) {
        self.calls().remove(&call);
    }

    fn calls(&self) -> MutexGuard<'_, HashMap<u32, Arc<CallState>>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, call: u32, ended: bool) -> Result<Arc<CallState>, WorkerError> {
        let mut calls = self.calls();
        if call == 0 || calls.contains_key(&call) {
            return Err(WorkerError::Protocol("a call number used twice"));
        }
        if calls.len() >= usize::try_from(self.limits.concurrency).unwrap_or(usize::MAX) {
            return Err(WorkerError::Protocol("more calls at once than agreed"));
        }
        let state = Arc::new(CallState::new(call, self.limits.clone(), ended));
        calls.insert(call, state.clone());
        Ok(state)
    }

    /// Does `with` the call, if it is still under way. Late frames for one that is over are ignored.
    fn with(&self, call: u32, with: impl FnOnce(&CallState) -> Result<(), WorkerError>) -> Result<(), WorkerError> {
        let state = self.calls().get(&call).cloned();
        state.map_or(Ok(()), |state| with(&state))
    }
}

/// Dispatches frames until the gateway closes the socket.
async fn serve(cell: Arc<Shared>, mut inbox: Inbox) -> Result<(), WorkerError> {
    while let Some((header, payload)) = inbox.next().await? {
        dispatch(&cell, header, payload)?;
    }
    Ok(())
}

fn dispatch(cell: &Arc<Shared>, header: Header, payload: Bytes) -> Result<(), WorkerError> {
    match header.kind {
        Kind::Request => {
            let head: RequestHead = decode_request(payload)?;
            let state = cell.begin(header.call, header.end)?;
            call::begin(cell, state, head);
            Ok(())
        }
        Kind::Data => cell.with(header.call, |call| call.deliver(payload, header.end)),
        Kind::Credit => {
            let bytes = decode_credit(&payload)?;
            cell.with(header.call, |call| {
                call.grant(bytes);
                Ok(())
            })
        }
        Kind::Cancel => cell.with(header.call, |call| {
            call.cancel();
            Ok(())
        }),
        Kind::FetchHead | Kind::FetchData | Kind::FetchCredit | Kind::FetchFailed => {
            cell.source.fetches.hear(&header, payload)
        }
        Kind::Fetch
        | Kind::FetchCancel
        | Kind::Handover
        | Kind::Ready
        | Kind::Loaded
        | Kind::Response
        | Kind::Log
        | Kind::Done
        | Kind::Failed => Err(WorkerError::Protocol("a frame that is not for a serving cell")),
    }
}
