//! Evidence for the sniffer: a table of malformed heads, and the same verdict however the bytes are cut.

use super::*;
use proptest::prelude::*;

const CAPS: HeadCaps = HeadCaps { target_bytes: 256, header_bytes: 1024, header_count: 10 };

/// What came of a whole connection: heads passed, body bytes passed, and how it ended.
#[derive(Debug, Default, PartialEq, Eq, Clone)]
struct Seen {
    heads: Vec<Vec<u8>>,
    bodies: Vec<u8>,
    end: Option<Result<(), Refusal>>,
}

/// Feeds `input` in pieces that end at the given places.
fn feed(input: &[u8], cuts: &[usize]) -> Seen {
    let mut framing = Framing::new(CAPS);
    let (mut held, mut seen, mut from) = (Vec::new(), Seen::default(), 0);
    for to in cuts.iter().copied().chain([input.len()]) {
        let to = to.clamp(from, input.len());
        held.extend_from_slice(&input[from..to]);
        from = to;
        loop {
            match framing.look(&held) {
                Step::More => break,
                Step::Head(count) => seen.heads.push(held.drain(..count).collect()),
                Step::Body(count) => seen.bodies.extend(held.drain(..count)),
                Step::Refuse(refusal) => {
                    seen.end = Some(Err(refusal));
                    return seen;
                }
                Step::Broken => {
                    seen.end = Some(Ok(()));
                    // How much of a broken body is passed on before the break shows depends on the cut.
                    seen.bodies.clear();
                    return seen;
                }
            }
        }
    }
    seen
}

fn refusal(input: &str) -> Option<Refusal> {
    match feed(input.as_bytes(), &[]).end {
        Some(Err(refusal)) => Some(refusal),
        _ => None,
    }
}

fn fault(fault: Fault) -> Option<Refusal> {
    Some(Refusal::BadRequest(fault))
}

