//! Clients inside the process: what the plugin that offers them implements, and what programs and other plugins
//! hold in their hands. Needs no runtime; futures end through [`Notifier`].

mod owned_run;
mod receiver;

use abi_stable::{
    sabi_trait::TD_Opaque,
    std_types::{RResult, RStr},
};
use bytes::Bytes;
use elbus_protocol::{Code, Op, Qos};
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use crate::{
    Dispatch, Notified, Notifier, Payload, Request, SHARE_FROM_BYTES, SharedBytes,
    abi::{ConnectorObject, EndpointObject, NotifierObject, RawConnector, RawEndpoint, RawEndpoint_TO},
    guard::{self, Guarded},
};
use receiver::Receiver;

pub use owned_run::{Message, OwnedRun, RunBatch};

/// The most messages that are sent as one run.
const RUN_MESSAGES: usize = 256;

/// Offers in-process clients. Called from any thread; does not block.
pub trait InprocConnector: Send + Sync + 'static {
    /// What a client is.
    type Endpoint: InprocEndpoint;
    /// Registers a client.
    ///
    /// # Errors
    /// As [`Host::register`](crate::Host::register).
    fn connect(&self, name: &str) -> Result<Self::Endpoint, Code>;
}

/// The plugin's side of an in-process client. Any thread, several at once, never blocks. Dropping it leaves the bus.
pub trait InprocEndpoint: Send + Sync + 'static {
    /// Routes a request, which [ends its batch](Request::ends_batch); [`Dispatch::is_congested`] says to wait for
    /// [`when_ready`](InprocEndpoint::when_ready).
    fn dispatch(&self, request: &Request<'_>) -> Dispatch;
    /// Calls `notifier` once when the receivers over their limit have drained.
    fn when_ready(&self, notifier: Notifier);
    /// Moves some of what was received into `into`, at least one run if there is any; `false` once the client is
    /// closed and nothing will follow. Where there is nothing yet and the reader `waits`, the
    /// [bell](InprocEndpoint::set_notifier) is called once when there is something or the client is closed.
    fn receive(&self, into: &mut RunBatch, waits: bool) -> bool;
    /// The notifier for readers that wait, for as long as the client lives; set before anything is received.
    fn set_notifier(&self, bell: Notifier);
    /// Leaves the bus.
    fn close(&self);
    /// As [`Client::drain`](crate::Client::drain): what was received stays readable, and can be answered.
    fn drain(&self) {}
}

/// A client inside the process. May be used from many tasks at once; dropping it leaves the bus. Where several
/// tasks receive, each message goes to one of them, and only one that receives alone sees them in order.
///
/// A sending method routes the message before it first waits, and then waits as long as a receiver is over its
/// limit; dropping its future takes nothing back. Payloads from [`SHARE_FROM_BYTES`] on are not copied.
pub struct InprocClient {
    name: String,
    endpoint: EndpointObject,
    receiver: Arc<Receiver>,
}

impl InprocClient {
    pub(crate) fn connect(connector: &ConnectorObject, name: &str) -> Result<Self, Code> {
        let endpoint = connector
            .connect(RStr::from_str(name))
            .into_result()
            .map_err(|code| Code::from_wire(code).unwrap_or(Code::Other))?;
        let receiver = Arc::new(Receiver::default());
        let rung = receiver.clone();
        endpoint.set_notifier(Notifier::new(move || rung.ring()).0);
        Ok(InprocClient { name: name.to_owned(), endpoint, receiver })
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
        self.settle(self.dispatch(Op::Message, target, "", &payload.into(), qos)).await
    }

    /// Sends several messages to one client, in order, with one pass through the broker for as many as fit in a run:
    /// many small ones cost a fraction of what they do one by one.
    ///
    /// # Errors
    /// As [`send`](InprocClient::send): then messages before the failing run have been taken, those behind it not.
    pub async fn send_all(&self, target: &str, payloads: &[Bytes], qos: Qos) -> Result<(), Code> {
        self.carry_all(Op::Message, target, payloads, qos).await
    }

    /// Publishes several payloads to a topic, in order, as [`send_all`](InprocClient::send_all) does.
    ///
    /// # Errors
    /// As [`send_all`](InprocClient::send_all), but for reaching nobody.
    pub async fn publish_all(&self, topic: &str, payloads: &[Bytes], qos: Qos) -> Result<(), Code> {
        self.carry_all(Op::Publish, topic, payloads, qos).await
    }

