//! Tests of the requests: arbitrary bytes, pieces, and what follows a request.

use super::*;
use proptest::prelude::*;
use std::{
    pin::Pin,
    task::{Context, Poll, Waker},
};
use tokio::io::ReadBuf;

/// Bytes that arrive in pieces of these lengths, in turn.
struct Pieces {
    left: Vec<u8>,
    lengths: Vec<usize>,
    next: usize,
}

impl AsyncRead for Pieces {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let length = self.lengths[self.next % self.lengths.len()].min(self.left.len()).min(into.remaining());
        self.next += 1;
        let rest = self.left.split_off(length);
        into.put_slice(&std::mem::replace(&mut self.left, rest));
        Poll::Ready(Ok(()))
    }
}

/// Reads all requests until an error, in pieces of these lengths. Returns them and how it ended.
fn read_all(bytes: &[u8], lengths: &[usize], serves_files: bool) -> (Vec<Request>, String) {
    let mut stream = Pieces { left: bytes.to_vec(), lengths: lengths.to_vec(), next: 0 };
    let (mut ahead, mut found) = (vec![], vec![]);
    loop {
        let mut reading = Box::pin(read(&mut stream, &mut ahead, serves_files));
        let Poll::Ready(result) = reading.as_mut().poll(&mut Context::from_waker(Waker::noop())) else {
            unreachable!("the stream never waits")
        };
        drop(reading);
        match result {
            Ok(request) => found.push(request),
            Err(Failure::Refused(refusal)) => {
                return (found, format!("{:?} {}", refusal.status, refusal.why));
            }
            Err(other) => return (found, format!("{other:?}")),
        }
    }
}

const UPGRADE: &str = "GET /bus?x HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

fn file(path: &str) -> Request {
    Request::File(FileRequest { path: path.to_owned(), is_head: false, versions: vec![], closes: false })
}

#[test]
fn requests_for_files_follow_each_other_and_an_upgrade_is_the_last() {
    let text = format!("GET /a?b HTTP/1.1\r\nHost: a\r\n\r\nGET /c HTTP/1.1\r\nHost: a\r\n\r\n{UPGRADE}");
    let (found, end) = read_all(text.as_bytes(), &[7], true);
    assert_eq!((&found[..2], end.as_str()), (&[file("/a"), file("/c")][..], "Gone"));
    let Request::Upgrade(upgrade) = &found[2] else { panic!("{:?}", found[2]) };
    assert_eq!((&*upgrade.path, &*upgrade.query), ("/bus", "x"));
    // without files, the first one is refused as before
    let (found, end) = read_all(text.as_bytes(), &[7], false);
    assert!(found.is_empty() && end.starts_with("UpgradeRequired"), "{end}");
}

#[test]
fn an_upgrade_to_another_protocol_is_ignored_where_there_are_files() {
    let text = UPGRADE.replace("Upgrade: websocket", "Upgrade: h2c");
    assert_eq!(read_all(text.as_bytes(), &[99], true).0, [file("/bus")]);
    assert!(read_all(text.as_bytes(), &[99], false).1.starts_with("UpgradeRequired"));
}

#[test]
fn a_request_and_what_follows_it_have_one_limit_each() {
    let longest = |path: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(path));
    let fits = MAX_REQUEST_BYTES - longest(0).len();
    let twice = longest(fits).repeat(2);
    assert_eq!(read_all(twice.as_bytes(), &[100_000], true).0.len(), 2);
    let (found, end) = read_all(longest(fits + 1).as_bytes(), &[100_000], true);
    assert!(found.is_empty() && end.starts_with("FieldsTooLarge"), "{end}");
}

/// Text that resembles requests.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        Just(UPGRADE.as_bytes().to_vec()),
        Just(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()),
        Just(
            b"HEAD /page HTTP/1.1\r\nHost: a\r\nIf-None-Match: \"x\", W/\"y\"\r\nConnection: close\r\n\r\n"
                .to_vec()
        ),
        Just(b"Content-Length: 5\r\n".to_vec()),
        Just(b"\r\n\r\n".to_vec()),
        Just(b"GET ".to_vec()),
        Just(b"X: y\r\n".to_vec()),
        Just(vec![0x16, 3, 1]),
        proptest::collection::vec(any::<u8>(), 0..40),
    ];
    proptest::collection::vec(part, 0..12).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic_and_give_the_same_requests_in_pieces(
        bytes in hostile(),
        lengths in proptest::collection::vec(1_usize..60, 1..6),
        serves_files in any::<bool>(),
    ) {
        let whole = read_all(&bytes, &[usize::MAX], serves_files);
        prop_assert_eq!(read_all(&bytes, &lengths, serves_files), whole);
    }
}
