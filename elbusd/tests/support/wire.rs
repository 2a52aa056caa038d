//! A blocking client that speaks the wire format, with a limit on every wait.

use elbus_protocol::{
    FrameKind, Limits, Op, Qos,
    delivery::{Delivery, decode_delivery},
    handshake::{encode_client_greeting, encode_client_name},
    request::{encode_filters, encode_ping, encode_request},
    rpc,
};
use elbus_testing::{rings::RingPeer, websocket::WebSocketPeer};
use std::{
    collections::VecDeque,
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    os::unix::net::UnixStream,
    path::Path,
    time::{Duration, Instant},
};

use super::{PATIENCE, daemon::Daemon, wait_until};

enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
    Web(WebSocketPeer),
    Rings(RingPeer),
}

/// A frame from the broker, except NOPs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Frame {
    Ack(u32, u8),
    /// Kind, sender, topic, payload, real-time.
    Data(FrameKind, String, String, Vec<u8>, bool),
}

impl Frame {
    pub(crate) fn payload(&self) -> &[u8] {
        match self {
            Frame::Data(_, _, _, payload, _) => payload,
            Frame::Ack(..) => panic!("an acknowledgement has no payload"),
        }
    }
}

pub(crate) struct Wire {
    stream: Stream,
    input: Vec<u8>,
    /// Frames that arrived before an awaited acknowledgement. The order between the two is not guaranteed.
    earlier: VecDeque<Frame>,
    next_id: u32,
    /// Maximum bytes per read.
    piece: usize,
}

impl Wire {
    /// Connects without a handshake.
    pub(crate) fn raw(daemon: &Daemon, address: &str) -> Self {
        Self::raw_from(daemon.folder.path(), address)
    }

    /// As [`raw`](Self::raw), with only the broker's folder known.
    pub(crate) fn raw_from(folder: &Path, address: &str) -> Self {
        let stream = if let Some(path) = address.strip_prefix("unix:") {
            Stream::Unix(UnixStream::connect(folder.join(path)).unwrap())
        } else if address.starts_with("ws://") {
            Stream::Web(WebSocketPeer::connect(address))
        } else {
            let stream = TcpStream::connect(address.strip_prefix("tcp:").unwrap()).unwrap();
            stream.set_nodelay(true).unwrap();
            Stream::Tcp(stream)
        };
        let wire =
            Wire { stream, input: Vec::new(), earlier: VecDeque::new(), next_id: 1, piece: 256 * 1024 };
        wire.set_limit(PATIENCE);
        wire
    }

    /// Connects and registers. Waits for a name whose previous owner is still disconnecting.
    pub(crate) fn connect(daemon: &Daemon, address: &str, name: &str) -> Self {
        Self::connect_from(daemon.folder.path(), address, name)
    }

    /// As [`connect`](Self::connect), with only the broker's folder known.
    pub(crate) fn connect_from(folder: &Path, address: &str, name: &str) -> Self {
        let mut registered = None;
        wait_until(&format!("{name} is free"), || {
            let mut wire = Self::raw_from(folder, address);
            match wire.greet(name.as_bytes()) {
                0x01 => registered = Some(wire),
                code => assert_eq!(code, 0x76, "{name}"),
            }
            registered.is_some()
        });
        registered.unwrap()
    }

    /// Connects to a UNIX socket and registers, with rings of the size class.
    pub(crate) fn with_rings(daemon: &Daemon, path: &str, name: &str, class: u8) -> Self {
        Self::of_rings(RingPeer::connect(&daemon.path(path), name, class).unwrap())
    }

    /// Uses a client that has rings.
    pub(crate) fn of_rings(peer: RingPeer) -> Self {
        let (input, earlier) = (Vec::new(), VecDeque::new());
        let wire = Wire { stream: Stream::Rings(peer), input, earlier, next_id: 1, piece: 256 * 1024 };
        wire.set_limit(PATIENCE);
        wire
    }

    /// Performs the handshake; returns the last code.
    pub(crate) fn greet(&mut self, name: &[u8]) -> u8 {
        assert_eq!(self.read_exactly::<3>(), [0xEB, 1, 0]);
        self.write(&encode_client_greeting());
        assert_eq!(self.read_exactly::<1>(), [0x01]);
        let text = std::str::from_utf8(name).ok().and_then(|name| encode_client_name(name).ok());
        let bytes = text.unwrap_or_else(|| [&(name.len() as u16).to_le_bytes()[..], name].concat());
        self.write(&bytes);
        self.read_exactly::<1>()[0]
    }

    /// Limits each further read to this many bytes.
    pub(crate) fn read_in_pieces(&mut self, bytes: usize) {
        self.piece = bytes;
    }

