//! The receiving side of a client: what the broker hands to a plugin, and what the plugin answers.

use abi_stable::{
    StableAbi,
    std_types::{RSlice, RStr, RVec},
};
use elbus_protocol::{FrameKind, Qos};
use std::ops::BitOr;

use crate::{Payload, SharedBytes, Wake};

/// Where messages for one client go. Made by a transport, owned by the broker for as long as the client is
/// registered.
///
/// Every method may be called from any thread, at any time, also from several at once, and never blocks. None
/// may call back into the [`Client`](crate::Client) of the same connection.
pub trait Sink: Send + Sync + 'static {
    /// Takes a run of messages over. Says whether the caller owes a [`flush`](Sink::flush), whether the queue is
    /// over its limit, and whether the run was taken at all.
    fn deliver(&self, run: &mut Run<'_>) -> Delivery;
    /// Sends what was delivered on its way. Owed once after an answer with [`Delivery::DIRTY`].
    fn flush(&self);
    /// Calls `wake` once as soon as the queue has drained far enough for senders to go on, at once if it has, and
    /// also when the sink closes.
    fn when_drained(&self, wake: Wake);
    /// Ends the connection; `reason` is for the log. What is queued may be lost.
    fn close(&self, reason: &str);
    /// What is waiting.
    fn queued(&self) -> Queued;
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
            topic: RStr::from_str(topic),
            payloads: RSlice::from_slice(payloads),
            shared: shared.filter(|_| payloads.len() == 1),
            encoding,
        }
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
}

impl Encoding {
    /// Buffers that grew beyond this are given back by [`reset`](Encoding::reset).
    const KEEP_BYTES: usize = 1024 * 1024;

    /// Nothing encoded yet.
    pub const fn new() -> Self {
        Encoding { protocol: 0, used: 0, bytes: RVec::new() }
    }

    /// Forgets what was encoded, keeping a buffer of reasonable size for the next run.
    #[inline]
    pub fn reset(&mut self) {
        self.protocol = 0;
        self.used = 0;
        if self.bytes.len() > Self::KEEP_BYTES {
            self.bytes = RVec::new();
        }
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
    ) -> &[u8] {
        if self.protocol != protocol {
            // the buffer stays at its greatest length, so that it is zeroed once and not for every run
            let room = room();
            if self.bytes.len() < room {
                self.bytes.resize(room, 0);
            }
            self.used = encode(self.bytes.as_mut_slice()).min(self.bytes.len());
            self.protocol = protocol;
        }
        &self.bytes.as_slice()[..self.used]
    }
}

/// What [`Sink::deliver`] answers: none or several of the flags.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Delivery(u8);

impl Delivery {
    /// Taken, and nothing is owed.
    pub const TAKEN: Delivery = Delivery(0);
    /// The caller owes one [`flush`](Sink::flush).
    pub const DIRTY: Delivery = Delivery(1);
    /// The queue is over its limit: senders should not be read until it has drained.
    pub const FULL: Delivery = Delivery(2);
    /// The peer is gone, the run was not taken.
    pub const CLOSED: Delivery = Delivery(4);
    /// The run was not taken, since the queue is too full for it.
    pub const REFUSED: Delivery = Delivery(8);

    /// Whether all flags of `other` are set.
    #[inline]
    pub fn has(self, other: Delivery) -> bool {
        self.0 & other.0 == other.0
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
        Delivery(bits)
    }
}

impl BitOr for Delivery {
    type Output = Delivery;

    #[inline]
    fn bitor(self, other: Delivery) -> Delivery {
        Delivery(self.0 | other.0)
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
        assert_eq!(encoding.get_or_make(1, || 40, made), b"abc");
        assert_eq!(encoding.get_or_make(1, || unreachable!(), |_| unreachable!()), b"abc");
        assert_eq!(encoding.get_or_make(2, || 5, |_| 0), b"");
        encoding.reset();
        assert_eq!(encoding.get_or_make(1, || 2 << 20, |out| out.len()).len(), 2 << 20);
        encoding.reset();
        assert_eq!(encoding.bytes.capacity(), 0, "a large buffer is given back");
    }

    #[test]
    fn a_longer_claim_than_the_buffer_is_cut() {
        let mut encoding = Encoding::new();
        assert_eq!(encoding.get_or_make(1, || 4, |_| 100).len(), 4);
    }

    #[test]
    fn delivery_flags() {
        let both = Delivery::DIRTY | Delivery::FULL;
        assert!(both.has(Delivery::DIRTY) && both.has(Delivery::FULL) && both.is_taken());
        assert!(!Delivery::CLOSED.is_taken() && !Delivery::REFUSED.is_taken());
    }
}
