//! Brokers that pass wrong descriptors of rings, or misuse right ones: the client uses the socket, or ends
//! the connection. It neither hangs nor keeps descriptors or mappings.
//!
//! One test, so that nothing else in the process opens descriptors.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use elbus_client::{Client, Error, Qos};
use elbus_protocol::delivery::encode_ack;
use elbus_ring::{End, Handover, MIN_RING_BYTES, PeerWaker};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create},
    net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg},
};
use std::{
    fs::File,
    io::{IoSlice, Read, Write},
    mem::MaybeUninit,
    net::Shutdown,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::Duration,
};
use tempfile::TempDir;

const OK: u8 = 0x01;
const PATIENCE: Duration = Duration::from_secs(30);
/// The most descriptors that a broker passes here.
const MOST: usize = 20;
/// Where the words of the ring to the client are, and of that to the broker (`docs/protocol.md`, section 12).
const TO_CLIENT_TAIL: u64 = 384;
const TO_BROKER_HEAD: u64 = 256;

/// A listener at a path of its own, since a client remembers paths without rings.
struct FakeBroker {
    folder: TempDir,
    listener: UnixListener,
}

/// The right descriptors of a broker, and its end.
struct Right {
    end: End,
    _polled: OwnedFd,
    /// The writing end of the client's pipe.
    pipe: OwnedFd,
    handover: Handover,
}

impl Right {
    fn make() -> Self {
        let (end, polled, waker, handover) = Handover::create(MIN_RING_BYTES).unwrap();
        let PeerWaker::Client(pipe) = waker else { panic!("a broker wakes by a pipe") };
        Right { end, _polled: polled, pipe, handover }
    }

    fn all(&self) -> [BorrowedFd<'_>; 3] {
        self.handover.descriptors()
    }

    fn forge(&self, word: u64, value: u32) {
        rustix::io::pwrite(self.all()[0], &value.to_ne_bytes(), word).unwrap();
    }

    fn wake(&self) {
        rustix::io::write(&self.pipe, &[0]).unwrap();
    }

    /// Reads what the client has written, until it is this many bytes.
    fn read(&self, count: usize) -> Vec<u8> {
        let (mut all, mut buffer) = (vec![], [0; 4096]);
        while all.len() < count {
            let read = self.end.read(&mut buffer).unwrap().bytes;
            all.extend_from_slice(&buffer[..read]);
            if read == 0 {
                thread::yield_now();
            }
        }
        all
    }
}

impl FakeBroker {
    fn listen() -> Self {
        let folder = tempfile::Builder::new().prefix("elbus").tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("fake.sock")).unwrap();
        FakeBroker { folder, listener }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("fake.sock")
    }

    /// Accepts a client, which sends this greeting and the name `a`. Answers the greeting.
    fn greet(&self, greeting: u8) -> UnixStream {
        let limit = Timespec::try_from(PATIENCE).unwrap();
        let mut polled = [PollFd::new(&self.listener, PollFlags::IN)];
        assert_eq!(poll(&mut polled, Some(&limit)).unwrap(), 1, "no client");
        let (mut stream, _) = self.listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&[0xEB, 1, 0]).unwrap();
        let mut hello = [0; 6];
        stream.read_exact(&mut hello).unwrap();
        assert_eq!(hello, [0xEB, 1, greeting, 1, 0, b'a']);
        stream.write_all(&[OK]).unwrap();
        stream
    }

    /// Accepts a client that asks for rings, and passes these descriptors.
    fn pass(&self, descriptors: &[BorrowedFd<'_>]) -> UnixStream {
        let stream = self.greet(0x80);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(descriptors)));
        }
        sendmsg(&stream, &[IoSlice::new(&[OK])], &mut control, SendFlags::empty()).unwrap();
        stream
    }

    /// Accepts a client that uses the socket, and acknowledges its first frame.
    fn serve_on_socket(&self) {
        let mut stream = self.greet(0);
        stream.write_all(&[OK]).unwrap();
        let mut header = [0; 9];
        stream.read_exact(&mut header).unwrap();
        let id = u32::from_le_bytes(*header.first_chunk().unwrap());
        stream.write_all(&encode_ack(id, OK)).unwrap();
        // until it ends
        let _ = stream.read_to_end(&mut Vec::new());
    }
}

