//! `wasi:http/types`: the one request of this call and the answer to it.
//!
//! Must never carry a connection's own headers either way; what is dropped from an answer is decided in `answer`.

use http::HeaderName;
use wasmtime::component::{Linker, ResourceTable};
use wasmtime_wasi_http::p2::bindings::http::types;
use wasmtime_wasi_http::p2::body::{HostOutgoingBody, StreamContext};
use wasmtime_wasi_http::{WasiHttp, WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use super::Host;

/// Bytes of header fields a guest may hold in one set, names, values and bookkeeping.
const FIELDS_BYTES: usize = 128 * 1024;

/// The context of one call.
pub(super) fn context() -> WasiHttpCtx {
    let mut context = WasiHttpCtx::new();
    context.set_field_size_limit(FIELDS_BYTES);
    context
}

impl WasiHttpView for Host {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { hooks: &mut self.egress, table: &mut self.table, ctx: &mut self.http }
    }
}

/// Links the types.
pub(super) fn link(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    types::add_to_linker::<Host, WasiHttp>(linker, &types::LinkOptions::default(), Host::http)
}

/// Marks every body that a guest which is over has begun and not finished as broken off. Left alone, dropping its store
/// would pass half a body off as a whole one.
pub(super) fn cut_unfinished(table: &mut ResourceTable) {
    for resource in table.iter_mut() {
        let resource: &mut dyn std::any::Any = resource;
        if let Some(body) = resource.downcast_mut::<HostOutgoingBody>() {
            let (empty, _) = HostOutgoingBody::new(StreamContext::Response, None, 1, 1);
            std::mem::replace(body, empty).abort();
        }
    }
}

/// Whether a field belongs to a connection and not to a message, so that guests neither see nor set it.
pub(crate) fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "http2-settings"
    )
}