/// Every way of writing a head wrong that came to mind, with what it is called.
fn malformed() -> Vec<(&'static str, Option<Refusal>)> {
    vec![
        ("\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n", fault(Fault::RequestLine)),
        ("\nGET / HTTP/1.1\r\n\r\n", fault(Fault::LineEnding)),
        ("GET / HTTP/1.1\nhost: a\n\n", fault(Fault::LineEnding)),
        ("GET / HTTP/1.1\r\nhost: a\n\r\n", fault(Fault::LineEnding)),
        ("GET / HTTP/1.1\r\nhost: a\r\n\n", fault(Fault::LineEnding)),
        ("GET / HTTP/1.1\r\nhost: a\r\rb\r\n\r\n", fault(Fault::FieldValue)),
        ("GET / HTTP/1.1\rhost: a\r\n\r\n", fault(Fault::RequestLine)),
        ("GET  / HTTP/1.1\r\n\r\n", fault(Fault::RequestLine)),
        ("GET / HTTP/1.1 \r\n\r\n", fault(Fault::RequestLine)),
        (" GET / HTTP/1.1\r\n\r\n", fault(Fault::RequestLine)),
        ("GET /\r\n\r\n", fault(Fault::RequestLine)),
        ("GET\r\n\r\n", fault(Fault::RequestLine)),
        ("GET / a HTTP/1.1\r\n\r\n", fault(Fault::RequestLine)),
        ("G\tT / HTTP/1.1\r\n\r\n", fault(Fault::RequestLine)),
        ("G(T / HTTP/1.1\r\n\r\n", fault(Fault::RequestLine)),
        ("GET / http/1.1\r\n\r\n", fault(Fault::RequestLine)),
        ("GET / HTTP/1.0\r\n\r\n", Some(Refusal::VersionUnsupported)),
        ("GET / HTTP/2.0\r\n\r\n", Some(Refusal::VersionUnsupported)),
        ("GET / HTTP/1.1x\r\n\r\n", Some(Refusal::VersionUnsupported)),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Some(Refusal::VersionUnsupported)),
        ("get / HTTP/1.1\r\n\r\n", Some(Refusal::MethodUnknown)),
        ("CONNECT a:1 HTTP/1.1\r\n\r\n", Some(Refusal::MethodUnknown)),
        ("TRACE / HTTP/1.1\r\n\r\n", Some(Refusal::MethodUnknown)),
        ("GET /\x00 HTTP/1.1\r\n\r\n", fault(Fault::Target)),
        ("GET /\u{e9} HTTP/1.1\r\n\r\n", fault(Fault::Target)),
        ("GET /a\tb HTTP/1.1\r\n\r\n", fault(Fault::Target)),
        ("GET http:// HTTP/1.1\r\n\r\n", fault(Fault::Target)),
        ("GET / HTTP/1.1\r\nhost : a\r\n\r\n", fault(Fault::FieldName)),
        ("GET / HTTP/1.1\r\nho st: a\r\n\r\n", fault(Fault::FieldName)),
        ("GET / HTTP/1.1\r\n: a\r\n\r\n", fault(Fault::FieldName)),
        ("GET / HTTP/1.1\r\nhost\r\n\r\n", fault(Fault::FieldName)),
        ("GET / HTTP/1.1\r\nx\x00y: a\r\n\r\n", fault(Fault::FieldName)),
        ("GET / HTTP/1.1\r\nx\u{e9}: a\r\n\r\n", fault(Fault::FieldName)),
        ("GET / HTTP/1.1\r\nx: a\r\n b\r\n\r\n", fault(Fault::FoldedField)),
        ("GET / HTTP/1.1\r\nx: a\r\n\tb\r\n\r\n", fault(Fault::FoldedField)),
        ("GET / HTTP/1.1\r\n x: a\r\n\r\n", fault(Fault::FoldedField)),
        ("GET / HTTP/1.1\r\nx: a\x00b\r\n\r\n", fault(Fault::FieldValue)),
        ("GET / HTTP/1.1\r\nx: a\x0bb\r\n\r\n", fault(Fault::FieldValue)),
        ("GET / HTTP/1.1\r\nx: a\x7fb\r\n\r\n", fault(Fault::FieldValue)),
        ("POST / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n", fault(Fault::LengthAndEncoding)),
        ("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\ncontent-length: 1\r\n\r\n", fault(Fault::LengthAndEncoding)),
        ("POST / HTTP/1.1\r\ncontent-length: 0\r\nTransfer-Encoding: chunked\r\n\r\n", fault(Fault::LengthAndEncoding)),
        ("POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\n", fault(Fault::ContentLength)),
        ("POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", fault(Fault::ContentLength)),
        ("POST / HTTP/1.1\r\ncontent-length: 1, 1\r\n\r\n", fault(Fault::ContentLength)),
        ("POST / HTTP/1.1\r\ncontent-length: +1\r\n\r\n", fault(Fault::ContentLength)),
        ("POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n", fault(Fault::ContentLength)),
        ("POST / HTTP/1.1\r\ncontent-length: 0x1\r\n\r\n", fault(Fault::ContentLength)),
        ("POST / HTTP/1.1\r\ncontent-length: 1 1\r\n\r\n", fault(Fault::ContentLength)),
        ("POST / HTTP/1.1\r\ncontent-length: \r\n\r\n", fault(Fault::ContentLength)),
        ("POST / HTTP/1.1\r\ncontent-length: 99999999999999999999\r\n\r\n", fault(Fault::ContentLength)),
        ("POST / HTTP/1.1\r\ntransfer-encoding: gzip, chunked\r\n\r\n", fault(Fault::TransferEncoding)),
        ("POST / HTTP/1.1\r\ntransfer-encoding: chunked, chunked\r\n\r\n", fault(Fault::TransferEncoding)),
        ("POST / HTTP/1.1\r\ntransfer-encoding: xchunked\r\n\r\n", fault(Fault::TransferEncoding)),
        ("POST / HTTP/1.1\r\ntransfer-encoding: Chunked\r\n\r\n", fault(Fault::TransferEncoding)),
        ("POST / HTTP/1.1\r\ntransfer-encoding: identity\r\n\r\n", fault(Fault::TransferEncoding)),
        ("POST / HTTP/1.1\r\ntransfer-encoding:\r\n\r\n", fault(Fault::TransferEncoding)),
        ("POST / HTTP/1.1\r\ntransfer-encoding: chunked;q=1\r\n\r\n", fault(Fault::TransferEncoding)),
        (
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n",
            fault(Fault::TransferEncoding),
        ),
    ]
}

#[test]
fn every_malformed_head_is_refused_by_its_name() {
    assert!(malformed().len() >= 40);
    for (input, expected) in malformed() {
        assert_eq!(refusal(input), expected, "{input:?}");
    }
}

#[test]
fn a_malformed_head_is_refused_wherever_it_is_cut() {
    for (input, expected) in malformed() {
        let every: Vec<usize> = (0..input.len()).collect();
        assert_eq!(feed(input.as_bytes(), &every).end, expected.clone().map(Err), "{input:?} byte by byte");
        for cut in 0..input.len() {
            assert_eq!(feed(input.as_bytes(), &[cut]).end, expected.clone().map(Err), "{input:?} cut at {cut}");
        }
    }
}