/// Runs a client in a runtime of one thread, which must not hang.
fn client<F: Future<Output = ()>>(path: &Path, run: impl FnOnce(Client) -> F + Send + 'static) {
    let (sender, ended) = mpsc::channel();
    let path = path.to_owned();
    let running = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let builder = Client::builder("a").rings(true).ping_interval(PATIENCE).timeout(PATIENCE);
            let (client, _frames) = builder.connect(path.as_path()).await.unwrap();
            run(client).await;
        });
        drop(runtime);
        let _ = sender.send(());
    });
    match ended.recv_timeout(PATIENCE) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("the client hangs"),
        _ => running.join().unwrap(),
    }
}

/// Waits until the client has lost its connection. Returns the reason.
async fn lost(client: Client) -> String {
    let ended = tokio::time::timeout(PATIENCE, async {
        loop {
            match client.send("b", "x", Qos::NO).await {
                Ok(()) => tokio::time::sleep(Duration::from_millis(2)).await,
                Err(error) => return error,
            }
        }
    });
    let error = ended.await.expect("the connection ends");
    assert!(matches!(error, Error::Disconnected { .. }), "{error:?}");
    format!("{error:?}")
}

fn memfd(size: u64, seals: SealFlags) -> OwnedFd {
    let fd = memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    ftruncate(&fd, size).unwrap();
    fcntl_add_seals(&fd, seals).unwrap();
    fd
}

/// A client that gets these descriptors uses the socket.
fn falls_back(what: &str, descriptors: &[BorrowedFd<'_>]) {
    eprintln!("{what}");
    let broker = FakeBroker::listen();
    thread::scope(|scope| {
        scope.spawn(|| {
            drop(broker.pass(descriptors));
            broker.serve_on_socket();
        });
        client(&broker.path(), |client| async move {
            client.send("b", "x", Qos::PROCESSED).await.unwrap();
        });
    });
}

fn wrong_descriptors() {
    let right = Right::make();
    let [memory, counter, pipe] = right.all();
    let file = tempfile::tempfile().unwrap();
    let (random, null) = (File::open("/dev/urandom").unwrap(), File::open("/dev/null").unwrap());
    for count in [0, 1, 2, 4, 5, 6, MOST] {
        falls_back(&format!("{count} descriptors"), &right.all().repeat(7)[..count]);
    }
    let size = 4096 + 2 * u64::from(MIN_RING_BYTES);
    let fixed = SealFlags::SHRINK | SealFlags::GROW;
    for (what, memory) in [
        ("no seals", memfd(size, SealFlags::empty())),
        ("can grow", memfd(size, SealFlags::SHRINK)),
        ("can shrink", memfd(size, SealFlags::GROW)),
        ("empty", memfd(0, fixed)),
        ("truncated", memfd(size - 1, fixed)),
        ("one page", memfd(4096, fixed)),
        ("no header", memfd(size, fixed)),
        ("read-only", memfd(size, fixed | SealFlags::WRITE)),
        ("read-only later", memfd(size, fixed | SealFlags::FUTURE_WRITE)),
    ] {
        falls_back(what, &[memory.as_fd(), counter, pipe]);
    }
    falls_back("another order", &[pipe, counter, memory]);
    falls_back("no memory", &[file.as_fd(), counter, pipe]);
    for (what, pipe) in [
        ("a file", file.as_fd()),
        ("endless bytes", random.as_fd()),
        ("a device", null.as_fd()),
        ("an eventfd", counter),
        ("memory", memory),
        ("the writing end", right.pipe.as_fd()),
    ] {
        falls_back(&format!("{what} as the pipe"), &[memory, counter, pipe]);
    }
    let (blocking_reader, blocking_writer) = rustix::pipe::pipe().unwrap();
    let socket = UnixStream::pair().unwrap().0;
    for (what, counter) in [
        ("a file", file.as_fd()),
        ("a pipe", blocking_writer.as_fd()),
        ("a reading end", blocking_reader.as_fd()),
        ("a socket", socket.as_fd()),
    ] {
        falls_back(&format!("{what} as the eventfd"), &[memory, counter, pipe]);
    }
}

/// A client with the right descriptors, which a broker misuses; then the client is lost for this reason.
fn ends(what: &str, reason: &str, misuse: impl FnOnce(&mut Option<Right>, &UnixStream) + Send) {
    eprintln!("{what}");
    let broker = FakeBroker::listen();
    let reason = reason.to_owned();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut right = Some(Right::make());
            let stream = broker.pass(&right.as_ref().unwrap().all());
            misuse(&mut right, &stream);
            // until the client is gone
            let _ = (&stream).read_to_end(&mut Vec::new());
        });
        client(&broker.path(), |client| async move {
            let error = lost(client).await;
            assert!(error.contains(&reason), "{error}");
        });
    });
}