    /// Closes the connection with RST if it is TCP, as a host does that has restarted.
    pub(crate) fn reset(self) {
        if let Stream::Tcp(stream) = &self.stream {
            rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO)).unwrap();
        }
    }

    fn set_limit(&self, limit: Duration) {
        match &self.stream {
            Stream::Unix(stream) => stream.set_read_timeout(Some(limit)).unwrap(),
            Stream::Tcp(stream) => stream.set_read_timeout(Some(limit)).unwrap(),
            Stream::Web(peer) => peer.socket.set_read_timeout(Some(limit)).unwrap(),
            Stream::Rings(peer) => peer.set_limit(limit),
        }
    }

    fn read_some(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match &mut self.stream {
            Stream::Unix(stream) => stream.read(buffer),
            Stream::Tcp(stream) => stream.read(buffer),
            Stream::Web(peer) => peer.read(buffer),
            Stream::Rings(peer) => peer.read(buffer),
        }
    }

    /// Writes, and returns whether everything was written.
    pub(crate) fn try_write(&mut self, bytes: &[u8]) -> bool {
        match &mut self.stream {
            Stream::Unix(stream) => stream.write_all(bytes).is_ok(),
            Stream::Tcp(stream) => stream.write_all(bytes).is_ok(),
            Stream::Web(peer) => peer.write_all(bytes).is_ok(),
            Stream::Rings(peer) => peer.write_all(bytes).is_ok(),
        }
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        assert!(self.try_write(bytes), "the broker does not read");
    }

    /// Returns a second handle of the connection, to write from another thread.
    pub(crate) fn writer(&self) -> Wire {
        let stream = match &self.stream {
            Stream::Unix(stream) => Stream::Unix(stream.try_clone().unwrap()),
            Stream::Tcp(stream) => Stream::Tcp(stream.try_clone().unwrap()),
            Stream::Web(peer) => Stream::Web(WebSocketPeer::new(peer.socket.try_clone().unwrap())),
            Stream::Rings(peer) => Stream::Rings(peer.clone()),
        };
        Wire { stream, next_id: 1_000_000, input: Vec::new(), earlier: VecDeque::new(), piece: self.piece }
    }

    pub(crate) fn shutdown(&self, how: Shutdown) {
        let _ = match &self.stream {
            Stream::Unix(stream) => stream.shutdown(how),
            Stream::Tcp(stream) => stream.shutdown(how),
            Stream::Web(peer) => peer.socket.shutdown(how),
            Stream::Rings(peer) => return peer.shutdown(how),
        };
    }

    pub(crate) fn read_exactly<const N: usize>(&mut self) -> [u8; N] {
        while self.input.len() < N {
            let mut buffer = [0; 4096];
            let n = self.read_some(&mut buffer).expect("bytes within the limit");
            assert_ne!(n, 0, "closed after {:x?}", self.input);
            self.input.extend_from_slice(&buffer[..n]);
        }
        let bytes = self.input[..N].try_into().unwrap();
        self.input.drain(..N);
        bytes
    }

    /// Returns the next frame except NOPs, or `None` if the broker closes the connection or nothing arrives
    /// for `limit`.
    pub(crate) fn frame_within(&mut self, limit: Duration) -> Option<Frame> {
        if let Some(frame) = self.earlier.pop_front() {
            return Some(frame);
        }
        self.next_frame(limit)
    }

    fn next_frame(&mut self, limit: Duration) -> Option<Frame> {
        let until = Instant::now() + limit;
        loop {
            let decoded = decode_delivery(&self.input, &Limits::default()).expect("a valid frame");
            if let Some((delivery, used)) = decoded {
                let frame = match delivery {
                    Delivery::Nop => None,
                    Delivery::Ack { op_id, code } => Some(Frame::Ack(op_id, code)),
                    Delivery::Message { sender, payload, realtime } => {
                        let (kind, sender) = (FrameKind::Message, sender.to_owned());
                        Some(Frame::Data(kind, sender, String::new(), payload.to_vec(), realtime))
                    }
                    Delivery::Broadcast { sender, payload, realtime } => {
                        let (kind, sender) = (FrameKind::Broadcast, sender.to_owned());
                        Some(Frame::Data(kind, sender, String::new(), payload.to_vec(), realtime))
                    }
                    Delivery::Publish { sender, topic, payload, realtime } => {
                        let (sender, topic) = (sender.to_owned(), topic.to_owned());
                        Some(Frame::Data(FrameKind::Publish, sender, topic, payload.to_vec(), realtime))
                    }
                };
                self.input.drain(..used);
                if frame.is_some() {
                    return frame;
                }
                continue;
            }
            let left = until.checked_duration_since(Instant::now())?;
            self.set_limit(left.max(Duration::from_millis(1)));
            let mut buffer = vec![0; self.piece];
            match self.read_some(&mut buffer) {
                Ok(0) => return None,
                Ok(n) => self.input.extend_from_slice(&buffer[..n]),
                Err(error) if [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind()) => {
                    return None;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
        }
    }

    /// Returns whether the beginning of a frame has arrived.
    pub(crate) fn has_partial_frame(&self) -> bool {
        !self.input.is_empty()
    }

    /// Returns the next frame, which must arrive.
    pub(crate) fn frame(&mut self) -> Frame {
        self.frame_within(PATIENCE).expect("a frame")
    }

    /// Waits until the broker closes the connection; further frames are dropped.
    pub(crate) fn wait_closed(&mut self) {
        let until = Instant::now() + PATIENCE;
        self.set_limit(PATIENCE);
        let mut buffer = [0; 65536];
        loop {
            assert!(Instant::now() < until, "still open");
            match self.read_some(&mut buffer) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind()) => {
                    panic!("still open")
                }
                Err(_) => return,
            }
        }
    }

    /// Sends a request; returns its op id.
    pub(crate) fn request(&mut self, op: Op, qos: Qos, target: &str, receiver: &str, payload: &[u8]) -> u32 {
        let id = self.next_id;
        self.next_id += 1;
        let mut out = Vec::new();
        encode_request(&mut out, id, op, qos, target, receiver, payload).unwrap();
        self.write(&out);
        id
    }

    /// Sends an acknowledged request; returns its code.
    pub(crate) fn acked(&mut self, op: Op, target: &str, payload: &[u8]) -> u8 {
        let id = self.request(op, Qos::PROCESSED, target, "", payload);
        self.expect_ack(id)
    }

    pub(crate) fn expect_ack(&mut self, id: u32) -> u8 {
        loop {
            match self.next_frame(PATIENCE).expect("an acknowledgement") {
                Frame::Ack(got, code) => {
                    assert_eq!(got, id, "in the order of the requests");
                    return code;
                }
                other => self.earlier.push_back(other),
            }
        }
    }

    /// Drops the frames that arrived before an acknowledgement.
    pub(crate) fn forget_frames(&mut self) {
        self.earlier.clear();
    }

    pub(crate) fn send(&mut self, target: &str, payload: &[u8]) -> u8 {
        self.acked(Op::Message, target, payload)
    }

    pub(crate) fn filters(&mut self, op: Op, filters: &[&str]) -> u8 {
        let id = self.next_id;
        self.next_id += 1;
        let mut out = Vec::new();
        encode_filters(&mut out, id, op, Qos::PROCESSED, filters.iter().copied()).unwrap();
        self.write(&out);
        self.expect_ack(id)
    }

    pub(crate) fn subscribe(&mut self, filters: &[&str]) {
        assert_eq!(self.filters(Op::Subscribe, filters), 0x01);
    }

    pub(crate) fn ping(&mut self) {
        let mut out = Vec::new();
        encode_ping(&mut out);
        self.write(&out);
    }

    /// Calls a method; returns its result, or the error's code and text.
    pub(crate) fn call(
        &mut self,
        target: &str,
        method: &str,
        params: &[u8],
    ) -> Result<Vec<u8>, (i16, String)> {
        let call_id = self.next_id;
        let payload = rpc::encode_request(call_id, method, params).unwrap();
        self.request(Op::Message, Qos::NO, target, "", &payload);
        loop {
            let Frame::Data(FrameKind::Message, sender, _, payload, _) = self.frame() else { continue };
            if sender != target {
                continue;
            }
            match rpc::decode_rpc(&payload).unwrap() {
                rpc::RpcFrame::Reply { call_id: id, result } if id == call_id => return Ok(result.to_vec()),
                rpc::RpcFrame::Error { call_id: id, code, data } if id == call_id => {
                    return Err((code, String::from_utf8_lossy(data).into_owned()));
                }
                _ => {}
            }
        }
    }

    /// Calls a control method with `{key: value, ...}`; returns its decoded result.
    pub(crate) fn control(
        &mut self,
        method: &str,
        params: &[(&str, &str)],
    ) -> Result<rmpv::Value, (i16, String)> {
        let params = if params.is_empty() {
            Vec::new()
        } else {
            let map = params.iter().map(|(k, v)| (rmpv::Value::from(*k), rmpv::Value::from(*v))).collect();
            let mut bytes = Vec::new();
            rmpv::encode::write_value(&mut bytes, &rmpv::Value::Map(map)).unwrap();
            bytes
        };
        let result = self.call(".broker", method, &params)?;
        Ok(rmpv::decode::read_value(&mut &result[..]).unwrap())
    }
}

/// Returns `count` requests with payloads of `bytes` bytes, at least 4, which start with their number.
pub(crate) fn numbered_frames(op: Op, qos: Qos, target: &str, count: u32, bytes: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let mut payload = vec![0; bytes.max(4)];
    for number in 0..count {
        payload[..4].copy_from_slice(&number.to_le_bytes());
        encode_request(&mut out, number, op, qos, target, "", &payload).unwrap();
    }
    out
}