    /// Sends to every client whose name matches a mask.
    ///
    /// # Errors
    /// As [`send`](InprocClient::send), but for reaching nobody.
    pub async fn broadcast(&self, mask: &str, payload: impl Into<Bytes>, qos: Qos) -> Result<(), Code> {
        self.settle(self.dispatch(Op::Broadcast, mask, "", &payload.into(), qos)).await
    }

    /// Publishes to a topic.
    ///
    /// # Errors
    /// As [`send`](InprocClient::send), but for reaching nobody.
    pub async fn publish(&self, topic: &str, payload: impl Into<Bytes>, qos: Qos) -> Result<(), Code> {
        self.settle(self.dispatch(Op::Publish, topic, "", &payload.into(), qos)).await
    }

    /// Publishes to those subscribers of a topic whose primary name is `receiver`.
    ///
    /// # Errors
    /// As [`publish`](InprocClient::publish).
    pub async fn publish_for(
        &self,
        topic: &str,
        receiver: &str,
        payload: impl Into<Bytes>,
        qos: Qos,
    ) -> Result<(), Code> {
        self.settle(self.dispatch(Op::PublishFor, topic, receiver, &payload.into(), qos)).await
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
    /// As [`subscribe`](InprocClient::subscribe).
    pub fn exclude(&self, filter: &str) -> Result<(), Code> {
        self.change(Op::Exclude, filter)
    }

    /// Takes an exclusion back.
    ///
    /// # Errors
    /// As [`unsubscribe`](InprocClient::unsubscribe).
    pub fn unexclude(&self, filter: &str) -> Result<(), Code> {
        self.change(Op::Unexclude, filter)
    }

    /// The next message; `None` once the client is closed. Dropping the future loses nothing.
    pub async fn receive(&self) -> Option<Message> {
        std::future::poll_fn(|context| self.poll(Some(context.waker()))).await
    }

    /// The next message if there is one.
    pub fn try_receive(&self) -> Option<Message> {
        match self.poll(None) {
            Poll::Ready(message) => message,
            Poll::Pending => None,
        }
    }

    /// Takes messages that are there, in order, `most` of them: cheaper than one by one. Says how many.
    pub fn try_receive_many(&self, into: &mut Vec<Message>, most: usize) -> usize {
        let mut count = self.receiver.take_unread(into, most);
        while count < most
            && let Some(message) = self.try_receive()
        {
            into.push(message);
            count += 1 + self.receiver.take_unread(into, most - count - 1);
        }
        count
    }

    /// Blocks the thread for the next message, `limit` at most; `None` also once the client is closed.
    pub fn receive_timeout(&self, limit: Duration) -> Option<Message> {
        if let Poll::Ready(done) = self.poll(None) {
            return done;
        }
        let (waker, start) = (receiver::waker_of_thread(), Instant::now());
        loop {
            if let Poll::Ready(done) = self.poll(Some(&waker)) {
                return done;
            }
            std::thread::park_timeout(limit.checked_sub(start.elapsed())?);
        }
    }

    /// Leaves the bus, whoever else still holds the client. What was received stays readable. Not to be called by a
    /// waker.
    pub fn close(&self) {
        self.endpoint.close();
    }

    /// Is reached by nobody any more: senders are told that it is not registered. What was received stays readable and can be
    /// answered by messages; every other operation is refused.
    pub fn drain(&self) {
        self.endpoint.drain();
    }

    #[inline]
    fn poll(&self, waker: Option<&Waker>) -> Poll<Option<Message>> {
        self.receiver.poll(waker, |into, waits| self.endpoint.receive(into, waits))
    }

    /// What became of a request, once its receivers are not over their limit.
    #[inline]
    fn settle(&self, result: Dispatch) -> SendFuture {
        let ready = result.is_congested().then(|| {
            let (notifier, woken) = Notified::pair();
            self.endpoint.when_ready(notifier.0);
            woken
        });
        SendFuture { result, ready }
    }

    async fn carry_all(&self, op: Op, target: &str, payloads: &[Bytes], qos: Qos) -> Result<(), Code> {
        let mut rest = payloads;
        while let Some(first) = rest.first() {
            let (run, behind) = rest.split_at(run_of(rest));
            rest = behind;
            let result = match run {
                [_] => self.dispatch(op, target, "", first, qos),
                run => self.dispatch_run(op, target, run, qos),
            };
            self.settle(result).await?;
        }
        Ok(())
    }

    fn dispatch_run(&self, op: Op, target: &str, run: &[Bytes], qos: Qos) -> Dispatch {
        if target.contains('\0') {
            return Dispatch::new(Code::BadData, 0);
        }
        let payloads: Vec<_> = run.iter().map(|payload| Payload::from(&**payload)).collect();
        self.endpoint.dispatch(&Request::new(op, qos, target, &payloads).ending_batch())
    }

    #[inline]
    fn dispatch(&self, op: Op, target: &str, receiver: &str, payload: &Bytes, qos: Qos) -> Dispatch {
        // a name that holds NUL would break the framing of whoever receives it
        if target.contains('\0') || receiver.contains('\0') {
            return Dispatch::new(Code::BadData, 0);
        }
        if payload.len() >= SHARE_FROM_BYTES {
            let shared = SharedBytes::from(payload.clone());
            let payloads = [Payload::from(&*shared)];
            let request = Request::new(op, qos, target, &payloads).with_receiver(receiver);
            self.endpoint.dispatch(&request.with_shared(&shared).ending_batch())
        } else {
            let payloads = [Payload::from(&**payload)];
            let request = Request::new(op, qos, target, &payloads).with_receiver(receiver);
            self.endpoint.dispatch(&request.ending_batch())
        }
    }

    fn change(&self, op: Op, filter: &str) -> Result<(), Code> {
        if filter.contains('\0') {
            return Err(Code::BadData);
        }
        outcome(self.endpoint.dispatch(&Request::new(op, Qos::NO, filter, &[]).ending_batch()))
    }
}

impl Drop for InprocClient {
    fn drop(&mut self) {
        self.endpoint.close();
    }
}

/// Ends with the outcome of a request as soon as the sender may go on.
struct SendFuture {
    result: Dispatch,
    /// Where a receiver is over its limit.
    ready: Option<Notified>,
}

impl Future for SendFuture {
    type Output = Result<(), Code>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(ready) = &mut self.ready {
            std::task::ready!(Pin::new(ready).poll(context));
        }
        Poll::Ready(outcome(self.result))
    }
}

