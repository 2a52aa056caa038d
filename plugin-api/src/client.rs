//! The sending side of a client: requests to the broker and what became of them.

use abi_stable::{
    StableAbi,
    std_types::{ROption, RSlice, RStr},
};
use elbus_protocol::{Code, Op, Qos};

use crate::{
    Locality, Notifier, Payload, SharedBytes,
    abi::{CLIENT_INTERNAL, ClientObject, RawClientInfo, RawCredentials},
};

/// What the broker should know of a connection when it registers a client.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientInfo {
    /// The kind of connection, as `client.list` shows it: `internal`, `local_ipc`, `tcp`, ... For display only.
    pub kind: String,
    /// Where the peer runs. Access rules and administration depend on it.
    pub locality: Locality,
    /// Where it comes from (`ip:port` for TCP), where that means anything.
    pub source: Option<String>,
    /// The socket path or bound address it came in by.
    pub port: Option<String>,
    /// The process at the other end, where the transport knows it.
    pub credentials: Option<Credentials>,
    /// The unit of systemd that this process belonged to when it connected, where the transport could tell for certain.
    pub unit: Option<String>,
    /// The names of the client certificate that was verified for the connection, each with its kind in front: the common
    /// name of the subject (`cn:`), then the DNS names (`dns:`), URIs (`uri:`) and email addresses (`email:`) it was issued
    /// for. Empty where none was asked for or given.
    pub certificate_names: Vec<String>,
    /// Subscriptions it may have, and exclusions as many, beside the limit of the broker.
    pub max_filters: Option<u32>,
    /// Segments that one of its filters may have.
    pub max_filter_depth: Option<u32>,
    /// A part of the broker rather than a client of the bus: may have a name with a leading dot, is subscribed to
    /// nothing, is not announced.
    pub internal: bool,
}

impl ClientInfo {
    pub(crate) fn with_raw<R>(&self, f: impl FnOnce(&RawClientInfo<'_>) -> R) -> R {
        fn text(text: &Option<String>) -> ROption<RStr<'_>> {
            text.as_deref().map(RStr::from_str).into()
        }
        let names: Vec<_> = self.certificate_names.iter().map(|name| RStr::from_str(name)).collect();
        f(&RawClientInfo {
            flags: if self.internal { CLIENT_INTERNAL } else { 0 },
            kind: RStr::from_str(&self.kind),
            locality: self.locality,
            source: text(&self.source),
            port: text(&self.port),
            credentials: self
                .credentials
                .map(|c| RawCredentials { pid: c.pid, uid: c.uid, gid: c.gid })
                .into(),
            unit: text(&self.unit),
            certificate_names: RSlice::from_slice(&names),
            max_filters: self.max_filters.into(),
            max_filter_depth: self.max_filter_depth.into(),
        })
    }

    /// From what crossed the boundary.
    #[doc(hidden)]
    pub fn from_raw(raw: &RawClientInfo<'_>) -> Self {
        let text = |text: ROption<RStr<'_>>| text.into_option().map(|t| t.as_str().to_owned());
        ClientInfo {
            kind: raw.kind.as_str().to_owned(),
            locality: raw.locality,
            source: text(raw.source),
            port: text(raw.port),
            credentials: raw.credentials.into_option().map(|c| Credentials {
                pid: c.pid,
                uid: c.uid,
                gid: c.gid,
            }),
            unit: text(raw.unit),
            certificate_names: raw.certificate_names.iter().map(|name| name.as_str().to_owned()).collect(),
            max_filters: raw.max_filters.into_option(),
            max_filter_depth: raw.max_filter_depth.into_option(),
            internal: raw.flags & CLIENT_INTERNAL != 0,
        }
    }
}

/// The process at the other end of a UNIX socket, as the kernel says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Credentials {
    /// Process id, 0 where it is unknown.
    pub pid: i32,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// One operation, or a run of consecutive ones with the same target and quality of service.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct Request<'a> {
    op: u8,
    qos: u8,
    flags: u32,
    target: RStr<'a>,
    receiver: RStr<'a>,
    receiver_id: u64,
    payloads: RSlice<'a, Payload<'a>>,
    shared: Option<&'a SharedBytes>,
}

/// [`Request::flags`]: nothing follows for now.
const ENDS_BATCH: u32 = 1;
/// [`Request::flags`]: the sender can wait and send it again.
const MAY_BLOCK: u32 = 2;
/// [`Request::flags`]: the receiver is the one client that a publication is not for.
const EXCEPT_RECEIVER: u32 = 4;

