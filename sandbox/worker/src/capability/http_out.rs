//! `wasi:http/outgoing-handler`: linked, so that guests which import it load, and denied.
//!
//! The one choke point for egress of any kind. Must never open a connection itself: a cell has no network.

use std::sync::Arc;

use http::{HeaderName, Request, Response, header};
use wasmtime::component::Linker;
use wasmtime_wasi_http::p2::bindings::http::outgoing_handler;
use wasmtime_wasi_http::{
    Error, ForbiddenHeaderFilter, RequestOptions, WasiBody, WasiHttp, WasiHttpHooks, WasiHttpView,
};

use super::Host;
use super::http_in::is_hop_by_hop;

/// Writes to a body that may wait for the call's task to pick them up.
const BODY_CHUNKS: usize = 4;
/// Bytes of one such write.
const BODY_CHUNK_BYTES: usize = 16 * 1024;

/// Hooks of a guest that may not call out.
pub(super) struct Egress;

type Later<T> = Box<dyn Future<Output = Result<T, Error>> + Send>;

/// Links the handler.
pub(super) fn link(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    outgoing_handler::add_to_linker::<Host, WasiHttp>(linker, Host::http)
}

fn is_forbidden(name: &HeaderName) -> bool {
    *name == header::HOST || is_hop_by_hop(name)
}

impl WasiHttpHooks for Egress {
    fn is_forbidden_header(&mut self, name: &HeaderName) -> bool {
        is_forbidden(name)
    }

    fn forbidden_header_filter(&mut self) -> ForbiddenHeaderFilter {
        Arc::new(is_forbidden)
    }

    fn send_request(
        &mut self,
        _: Request<WasiBody>,
        _: Option<RequestOptions>,
        _: Later<()>,
    ) -> Later<(Response<WasiBody>, Later<()>)> {
        Box::new(std::future::ready(Err(Error::HttpRequestDenied)))
    }

    fn p2_outgoing_body_buffer_chunks(&mut self) -> usize {
        BODY_CHUNKS
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        BODY_CHUNK_BYTES
    }
}
