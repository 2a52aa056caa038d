//! Clients inside the process: what the plugin that offers them implements, and what programs and other plugins
//! hold in their hands. Needs no runtime; futures end through [`Wake`].

use abi_stable::{
    StableAbi,
    sabi_trait::TD_Opaque,
    std_types::{RResult, RStr, RString, RVec},
};
use bytes::Bytes;
use elbus_protocol::{Code, FrameKind, Op, Qos};
use parking_lot::Mutex;
use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    Dispatch, Payload, Request, Run, SHARE_FROM_BYTES, SharedBytes, Wake, Woken,
    abi::{ConnectorObject, EndpointObject, RawConnector, RawEndpoint, RawEndpoint_TO, WakeObject},
    guard::{self, Guarded},
};

/// Offers in-process clients. Called from any thread; does not block.
pub trait LocalConnector: Send + Sync + 'static {
    /// What a client is.
    type Endpoint: LocalEndpoint;
    /// Registers a client.
    ///
    /// # Errors
    /// As [`Host::register`](crate::Host::register).
    fn connect(&self, name: &str) -> Result<Self::Endpoint, Code>;
}

/// The plugin's side of an in-process client. Any thread, several at once, never blocks. Dropping it leaves the bus.
pub trait LocalEndpoint: Send + Sync + 'static {
    /// Routes a request and flushes; [`Dispatch::is_congested`] says to wait for
    /// [`when_ready`](LocalEndpoint::when_ready).
    fn dispatch(&self, request: &Request<'_>) -> Dispatch;
    /// Calls `wake` once when the receivers over their limit have drained.
    fn when_ready(&self, wake: Wake);
    /// Moves some of what was received into `into`, at least one run if there is any; `false` once the client is
    /// closed and nothing will follow.
    fn receive(&self, into: &mut Received) -> bool;
    /// Calls `wake` once when there is something to receive or the client is closed; may call it earlier.
    fn when_readable(&self, wake: Wake);
    /// Leaves the bus.
    fn close(&self);
}

/// Runs on their way to an in-process client, in order.
#[repr(transparent)]
#[derive(StableAbi, Default)]
pub struct Received(RVec<KeptRun>);

impl Received {
    /// Adds a run behind the others.
    pub fn push(&mut self, run: KeptRun) {
        self.0.push(run);
    }

    /// How many runs there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A run of messages, kept: what an in-process client receives.
#[repr(C)]
#[derive(StableAbi, Clone)]
pub struct KeptRun {
    kind: u8,
    qos: u8,
    flags: u32,
    sender: RString,
    topic: RString,
    data: SharedBytes,
    ends: RVec<usize>,
}

impl KeptRun {
    /// Keeps a run: one copy of small payloads, none of a shared one.
    pub fn keep(run: &Run<'_>) -> Self {
        let payloads = run.payloads();
        let mut ends = RVec::with_capacity(payloads.len());
        let data = match run.shared() {
            Some(shared) => {
                ends.push(shared.len());
                shared.clone()
            }
            None => {
                let mut data = Vec::with_capacity(payloads.iter().map(|p| p.len()).sum());
                for payload in payloads {
                    data.extend_from_slice(payload);
                    ends.push(data.len());
                }
                SharedBytes::from(data)
            }
        };
        KeptRun {
            kind: run.kind() as u8,
            qos: if run.is_realtime() { Qos::REALTIME.bits() } else { 0 },
            flags: 0,
            sender: run.sender().into(),
            topic: run.topic().into(),
            data,
            ends,
        }
    }

    /// How many messages it is.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether it is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The bytes of all payloads.
    pub fn bytes(&self) -> usize {
        self.ends.last().copied().unwrap_or(0)
    }

    fn messages(self) -> impl Iterator<Item = Message> {
        let kind = FrameKind::from_wire(self.kind).unwrap_or(FrameKind::Message);
        let realtime = Qos::from_bits(self.qos).is_realtime();
        let sender: Arc<str> = self.sender.as_str().into();
        let topic: Arc<str> = self.topic.as_str().into();
        let data = Bytes::from(self.data);
        let mut start = 0;
        self.ends.into_iter().map(move |end| {
            let end = end.min(data.len());
            let payload = data.slice(start.min(end)..end);
            start = end;
            Message { kind, realtime, sender: sender.clone(), topic: topic.clone(), payload }
        })
    }
}

/// A message that an in-process client received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// One-to-one message, broadcast or publication.
    pub kind: FrameKind,
    /// Whether it was sent as real-time.
    pub realtime: bool,
    /// The full name of the sender.
    pub sender: Arc<str>,
    /// The topic of a publication, else empty.
    pub topic: Arc<str>,
    /// The payload; shares its memory with the sender's where it was large.
    pub payload: Bytes,
}