impl<'a> Request<'a> {
    /// `target` is a name, a mask or a topic; for the topic operations it is the list of filters, separated by
    /// NUL, and there are no payloads.
    #[inline]
    pub fn new(op: Op, qos: Qos, target: &'a str, payloads: &'a [Payload<'a>]) -> Self {
        Request {
            op: op as u8,
            qos: qos.bits(),
            flags: 0,
            target: RStr::from_str(target),
            receiver: RStr::from_str(""),
            receiver_id: 0,
            payloads: RSlice::from_slice(payloads),
            shared: None,
        }
    }

    /// The primary name a publication is limited to ([`Op::PublishFor`]).
    #[inline]
    pub fn with_receiver(mut self, receiver: &'a str) -> Self {
        self.receiver = RStr::from_str(receiver);
        self
    }

    /// The registration a message is limited to, as [`Run::sender_id`](crate::Run::sender_id) gave it: if another client
    /// has the target's name by now, nothing is delivered. 0 is any.
    #[inline]
    pub fn with_receiver_id(mut self, id: u64) -> Self {
        self.receiver_id = id;
        self
    }

    /// Bytes that hold the same as the only payload and may be kept by reference count.
    #[inline]
    pub fn with_shared(mut self, shared: &'a SharedBytes) -> Self {
        self.shared = Some(shared);
        self
    }

    /// Nothing follows for now: what was made dirty is flushed at once, as by [`Client::end_batch`], and the answer
    /// says whether any receiver is over its limit.
    #[inline]
    pub fn ending_batch(mut self) -> Self {
        self.flags |= ENDS_BATCH;
        self
    }

    /// Whether nothing follows for now.
    #[inline]
    pub fn ends_batch(&self) -> bool {
        self.flags & ENDS_BATCH != 0
    }

    /// The sender can wait and dispatch the request again: while the queue of a receiver is over its limit, nobody is
    /// given anything, and the answer [is blocked](Dispatch::is_blocked). Real-time requests never wait.
    #[inline]
    pub fn blocking(mut self) -> Self {
        self.flags |= MAY_BLOCK;
        self
    }

    /// A publication that the client of this name does not receive.
    #[inline]
    pub fn except(mut self, name: &'a str) -> Self {
        self.receiver = RStr::from_str(name);
        self.flags |= EXCEPT_RECEIVER;
        self
    }

    /// The name of the client that the publication is not for, or nothing.
    #[inline]
    pub fn excepted(&self) -> Option<&'a str> {
        (self.flags & EXCEPT_RECEIVER != 0).then(|| self.receiver.as_str())
    }

    /// Whether the sender can wait and dispatch the request again.
    #[inline]
    pub fn may_block(&self) -> bool {
        self.flags & MAY_BLOCK != 0
    }

    /// The operation, or `None` where a plugin was built for operations this broker does not know.
    #[inline]
    pub fn op(&self) -> Option<Op> {
        Op::from_wire(self.op)
    }

    /// The quality of service.
    #[inline]
    pub fn qos(&self) -> Qos {
        Qos::from_bits(self.qos)
    }

    /// Name, mask, topic or list of filters.
    #[inline]
    pub fn target(&self) -> &'a str {
        self.target.as_str()
    }

    /// The primary name a publication is limited to.
    #[inline]
    pub fn receiver(&self) -> &'a str {
        self.receiver.as_str()
    }

    /// The registration a message is limited to; 0 is any.
    #[inline]
    pub fn receiver_id(&self) -> u64 {
        self.receiver_id
    }

    /// The payloads in order.
    #[inline]
    pub fn payloads(&self) -> &'a [Payload<'a>] {
        self.payloads.as_slice()
    }

    /// The only payload as bytes that may be kept.
    #[inline]
    pub fn shared(&self) -> Option<&'a SharedBytes> {
        self.shared
    }
}

/// What became of a request.
#[repr(C)]
#[derive(StableAbi, Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dispatch {
    code: u8,
    flags: u8,
    reached: u32,
}

impl Dispatch {
    const GONE: u8 = 1;
    const CONGESTED: u8 = 2;
    const BLOCKED: u8 = 4;

    /// The result code, and how many clients were reached.
    #[inline]
    pub fn new(code: Code, reached: u32) -> Self {
        Dispatch { code: code as u8, flags: 0, reached }
    }

    /// The sender is no longer registered: nothing was done, and its connection should end.
    #[inline]
    pub fn gone() -> Self {
        Dispatch { code: Code::NotRegistered as u8, flags: Self::GONE, reached: 0 }
    }

