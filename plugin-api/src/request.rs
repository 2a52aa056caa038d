//! Requests of a client to the broker, and their results.

use abi_stable::{
    StableAbi,
    std_types::{RSlice, RStr},
};
use elbus_protocol::{Code, Op, Qos};

use crate::buffer::{Payload, SharedBytes};

/// One operation, or a run of consecutive ones with the same target and quality of service.
///
/// Requests are what [`Client::dispatch`](crate::Client::dispatch) takes. The reader of a connection builds
/// them from frames; a plugin with a client of its own rarely needs more than the methods of
/// [`Client`](crate::Client).
///
/// # Examples
/// ```
/// use elbus_plugin_api::{Op, Payload, Qos, Request};
///
/// let payloads = [Payload::from(&b"20.5"[..]), Payload::from(&b"20.7"[..])];
/// let request = Request::new(Op::Publish, Qos::NO, "sensors/boiler", &payloads).ending_batch();
/// assert!(request.ends_batch() && request.payloads().len() == 2);
/// ```
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

/// [`Request::flags`]: no request follows before the thread waits.
const ENDS_BATCH: u32 = 1;
/// [`Request::flags`]: the sender can wait and dispatch the request again.
const MAY_BLOCK: u32 = 2;
/// [`Request::flags`]: `receiver` is the one client that the publication excludes.
const EXCEPT_RECEIVER: u32 = 4;
/// [`Request::flags`]: recipients over their limit are skipped.
const BEST_EFFORT: u32 = 8;
/// [`Request::flags`]: the result can be supplied later.
const DEFERRABLE: u32 = 16;

impl<'a> Request<'a> {
    /// Creates a request. `target` is a name, a mask or a topic. For topic operations it is a list of
    /// filters separated by NUL, and there are no payloads.
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

    /// Sets the primary name a publication is limited to ([`Op::PublishFor`]).
    #[inline]
    pub fn with_receiver(mut self, receiver: &'a str) -> Self {
        self.receiver = RStr::from_str(receiver);
        self
    }

    /// Returns the same request for another target or other payloads, without the bytes that can be
    /// [kept](Self::with_shared).
    #[inline]
    pub fn with_frames<'b>(self, target: &'b str, payloads: &'b [Payload<'b>]) -> Request<'b>
    where
        'a: 'b,
    {
        Request {
            target: RStr::from_str(target),
            payloads: RSlice::from_slice(payloads),
            shared: None,
            ..self
        }
    }

    /// Sets the registration a message is limited to, as returned by
    /// [`Run::sender_id`](crate::Run::sender_id): if another client has taken the name since, nothing is
    /// delivered. 0 is any.
    #[inline]
    pub fn with_receiver_id(mut self, id: u64) -> Self {
        self.receiver_id = id;
        self
    }

    /// Sets the bytes of the only payload in a form that can be kept by reference count.
    #[inline]
    pub fn with_shared(mut self, shared: &'a SharedBytes) -> Self {
        self.shared = Some(shared);
        self
    }

    /// Ends the batch with this request: recipients are flushed immediately, as by
    /// [`Client::end_batch`](crate::Client::end_batch), and the result includes whether any receiver of the
    /// batch is over its limit.
    #[inline]
    pub fn ending_batch(mut self) -> Self {
        self.flags |= ENDS_BATCH;
        self
    }

    /// Returns whether the request ends its batch.
    #[inline]
    pub fn ends_batch(&self) -> bool {
        self.flags & ENDS_BATCH != 0
    }

    /// Declares that the sender can wait and dispatch the request again: if the queue of a receiver is over
    /// its limit, nothing is delivered and the result [is blocked](Dispatch::is_blocked). Real-time requests
    /// never wait.
    #[inline]
    pub fn blocking(mut self) -> Self {
        self.flags |= MAY_BLOCK;
        self
    }

    /// Excludes the client of this name from the recipients of a publication.
    #[inline]
    pub fn except(mut self, name: &'a str) -> Self {
        self.receiver = RStr::from_str(name);
        self.flags |= EXCEPT_RECEIVER;
        self
    }

    /// Returns the name of the client that the publication excludes.
    #[inline]
    pub fn excepted(&self) -> Option<&'a str> {
        (self.flags & EXCEPT_RECEIVER != 0).then(|| self.receiver.as_str())
    }

    /// Skips recipients whose queue is over its limit; the sender never waits for them. When such a recipient
    /// has drained, [`EventKind::PublicationsMissed`](crate::EventKind) names it.
    #[inline]
    pub fn best_effort(mut self) -> Self {
        self.flags |= BEST_EFFORT;
        self
    }

    /// Returns whether recipients over their limit are skipped.
    #[inline]
    pub fn is_best_effort(&self) -> bool {
        self.flags & BEST_EFFORT != 0
    }

    /// Declares that the sender can take the result later: it may [be pending](Dispatch::is_pending). The
    /// request should be one that is acknowledged.
    #[inline]
    pub fn deferrable(mut self) -> Self {
        self.flags |= DEFERRABLE;
        self
    }

    /// Returns whether the sender can take the result later.
    #[inline]
    pub fn is_deferrable(&self) -> bool {
        self.flags & DEFERRABLE != 0
    }

    /// Returns whether the sender can wait and dispatch the request again.
    #[inline]
    pub fn may_block(&self) -> bool {
        self.flags & MAY_BLOCK != 0
    }

    /// Returns the operation; `None` if this side of the boundary does not know it.
    #[inline]
    pub fn op(&self) -> Option<Op> {
        Op::from_wire(self.op)
    }

    /// Returns the quality of service.
    #[inline]
    pub fn qos(&self) -> Qos {
        Qos::from_bits(self.qos)
    }

    /// Returns the name, mask, topic or list of filters.
    #[inline]
    pub fn target(&self) -> &'a str {
        self.target.as_str()
    }

    /// Returns the primary name a publication is limited to; empty if there is none.
    #[inline]
    pub fn receiver(&self) -> &'a str {
        self.receiver.as_str()
    }

    /// Returns the registration a message is limited to; 0 is any.
    #[inline]
    pub fn receiver_id(&self) -> u64 {
        self.receiver_id
    }

    /// Returns the payloads in order.
    #[inline]
    pub fn payloads(&self) -> &'a [Payload<'a>] {
        self.payloads.as_slice()
    }

    /// Returns the only payload as bytes that can be kept.
    #[inline]
    pub fn shared(&self) -> Option<&'a SharedBytes> {
        self.shared
    }
}