const GOOD: &str = "POST /a?b HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello\
                    POST / HTTP/1.1\r\nTransfer-Encoding:\tchunked \r\nhost: a\r\n\r\n\
                    5\r\nhello\r\n00A\r\n0123456789\r\n0\r\n\r\n\
                    GET http://a/b HTTP/1.1\r\nx: \u{e9}\r\ncontent-length: 0\r\n\r\n\
                    OPTIONS * HTTP/1.1\r\n\r\n";

#[test]
fn good_requests_pass_whole_and_in_order_wherever_they_are_cut() {
    let whole = feed(GOOD.as_bytes(), &[]);
    assert_eq!(whole.end, None);
    assert_eq!(whole.heads.len(), 4);
    assert!(whole.heads[1].starts_with(b"POST / HTTP/1.1") && whole.heads[1].ends_with(b"\r\n\r\n"));
    assert_eq!(whole.bodies, b"hello5\r\nhello\r\n00A\r\n0123456789\r\n0\r\n\r\n");
    let every: Vec<usize> = (0..GOOD.len()).collect();
    assert_eq!(feed(GOOD.as_bytes(), &every), whole);
    for cut in 0..GOOD.len() {
        assert_eq!(feed(GOOD.as_bytes(), &[cut]), whole, "cut at {cut}");
    }
}

#[test]
fn a_body_that_is_not_chunked_as_announced_is_broken() {
    let head = "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n";
    for body in [
        "x",
        "\r\n",
        "5;a=b\r\nhello\r\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhelloX",
        "5\r\nhello\n",
        "5\r\nhello\rX",
        "+5\r\n",
        "0x5\r\n",
        "123456789\r\n",
        "0\r\nx: y\r\n\r\n",
        "0\r\n\n",
        "0\r\nGET / HTTP/1.1\r\n\r\n",
    ] {
        let input = format!("{head}{body}");
        let every: Vec<usize> = (0..input.len()).collect();
        for cuts in [&[][..], &every] {
            let seen = feed(input.as_bytes(), cuts);
            assert_eq!((seen.heads.len(), seen.end), (1, Some(Ok(()))), "{body:?}");
        }
    }
}

#[test]
fn an_endless_head_is_refused_at_its_cap() {
    let long = "a".repeat(2_000);
    assert_eq!(refusal(&format!("GET /{long}")), Some(Refusal::UriTooLong));
    assert_eq!(refusal(&format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(256))), Some(Refusal::UriTooLong));
    assert_eq!(refusal(&format!("GET /{long} HTTP/1.1\r\n\r\n")), Some(Refusal::UriTooLong));
    assert_eq!(refusal(&format!("GET / HTTP/1.1\r\nx: {long}")), Some(Refusal::HeaderTooLarge));
    assert_eq!(refusal(&format!("GET / HTTP/1.1\r\nx: {long}\r\n\r\n")), Some(Refusal::HeaderTooLarge));
    assert_eq!(refusal(&format!("GET / HTTP/1.1\r\n{}", "x: y\r\n".repeat(11))), Some(Refusal::HeaderTooLarge));
    assert_eq!(refusal(&format!("GET / HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(10))), None);
}

/// Bytes that mean something to framing; `h` removes one, `x` puts a line feed in.
const EDITS: &[u8] = b"\r\n \t:;,0159aAfF/\x00\x7f\xffhx";

proptest! {
    /// The verdict is a function of the bytes alone, and whatever passes as a head parses as exactly that head.
    #[test]
    fn mutated_requests_never_desynchronise(
        edits in prop::collection::vec((0usize..250, prop::sample::select(EDITS.to_vec())), 0..6),
        cuts in prop::collection::btree_set(0usize..260, 0..12),
    ) {
        let mut input = GOOD.as_bytes().to_vec();
        for (at, byte) in edits {
            let at = at % input.len();
            match byte {
                b'h' => drop(input.remove(at)),
                b'x' => input.insert(at, b'\n'),
                _ => input[at] = byte,
            }
        }
        let whole = feed(&input, &[]);
        let cuts: Vec<usize> = cuts.into_iter().collect();
        prop_assert_eq!(&feed(&input, &cuts), &whole);
        for head in &whole.heads {
            prop_assert!(head.ends_with(b"\r\n\r\n"));
            let lines = head.iter().filter(|b| **b == b'\n').count();
            prop_assert_eq!(head.windows(2).filter(|pair| *pair == b"\r\n").count(), lines);
            prop_assert_eq!(head.iter().filter(|b| **b == b'\r').count(), lines);
        }
    }
}
