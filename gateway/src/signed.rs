//! Requests that are signed: as they were sent, and their bodies as they must be.
//!
//! Owns the copy of a head that a signature is checked against, and the check of a body's digest while it comes. Must
//! never let the last piece of a body through before the whole is known to be the one that was signed.

use std::pin::Pin;
use std::task::{Context, Poll};

use aws_lc_rs::{constant_time, digest};
use bytes::Bytes;
use cofferdam_authz::{SignedRequest, sigv4};
use http::{header, request};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A head as it was sent, before anything is taken out of it.
#[derive(Debug)]
pub(crate) struct AsSent {
    method: String,
    path: String,
    query: Option<String>,
    fields: Vec<(String, Vec<u8>)>,
}

impl AsSent {
    /// Keeps a head that shows a signature, in either form; of all others there is nothing to keep.
    pub(crate) fn of(head: &request::Parts) -> Option<Self> {
        let in_field = head.headers.get_all(header::AUTHORIZATION).iter().any(|it| sigv4::in_field(it.as_bytes()));
        if !in_field && !sigv4::in_query(head.uri.query()) {
            return None;
        }
        let field = |(name, value): (&header::HeaderName, &header::HeaderValue)| {
            (name.as_str().to_owned(), value.as_bytes().to_vec())
        };
        let mut fields: Vec<_> = head.headers.iter().map(field).collect();
        // HTTP/2 names the host outside the fields.
        if !head.headers.contains_key(header::HOST)
            && let Some(authority) = head.uri.authority()
        {
            fields.push(("host".to_owned(), authority.as_str().as_bytes().to_vec()));
        }
        let (path, query) = (head.uri.path().to_owned(), head.uri.query().map(str::to_owned));
        Some(Self { method: head.method.as_str().to_owned(), path, query, fields })
    }

    /// Gives it in the words of a signature.
    pub(crate) fn read<T>(&self, with: impl FnOnce(&SignedRequest<'_>) -> T) -> T {
        let fields: Vec<_> = self.fields.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
        let Self { method, path, query, .. } = self;
        with(&SignedRequest { method, path, query: query.as_deref(), fields: &fields })
    }
}

/// The body is not the one that was signed.
#[derive(Debug, thiserror::Error)]
#[error("the body is not the one that was signed")]
pub(crate) struct Altered;

/// The body of a request, from wherever it comes.
pub struct Payload<B = hyper::body::Incoming>(From<B>);

enum From<B> {
    /// As the client sends it.
    Client(B),
    /// The same, and it must be of this digest.
    Checked(Checked<B>),
    /// Already read.
    Whole(Full<Bytes>),
}

struct Checked<B> {
    body: B,
    expected: [u8; 32],
    so_far: digest::Context,
    /// The piece that may be the last.
    held: Option<Bytes>,
    over: bool,
}

impl<B> Payload<B> {
    /// A body as the client sends it.
    pub(crate) fn new(body: B) -> Self {
        Self(From::Client(body))
    }

    /// A body that was read already.
    pub(crate) fn whole(bytes: Bytes) -> Self {
        Self(From::Whole(Full::new(bytes)))
    }

