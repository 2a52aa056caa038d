//! The receiving side of a client: what the broker hands to a plugin, and what the plugin answers.

use abi_stable::{
    StableAbi,
    std_types::{
        ROption::{self, RNone, RSome},
        RSlice, RStr, RVec,
    },
};
use elbus_protocol::{FrameKind, Qos};
use std::ops::BitOr;

use crate::{Notifier, Payload, SharedBytes};

/// Where messages for one client go. Made by a transport, owned by the broker for as long as the client is
/// registered.
///
/// Every method may be called from any thread, at any time, also from several at once, and never blocks. None
/// may call back into the [`Client`](crate::Client) of the same connection.
pub trait Sink: Send + Sync + 'static {
    /// Takes a run of messages over. Says whether the caller owes a [`flush`](Sink::flush), whether the queue is
    /// over its limit, and whether the run was taken at all.
    fn deliver(&self, run: &mut Run<'_>) -> DeliveryStatus;
    /// Sends what was delivered on its way. Owed once after an answer with [`DeliveryStatus::DIRTY`].
    fn flush(&self);
    /// Calls `notifier` once as soon as the queue has drained far enough for senders to go on, at once if it has, and
    /// also when the sink closes.
    fn when_drained(&self, notifier: Notifier);
    /// Ends the connection; `reason` is for the log. What is queued may be lost.
    fn close(&self, reason: &str);
    /// What is waiting.
    fn queued(&self) -> Queued;
    /// The limits of this client from now on, beside those of its transport: the stricter ones hold. A transport that
    /// reads for its client applies them; others may ignore them.
    fn limit(&self, limits: &SinkLimits) {
        let _ = limits;
    }
    /// Lets more wait for this client than its limit allows, since it is in a cycle of clients that are not read until
    /// another one has drained. Replaces the former overdraft, and restarts the time in which the client must take
    /// something. Ends when senders may go on as usual. `false`: there is no overdraft. A sink that tells nobody to wait
    /// needs none.
    fn overdraw(&self, overdraft: &Overdraft<'_>) -> bool {
        let _ = overdraft;
        false
    }
    /// The bytes of the present overdraft.
    fn overdrawn(&self) -> u64 {
        0
    }
}

/// What may wait for a client beyond its limit.
#[repr(C)]
#[derive(StableAbi, Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overdraft<'a> {
    flags: u32,
    /// Bytes of anything.
    pub queue_bytes: u64,
    /// Bytes before the client itself is read no more; its senders wait as before.
    pub own_bytes: u64,
    cycle: RStr<'a>,
}

impl<'a> Overdraft<'a> {
    /// For a client in `cycle`; empty where it is in none any more. Why a client was disconnected includes these words.
    pub fn new(queue_bytes: u64, own_bytes: u64, cycle: &'a str) -> Self {
        Overdraft { flags: 0, queue_bytes, own_bytes, cycle: RStr::from_str(cycle) }
    }

    /// The clients that wait for each other, and what they have been given.
    pub fn cycle(&self) -> &'a str {
        self.cycle.as_str()
    }
}

/// Limits of one client, [`SinkLimits::NONE`] where there is none.
#[repr(C)]
#[derive(StableAbi, Debug, Clone, Copy, PartialEq, Eq)]
pub struct SinkLimits {
    flags: u32,
    /// Bytes that may wait for it.
    pub queue_bytes: u64,
    /// Bytes of one frame it sends.
    pub frame_bytes: u64,
    /// Frames it sends in a second.
    pub messages_per_second: u64,
    /// Bytes it sends in a second.
    pub bytes_per_second: u64,
}

impl SinkLimits {
    /// No limit.
    pub const NONE: u64 = u64::MAX;
}

impl Default for SinkLimits {
    fn default() -> Self {
        let none = Self::NONE;
        SinkLimits {
            flags: 0,
            queue_bytes: none,
            frame_bytes: none,
            messages_per_second: none,
            bytes_per_second: none,
        }
    }
}

/// Consecutive messages of one sender with one kind, topic and quality of service: resolved, locked and encoded
/// once. A lone message is a run of one.
#[repr(C)]
#[derive(StableAbi)]
pub struct Run<'a> {
    kind: u8,
    qos: u8,
    flags: u32,
    sender: RStr<'a>,
    sender_id: u64,
    topic: RStr<'a>,
    payloads: RSlice<'a, Payload<'a>>,
    shared: Option<&'a SharedBytes>,
    encoding: &'a mut Encoding,
}