/// How many payloads are sent as the next run: up to a number and a size, and those that are worth sharing alone.
fn run_of(payloads: &[Bytes]) -> usize {
    let mut bytes = 0usize;
    let fits = |payload: &&Bytes| {
        bytes = bytes.saturating_add(payload.len());
        bytes < SHARE_FROM_BYTES
    };
    payloads.iter().take(RUN_MESSAGES).take_while(fits).count().max(1)
}

#[inline]
fn outcome(result: Dispatch) -> Result<(), Code> {
    match result.code() {
        Code::Ok => Ok(()),
        code => Err(code),
    }
}

/// The connector behind the panic barrier; its clients are behind it as well.
pub(crate) struct GuardedConnector<C> {
    connector: Arc<Guarded<C>>,
    instance: Arc<guard::PanicScope>,
}

impl<C: InprocConnector> GuardedConnector<C> {
    pub(crate) fn new(connector: C, instance: Arc<guard::PanicScope>) -> Self {
        GuardedConnector { connector: Arc::new(Guarded::new(connector, instance.clone())), instance }
    }
}

impl<C> Clone for GuardedConnector<C> {
    fn clone(&self) -> Self {
        GuardedConnector { connector: self.connector.clone(), instance: self.instance.clone() }
    }
}

impl<C: InprocConnector> RawConnector for GuardedConnector<C> {
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

impl<E: InprocEndpoint> RawEndpoint for Guarded<E> {
    fn dispatch(&self, request: &Request<'_>) -> Dispatch {
        self.run("dispatch", |_| Dispatch::gone(), |endpoint| endpoint.dispatch(request))
    }

    fn when_ready(&self, notifier: NotifierObject) {
        let otherwise = notifier.clone();
        self.run("when_ready", |_| otherwise.notify(), |endpoint| endpoint.when_ready(Notifier(notifier)));
    }

    fn receive(&self, into: &mut RunBatch, waits: bool) -> bool {
        self.run("receive", |_| false, |endpoint| endpoint.receive(into, waits))
    }

    fn set_notifier(&self, bell: NotifierObject) {
        self.run("set_notifier", |_| (), |endpoint| endpoint.set_notifier(Notifier(bell)));
    }

    fn close(&self) {
        self.run("close", |_| (), E::close);
    }

    fn drain(&self) {
        self.run("drain", |_| (), E::drain);
    }
}
