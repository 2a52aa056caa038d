//! The in-process client that programs and plugins hold.

use abi_stable::std_types::RStr;
use bytes::Bytes;
use elbus_protocol::{Code, Op, Qos};
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use super::{
    owned_run::Message,
    receiver::{self, Receiver},
};
use crate::{
    abi::{ConnectorObject, EndpointObject},
    buffer::{Payload, SHARE_FROM_BYTES, SharedBytes},
    notifier::{Notified, Notifier},
    request::{Dispatch, Request},
};

/// Messages that are sent as one run at most.
const RUN_MESSAGES: usize = 256;

/// A client inside the process. Many tasks can use it at once; dropping it ends the registration. If several
/// tasks receive, each message goes to one of them, and only a task that receives alone gets them in order.
///
/// A sending method routes the message before it first waits, and then waits while a receiver is over its
/// limit; dropping its future does not undo it. Payloads from [`SHARE_FROM_BYTES`] on are not copied.
///
/// # Examples
/// ```no_run
/// use elbus_plugin_api::{Code, Host, Qos};
///
/// async fn run(host: &Host) -> Result<(), Code> {
///     let client = host.connect("app.worker")?;
///     client.subscribe("jobs/#")?;
///     while let Some(message) = client.receive().await {
///         client.send(message.sender(), message.to_payload(), Qos::NO).await?;
///     }
///     Ok(())
/// }
/// ```
///
/// A sending method routes the message before it first waits, and then waits as long as a receiver is over
/// its limit; dropping its future takes nothing back. Payloads from [`SHARE_FROM_BYTES`] on are not copied.
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
        let notified = receiver.clone();
        endpoint.set_notifier(Notifier::new(move || notified.notify()).0);
        Ok(InprocClient { name: name.to_owned(), endpoint, receiver })
    }

    /// Returns the name it is registered under.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Sends a message to one client.
    ///
    /// # Errors
    /// [`Code::NotRegistered`] for an unknown target, [`Code::NotDelivered`] if its queue is full.
    pub async fn send(&self, target: &str, payload: impl Into<Bytes>, qos: Qos) -> Result<(), Code> {
        self.after_dispatch(self.dispatch(Op::Message, target, "", &payload.into(), qos)).await
    }

    /// Sends several messages to one client, in order. They pass through the broker in runs: many small
    /// messages cost a fraction of what they cost one by one.
    ///
    /// # Errors
    /// As [`send`](InprocClient::send). Messages before the failing run have been taken, those behind it
    /// have not.
    pub async fn send_all(&self, target: &str, payloads: &[Bytes], qos: Qos) -> Result<(), Code> {
        self.send_runs(Op::Message, target, payloads, qos).await
    }

    /// Publishes several payloads to a topic, in order, as [`send_all`](InprocClient::send_all) does.
    ///
    /// # Errors
    /// As [`send_all`](InprocClient::send_all), but a topic without subscribers is not an error.
    pub async fn publish_all(&self, topic: &str, payloads: &[Bytes], qos: Qos) -> Result<(), Code> {
        self.send_runs(Op::Publish, topic, payloads, qos).await
    }

    /// Sends to every client whose name matches a mask.
    ///
    /// # Errors
    /// As [`send`](InprocClient::send), but a mask that matches no client is not an error.
    pub async fn broadcast(&self, mask: &str, payload: impl Into<Bytes>, qos: Qos) -> Result<(), Code> {
        self.after_dispatch(self.dispatch(Op::Broadcast, mask, "", &payload.into(), qos)).await
    }

    /// Publishes to a topic.
    ///
    /// # Errors
    /// As [`send`](InprocClient::send), but a topic without subscribers is not an error.
    pub async fn publish(&self, topic: &str, payload: impl Into<Bytes>, qos: Qos) -> Result<(), Code> {
        self.after_dispatch(self.dispatch(Op::Publish, topic, "", &payload.into(), qos)).await
    }

    /// Publishes to the subscribers of a topic whose primary name is `receiver`.
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
        self.after_dispatch(self.dispatch(Op::PublishFor, topic, receiver, &payload.into(), qos)).await
    }

    /// Subscribes to a topic filter.
    ///
    /// # Errors
    /// [`Code::BadData`] if the filter is malformed or over a limit.
    pub fn subscribe(&self, filter: &str) -> Result<(), Code> {
        self.change_filter(Op::Subscribe, filter)
    }

    /// Removes a subscription.
    ///
    /// # Errors
    /// [`Code::NotRegistered`] if the client is closed.
    pub fn unsubscribe(&self, filter: &str) -> Result<(), Code> {
        self.change_filter(Op::Unsubscribe, filter)
    }

    /// Excludes publications that match a filter.
    ///
    /// # Errors
    /// As [`subscribe`](InprocClient::subscribe).
    pub fn exclude(&self, filter: &str) -> Result<(), Code> {
        self.change_filter(Op::Exclude, filter)
    }

    /// Removes an exclusion.
    ///
    /// # Errors
    /// As [`unsubscribe`](InprocClient::unsubscribe).
    pub fn unexclude(&self, filter: &str) -> Result<(), Code> {
        self.change_filter(Op::Unexclude, filter)
    }

    /// Receives the next message; `None` if the client is closed. Dropping the future loses nothing.
    pub async fn receive(&self) -> Option<Message> {
        std::future::poll_fn(|context| self.poll(Some(context.waker()))).await
    }

    /// Returns the next message if there is one.
    pub fn try_receive(&self) -> Option<Message> {
        match self.poll(None) {
            Poll::Ready(message) => message,
            Poll::Pending => None,
        }
    }

    /// Moves received messages into `into`, in order, `most` at most, and returns their number. Cheaper than
    /// one by one.
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

    /// Blocks the thread until the next message, at most for `limit`. `None` also if the client is closed.
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

    /// Ends the registration, even while other owners hold the client. Received messages stay readable. Must
    /// not be called by a waker.
    pub fn close(&self) {
        self.endpoint.close();
    }

    /// Ends the registration for receiving: senders get [`Code::NotRegistered`]. Received messages stay
    /// readable and can be answered by messages; every other operation is refused.
    pub fn drain(&self) {
        self.endpoint.drain();
    }

    #[inline]
    fn poll(&self, waker: Option<&Waker>) -> Poll<Option<Message>> {
        self.receiver.poll(waker, |into, waits| self.endpoint.receive(into, waits))
    }

    /// Returns the result of a request when none of its receivers is over its limit.
    #[inline]
    fn after_dispatch(&self, result: Dispatch) -> SendFuture {
        let ready = result.is_congested().then(|| {
            let (notifier, notified) = Notified::pair();
            self.endpoint.when_ready(notifier.0);
            notified
        });
        SendFuture { result, ready }
    }

    async fn send_runs(&self, op: Op, target: &str, payloads: &[Bytes], qos: Qos) -> Result<(), Code> {
        let mut rest = payloads;
        while let Some(first) = rest.first() {
            let (run, behind) = rest.split_at(next_run_len(rest));
            rest = behind;
            let result = match run {
                [_] => self.dispatch(op, target, "", first, qos),
                run => self.dispatch_run(op, target, run, qos),
            };
            self.after_dispatch(result).await?;
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
        // NUL ends a name in a frame
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

    fn change_filter(&self, op: Op, filter: &str) -> Result<(), Code> {
        if filter.contains('\0') {
            return Err(Code::BadData);
        }
        self.endpoint.dispatch(&Request::new(op, Qos::NO, filter, &[]).ending_batch()).result().map(|_| ())
    }
}

impl Drop for InprocClient {
    fn drop(&mut self) {
        self.endpoint.close();
    }
}

/// Completes with the result of a request when the sender can continue.
struct SendFuture {
    result: Dispatch,
    /// Set if a receiver is over its limit.
    ready: Option<Notified>,
}

impl Future for SendFuture {
    type Output = Result<(), Code>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(ready) = &mut self.ready {
            std::task::ready!(Pin::new(ready).poll(context));
        }
        Poll::Ready(self.result.result().map(|_| ()))
    }
}

/// Returns the number of payloads that are sent as the next run: up to a number and a size. Payloads that
/// are worth sharing are sent alone.
fn next_run_len(payloads: &[Bytes]) -> usize {
    let mut bytes = 0usize;
    let fits = |payload: &&Bytes| {
        bytes = bytes.saturating_add(payload.len());
        bytes < SHARE_FROM_BYTES
    };
    payloads.iter().take(RUN_MESSAGES).take_while(fits).count().max(1)
}