impl<'a> Run<'a> {
    /// A run of `payloads`. `shared` holds the same bytes as the only payload, where they can be kept without
    /// copying. `encoding` must be [reset](Encoding::reset).
    #[inline]
    pub fn new(
        kind: FrameKind,
        qos: Qos,
        sender: &'a str,
        topic: &'a str,
        payloads: &'a [Payload<'a>],
        shared: Option<&'a SharedBytes>,
        encoding: &'a mut Encoding,
    ) -> Self {
        Run {
            kind: kind as u8,
            qos: qos.bits(),
            flags: 0,
            sender: RStr::from_str(sender),
            sender_id: 0,
            topic: RStr::from_str(topic),
            payloads: RSlice::from_slice(payloads),
            shared: shared.filter(|_| payloads.len() == 1),
            encoding,
        }
    }

    /// The registration of the sender.
    #[inline]
    pub fn with_sender_id(mut self, id: u64) -> Self {
        self.sender_id = id;
        self
    }

    /// What kind of frame it becomes: message, broadcast or publication.
    #[inline]
    pub fn kind(&self) -> FrameKind {
        FrameKind::from_wire(self.kind).unwrap_or(FrameKind::Message)
    }

    /// Whether the frames were sent as real-time.
    #[inline]
    pub fn is_realtime(&self) -> bool {
        Qos::from_bits(self.qos).is_realtime()
    }

    /// The full registered name of the sender.
    #[inline]
    pub fn sender(&self) -> &'a str {
        self.sender.as_str()
    }

    /// The id of the sender's registration: unique, never reused, unlike the name. 0 is the broker itself.
    #[inline]
    pub fn sender_id(&self) -> u64 {
        self.sender_id
    }

    /// The topic of a publication, else empty.
    #[inline]
    pub fn topic(&self) -> &'a str {
        self.topic.as_str()
    }

    /// The payloads in order; at least one.
    #[inline]
    pub fn payloads(&self) -> &'a [Payload<'a>] {
        self.payloads.as_slice()
    }

    /// The only payload as bytes that may be kept without copying, where the sender offers that.
    #[inline]
    pub fn shared(&self) -> Option<&'a SharedBytes> {
        self.shared
    }

    /// The wire form of the run, shared by all recipients of one protocol.
    #[inline]
    pub fn encoding(&mut self) -> &mut Encoding {
        self.encoding
    }
}

/// The wire form of a run, made by the first sink of a protocol and reused by every later one.
#[repr(C)]
#[derive(StableAbi, Default)]
pub struct Encoding {
    protocol: u32,
    used: usize,
    bytes: RVec<u8>,
    /// The wire form instead, where it is long enough.
    shared: ROption<SharedBytes>,
}

/// A wire form: to be copied, or where it is long, to be kept.
#[derive(Debug, Clone, Copy)]
pub struct Encoded<'a> {
    bytes: &'a [u8],
    shared: Option<&'a SharedBytes>,
}

impl<'a> Encoded<'a> {
    /// All bytes, for the time of the call.
    #[inline]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The same bytes where they are so many that keeping them is cheaper than copying.
    #[inline]
    pub fn shared(&self) -> Option<&'a SharedBytes> {
        self.shared
    }
}

impl Encoding {
    /// From this length on several recipients share a wire form instead of copying it: an allocation and some atomic
    /// counting cost less then.
    pub const SHARE_FROM_BYTES: usize = 4096;

    /// Nothing encoded yet.
    pub const fn new() -> Self {
        Encoding { protocol: 0, used: 0, bytes: RVec::new(), shared: RNone }
    }

    /// Forgets what was encoded, keeping a small buffer for the next run.
    #[inline]
    pub fn reset(&mut self) {
        self.protocol = 0;
        self.used = 0;
        self.shared = RNone;
    }

    /// The wire form in `protocol` (a number other than 0 that the transport chooses for its frame format).
    /// Where there is none yet, `encode` writes it into a buffer of at least `room` bytes and returns how many
    /// it used.
    #[inline]
    pub fn get_or_make(
        &mut self,
        protocol: u32,
        room: impl FnOnce() -> usize,
        encode: impl FnOnce(&mut [u8]) -> usize,
    ) -> Encoded<'_> {
        if self.protocol != protocol {
            self.make(room(), encode);
            self.protocol = protocol;
        }
        match &self.shared {
            RSome(shared) => Encoded { bytes: shared, shared: Some(shared) },
            RNone => Encoded { bytes: &self.bytes.as_slice()[..self.used], shared: None },
        }
    }

    #[inline]
    fn make(&mut self, room: usize, encode: impl FnOnce(&mut [u8]) -> usize) {
        if room >= Self::SHARE_FROM_BYTES {
            let mut bytes = vec![0; room];
            let used = encode(&mut bytes).min(room);
            bytes.truncate(used);
            self.shared = RSome(bytes.into());
            return;
        }
        self.shared = RNone;
        // the buffer stays at its greatest length, so that it is zeroed once and not for every run
        if self.bytes.len() < room {
            self.bytes.resize(room, 0);
        }
        self.used = encode(self.bytes.as_mut_slice()).min(self.bytes.len());
    }
}