/// A client inside the process. May be used from many tasks at once; dropping it leaves the bus. Where several
/// tasks receive, each message goes to one of them, and only one that receives alone sees them in order.
///
/// A sending method routes the message before it first waits, and then waits as long as a receiver is over its
/// limit; dropping its future takes nothing back. Payloads from [`SHARE_FROM_BYTES`] on are not copied.
pub struct LocalClient {
    name: String,
    endpoint: EndpointObject,
    inbox: Mutex<VecDeque<Message>>,
}

impl LocalClient {
    pub(crate) fn connect(connector: &ConnectorObject, name: &str) -> Result<Self, Code> {
        let endpoint = connector
            .connect(RStr::from_str(name))
            .into_result()
            .map_err(|code| Code::from_wire(code).unwrap_or(Code::Other))?;
        Ok(LocalClient { name: name.to_owned(), endpoint, inbox: Mutex::default() })
    }

    /// The name it is registered under.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Sends a message to one client.
    ///
    /// # Errors
    /// [`Code::NotRegistered`] for an unknown target, [`Code::NotDelivered`] where its queue is full.
    pub async fn send(&self, target: &str, payload: impl Into<Bytes>, qos: Qos) -> Result<(), Code> {
        self.carry(Op::Message, target, "", payload.into(), qos).await
    }

    /// Sends to every client whose name matches a mask.
    ///
    /// # Errors
    /// As [`send`](LocalClient::send), but for reaching nobody.
    pub async fn broadcast(&self, mask: &str, payload: impl Into<Bytes>, qos: Qos) -> Result<(), Code> {
        self.carry(Op::Broadcast, mask, "", payload.into(), qos).await
    }

    /// Publishes to a topic.
    ///
    /// # Errors
    /// As [`send`](LocalClient::send), but for reaching nobody.
    pub async fn publish(&self, topic: &str, payload: impl Into<Bytes>, qos: Qos) -> Result<(), Code> {
        self.carry(Op::Publish, topic, "", payload.into(), qos).await
    }

    /// Publishes to those subscribers of a topic whose primary name is `receiver`.
    ///
    /// # Errors
    /// As [`publish`](LocalClient::publish).
    pub async fn publish_for(
        &self,
        topic: &str,
        receiver: &str,
        payload: impl Into<Bytes>,
        qos: Qos,
    ) -> Result<(), Code> {
        self.carry(Op::PublishFor, topic, receiver, payload.into(), qos).await
    }

    /// Subscribes to a topic filter.
    ///
    /// # Errors
    /// [`Code::BadData`] where the filter is longer than the broker takes.
    pub fn subscribe(&self, filter: &str) -> Result<(), Code> {
        self.change(Op::Subscribe, filter)
    }

    /// Takes a subscription back.
    ///
    /// # Errors
    /// [`Code::NotRegistered`] once the client is closed.
    pub fn unsubscribe(&self, filter: &str) -> Result<(), Code> {
        self.change(Op::Unsubscribe, filter)
    }

    /// Withholds publications that match a filter.
    ///
    /// # Errors
    /// As [`subscribe`](LocalClient::subscribe).
    pub fn exclude(&self, filter: &str) -> Result<(), Code> {
        self.change(Op::Exclude, filter)
    }

    /// Takes an exclusion back.
    ///
    /// # Errors
    /// As [`unsubscribe`](LocalClient::unsubscribe).
    pub fn unexclude(&self, filter: &str) -> Result<(), Code> {
        self.change(Op::Unexclude, filter)
    }

    /// The next message; `None` once the client is closed. Dropping the future loses nothing.
    pub async fn receive(&self) -> Option<Message> {
        loop {
            if let Some(done) = self.poll_inbox() {
                return done;
            }
            let (wake, woken) = Woken::pair();
            self.endpoint.when_readable(wake.0);
            woken.await;
        }
    }

    /// The next message if there is one.
    pub fn try_receive(&self) -> Option<Message> {
        self.poll_inbox().flatten()
    }

    /// Blocks the thread for the next message, `limit` at most; `None` also once the client is closed.
    pub fn receive_timeout(&self, limit: Duration) -> Option<Message> {
        let until = Instant::now() + limit;
        loop {
            if let Some(done) = self.poll_inbox() {
                return done;
            }
            let thread = std::thread::current();
            self.endpoint.when_readable(Wake::new(move || thread.unpark()).0);
            if let Some(done) = self.poll_inbox() {
                return done;
            }
            std::thread::park_timeout(until.checked_duration_since(Instant::now())?);
        }
    }

