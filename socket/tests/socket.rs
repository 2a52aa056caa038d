//! A socket against a plain peer: reading, a full socket and its twin, ends, accepting.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use elbus_socket::{Queue, Received, Socket};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use std::{
    io::{ErrorKind, IoSlice, Read, Write},
    mem::MaybeUninit,
    os::fd::AsFd,
    os::unix::net::{UnixListener, UnixStream},
};
use tokio::runtime::{Builder, Runtime};

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_io().build().unwrap()
}

/// Returns a socket and its peer. Call it within a runtime.
fn pair() -> (Socket, UnixStream) {
    let (ours, peer) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    (Socket::new(ours.into()).unwrap(), peer)
}

#[test]
fn bytes_are_read_up_to_the_end() {
    runtime().block_on(async {
        let (socket, mut peer) = pair();
        let mut buffer = [0; 8];
        assert_eq!(socket.receive(&mut buffer).unwrap(), Received::Nothing);
        peer.write_all(b"0123456789").unwrap();
        socket.readable().await.unwrap();
        assert_eq!(socket.receive(&mut buffer).unwrap(), Received::Bytes(8));
        let mut more = Vec::with_capacity(100);
        more.push(b'-');
        assert_eq!(socket.receive_more(&mut more).unwrap(), Received::Bytes(2));
        assert_eq!((&more[..], more.capacity()), (&b"-89"[..], 100));
        drop(peer);
        socket.readable().await.unwrap();
        assert_eq!(socket.receive(&mut buffer).unwrap(), Received::End);
    });
}

#[test]
fn a_full_socket_accepts_nothing_until_its_twin_is_writable() {
    runtime().block_on(async {
        let (socket, mut peer) = pair();
        let mut queue = Queue::default();
        while queue.is_empty() {
            queue.push(&[1; 30_000], 1);
            queue.push_large(vec![2; 70_000].into(), |_| Ok::<_, ()>(())).unwrap();
            queue.advance(socket.send(&queue).unwrap());
        }
        assert_eq!(socket.send(&queue).unwrap(), 0);
        let reader = std::thread::spawn(move || {
            let mut all = vec![];
            peer.read_to_end(&mut all).unwrap();
            all
        });
        let twin = socket.writable_twin().unwrap();
        while !queue.is_empty() {
            twin.writable().await.unwrap();
            twin.while_writable(|| {
                let sent = socket.send(&queue).unwrap();
                queue.advance(sent);
                sent > 0
            });
        }
        socket.shutdown_write();
        let all = reader.join().unwrap();
        assert!(all.len().is_multiple_of(100_000) && !all.is_empty());
        let whole = |chunk: &[u8]| chunk[..30_000] == [1; 30_000] && chunk[30_000..] == [2; 70_000];
        assert!(all.chunks(100_000).all(whole));
    });
}

#[test]
fn sending_to_a_closed_peer_is_an_error_not_a_signal() {
    runtime().block_on(async {
        let (socket, peer) = pair();
        drop(peer);
        let mut queue = Queue::default();
        queue.push(b"x", 1);
        assert_eq!(socket.send(&queue).unwrap_err().kind(), ErrorKind::BrokenPipe);
    });
}

#[test]
fn a_listening_socket_accepts_and_a_shutdown_wakes_readers() {
    runtime().block_on(async {
        let folder = std::env::temp_dir().join(format!("elbus-socket-{}", std::process::id()));
        let listener = UnixListener::bind(&folder).unwrap();
        listener.set_nonblocking(true).unwrap();
        let listening = Socket::new(listener.into()).unwrap();
        assert!(listening.accept().unwrap().is_none());
        let mut peer = UnixStream::connect(&folder).unwrap();
        std::fs::remove_file(&folder).unwrap();
        listening.readable().await.unwrap();
        let socket = Socket::new(listening.accept().unwrap().unwrap()).unwrap();
        peer.write_all(b"x").unwrap();
        socket.readable().await.unwrap();
        socket.discard();
        socket.shutdown();
        socket.readable().await.unwrap();
        assert_eq!(socket.receive(&mut [0; 8]).unwrap(), Received::End);
        assert_eq!(peer.read(&mut [0; 8]).unwrap(), 0);
    });
}

/// Sends a byte together with a file descriptor.
fn send_with_descriptor(peer: &UnixStream, byte: u8, descriptor: impl AsFd) {
    let descriptors = [descriptor.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut with = SendAncillaryBuffer::new(&mut space);
    assert!(with.push(SendAncillaryMessage::ScmRights(&descriptors)));
    sendmsg(peer, &[IoSlice::new(&[byte])], &mut with, SendFlags::empty()).unwrap();
}

#[test]
fn unannounced_bytes_are_read_on_request_and_passed_file_descriptors_are_closed() {
    runtime().block_on(async {
        let (socket, peer) = pair();
        let (mut reading, writing) = std::io::pipe().unwrap();
        for byte in [1, 2] {
            send_with_descriptor(&peer, byte, &writing);
        }
        drop(writing);
        socket.readable().await.unwrap();
        let mut buffer = [0; 8];
        assert_eq!(socket.receive(&mut buffer).unwrap(), Received::Bytes(1));
        assert_eq!(
            socket.receive(&mut buffer).unwrap(),
            Received::Nothing,
            "a short read counts as the last one"
        );
        assert!(socket.has_unread());
        assert_eq!(socket.receive_unannounced(&mut buffer).unwrap(), Received::Bytes(1));
        assert_eq!((buffer[0], socket.has_unread()), (2, false));
        assert_eq!(socket.receive_unannounced(&mut buffer).unwrap(), Received::Nothing);
        assert_eq!(reading.read(&mut buffer).unwrap(), 0, "the passed descriptor is still open");
        drop(peer);
        assert_eq!(socket.receive_unannounced(&mut buffer).unwrap(), Received::End);
    });
}