fn misused_descriptors() {
    let bounds = "out of bounds";
    for tail in [MIN_RING_BYTES + 1, 0x8000_0000, u32::MAX] {
        ends("a forged tail", bounds, move |right, _| {
            let right = right.as_ref().unwrap();
            right.forge(TO_CLIENT_TAIL, tail);
            right.wake();
        });
    }
    ends("a forged head", "", |right, _| {
        let right = right.as_ref().unwrap();
        right.forge(TO_BROKER_HEAD, 0x8000_0000);
        right.wake();
    });
    ends("all words", "", |right, _| {
        let right = right.as_ref().unwrap();
        rustix::io::pwrite(right.all()[0], &[0xFF; 4096 - 128], 128).unwrap();
        right.wake();
    });
    ends("a byte on the socket", "bytes on the socket", |_, stream| {
        (&*stream).write_all(&[0]).unwrap();
    });
    ends("the end of the pipe alone", "closed", |right, _| drop(right.take()));
    ends("the end of the socket alone", "closed", |_, stream| stream.shutdown(Shutdown::Write).unwrap());
    ends("half a frame, and the end", "closed", |right, stream| {
        let right = right.as_ref().unwrap();
        right.end.write([&[0x12, 200, 0, 0, 0, 0, b'x'][..]].into_iter()).unwrap();
        stream.shutdown(Shutdown::Both).unwrap();
    });
    ends("an invalid frame", "invalid frame", |right, _| {
        let right = right.as_ref().unwrap();
        right.end.write([&[0x77; 100][..]].into_iter()).unwrap();
        right.wake();
    });
}

/// A broker that wakes the client without end does not keep the other tasks of its thread from running.
fn endless_wake_ups() {
    eprintln!("wake-ups without end");
    let broker = FakeBroker::listen();
    let right = Right::make();
    thread::scope(|scope| {
        let (path, broker, right) = (broker.path(), &broker, &right);
        scope.spawn(move || {
            let stream = broker.pass(&right.all());
            stream.set_nonblocking(true).unwrap();
            // until the client is gone
            thread::scope(|writers| {
                for _ in 0..4 {
                    writers.spawn(|| {
                        while !matches!((&stream).read(&mut [0]), Ok(0)) {
                            // a pipe that is full is no longer when the client has read
                            if rustix::io::write(&right.pipe, &[0; 65_536]).is_err() {
                                thread::yield_now();
                            }
                        }
                    });
                }
            });
        });
        client(&path, |client| async move {
            for _ in 0..200 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            assert!(client.is_connected());
        });
    });
}

/// A broker that neither reads nor closes delays the client by its timeouts only.
fn a_full_ring() {
    eprintln!("a broker that reads nothing");
    let broker = FakeBroker::listen();
    let right = Right::make();
    thread::scope(|scope| {
        let path = broker.path();
        scope.spawn(|| {
            let stream = broker.pass(&right.all());
            let _ = (&stream).read_to_end(&mut Vec::new());
        });
        let (sender, ended) = mpsc::channel();
        scope.spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let builder = Client::builder("a").rings(true).queue_bytes(100_000);
                let builder = builder.timeout(Duration::from_millis(500));
                let (client, _frames) = builder.connect(path.as_path()).await.unwrap();
                let error = loop {
                    if let Err(error) = client.send("b", vec![0; 10_000], Qos::NO).await {
                        break error;
                    }
                };
                assert!(matches!(error, Error::Timeout { .. }), "{error:?}");
            });
            let _ = sender.send(());
        });
        ended.recv_timeout(PATIENCE).expect("the client ends");
    });
    // what it had written arrived, whole
    let sent = right.read(MIN_RING_BYTES as usize);
    assert_eq!(sent.len(), MIN_RING_BYTES as usize);
    assert_eq!(right.end.read(&mut [0; 10]).unwrap().bytes, 0);
}

/// Returns the numbers of descriptors and mappings of rings of this process.
fn in_use() -> (usize, usize) {
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap().count();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    (descriptors, maps.lines().filter(|line| line.contains("elbus-ring")).count())
}

#[test]
fn a_hostile_broker_neither_stops_a_client_with_rings_nor_leaves_anything_in_it() {
    // what the runtime opens once for the process is not counted
    falls_back("no descriptors", &[]);
    let before = in_use();
    wrong_descriptors();
    assert_eq!(in_use(), before);
    misused_descriptors();
    assert_eq!(in_use(), before);
    endless_wake_ups();
    a_full_ring();
    assert_eq!(in_use(), before);
}