    /// `None`: nothing yet. `Some(None)`: closed.
    fn poll_inbox(&self) -> Option<Option<Message>> {
        if let Some(message) = self.inbox.lock().pop_front() {
            return Some(Some(message));
        }
        // outside the lock: it wakes senders, and a waker may run its task at once
        let mut received = Received::default();
        let open = self.endpoint.receive(&mut received);
        let mut inbox = self.inbox.lock();
        inbox.extend(received.0.into_iter().flat_map(KeptRun::messages));
        match inbox.pop_front() {
            None if !open => Some(None),
            message => message.map(Some),
        }
    }

    async fn carry(
        &self,
        op: Op,
        target: &str,
        receiver: &str,
        payload: Bytes,
        qos: Qos,
    ) -> Result<(), Code> {
        let result = self.dispatch(op, target, receiver, payload, qos);
        if result.is_congested() {
            let (wake, woken) = Woken::pair();
            self.endpoint.when_ready(wake.0);
            woken.await;
        }
        outcome(result)
    }

    fn dispatch(&self, op: Op, target: &str, receiver: &str, payload: Bytes, qos: Qos) -> Dispatch {
        // a name that holds NUL would break the framing of whoever receives it
        if target.contains('\0') || receiver.contains('\0') {
            return Dispatch::new(Code::BadData, 0);
        }
        if payload.len() >= SHARE_FROM_BYTES {
            let shared = SharedBytes::from(payload);
            let payloads = [Payload::from(&*shared)];
            let request =
                Request::new(op, qos, target, &payloads).with_receiver(receiver).with_shared(&shared);
            self.endpoint.dispatch(&request)
        } else {
            let payloads = [Payload::from(&*payload)];
            self.endpoint.dispatch(&Request::new(op, qos, target, &payloads).with_receiver(receiver))
        }
    }

    fn change(&self, op: Op, filter: &str) -> Result<(), Code> {
        if filter.contains('\0') {
            return Err(Code::BadData);
        }
        outcome(self.endpoint.dispatch(&Request::new(op, Qos::NO, filter, &[])))
    }
}

impl Drop for LocalClient {
    fn drop(&mut self) {
        self.endpoint.close();
    }
}

fn outcome(result: Dispatch) -> Result<(), Code> {
    match result.code() {
        Code::Ok => Ok(()),
        code => Err(code),
    }
}

/// The connector behind the panic barrier; its clients are behind it as well.
pub(crate) struct GuardedConnector<C> {
    connector: Arc<Guarded<C>>,
    instance: Arc<guard::Instance>,
}

impl<C: LocalConnector> GuardedConnector<C> {
    pub(crate) fn new(connector: C, instance: Arc<guard::Instance>) -> Self {
        GuardedConnector { connector: Arc::new(Guarded::new(connector, instance.clone())), instance }
    }
}

impl<C> Clone for GuardedConnector<C> {
    fn clone(&self) -> Self {
        GuardedConnector { connector: self.connector.clone(), instance: self.instance.clone() }
    }
}

impl<C: LocalConnector> RawConnector for GuardedConnector<C> {
    fn connect(&self, name: RStr<'_>) -> RResult<EndpointObject, u8> {
        let refused = |_: &str| Err(Code::Other);
        self.connector
            .run("connect", refused, |connector| connector.connect(name.as_str()))
            .map(|endpoint| {
                RawEndpoint_TO::from_value(Guarded::new(endpoint, self.instance.clone()), TD_Opaque)
            })
            .map_err(|code| code as u8)
            .into()
    }
}

impl<E: LocalEndpoint> RawEndpoint for Guarded<E> {
    fn dispatch(&self, request: &Request<'_>) -> Dispatch {
        self.run("dispatch", |_| Dispatch::gone(), |endpoint| endpoint.dispatch(request))
    }

    fn when_ready(&self, wake: WakeObject) {
        let otherwise = wake.clone();
        self.run("when_ready", |_| otherwise.wake(), |endpoint| endpoint.when_ready(Wake(wake)));
    }

    fn receive(&self, into: &mut Received) -> bool {
        self.run("receive", |_| false, |endpoint| endpoint.receive(into))
    }

    fn when_readable(&self, wake: WakeObject) {
        let otherwise = wake.clone();
        self.run("when_readable", |_| otherwise.wake(), |endpoint| endpoint.when_readable(Wake(wake)));
    }

    fn close(&self) {
        self.run("close", |_| (), E::close);
    }
}