/// What [`Sink::deliver`] answers: none or several of the flags.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeliveryStatus(u8);

impl DeliveryStatus {
    /// Taken, and nothing is owed.
    pub const TAKEN: DeliveryStatus = DeliveryStatus(0);
    /// The caller owes one [`flush`](Sink::flush).
    pub const DIRTY: DeliveryStatus = DeliveryStatus(1);
    /// The queue is over its limit: senders should not be read until it has drained.
    pub const FULL: DeliveryStatus = DeliveryStatus(2);
    /// The peer is gone, the run was not taken.
    pub const CLOSED: DeliveryStatus = DeliveryStatus(4);
    /// The run was not taken, since the queue is too full for it.
    pub const REFUSED: DeliveryStatus = DeliveryStatus(8);

    /// Whether all flags of `other` are set.
    #[inline]
    pub fn has(self, other: DeliveryStatus) -> bool {
        self.0 & other.0 == other.0
    }

    /// The other flags.
    #[inline]
    #[must_use]
    pub fn without(self, other: DeliveryStatus) -> DeliveryStatus {
        DeliveryStatus(self.0 & !other.0)
    }

    /// Whether the run was taken.
    #[inline]
    pub fn is_taken(self) -> bool {
        self.0 & (Self::CLOSED.0 | Self::REFUSED.0) == 0
    }

    /// The flags as a number, as they cross the boundary.
    #[inline]
    pub fn bits(self) -> u8 {
        self.0
    }

    /// From a number.
    #[inline]
    pub fn from_bits(bits: u8) -> Self {
        DeliveryStatus(bits)
    }
}

impl BitOr for DeliveryStatus {
    type Output = DeliveryStatus;

    #[inline]
    fn bitor(self, other: DeliveryStatus) -> DeliveryStatus {
        DeliveryStatus(self.0 | other.0)
    }
}

/// What waits in a queue.
#[repr(C)]
#[derive(StableAbi, Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Queued {
    /// Whole frames; an estimate while one is partly sent.
    pub frames: u64,
    /// Bytes.
    pub bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encoding_is_made_once() {
        let mut encoding = Encoding::new();
        let made = |out: &mut [u8]| {
            out[..3].copy_from_slice(b"abc");
            3
        };
        assert_eq!(encoding.get_or_make(1, || 40, made).bytes(), b"abc");
        let again = encoding.get_or_make(1, || unreachable!(), |_| unreachable!());
        assert_eq!((again.bytes(), again.shared().is_some()), (&b"abc"[..], false));
        assert_eq!(encoding.get_or_make(2, || 5, |_| 0).bytes(), b"");
    }

    #[test]
    fn a_long_encoding_can_be_kept() {
        let mut encoding = Encoding::new();
        let room = Encoding::SHARE_FROM_BYTES;
        let fill = |out: &mut [u8]| {
            out[..room - 1].fill(7);
            room - 1
        };
        let kept = encoding.get_or_make(1, || room, fill).shared().unwrap().clone();
        let again = encoding.get_or_make(1, || unreachable!(), |_| unreachable!());
        assert_eq!(again.bytes().as_ptr(), kept.as_ptr(), "nothing was copied");
        encoding.reset();
        assert_eq!(encoding.get_or_make(1, || 10, |_| 4).bytes().len(), 4);
        assert_eq!(*kept, vec![7; room - 1], "nor overwritten");
    }

    #[test]
    fn a_longer_claim_than_the_buffer_is_cut() {
        let mut encoding = Encoding::new();
        for room in [4, Encoding::SHARE_FROM_BYTES] {
            assert_eq!(encoding.get_or_make(1, || room, |_| room + 1).bytes().len(), room);
            encoding.reset();
        }
    }

    #[test]
    fn delivery_flags() {
        let both = DeliveryStatus::DIRTY | DeliveryStatus::FULL;
        assert!(both.has(DeliveryStatus::DIRTY) && both.has(DeliveryStatus::FULL) && both.is_taken());
        assert_eq!(both.without(DeliveryStatus::DIRTY), DeliveryStatus::FULL);
        assert!(!DeliveryStatus::CLOSED.is_taken() && !DeliveryStatus::REFUSED.is_taken());
    }
}
