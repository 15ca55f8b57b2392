//! A guest's answer on its way out: a checked head, then a body within credit, limit and declared length.
//!
//! Must never pass on a field that belongs to the connection or to the platform, nor mark a body complete that is not.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use cofferdam_model::facts::Ending;
use cofferdam_model::frame::{Kind, MAX_PAYLOAD, put, put_response};
use http::{HeaderMap, HeaderName, Method, Response, StatusCode, header};
use http_body::Body;
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

use crate::capability::is_hop_by_hop;
use crate::channel::Outbox;
use crate::state::CallState;

/// An answer whose head has been sent.
pub(crate) struct Answer {
    body: Option<HyperOutgoingBody>,
    chunk: Bytes,
    sent: u64,
    /// Length the guest declared.
    declared: Option<u64>,
    /// The answer has no body, whatever the guest writes (HEAD, 204, 304).
    bodiless: bool,
}

type Step = Poll<Result<(), Ending>>;

impl Answer {
    /// Checks the head and sends it, with the end of the body where that is known already.
    pub(crate) fn start(
        response: Response<HyperOutgoingBody>,
        method: &Method,
        (state, outbox): (&CallState, &Outbox),
        cx: &mut Context<'_>,
    ) -> Result<Self, Ending> {
        let (mut parts, body) = response.into_parts();
        if !(200..=599).contains(&parts.status.as_u16()) {
            return Err(Ending::NoAnswer);
        }
        strip(&mut parts.headers);
        let bytes: usize = parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        if bytes > usize::try_from(state.limits.response_header_bytes).unwrap_or(usize::MAX) {
            return Err(Ending::ResponseTooLarge);
        }
        let declared = declared_length(&parts.headers)?;
        if declared.is_some_and(|length| length > state.limits.response_bytes) {
            return Err(Ending::ResponseTooLarge);
        }
        let bodiless = *method == Method::HEAD
            || matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED | StatusCode::RESET_CONTENT);
        let mut answer = Self { body: Some(body), chunk: Bytes::new(), sent: 0, declared, bodiless };
        let end = if bodiless { true } else { matches!(answer.poll_chunk(state, cx)?, Poll::Ready(false)) };
        if end {
            answer.check_length()?;
        }
        outbox
            .add(|out| put_response(out, end, state.number, parts.status, &parts.headers))
            .map_err(|_| Ending::ResponseTooLarge)?;
        Ok(answer)
    }

    /// Sends what can be sent. Ready when the whole body has been, or never will be.
    pub(crate) fn poll(&mut self, state: &CallState, outbox: &Outbox, cx: &mut Context<'_>) -> Step {
        if self.bodiless {
            return self.discard(cx);
        }
        while self.body.is_some() || !self.chunk.is_empty() {
            if self.chunk.is_empty() && !ready!(self.poll_chunk(state, cx))? {
                return self.send_end(state, outbox);
            }
            ready!(outbox.poll_room(cx));
            let count = state.take_credit(self.chunk.len().min(MAX_PAYLOAD));
            if count == 0 {
                return Poll::Pending;
            }
            let piece = self.chunk.split_to(count);
            self.sent = self.sent.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
            // Looking ahead spares the end a frame of its own.
            let last = self.chunk.is_empty() && matches!(self.poll_chunk(state, cx)?, Poll::Ready(false));
            if last {
                self.check_length()?;
            }
            send(state, outbox, last, &piece)?;
        }
        Poll::Ready(Ok(()))
    }

    /// Bytes of body sent.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    /// Gets the next chunk of body from the guest; `false` at the end.
    fn poll_chunk(&mut self, state: &CallState, cx: &mut Context<'_>) -> Poll<Result<bool, Ending>> {
        while let Some(body) = &mut self.body {
            match ready!(Pin::new(body).poll_frame(cx)) {
                None => self.body = None,
                Some(Err(_)) => return Poll::Ready(Err(Ending::NoAnswer)),
                // Trailers have no place in the frames and are dropped.
                Some(Ok(frame)) => self.chunk = frame.into_data().unwrap_or_default(),
            }
            if !self.chunk.is_empty() {
                let total = self.sent.saturating_add(u64::try_from(self.chunk.len()).unwrap_or(u64::MAX));
                let fits = total <= state.limits.response_bytes;
                return Poll::Ready(if fits { Ok(true) } else { Err(Ending::ResponseTooLarge) });
            }
        }
        Poll::Ready(Ok(false))
    }

    fn discard(&mut self, cx: &mut Context<'_>) -> Step {
        while let Some(body) = &mut self.body {
            if !matches!(ready!(Pin::new(body).poll_frame(cx)), Some(Ok(_))) {
                self.body = None;
            }
        }
        Poll::Ready(Ok(()))
    }

    fn send_end(&self, state: &CallState, outbox: &Outbox) -> Step {
        self.check_length()?;
        send(state, outbox, true, &[])?;
        Poll::Ready(Ok(()))
    }

    /// A body shorter or longer than declared would be cut or smuggled further on.
    fn check_length(&self) -> Result<(), Ending> {
        let matches = self.bodiless || self.declared.is_none_or(|length| length == self.sent);
        if matches { Ok(()) } else { Err(Ending::NoAnswer) }
    }
}

fn send(state: &CallState, outbox: &Outbox, end: bool, piece: &[u8]) -> Result<(), Ending> {
    outbox.add(|out| put(out, Kind::Data, end, state.number, piece)).map_err(|_| Ending::ResponseTooLarge)
}

/// Drops what belongs to the connection, and what only the platform may say.
fn strip(headers: &mut HeaderMap) {
    let dropped: Vec<HeaderName> = headers.keys().filter(|name| is_dropped(name)).cloned().collect();
    for name in dropped {
        headers.remove(name);
    }
}

fn is_dropped(name: &HeaderName) -> bool {
    let text = name.as_str();
    is_hop_by_hop(name) || text.starts_with("x-cofferdam-") || text.starts_with("cofferdam-")
}

fn declared_length(headers: &HeaderMap) -> Result<Option<u64>, Ending> {
    let mut values = headers.get_all(header::CONTENT_LENGTH).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => {
            let digits = value.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
            digits.and_then(|text| text.parse().ok()).map(Some).ok_or(Ending::NoAnswer)
        }
        (Some(_), Some(_)) => Err(Ending::NoAnswer),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_the_connection_and_of_the_platform_are_dropped() {
        let mut headers = HeaderMap::new();
        for name in
            ["x-mine", "transfer-encoding", "connection", "x-cofferdam-principal", "cofferdam-error-source", "upgrade"]
        {
            headers.append(name, http::HeaderValue::from_static("1"));
        }
        strip(&mut headers);
        assert_eq!(headers.keys().collect::<Vec<_>>(), ["x-mine"]);
    }

    #[test]
    fn a_declared_length_is_one_plain_number() {
        let mut headers = HeaderMap::new();
        assert_eq!(declared_length(&headers), Ok(None));
        headers.append("content-length", http::HeaderValue::from_static("13"));
        assert_eq!(declared_length(&headers), Ok(Some(13)));
        headers.append("content-length", http::HeaderValue::from_static("13"));
        assert_eq!(declared_length(&headers), Err(Ending::NoAnswer));
        for odd in ["+1", "", "0x1", "99999999999999999999999"] {
            headers.insert("content-length", http::HeaderValue::from_static(odd));
            assert_eq!(declared_length(&headers), Err(Ending::NoAnswer), "{odd}");
        }
    }
}
