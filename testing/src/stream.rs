//! A client made of bytes, and a transport behind a fake broker: what the tests of every stream transport
//! use. [`suite`] holds the tests themselves.

pub mod suite;

use elbus_plugin_api::{
    Event, EventKind,
    testing::{FakeHost, FakeInstance},
};
use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    os::unix::net::UnixStream,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

/// Longer than anything takes; who waits so long has failed.
pub const LONG: Duration = Duration::from_secs(20);

/// A connected socket of either kind.
pub trait Stream: Read + Write + Send + Sized + 'static {
    fn limit(&self, limit: Duration);
    fn half_close(&self);
    fn twin(&self) -> Self;
}

impl Stream for UnixStream {
    fn limit(&self, limit: Duration) {
        self.set_read_timeout(Some(limit)).unwrap();
        self.set_write_timeout(Some(limit)).unwrap();
    }
    fn half_close(&self) {
        self.shutdown(Shutdown::Write).unwrap();
    }
    fn twin(&self) -> Self {
        self.try_clone().unwrap()
    }
}

impl Stream for TcpStream {
    fn limit(&self, limit: Duration) {
        self.set_nodelay(true).unwrap();
        self.set_read_timeout(Some(limit)).unwrap();
        self.set_write_timeout(Some(limit)).unwrap();
    }
    fn half_close(&self) {
        self.shutdown(Shutdown::Write).unwrap();
    }
    fn twin(&self) -> Self {
        self.try_clone().unwrap()
    }
}

/// The events that the transport reported: kind, subject, detail.
pub type RecordedEvents = Arc<Mutex<Vec<(EventKind, String, String)>>>;

/// A transport that serves, and how to reach it.
pub struct Bus<S> {
    pub fake: FakeHost,
    pub instance: FakeInstance,
    pub connect: Box<dyn Fn() -> S>,
    pub events: RecordedEvents,
}

impl<S: Stream> Bus<S> {
    /// Starts and serves; `connect` is made from the address that status shows.
    pub fn over(fake: FakeHost, instance: FakeInstance, connect: impl Fn(&str) -> S + 'static) -> Self {
        let events = RecordedEvents::default();
        let ours = events.clone();
        fake.host("listener").add_listener(move |event: &Event<'_>| {
            ours.lock().unwrap().push((event.kind, event.subject.to_owned(), event.detail.to_owned()));
        });
        instance.start().unwrap();
        instance.serve();
        let address = instance.status().addresses[0].clone();
        Bus { fake, instance, connect: Box::new(move || connect(&address)), events }
    }

    /// A connection without a handshake.
    pub fn raw(&self) -> Peer<S> {
        let stream = (self.connect)();
        stream.limit(LONG);
        Peer(stream)
    }

    /// A registered client.
    pub fn client(&self, name: &str) -> Peer<S> {
        let mut peer = self.raw();
        assert_eq!(peer.introduce(name.as_bytes()), 1);
        peer
    }

    pub fn wait(&self, what: &str, ready: impl FnMut(&FakeHost) -> bool) {
        assert!(
            self.fake.wait_until(LONG, ready),
            "never came: {what}; failures: {:?}",
            self.fake.failures()
        );
    }

    /// Waits until the detail of the status ends like this.
    pub fn wait_detail(&self, end: &str) {
        let until = Instant::now() + LONG;
        while !self.instance.status().detail.ends_with(end) {
            assert!(Instant::now() < until, "{:?} does not end with {end:?}", self.instance.status().detail);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub fn wait_gone(&self, name: &str) {
        self.wait("the end of a client", |fake| !fake.clients().iter().any(|client| client == name));
    }
}

/// The client's end of a connection.
pub struct Peer<S>(pub S);

impl<S: Stream> Peer<S> {
    pub fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    pub fn receive(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.0.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// The handshake; the answer to the name.
    pub fn introduce(&mut self, name: &[u8]) -> u8 {
        assert_eq!(self.receive(3), [0xEB, 1, 0]);
        self.send(&[0xEB, 1, 0]);
        assert_eq!(self.receive(1), [1]);
        self.send(&(name.len() as u16).to_le_bytes());
        self.send(name);
        self.receive(1)[0]
    }

    /// Everything until the broker closes.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut bytes = vec![];
        match self.0.read_to_end(&mut bytes) {
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {}
            Err(error) => panic!("not closed: {error}"),
        }
        bytes
    }

    /// The next frame that is no NOP.
    pub fn frame(&mut self) -> Vec<u8> {
        loop {
            let mut frame = self.receive(6);
            if frame[0] == 0 {
                continue;
            }
            if frame[0] != 0xFE {
                let len = u32::from_le_bytes([frame[1], frame[2], frame[3], frame[4]]);
                frame.extend(self.receive(len as usize));
            }
            return frame;
        }
    }
}

/// A request.
pub fn request(op_id: u32, flags: u8, body: &[u8]) -> Vec<u8> {
    [&op_id.to_le_bytes()[..], &[flags], &(body.len() as u32).to_le_bytes(), body].concat()
}

/// An acknowledgement.
pub fn ack(op_id: u32, code: u8) -> Vec<u8> {
    [&[0xFE][..], &op_id.to_le_bytes(), &[code]].concat()
}

/// Bytes in which every mistake of order shows.
pub fn pattern(len: usize, seed: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect()
}
