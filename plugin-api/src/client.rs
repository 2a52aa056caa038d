//! The sending side of a client.

use abi_stable::std_types::{RSlice, RSliceMut, RStr};
use elbus_protocol::{Code, Op, Qos};

use crate::{
    abi::{ClientObject, FromRaw},
    buffer::Payload,
    departure::Departure,
    mixed_run::{Frame, MixedDispatch},
    notifier::Notifier,
    pending::PendingResult,
    request::{Dispatch, Request},
};

/// The sending side of a registered client, or of a [system client](crate::Host::system_client). Dropping it
/// ends the registration.
///
/// The reader of a connection dispatches the [requests](Request) of its peer through it. A plugin with a
/// client of its own uses [`send`](Client::send), [`publish`](Client::publish),
/// [`subscribe`](Client::subscribe) and their like.
///
/// # Threads
/// One thread uses a client at a time. No method blocks. No method may be called by the [`Sink`](crate::Sink)
/// of the same registration.
///
/// # Back-pressure
/// If a result [is congested](Dispatch::is_congested), a receiver is over its queue limit: stop sending, pass
/// a [`Notifier`] to [`when_ready`](Client::when_ready), and continue when it is called. Messages of a client
/// that goes on regardless are refused in the end.
///
/// # Examples
/// ```
/// use elbus_plugin_api::{ClientInfo, Code, NullSink, testing::FakeHost};
///
/// let fake = FakeHost::new();
/// let mut client = fake.host("demo").register("plugin.demo", &ClientInfo::in_process(), NullSink)?;
/// client.subscribe(["alarms/#", "sensors/+/state"])?;
/// let sent = client.publish("plugin/demo", b"started");
/// assert!(sent.result().is_ok() && !sent.is_congested());
/// # Ok::<(), Code>(())
/// ```
pub struct Client(pub(crate) ClientObject);

impl Client {
    /// Routes a request. Recipients are flushed by [`end_batch`](Client::end_batch), which must follow before
    /// the thread waits for anything, unless the request itself [ends the batch](Request::ending_batch).
    #[inline]
    pub fn dispatch(&mut self, request: &Request<'_>) -> Dispatch {
        self.0.dispatch(request)
    }

