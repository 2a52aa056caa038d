//! Two sockets that have switched to rings, each with its tasks.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::{PIPE_BYTES, PIPE_READS, Rings};
use crate::{MIN_RING_BYTES, Queue, Received, ReceivedAnswer, Socket};
use std::{os::unix::net::UnixStream, sync::Arc, time::Duration};

/// Returns the sockets of a broker and a client.
fn sockets() -> (Socket, Socket) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let socket = |stream: UnixStream| {
        stream.set_nonblocking(true).unwrap();
        Socket::new(stream.into()).unwrap()
    };
    (socket(ours), socket(theirs))
}

fn queue(bytes: &[u8]) -> Queue {
    let mut queue = Queue::default();
    queue.push(bytes, 1);
    queue
}

/// Returns both ends after the handover, with `first` as the first bytes of the broker.
async fn ringed(first: &[u8]) -> (Arc<Socket>, Arc<Socket>) {
    let (broker, client) = sockets();
    broker.offer_rings(MIN_RING_BYTES, Box::new(())).unwrap();
    assert_eq!(broker.ring_bytes(), None);
    let bytes = [&[1], first].concat();
    assert_eq!(broker.send(&queue(&bytes)).unwrap(), bytes.len());
    assert_eq!(broker.ring_bytes(), Some(MIN_RING_BYTES));
    client.readable().await.unwrap();
    let ReceivedAnswer::Byte(1, Some(rings)) = client.receive_answer().unwrap() else { panic!("no rings") };
    client.use_rings(rings).unwrap();
    (Arc::new(broker), Arc::new(client))
}

async fn read_exactly(socket: &Socket, count: usize) -> Vec<u8> {
    let (mut all, mut buffer) = (vec![], vec![0; 5000]);
    while all.len() < count {
        socket.readable().await.unwrap();
        match socket.receive(&mut buffer).unwrap() {
            Received::Bytes(bytes) => all.extend_from_slice(&buffer[..bytes]),
            Received::Nothing => {}
            Received::End => panic!("ended after {} of {count}", all.len()),
        }
    }
    all
}

async fn write_all(socket: &Socket, bytes: &[u8]) {
    let mut queue = queue(bytes);
    loop {
        let sent = socket.send(&queue).unwrap();
        queue.advance(sent);
        if queue.is_empty() {
            return;
        }
        let twin = socket.writable_twin().unwrap();
        twin.writable().await.unwrap();
    }
}

#[tokio::test]
async fn bytes_behind_the_answer_are_in_the_ring() {
    let (broker, client) = ringed(b"first").await;
    assert_eq!(read_exactly(&client, 5).await, b"first");
    write_all(&client, b"second").await;
    assert!(broker.has_unread());
    assert_eq!(read_exactly(&broker, 6).await, b"second");
    assert!(!broker.has_unread());
}

#[tokio::test]
async fn rings_that_are_withdrawn_leave_the_bytes_on_the_socket() {
    let (broker, client) = sockets();
    broker.offer_rings(MIN_RING_BYTES, Box::new(())).unwrap();
    broker.withdraw_rings();
    assert_eq!(broker.send(&queue(&[0x76])).unwrap(), 1);
    client.readable().await.unwrap();
    assert!(matches!(client.receive_answer().unwrap(), ReceivedAnswer::Byte(0x76, None)));
    assert_eq!(broker.ring_bytes(), None);
    // offered again, as for a name that has become free
    broker.reoffer_rings();
    assert_eq!(broker.send(&queue(&[1])).unwrap(), 1);
    client.readable().await.unwrap();
    assert!(matches!(client.receive_answer().unwrap(), ReceivedAnswer::Byte(1, Some(_))));
}

