//! A broker that only does what a test tells it to: listens, shakes hands, and then the test reads and writes. Owns the
//! few bytes of the protocol that need; never routes.

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

use super::soon;

/// What a broker answers who takes it.
pub(crate) const OK: u8 = 0x01;

/// A listener at a path of its own.
pub(crate) struct Fake {
    folder: TempDir,
    listener: UnixListener,
}

/// A client of it.
pub(crate) struct Peer {
    pub(crate) stream: UnixStream,
}

/// What a client has sent.
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

    /// The operation, as protocol section 1 numbers it.
    pub(crate) fn op(&self) -> u8 {
        self.flags & 0x3F
    }

    /// The filters of a topic operation, sorted.
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

impl Fake {
    pub(crate) fn listen() -> Self {
        let folder = tempfile::Builder::new().prefix("elbus").tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("fake.sock")).unwrap();
        Fake { folder, listener }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("fake.sock")
    }

    /// The next client, to whom nothing has been said.
    pub(crate) async fn accept(&self) -> Peer {
        let (stream, _) = soon("a client", self.listener.accept()).await.unwrap();
        Peer { stream }
    }

    /// The next client, which gets this answer to its name. Tells the name.
    pub(crate) async fn answer(&self, code: u8) -> (Peer, String) {
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

    /// The next client, registered.
    pub(crate) async fn register(&self) -> Peer {
        self.answer(OK).await.0
    }
}

impl Peer {
    /// The next frame, pings included; `None` at the end of the connection.
    pub(crate) async fn next(&mut self) -> Option<Sent> {
        let mut header = [0; 9];
        soon("a frame of the client", self.stream.read_exact(&mut header)).await.ok()?;
        let [a, b, c, d, flags, l0, l1, l2, l3] = header;
        let len = if flags == 0 { 0 } else { u32::from_le_bytes([l0, l1, l2, l3]) as usize };
        let mut body = vec![0; len];
        soon("a body of the client", self.stream.read_exact(&mut body)).await.ok()?;
        Some(Sent { op_id: u32::from_le_bytes([a, b, c, d]), flags, body })
    }

    /// The next frame that is no ping.
    pub(crate) async fn next_operation(&mut self) -> Sent {
        let until = Instant::now() + super::PATIENCE;
        loop {
            assert!(Instant::now() < until, "nothing but pings");
            let sent = self.next().await.expect("the client has left");
            if !sent.is_ping() {
                return sent;
            }
        }
    }

    pub(crate) async fn acknowledge(&mut self, sent: &Sent, code: u8) {
        self.stream.write_all(&encode_ack(sent.op_id, code)).await.unwrap();
    }

    /// Takes whatever comes until the client leaves or has been quiet for so long.
    pub(crate) async fn until_quiet(&mut self, quiet: Duration) -> Vec<Sent> {
        let mut all = vec![];
        while let Ok(Some(sent)) = tokio::time::timeout(quiet, self.next()).await {
            all.push(sent);
        }
        all
    }
}
