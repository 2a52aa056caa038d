//! A connection without a reader, for the unit tests: its other end is a plain socket.

use elbus_plugin_api::{
    Encoding, Frame, FrameKind, MixedRun, Op, Payload, Qos, Run, SharedBytes, testing::FakeHost,
};
use elbus_socket::Socket;
use std::{
    io,
    os::{fd::OwnedFd, unix::net::UnixStream},
    sync::Arc,
};
use tokio::runtime::{Builder, Runtime};

use crate::{
    connection::Connection,
    server::{
        peer_info::PeerInfo,
        source::Source,
        state::ServerState,
        transport::{Prepared, Transport},
    },
    settings::StreamSettings,
};

struct Plain;

impl Transport for Plain {
    fn kind(&self) -> &'static str {
        "plain"
    }
    fn prepare(&self, socket: OwnedFd) -> io::Result<Prepared> {
        Ok(Prepared::Ready(socket, PeerInfo::default()))
    }
}

pub(crate) struct Pair {
    pub(crate) connection: Arc<Connection>,
    pub(crate) peer: UnixStream,
    pub(crate) runtime: Runtime,
}

impl Pair {
    pub(crate) fn new(settings: StreamSettings) -> Self {
        Self::of(Source::Unknown, settings)
    }

    pub(crate) fn of(source: Source, settings: StreamSettings) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let server =
            ServerState::new(FakeHost::new().host("plain"), settings, Plain, runtime.handle().clone());
        let (ours, peer) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let within = runtime.enter();
        let socket = Socket::new(ours.into()).unwrap();
        drop(within);
        Pair { connection: Connection::new(server, Arc::new(socket), source), peer, runtime }
    }
}

/// Hands a run of one payload from `s` to `deliver`.
pub(crate) fn with_run<R>(
    qos: Qos,
    payload: &[u8],
    shared: Option<&SharedBytes>,
    deliver: impl FnOnce(&mut Run<'_>) -> R,
) -> R {
    let (payloads, mut encoding) = ([Payload::from(payload)], Encoding::new());
    deliver(&mut Run::new(FrameKind::Message, qos, "s", "", &payloads, shared, &mut encoding))
}

/// Hands a mixed run from `s` to `deliver`: the selected ones of two messages and a publication to `t`.
pub(crate) fn with_mixed_run<R>(
    payload: &[u8],
    selected: &[u32],
    pauses: bool,
    deliver: impl FnOnce(&mut MixedRun<'_>) -> R,
) -> R {
    let [message, publication] = ["x", "t"].map(|target| [target.as_bytes(), b"\0", payload].concat());
    let frames = [
        Frame::new(Op::Message, Qos::NO, &message, 1),
        Frame::new(Op::Message, Qos::NO, &message, 1),
        Frame::new(Op::Publish, Qos::NO, &publication, 1),
    ];
    let tail_bytes = selected.iter().map(|index| frames[*index as usize].tail().len()).sum();
    deliver(&mut MixedRun::new("s", 1, &frames, selected, tail_bytes).pausing(pauses))
}
