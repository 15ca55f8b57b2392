//! `wasi:http/outgoing-handler`: every request to the outside is handed to the gateway, which decides on it.
//!
//! The one choke point for egress of any kind. Must never open a connection itself: a cell has no network.

use std::sync::Arc;

use cofferdam_model::egress::EgressEnd;
use cofferdam_model::frame::FetchHead;
use http::uri::Scheme;
use http::{HeaderName, Request, Response, header};
use wasmtime::component::Linker;
use wasmtime_wasi_http::p2::bindings::http::outgoing_handler;
use wasmtime_wasi_http::{
    Error, ForbiddenHeaderFilter, RequestOptions, WasiBody, WasiHttp, WasiHttpHooks, WasiHttpView,
};

use super::Host;
use super::http_in::is_hop_by_hop;
use crate::channel::Outbox;
use crate::fetch::{Fetches, fetch, told};

/// Writes to a body that may wait for the call's task to pick them up.
const BODY_CHUNKS: usize = 4;
/// Bytes of one such write.
const BODY_CHUNK_BYTES: usize = 16 * 1024;

/// The way out of one call.
pub(super) struct Egress {
    pub(super) call: u32,
    /// Requests it asked for so far, and may ask for. The gateway holds it to that, and the cell with it.
    pub(super) asked: u32,
    pub(super) most: u32,
    pub(super) fetches: Arc<Fetches>,
    pub(super) outbox: Arc<Outbox>,
}

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
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _: Later<()>,
    ) -> Later<(Response<WasiBody>, Later<()>)> {
        let refused = self.asked >= self.most;
        self.asked = self.asked.saturating_add(1).min(self.most);
        let (mut parts, body) = request.into_parts();
        // The gateway writes it, from the authority it has checked.
        parts.headers.remove(header::HOST);
        let options = options.unwrap_or_default();
        let head = FetchHead {
            call: self.call,
            method: parts.method,
            tls: parts.uri.scheme() != Some(&Scheme::HTTP),
            authority: parts.uri.authority().map_or_else(String::new, ToString::to_string),
            target: parts.uri.path_and_query().map_or("/", |target| target.as_str()).to_owned(),
            patience: [options.connect_timeout, options.first_byte_timeout, options.between_bytes_timeout],
            headers: parts.headers,
        };
        let (fetches, outbox) = (self.fetches.clone(), self.outbox.clone());
        Box::new(async move {
            // Only now, as a refusal of the gateway would come: the guest is in the middle of its request still.
            if refused {
                return Err(told(EgressEnd::OverQuota));
            }
            let (answer, rest) = fetch(fetches, outbox, head, body).await?;
            Ok((answer, Box::new(rest) as Later<()>))
        })
    }

    fn p2_outgoing_body_buffer_chunks(&mut self) -> usize {
        BODY_CHUNKS
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        BODY_CHUNK_BYTES
    }
}
