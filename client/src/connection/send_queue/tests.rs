//! When the flusher writes.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use bytes::Bytes;
use std::os::fd::OwnedFd;
use tokio::net::UnixStream;

/// Returns a queue that is connected, and the other end of its socket.
fn connected() -> (SendQueue, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let queue = SendQueue::new(1 << 20, 1 << 20, Arc::default());
    queue.attach(Arc::new(Socket::new(OwnedFd::from(ours.into_std().unwrap())).unwrap()));
    (queue, theirs)
}

fn send(queue: &SendQueue, frames: u32) {
    for _ in 0..frames {
        let request = Request::message("a", &[], Bytes::from_static(b"b"), Qos::NO);
        assert!(queue.send(&request, None).is_ok());
    }
}

#[tokio::test]
async fn what_no_frames_follow_is_written_when_the_flusher_looks_again() {
    let (queue, _peer) = connected();
    for frames in [1, STREAM_FRAMES - 1, STREAM_FRAMES, 10 * STREAM_FRAMES] {
        send(&queue, frames);
        // the time decides which of both
        match queue.flush() {
            FlushResult::Gathering => {
                assert!(frames >= STREAM_FRAMES, "{frames}");
                assert!(matches!(queue.flush(), FlushResult::Done));
            }
            result => assert!(matches!(result, FlushResult::Done)),
        }
        let (.., queued_bytes) = queue.counts();
        assert_eq!(queued_bytes, 0, "after {frames} frames");
    }
}

#[tokio::test]
async fn a_stream_that_never_pauses_is_written_after_the_window() {
    let (queue, _peer) = connected();
    let begun = Instant::now();
    while begun.elapsed() < 2 * GATHER_WINDOW {
        queue.flush();
        send(&queue, STREAM_FRAMES);
    }
    queue.flush();
    assert!(queue.state.lock().last_write > begun);
}