/// Both tasks of both ends sleep and wake all the time; a lost wake-up never ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_in_both_directions_never_stop() {
    let (broker, client) = ringed(b"").await;
    let bytes: Arc<Vec<u8>> = Arc::new((0..8_000_000u32).map(|at| ((at * 13) >> 4) as u8).collect());
    let tasks = [(broker.clone(), client.clone()), (client, broker)].map(|(from, to)| {
        let (sent, expected) = (bytes.clone(), bytes.clone());
        let writing = tokio::spawn(async move {
            for piece in sent.chunks(100_003) {
                write_all(&from, piece).await;
            }
        });
        let reading = tokio::spawn(async move {
            assert!(read_exactly(&to, expected.len()).await == *expected);
        });
        [writing, reading]
    });
    for task in tasks.into_iter().flatten() {
        task.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_of_many_round_trips_wakes_both_ends() {
    let (broker, client) = ringed(b"").await;
    let echoing = tokio::spawn(async move {
        for _ in 0..5000 {
            let bytes = read_exactly(&broker, 9).await;
            write_all(&broker, &bytes).await;
        }
        broker
    });
    for number in 0..5000u32 {
        let bytes = [&number.to_le_bytes()[..], b"12345"].concat();
        write_all(&client, &bytes).await;
        assert_eq!(read_exactly(&client, 9).await, bytes);
    }
    echoing.await.unwrap();
}

#[tokio::test]
async fn an_end_is_seen_behind_the_last_bytes_and_wakes_all_waiters() {
    for full in [false, true] {
        let (broker, client) = ringed(b"").await;
        write_all(&client, b"last").await;
        if full {
            // nobody reads: the writer sleeps until the client is gone
            let bytes = vec![0; 2 * MIN_RING_BYTES as usize];
            let writer = broker.clone();
            let writing = tokio::spawn(async move {
                let mut queue = queue(&bytes);
                while let Ok(sent) = writer.send(&queue) {
                    queue.advance(sent);
                    writer.writable_twin().unwrap().writable().await.unwrap();
                }
            });
            tokio::time::sleep(Duration::from_millis(20)).await;
            drop(client);
            writing.await.unwrap();
        } else {
            client.shutdown_write();
        }
        assert_eq!(read_exactly(&broker, 4).await, b"last");
        broker.readable().await.unwrap();
        assert_eq!(broker.receive(&mut [0; 10]).unwrap(), Received::End);
        assert!(broker.peer_has_closed());
    }
}

/// Returns the number of descriptors of this process that belong to the same file.
fn descriptors_of(socket: &Socket) -> usize {
    let link =
        |name: std::ffi::OsString| std::fs::read_link(std::path::Path::new("/proc/self/fd").join(name)).ok();
    let own = link(std::os::fd::AsRawFd::as_raw_fd(&socket.as_fd_for_test()).to_string().into());
    let all = std::fs::read_dir("/proc/self/fd").unwrap();
    all.filter(|entry| link(entry.as_ref().unwrap().file_name()) == own).count()
}

#[tokio::test]
async fn the_registration_of_a_writer_is_kept_for_the_next_one_and_given_up_when_it_is_old() {
    let (broker, client) = ringed(b"").await;
    assert_eq!(descriptors_of(&broker), 1);
    for _ in 0..3 {
        drop(broker.writable_twin().unwrap());
        assert_eq!(descriptors_of(&broker), 2);
    }
    let twin = broker.writable_twin().unwrap();
    twin.writable().await.unwrap();
    drop(twin);
    tokio::time::sleep(super::SPARE_KEPT).await;
    // the reader gives it up before it sleeps
    let reader = broker.clone();
    let reading = tokio::spawn(async move { read_exactly(&reader, 1).await });
    while descriptors_of(&broker) > 1 {
        tokio::task::yield_now().await;
    }
    write_all(&client, b"x").await;
    assert_eq!(reading.await.unwrap(), b"x");
}

#[tokio::test]
async fn own_shutdown_ends_the_own_writer_although_the_client_neither_reads_nor_closes() {
    for shutdown in [Socket::shutdown, Socket::shutdown_write] {
        let (broker, _client) = ringed(b"").await;
        let mut full = queue(&vec![0; 2 * MIN_RING_BYTES as usize]);
        full.advance(broker.send(&full).unwrap());
        let twin = broker.writable_twin().unwrap();
        let writing = tokio::spawn(async move { twin.writable().await });
        tokio::time::sleep(Duration::from_millis(20)).await;
        // the writer no longer waits for the socket once one direction is closed
        broker.shutdown_read();
        tokio::time::sleep(Duration::from_millis(20)).await;
        shutdown(&broker);
        tokio::time::timeout(Duration::from_secs(20), writing).await.unwrap().unwrap().unwrap();
        assert!(broker.send(&full).is_err());
    }
}

#[tokio::test]
async fn own_shutdown_ends_the_own_reader() {
    let (broker, client) = ringed(b"").await;
    let reader = broker.clone();
    let reading = tokio::spawn(async move { reader.readable().await });
    tokio::task::yield_now().await;
    broker.shutdown_read();
    reading.await.unwrap().unwrap();
    assert_eq!(broker.receive(&mut [0; 10]).unwrap(), Received::End);
    drop(client);
}

#[tokio::test]
async fn a_pipe_that_is_never_empty_is_left_alone_after_some_reads() {
    let (_end, _polled, waker, handover) = elbus_ring::Handover::create(MIN_RING_BYTES).unwrap();
    let elbus_ring::PeerWaker::Client(pipe) = waker else { panic!("a broker wakes by a pipe") };
    let rings = Rings::open(handover).unwrap();
    let all = 1 << 20;
    rustix::pipe::fcntl_setpipe_size(&pipe, all).unwrap();
    assert_eq!(rustix::io::write(&pipe, &vec![0; all]), Ok(all));
    rings.empty_pipe(&rings.wakes, &rings.for_writer);
    let left = rustix::io::ioctl_fionread(&rings.wakes).unwrap();
    assert_eq!(left, (all - PIPE_BYTES * PIPE_READS) as u64);
    rings.for_writer.notified().await;
}
