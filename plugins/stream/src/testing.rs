//! A connection without a reader, for the unit tests: its other end is a plain socket.

use elbus_plugin_api::{Encoding, FrameKind, Payload, Qos, Run, SharedBytes, fake::FakeHost};
use elbus_socket::Socket;
use parking_lot::{Condvar, Mutex};
use std::{
    io,
    os::{fd::OwnedFd, unix::net::UnixStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64},
    },
};
use tokio::{
    runtime::{Builder, Runtime},
    sync::Notify,
};

use crate::{
    Origin, StreamSettings, Transport,
    connection::Connection,
    instance::{Census, Counts, Instance},
};

struct Plain;

impl Transport for Plain {
    fn kind(&self) -> &'static str {
        "plain"
    }
    fn prepare(&self, socket: OwnedFd) -> io::Result<(OwnedFd, Origin)> {
        Ok((socket, Origin::default()))
    }
}

pub(crate) struct Pair {
    pub(crate) connection: Arc<Connection>,
    pub(crate) peer: UnixStream,
    pub(crate) runtime: Runtime,
}

impl Pair {
    pub(crate) fn new(settings: StreamSettings) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let instance = Arc::new(Instance {
            host: FakeHost::new().host("plain"),
            settings,
            transport: Box::new(Plain),
            runtime: runtime.handle().clone(),
            stopping: AtomicBool::new(false),
            sweeps: AtomicU64::new(0),
            any_blocked: AtomicBool::new(false),
            census: Mutex::new(Census::default()),
            left: Condvar::new(),
            departures: Notify::new(),
            counts: Counts::default(),
        });
        let (ours, peer) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let within = runtime.enter();
        let socket = Socket::new(ours.into()).unwrap();
        drop(within);
        Pair { connection: Connection::new(instance, Arc::new(socket)), peer, runtime }
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
