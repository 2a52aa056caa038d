//! A scripted broker: it listens and performs the handshake, and the test reads and writes the frames. Never
//! routes.

use elbus_protocol::delivery::encode_ack;
use std::{
    path::PathBuf,
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
};

use super::in_time;

/// The code that accepts a handshake or an operation.
pub(crate) const OK: u8 = 0x01;

/// A listener at a path of its own.
pub(crate) struct FakeBroker {
    folder: TempDir,
    listener: UnixListener,
}

/// The connection of a client.
pub(crate) struct FakeConnection {
    pub(crate) stream: UnixStream,
}

/// A frame that a client has sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) op_id: u32,
    pub(crate) flags: u8,
    pub(crate) body: Vec<u8>,
}

impl Sent {
    pub(crate) fn is_ping(&self) -> bool {
        self.flags == 0
    }

    /// Returns the operation, as numbered in protocol section 1.
    pub(crate) fn op(&self) -> u8 {
        self.flags & 0x3F
    }

    /// Returns the filters of a topic operation, sorted.
    pub(crate) fn filters(&self) -> Vec<String> {
        let mut filters: Vec<_> = self
            .body
            .split(|byte| *byte == 0)
            .map(|filter| String::from_utf8(filter.to_vec()).unwrap())
            .collect();
        filters.sort();
        filters
    }
}

impl FakeBroker {
    pub(crate) fn listen() -> Self {
        let folder = tempfile::Builder::new().prefix("elbus").tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("fake.sock")).unwrap();
        FakeBroker { folder, listener }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("fake.sock")
    }

    /// Accepts the next client, without a handshake.
    pub(crate) async fn accept(&self) -> FakeConnection {
        let (stream, _) = in_time("a client", self.listener.accept()).await.unwrap();
        FakeConnection { stream }
    }

    /// Accepts the next client and answers its name with this code. Returns the name.
    pub(crate) async fn answer(&self, code: u8) -> (FakeConnection, String) {
        let mut peer = self.accept().await;
        peer.stream.write_all(&[0xEB, 1, 0]).await.unwrap();
        let mut greeting = [0; 3];
        peer.stream.read_exact(&mut greeting).await.unwrap();
        assert_eq!(greeting, [0xEB, 1, 0]);
        let mut len = [0; 2];
        peer.stream.read_exact(&mut len).await.unwrap();
        let mut name = vec![0; u16::from_le_bytes(len).into()];
        peer.stream.read_exact(&mut name).await.unwrap();
        peer.stream.write_all(&[OK, code]).await.unwrap();
        (peer, String::from_utf8(name).unwrap())
    }

    /// Accepts and registers the next client.
    pub(crate) async fn register(&self) -> FakeConnection {
        self.answer(OK).await.0
    }
}

impl FakeConnection {
    /// Returns the next frame, pings included; `None` at the end of the connection.
    pub(crate) async fn next(&mut self) -> Option<Sent> {
        let mut header = [0; 9];
        in_time("a frame of the client", self.stream.read_exact(&mut header)).await.ok()?;
        let [a, b, c, d, flags, l0, l1, l2, l3] = header;
        let len = if flags == 0 { 0 } else { u32::from_le_bytes([l0, l1, l2, l3]) as usize };
        let mut body = vec![0; len];
        in_time("a body of the client", self.stream.read_exact(&mut body)).await.ok()?;
        Some(Sent { op_id: u32::from_le_bytes([a, b, c, d]), flags, body })
    }

    /// Returns the next frame that is not a ping.
    pub(crate) async fn next_operation(&mut self) -> Sent {
        let until = Instant::now() + super::TEST_TIMEOUT;
        loop {
            assert!(Instant::now() < until, "only pings");
            let sent = self.next().await.expect("the client has disconnected");
            if !sent.is_ping() {
                return sent;
            }
        }
    }

    pub(crate) async fn acknowledge(&mut self, sent: &Sent, code: u8) {
        self.stream.write_all(&encode_ack(sent.op_id, code)).await.unwrap();
    }

    /// Reads frames until the client disconnects or has been quiet for this long.
    pub(crate) async fn until_quiet(&mut self, quiet: Duration) -> Vec<Sent> {
        let mut all = vec![];
        while let Ok(Some(sent)) = tokio::time::timeout(quiet, self.next()).await {
            all.push(sent);
        }
        all
    }
}