    /// A receiver is over its limit, so nobody was given anything: only of a request that [may block](Request::blocking).
    #[inline]
    pub fn blocked() -> Self {
        Dispatch { code: Code::NotDelivered as u8, flags: Self::BLOCKED | Self::CONGESTED, reached: 0 }
    }

    /// Marks that the sender should wait before it sends on.
    #[inline]
    pub fn congested(mut self, congested: bool) -> Self {
        if congested {
            self.flags |= Self::CONGESTED;
        }
        self
    }

    /// The result code: what an acknowledgement carries.
    #[inline]
    pub fn code(&self) -> Code {
        Code::from_wire(self.code).unwrap_or(Code::Other)
    }

    /// The same as it stands on the wire.
    #[inline]
    pub fn wire_code(&self) -> u8 {
        self.code
    }

    /// How many clients it was queued for.
    #[inline]
    pub fn reached(&self) -> u32 {
        self.reached
    }

    /// Whether the sender is no longer registered.
    #[inline]
    pub fn is_gone(&self) -> bool {
        self.flags & Self::GONE != 0
    }

    /// Whether nothing was done, since a receiver is over its limit: end the batch, wait for
    /// [`when_ready`](Client::when_ready), and dispatch the same request again before any other.
    #[inline]
    pub fn is_blocked(&self) -> bool {
        self.flags & Self::BLOCKED != 0
    }

    /// Whether a receiver of this request, or of one before in the same batch where it
    /// [ends](Request::ending_batch), is over its limit, so that the sender should wait before it sends on.
    #[inline]
    pub fn is_congested(&self) -> bool {
        self.flags & Self::CONGESTED != 0
    }
}

/// A registered client, or somebody who speaks as the broker: what the reader of a connection sends through.
/// Dropping it ends the registration.
///
/// One thread at a time; no method blocks.
pub struct Client(pub(crate) ClientObject);

impl Client {
    /// Routes a request. What it made dirty is flushed by [`end_batch`](Client::end_batch), which must follow
    /// before the thread waits for anything, unless the request itself [ends the batch](Request::ending_batch).
    #[inline]
    pub fn dispatch(&mut self, request: &Request<'_>) -> Dispatch {
        self.0.dispatch(request)
    }

    /// Flushes what the requests since the last call made dirty. `true`: a receiver is over its limit, so read no
    /// more from this client until [`when_ready`](Client::when_ready) calls.
    #[inline]
    pub fn end_batch(&mut self) -> bool {
        self.0.end_batch()
    }

    /// Calls `notifier` once when all receivers that were over their limit have drained.
    pub fn when_ready(&mut self, notifier: Notifier) {
        self.0.when_ready(notifier.0);
    }

    /// Says that the client is not read until its own queue has drained, and later that it is again: so that the broker
    /// sees who waits for whom.
    pub fn wait_for_itself(&mut self, waits: bool) {
        self.0.wait_for_itself(waits);
    }

    /// Ends the registration for receiving: nothing more is delivered to the client, senders are told that it is not
    /// registered, and its name is free. What it has received it can still answer: messages are dispatched as before, every
    /// other operation is refused. A plugin that serves calls drains its clients first thing in its
    /// [`stop`](crate::Plugin::stop), answers what it has, and then drops them.
    pub fn drain(&mut self) {
        self.0.drain();
    }

    /// Says why the client is about to be dropped, for the log and the event.
    pub fn set_close_reason(&mut self, why: &str) {
        self.0.set_close_reason(RStr::from_str(why));
    }

    /// The id of the registration: unique, never reused, 0 only for a speaker.
    pub fn id(&self) -> u64 {
        self.0.id()
    }

    /// From what crossed the boundary.
    #[doc(hidden)]
    pub fn from_object(object: ClientObject) -> Self {
        Client(object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_of_a_client_crosses_the_boundary_whole() {
        let full = ClientInfo {
            kind: "tcp".into(),
            locality: Locality::SameHost,
            source: Some("127.0.0.1:5".into()),
            port: Some("localhost:7777".into()),
            credentials: Some(Credentials { pid: 1, uid: 2, gid: 3 }),
            unit: Some("plc.service".into()),
            certificate_names: vec!["plc-1".into(), String::new(), "spiffe://plant/plc/1".into()],
            max_filters: Some(7),
            max_filter_depth: Some(8),
            internal: true,
        };
        for info in [full, ClientInfo::default()] {
            assert_eq!(info.with_raw(ClientInfo::from_raw), info);
        }
    }
}
