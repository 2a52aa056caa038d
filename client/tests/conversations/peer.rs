//! The broker of a conversation: listens, and reads and writes what the lines say. Never routes.

use elbus_testing::notation::Piece;
use std::{
    collections::HashMap,
    path::PathBuf,
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::{
    io::AsyncWriteExt,
    net::{UnixListener, UnixStream},
    task::yield_now,
};

/// Time limit of waits, in real time.
const TEST_TIMEOUT: Duration = Duration::from_secs(20);
/// How often everything else runs before something is taken not to happen.
const SETTLING_YIELDS: usize = 64;
/// A header from a client, protocol section 3.
const HEADER_BYTES: usize = 9;
/// The body of the operation by which a client finds out whether the broker is alive.
const PROBE: &[u8] = b".client/probe";

/// Lets the client do all that it can do without further input and time.
pub(crate) async fn settle() {
    for _ in 0..SETTLING_YIELDS {
        yield_now().await;
    }
}

/// Waits until `poll` returns a value.
pub(crate) async fn until<T>(what: &str, mut poll: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + TEST_TIMEOUT;
    loop {
        if let Some(value) = poll() {
            return value;
        }
        assert!(Instant::now() < until, "{what}: does not happen");
        yield_now().await;
    }
}

pub(crate) struct Peer {
    folder: TempDir,
    listener: Option<UnixListener>,
    connection: Option<Connection>,
    ids: HashMap<String, [u8; 4]>,
    byte_by_byte: bool,
    /// Whether pings and probes are left out of what is received.
    pub(crate) ignores_keep_alive: bool,
}

struct Connection {
    stream: UnixStream,
    /// Received bytes that can be part of a ping or a probe.
    raw: Vec<u8>,
    received: Vec<u8>,
    greeted: bool,
    ended: bool,
}

impl Peer {
    pub(crate) fn listen(byte_by_byte: bool) -> Self {
        let folder = tempfile::Builder::new().prefix("elbus").tempdir().unwrap();
        let mut peer = Peer {
            folder,
            listener: None,
            connection: None,
            ids: HashMap::new(),
            byte_by_byte,
            ignores_keep_alive: true,
        };
        peer.listen_again();
        peer
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("peer.sock")
    }

    pub(crate) fn refuse(&mut self) {
        self.listener = None;
        std::fs::remove_file(self.path()).unwrap();
    }

    pub(crate) fn listen_again(&mut self) {
        self.listener = Some(UnixListener::bind(self.path()).unwrap());
    }

    pub(crate) async fn accept(&mut self, at: &str) {
        let listener = self.listener.as_ref().unwrap();
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let stream = until(at, || match listener.poll_accept(&mut context) {
            std::task::Poll::Ready(accepted) => Some(accepted.unwrap().0),
            std::task::Poll::Pending => None,
        })
        .await;
        self.connection =
            Some(Connection { stream, raw: vec![], received: vec![], greeted: false, ended: false });
    }

    pub(crate) async fn write(&mut self, bytes: &[Piece], at: &str) {
        self.write_beginning(bytes, usize::MAX, at).await;
    }

    /// Writes the first `len` bytes.
    pub(crate) async fn write_beginning(&mut self, bytes: &[Piece], len: usize, at: &str) {
        let mut all = vec![];
        for piece in bytes {
            match piece {
                Piece::Bytes(bytes) => all.extend(bytes),
                Piece::Id(name) => {
                    all.extend(self.ids.get(name).unwrap_or_else(|| panic!("{at}: id {name}")))
                }
            }
        }
        all.truncate(len);
        let connection = self.connection.as_mut().unwrap_or_else(|| panic!("{at}: there is no connection"));
        let step = if self.byte_by_byte { all.len() / 4096 + 1 } else { all.len().max(1) };
        for part in all.chunks(step) {
            // the client can have closed the connection because of what it has read
            if connection.stream.write_all(part).await.is_err() {
                return;
            }
            settle().await;
        }
    }

    /// Reads exactly these bytes.
    pub(crate) async fn expect(&mut self, expected: &[Piece], at: &str) {
        let ignores_keep_alive = self.ignores_keep_alive;
        let connection = self.connection.as_mut().unwrap_or_else(|| panic!("{at}: there is no connection"));
        for piece in expected {
            let len = piece.len();
            until(at, || connection.has(len, ignores_keep_alive).then_some(())).await;
            let bytes: Vec<u8> = connection.received.drain(..len).collect();
            match piece {
                Piece::Bytes(expected) => assert!(*expected == bytes, "{at}: {} instead", hex(&bytes)),
                Piece::Id(name) if name == "?" => {}
                Piece::Id(name) => {
                    let id = <[u8; 4]>::try_from(bytes).unwrap();
                    assert_eq!(*self.ids.entry(name.clone()).or_insert(id), id, "{at}: id {name}");
                }
            }
        }
    }

    pub(crate) fn close(&mut self) {
        self.connection = None;
    }

    /// Waits until the client has closed the connection, without another byte.
    pub(crate) async fn expect_end(&mut self, at: &str) {
        let ignores_keep_alive = self.ignores_keep_alive;
        let mut connection = self.connection.take().unwrap_or_else(|| panic!("{at}: there is no connection"));
        until(at, || {
            connection.has(usize::MAX, ignores_keep_alive);
            connection.ended.then_some(())
        })
        .await;
        let rest = [&connection.received[..], &connection.raw[..]].concat();
        assert!(rest.is_empty(), "{at}: {} before", hex(&rest));
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.connection.is_some()
    }
}

impl Connection {
    /// Reads what there is. Returns whether `len` bytes have been received.
    fn has(&mut self, len: usize, ignores_keep_alive: bool) -> bool {
        let mut buffer = [0; 65536];
        while self.received.len() < len && !self.ended {
            match self.stream.try_read(&mut buffer) {
                Ok(0) => self.ended = true,
                Ok(count) => self.raw.extend(&buffer[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(_) => self.ended = true,
            }
            self.sort(ignores_keep_alive);
        }
        self.received.len() >= len
    }

    /// Moves what is complete from `raw` to `received`, without pings and probes.
    fn sort(&mut self, ignores_keep_alive: bool) {
        if !self.greeted {
            let Some((head, name)) = self.raw.split_at_checked(5) else { return };
            let len = usize::from(u16::from_le_bytes([head[3], head[4]]));
            if name.len() < len {
                return;
            }
            self.greeted = true;
            self.received.extend(self.raw.drain(..5 + len));
        }
        while let Some(header) = self.raw.first_chunk::<HEADER_BYTES>() {
            let ping = header[4] == 0;
            let body = if ping { 0 } else { u32::from_le_bytes(*header.last_chunk().unwrap()) as usize };
            if self.raw.len() < HEADER_BYTES + body {
                return;
            }
            let frame = self.raw.drain(..HEADER_BYTES + body);
            let probe = frame.as_slice().ends_with(PROBE) && frame.len() == HEADER_BYTES + PROBE.len();
            if !(ping || probe) || !ignores_keep_alive {
                self.received.extend(frame);
            }
        }
    }
}

/// Formats the first bytes of something.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let more = if bytes.len() > 64 { ".." } else { "" };
    let hex: String = bytes.iter().take(64).map(|byte| format!("{byte:02X}")).collect();
    format!(
        "{} bytes {hex}{more} ({:?})",
        bytes.len(),
        String::from_utf8_lossy(&bytes[..bytes.len().min(64)])
    )
}