    /// The same body, which ends in an error unless it is of this digest.
    pub(crate) fn checked(self, expected: [u8; 32]) -> Self {
        match self.0 {
            From::Client(body) => Self(From::Checked(Checked {
                body,
                expected,
                so_far: digest::Context::new(&digest::SHA256),
                held: None,
                over: false,
            })),
            other => Self(other),
        }
    }
}

impl<B> std::fmt::Debug for Payload<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Payload")
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Payload<B>
where
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.get_mut().0 {
            From::Client(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            From::Checked(checked) => checked.poll(cx),
            From::Whole(body) => Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            From::Client(body) => body.is_end_stream(),
            // Even an empty one has to be compared first.
            From::Checked(checked) => checked.over,
            From::Whole(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            From::Client(body) => body.size_hint(),
            From::Checked(checked) => {
                let held = checked.held.as_ref().map_or(0, |held| u64::try_from(held.len()).unwrap_or(u64::MAX));
                let inner = checked.body.size_hint();
                let mut hint = SizeHint::new();
                hint.set_lower(inner.lower().saturating_add(held));
                if let Some(upper) = inner.upper() {
                    hint.set_upper(upper.saturating_add(held));
                }
                hint
            }
            From::Whole(body) => body.size_hint(),
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Checked<B>
where
    B::Error: Into<BoxError>,
{
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        while !self.over {
            let frame = match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => return Poll::Ready(self.finish()),
                Poll::Ready(Some(Err(error))) => {
                    self.over = true;
                    return Poll::Ready(Some(Err(error.into())));
                }
                Poll::Ready(Some(Ok(frame))) => frame,
            };
            let Ok(data) = frame.into_data() else {
                self.over = true;
                return Poll::Ready(Some(Err("trailers are not taken".into())));
            };
            if data.is_empty() {
                continue;
            }
            self.so_far.update(&data);
            // What is known not to be the last need not wait for what follows.
            let more = self.held.is_none() && self.body.size_hint().lower() > 0;
            let ready = if more { Some(data) } else { self.held.replace(data) };
            if let Some(ready) = ready {
                return Poll::Ready(Some(Ok(Frame::data(ready))));
            }
        }
        Poll::Ready(None)
    }

    /// The last piece, if all of it was what was signed.
    fn finish(&mut self) -> Option<Result<Frame<Bytes>, BoxError>> {
        self.over = true;
        let found = self.so_far.clone().finish();
        if constant_time::verify_slices_are_equal(found.as_ref(), &self.expected).is_err() {
            self.held = None;
            return Some(Err(Altered.into()));
        }
        self.held.take().map(|last| Ok(Frame::data(last)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{BodyExt as _, StreamBody};

    fn digest(bytes: &[u8]) -> [u8; 32] {
        digest::digest(&digest::SHA256, bytes).as_ref().try_into().unwrap()
    }

    /// A body that comes in these pieces.
    fn pieces(pieces: &[&'static str]) -> impl Body<Data = Bytes, Error = std::convert::Infallible> + Unpin + use<> {
        let frames: Vec<_> = pieces.iter().map(|piece| Ok(Frame::data(Bytes::from_static(piece.as_bytes())))).collect();
        StreamBody::new(futures_util::stream::iter(frames))
    }

    async fn read(body: Payload<impl Body<Data = Bytes, Error = std::convert::Infallible> + Unpin>) -> (Vec<u8>, bool) {
        let (mut body, mut got) = (body, Vec::new());
        loop {
            match body.frame().await {
                Some(Ok(frame)) => got.extend_from_slice(&frame.into_data().unwrap()),
                Some(Err(error)) => return (got, error.is::<Altered>()),
                None => return (got, false),
            }
        }
    }

    #[tokio::test]
    async fn a_body_that_was_signed_comes_through_whole() {
        for whole in [vec!["a", "bc", "", "d"], vec![], vec!["", "x"]] {
            let bytes = whole.concat().into_bytes();
            assert_eq!(read(Payload::new(pieces(&whole)).checked(digest(&bytes))).await, (bytes, false));
        }
        let full = Payload::new(Full::new(Bytes::from_static(b"abc"))).checked(digest(b"abc"));
        assert_eq!(full.size_hint().exact(), Some(3));
        assert_eq!(read(full).await, (b"abc".to_vec(), false));
    }

    #[tokio::test]
    async fn an_altered_body_fails_before_its_last_piece() {
        for (sent, got) in [
            (vec!["a", "bc", "e"], "abc"),
            (vec!["abce"], ""),
            (vec!["abc"], ""),
            (vec!["abc", "d", "!"], "abcd"),
            (vec![], ""),
        ] {
            let read = read(Payload::new(pieces(&sent)).checked(digest(b"abcd"))).await;
            assert_eq!(read, (got.as_bytes().to_vec(), true), "{sent:?}");
        }
        let empty = Payload::new(Full::new(Bytes::new())).checked(digest(b"x"));
        assert!(!empty.is_end_stream());
        assert_eq!(read(empty).await, (vec![], true));
    }
}