    /// Routes a mixed run: messages and publications with different targets, not real-time, and few enough
    /// that no recipient gets more than a run. Writes a result code for each frame that was dispatched. The
    /// [result](MixedDispatch) says whether the next frame has to be [dispatched](Client::dispatch) alone.
    /// Recipients are flushed by [`end_batch`](Client::end_batch), as those of a request.
    ///
    /// # Examples
    /// ```
    /// use elbus_plugin_api::{ClientInfo, Code, Frame, NullSink, Op, Qos, testing::FakeHost};
    ///
    /// let fake = FakeHost::new();
    /// let mut client = fake.host("demo").register("plugin.demo", &ClientInfo::in_process(), NullSink)?;
    /// let bodies = [b"line/1\x0020.5", b"line/2\x0020.7"];
    /// let frames = bodies.map(|body| Frame::new(Op::Publish, Qos::NO, body, 6));
    /// let mut codes = [0; 2];
    /// let dispatched = client.dispatch_mixed(&frames, &mut codes).dispatched();
    /// assert!(codes.iter().take(dispatched).all(|code| *code == Code::Ok as u8));
    /// for frame in frames.iter().skip(dispatched) {
    ///     client.publish(frame.target(), frame.payload());
    /// }
    /// client.end_batch();
    /// # Ok::<(), Code>(())
    /// ```
    #[inline]
    pub fn dispatch_mixed(&mut self, frames: &[Frame<'_>], codes: &mut [u8]) -> MixedDispatch {
        self.0.dispatch_mixed(RSlice::from_slice(frames), RSliceMut::from_mut_slice(codes))
    }

    /// Takes the result codes of the messages of the last request, as on the wire and in their order, if its
    /// result [has them](Dispatch::has_frame_codes).
    pub fn take_frame_codes(&mut self) -> Vec<u8> {
        self.0.take_frame_codes().into()
    }

    /// Takes the result of the last request if it [is pending](Dispatch::is_pending). It must be taken before
    /// the next request is dispatched.
    pub fn take_pending(&mut self) -> Option<PendingResult> {
        self.0.take_pending().into_option().map(PendingResult::from_raw)
    }

    /// Flushes the recipients of all requests since the last call. Returns `true` if a receiver is over its
    /// limit: read no more from this client until [`when_ready`](Client::when_ready) calls.
    #[inline]
    pub fn end_batch(&mut self) -> bool {
        self.0.end_batch()
    }

    /// Calls `notifier` once when all receivers that were over their limit have drained.
    pub fn when_ready(&mut self, notifier: Notifier) {
        self.0.when_ready(notifier.0);
    }

    /// Sends a message to the client named `target` and flushes it.
    pub fn send(&mut self, target: &str, payload: &[u8]) -> Dispatch {
        self.dispatch_one(Op::Message, target, payload)
    }

    /// Sends a message to every client whose name matches `mask` and flushes it.
    pub fn broadcast(&mut self, mask: &str, payload: &[u8]) -> Dispatch {
        self.dispatch_one(Op::Broadcast, mask, payload)
    }

    /// Publishes a message to `topic` and flushes it.
    pub fn publish(&mut self, topic: &str, payload: &[u8]) -> Dispatch {
        self.dispatch_one(Op::Publish, topic, payload)
    }

    /// Subscribes to topic filters: to all of them, or to none if it fails.
    ///
    /// # Errors
    /// [`Code::BadData`] if a filter is malformed, [`Code::AccessDenied`] if access rules deny one,
    /// [`Code::Other`] if there would be too many.
    pub fn subscribe<F: AsRef<str>>(&mut self, filters: impl IntoIterator<Item = F>) -> Result<(), Code> {
        self.change_filters(Op::Subscribe, filters)
    }

    /// Removes subscriptions.
    ///
    /// # Errors
    /// [`Code::NotRegistered`] if the registration has ended.
    pub fn unsubscribe<F: AsRef<str>>(&mut self, filters: impl IntoIterator<Item = F>) -> Result<(), Code> {
        self.change_filters(Op::Unsubscribe, filters)
    }

    /// Excludes topic filters: publications that match one are not delivered in spite of a subscription.
    ///
    /// # Errors
    /// As [`subscribe`](Client::subscribe).
    pub fn exclude<F: AsRef<str>>(&mut self, filters: impl IntoIterator<Item = F>) -> Result<(), Code> {
        self.change_filters(Op::Exclude, filters)
    }

    /// Removes exclusions.
    ///
    /// # Errors
    /// As [`unsubscribe`](Client::unsubscribe).
    pub fn unexclude<F: AsRef<str>>(&mut self, filters: impl IntoIterator<Item = F>) -> Result<(), Code> {
        self.change_filters(Op::Unexclude, filters)
    }

    /// Reports that the client is not read until its own queue has drained, and later that it is read again.
    /// The broker finds cycles of clients that wait for each other by it.
    pub fn wait_for_itself(&mut self, waits: bool) {
        self.0.wait_for_itself(waits);
    }

    /// Ends the registration for receiving: nothing more is delivered, senders get [`Code::NotRegistered`],
    /// and the name is free. The client can still send messages, so that it can answer what it has received;
    /// every other operation is refused. A plugin that serves calls drains its clients first in its
    /// [`stop`](crate::Plugin::stop), answers the calls it has, and then drops them.
    pub fn drain(&mut self) {
        self.0.drain();
    }

    /// Sets the reason that the log and the event give when the client is dropped.
    pub fn set_close_reason(&mut self, reason: &str) {
        self.0.set_close_reason(RStr::from_str(reason));
    }

    /// Sets the kind of reason by which statistics count the client when it is dropped; without it,
    /// [`Departure::Closed`].
    pub fn set_departure(&mut self, departure: Departure) {
        self.0.set_departure(departure as u32);
    }

    /// Returns the id of the registration: unique and never reused. 0 for a system client.
    pub fn id(&self) -> u64 {
        self.0.id()
    }

    fn dispatch_one(&mut self, op: Op, target: &str, payload: &[u8]) -> Dispatch {
        // NUL ends a name in a frame
        if target.contains('\0') {
            return Dispatch::new(Code::BadData, 0);
        }
        self.dispatch(&Request::new(op, Qos::NO, target, &[Payload::from(payload)]).ending_batch())
    }

    fn change_filters<F: AsRef<str>>(
        &mut self,
        op: Op,
        filters: impl IntoIterator<Item = F>,
    ) -> Result<(), Code> {
        let (mut list, mut count) = (String::new(), 0);
        for filter in filters {
            // NUL separates filters
            if filter.as_ref().contains('\0') {
                return Err(Code::BadData);
            }
            if count > 0 {
                list.push('\0');
            }
            list.push_str(filter.as_ref());
            count += 1;
        }
        if count == 0 {
            return Ok(());
        }
        self.dispatch(&Request::new(op, Qos::NO, &list, &[]).ending_batch()).result().map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{client_info::ClientInfo, sink::NullSink, testing::FakeHost};

    fn registered(fake: &FakeHost) -> Client {
        fake.host("x").register("c", &ClientInfo::in_process(), NullSink).unwrap()
    }

    #[test]
    fn messages_and_filters_become_requests() {
        let fake = FakeHost::new();
        let mut client = registered(&fake);
        client.subscribe(["a/#", "b"]).unwrap();
        client.unsubscribe(vec![String::from("b")]).unwrap();
        client.exclude(["a/b"]).unwrap();
        client.unexclude(["a/b"]).unwrap();
        assert_eq!(client.send("d", b"1").result(), Ok(1));
        client.broadcast("d.*", b"2");
        client.publish("t", b"3");
        let requests: Vec<_> =
            fake.requests().into_iter().map(|r| (r.op, r.target, r.payloads.concat())).collect();
        let expected = [
            (Op::Subscribe, "a/#\0b", ""),
            (Op::Unsubscribe, "b", ""),
            (Op::Exclude, "a/b", ""),
            (Op::Unexclude, "a/b", ""),
            (Op::Message, "d", "1"),
            (Op::Broadcast, "d.*", "2"),
            (Op::Publish, "t", "3"),
        ];
        assert_eq!(requests, expected.map(|(op, target, p)| (op, target.to_owned(), p.as_bytes().to_vec())));
    }

    #[test]
    fn results_are_those_of_the_broker() {
        let fake = FakeHost::new();
        let mut client = registered(&fake);
        fake.answer_with(Some(Code::AccessDenied));
        assert_eq!(client.subscribe(["a"]), Err(Code::AccessDenied));
        assert_eq!(client.publish("a", b"").result(), Err(Code::AccessDenied));
        fake.answer_with(None);
        fake.fill_receivers(true);
        assert!(client.publish("a", b"").is_congested());
    }

    #[test]
    fn a_nul_in_a_name_or_filter_is_refused_before_the_broker_sees_it() {
        let fake = FakeHost::new();
        let mut client = registered(&fake);
        assert_eq!(client.subscribe(["a", "b\0c"]), Err(Code::BadData));
        assert_eq!(client.send("a\0b", b"").code(), Code::BadData);
        assert_eq!(client.subscribe::<&str>([]), Ok(()), "no filter is no request");
        assert!(fake.requests().is_empty());
    }
}