/// The result of a request.
#[repr(C)]
#[derive(StableAbi, Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dispatch {
    code: u8,
    flags: u8,
    reached: u32,
}

impl Dispatch {
    pub(crate) const GONE: u8 = 1;
    const CONGESTED: u8 = 2;
    const BLOCKED: u8 = 4;
    const FRAME_CODES: u8 = 8;
    pub(crate) const PENDING: u8 = 16;

    /// Creates a result with a code and the number of recipients.
    #[inline]
    pub fn new(code: Code, reached: u32) -> Self {
        Dispatch { code: code as u8, flags: 0, reached }
    }

    /// Creates the result for a sender that is no longer registered: nothing was done, and its connection
    /// should end.
    #[inline]
    pub fn gone() -> Self {
        Dispatch { code: Code::NotRegistered as u8, flags: Self::GONE, reached: 0 }
    }

    /// Creates the result for a receiver over its limit: nothing was delivered. Only for a request that [may
    /// block](Request::blocking).
    #[inline]
    pub fn blocked() -> Self {
        Dispatch { code: Code::NotDelivered as u8, flags: Self::BLOCKED | Self::CONGESTED, reached: 0 }
    }

    /// Sets whether the sender should wait before it sends again.
    #[inline]
    pub fn congested(mut self, congested: bool) -> Self {
        if congested {
            self.flags |= Self::CONGESTED;
        }
        self
    }

    /// Declares that the messages of the run have different codes, which the client has.
    #[inline]
    pub fn with_frame_codes(mut self) -> Self {
        self.flags |= Self::FRAME_CODES;
        self
    }

    /// Returns whether the messages of the run have different codes, because an
    /// [interceptor](crate::hooks::Interceptor) has decided about them:
    /// [`Client::take_frame_codes`](crate::Client::take_frame_codes) returns them.
    #[inline]
    pub fn has_frame_codes(&self) -> bool {
        self.flags & Self::FRAME_CODES != 0
    }

    /// Declares that the codes are supplied later: the client has the result.
    #[inline]
    pub fn pending(mut self) -> Self {
        self.flags |= Self::PENDING;
        self
    }

    /// Returns whether the codes of the messages are supplied later.
    /// [`Client::take_pending`](crate::Client::take_pending) returns the result, which must be taken before
    /// the next request. Later acknowledgements of the same sender must wait for it. Only for requests that
    /// are [deferrable](Request::deferrable).
    #[inline]
    pub fn is_pending(&self) -> bool {
        self.flags & Self::PENDING != 0
    }

    /// Returns the result code: what an acknowledgement carries. If the messages of a run have [different
    /// codes](Self::has_frame_codes), the first that is not [`Code::Ok`].
    #[inline]
    pub fn code(&self) -> Code {
        Code::from_wire(self.code).unwrap_or(Code::Other)
    }

    /// Returns the result code as on the wire.
    #[inline]
    pub fn wire_code(&self) -> u8 {
        self.code
    }

    /// Returns the number of clients it was queued for.
    #[inline]
    pub fn reached(&self) -> u32 {
        self.reached
    }

    /// Returns whether the sender is no longer registered.
    #[inline]
    pub fn is_gone(&self) -> bool {
        self.flags & Self::GONE != 0
    }

    /// Returns whether nothing was done because a receiver is over its limit: end the batch, wait for
    /// [`when_ready`](crate::Client::when_ready), and dispatch the same request again before any other.
    #[inline]
    pub fn is_blocked(&self) -> bool {
        self.flags & Self::BLOCKED != 0
    }

    /// Returns whether a receiver of this request, or of the batch that it [ends](Request::ending_batch), is
    /// over its limit, so that the sender should wait before it sends again.
    #[inline]
    pub fn is_congested(&self) -> bool {
        self.flags & Self::CONGESTED != 0
    }

    /// Converts the result: the number of recipients, or the code if it is not [`Code::Ok`].
    ///
    /// # Errors
    /// The result code.
    ///
    /// # Examples
    /// ```
    /// use elbus_plugin_api::{Code, Dispatch};
    ///
    /// assert_eq!(Dispatch::new(Code::Ok, 3).result(), Ok(3));
    /// assert_eq!(Dispatch::gone().result(), Err(Code::NotRegistered));
    /// ```
    #[inline]
    pub fn result(&self) -> Result<u32, Code> {
        match self.code() {
            Code::Ok => Ok(self.reached),
            code => Err(code),
        }
    }
}
