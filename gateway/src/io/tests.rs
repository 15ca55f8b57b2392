//! Evidence for the guarded stream: what hyper gets to see, and who is cut when.

use super::*;
use crate::refusal::Fault;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

const CAPS: HeadCaps = HeadCaps { target_bytes: 256, header_bytes: 1024, header_count: 10 };
const PATIENCE: Patience = Patience { head: Duration::from_secs(10), write: Duration::from_secs(15) };

fn guarded(room: usize) -> (DuplexStream, Guarded<DuplexStream>, Arc<Pulse>) {
    let (client, server) = duplex(room);
    let pulse = Pulse::new(100);
    (client, Guarded::http1(server, CAPS, PATIENCE, pulse.clone()), pulse)
}

async fn read_some(stream: &mut Guarded<DuplexStream>, room: usize) -> Vec<u8> {
    let mut space = vec![0; room];
    let count = stream.read(&mut space).await.unwrap();
    space.truncate(count);
    space
}

#[tokio::test]
async fn good_bytes_pass_unchanged_through_any_buffer() {
    let sent = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello\
                 POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n";
    for room in [1, 3, 64, 4096] {
        let (mut client, mut stream, pulse) = guarded(4096);
        client.write_all(sent).await.unwrap();
        drop(client);
        let mut got = Vec::new();
        loop {
            let piece = read_some(&mut stream, room).await;
            if piece.is_empty() {
                break;
            }
            got.extend(piece);
        }
        assert_eq!(got, sent, "room {room}");
        assert_eq!(pulse.begin().0, None);
    }
}

#[tokio::test]
async fn a_refused_head_is_replaced_and_noted_under_its_number() {
    let (mut client, mut stream, pulse) = guarded(4096);
    client.write_all(b"GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\nsmuggled: 1\n\n").await.unwrap();
    assert_eq!(read_some(&mut stream, 4096).await, b"GET / HTTP/1.1\r\n\r\n");
    assert_eq!(read_some(&mut stream, 4096).await, STAND_IN);
    assert_eq!(pulse.begin().0, None);
    assert_eq!(pulse.begin().0, Some(Refusal::BadRequest(Fault::LineEnding)));
    // Nothing the client sends after it is ever seen.
    client.write_all(b"GET /smuggled HTTP/1.1\r\n\r\n").await.unwrap();
    drop(client);
    assert_eq!(read_some(&mut stream, 4096).await, b"");
}

#[tokio::test]
async fn a_broken_body_ends_in_an_error() {
    let (mut client, mut stream, _) = guarded(4096);
    client.write_all(b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nZ\r\n").await.unwrap();
    assert!(read_some(&mut stream, 4096).await.ends_with(b"chunked\r\n\r\n"));
    let broken = stream.read(&mut [0; 10]).await;
    assert_eq!(broken.unwrap_err().kind(), io::ErrorKind::InvalidData);
}

#[tokio::test(start_paused = true)]
async fn a_head_that_drips_is_refused_in_time() {
    let (mut client, mut stream, pulse) = guarded(4096);
    let start = Instant::now();
    let dripping = tokio::spawn(async move {
        for byte in b"GET / HTTP/1.1\r\nhost: a.example\r\n".iter().cycle() {
            if client.write_all(&[*byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    assert_eq!(read_some(&mut stream, 4096).await, STAND_IN);
    assert_eq!(start.elapsed().as_secs(), 10);
    assert_eq!(pulse.begin().0, Some(Refusal::HeadTimeout));
    dripping.abort();
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_begins_is_closed_without_an_answer() {
    let (_client, mut stream, pulse) = guarded(4096);
    let start = Instant::now();
    assert_eq!(read_some(&mut stream, 4096).await, b"");
    assert_eq!(start.elapsed().as_secs(), 10);
    assert_eq!(pulse.begin().0, None);
}

#[tokio::test(start_paused = true)]
async fn a_connection_between_requests_may_wait_longer_than_a_head() {
    let (mut client, mut stream, _) = guarded(4096);
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert!(!read_some(&mut stream, 4096).await.is_empty());
    let waiting = tokio::time::timeout(Duration::from_secs(60), read_some(&mut stream, 4096)).await;
    assert!(waiting.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_takes_nothing_is_cut() {
    let (_client, mut stream, _) = guarded(16);
    let start = Instant::now();
    let written = stream.write_all(&[0; 100]).await;
    assert_eq!(written.unwrap_err().kind(), io::ErrorKind::TimedOut);
    assert_eq!(start.elapsed().as_secs(), 15);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_takes_something_is_not() {
    let (mut client, mut stream, _) = guarded(16);
    let reading = tokio::spawn(async move {
        let mut got = 0;
        while got < 160 {
            tokio::time::sleep(Duration::from_secs(10)).await;
            got += client.read(&mut [0; 16]).await.unwrap();
        }
    });
    stream.write_all(&[0; 160]).await.unwrap();
    reading.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn closing_on_a_refused_client_lingers_but_not_for_long() {
    let (mut client, mut stream, _) = guarded(1 << 20);
    client.write_all(b"\n").await.unwrap();
    assert_eq!(read_some(&mut stream, 4096).await, STAND_IN);
    client.write_all(&[0; 100_000]).await.unwrap();
    let start = Instant::now();
    stream.shutdown().await.unwrap();
    assert_eq!(start.elapsed(), LINGER);
}
