//! The one answer of a call. A caller that hangs up is no error of ours: writing then just stops.
//! Must never buffer: what a fault writes goes out as it is written.
use wasip2::http::types::{Fields, OutgoingBody, OutgoingResponse, ResponseOutparam};
use wasip2::io::streams::OutputStream;

/// The right to answer. Dropping it is the fault `noanswer`.
pub struct Reply(ResponseOutparam);

/// An answer whose head is out. Dropping it unfinished cuts the body short.
pub struct Body {
    stream: Option<OutputStream>,
    body: OutgoingBody,
}

impl Reply {
    pub fn new(out: ResponseOutparam) -> Self {
        Self(out)
    }

    pub fn text(self, status: u16, text: &str) {
        let mut body = self.begin(status, Fields::new());
        body.send(text.as_bytes());
        body.finish();
    }

    pub fn begin(self, status: u16, headers: Fields) -> Body {
        let response = OutgoingResponse::new(headers);
        let _ = response.set_status_code(status);
        let Ok(body) = response.body() else { unreachable!("the body is taken once") };
        ResponseOutparam::set(self.0, Ok(response));
        Body { stream: body.write().ok(), body }
    }
}

impl Body {
    /// Sends all bytes on their way, waiting for room; false once nobody listens.
    pub fn send(&mut self, mut bytes: &[u8]) -> bool {
        let Some(stream) = &self.stream else { return false };
        while !bytes.is_empty() {
            let Ok(room) = stream.check_write() else { return false };
            if room == 0 {
                stream.subscribe().block();
                continue;
            }
            let take = bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX));
            let (now, later) = bytes.split_at(take);
            if stream.write(now).is_err() {
                return false;
            }
            bytes = later;
        }
        true
    }

    pub fn flush(&mut self) -> bool {
        self.stream.as_ref().is_some_and(|stream| stream.blocking_flush().is_ok())
    }

    pub fn finish(mut self) {
        self.flush();
        drop(self.stream.take());
        let _ = OutgoingBody::finish(self.body, None);
    }
}
