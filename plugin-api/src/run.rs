//! Runs: consecutive messages of one sender, and their wire form, which recipients share.

use abi_stable::{
    StableAbi,
    std_types::{
        ROption::{self, RNone, RSome},
        RSlice, RStr, RVec,
    },
};
use elbus_protocol::{FrameKind, Qos};

use crate::{
    abi::{IntoRaw, PendingObject},
    buffer::{Payload, SharedBytes},
    pending::Completion,
};

/// Consecutive messages of one sender with the same kind, topic and quality of service.
///
/// The broker resolves the recipients of a run once and calls [`Sink::deliver`](crate::Sink::deliver) once
/// for each of them. A single message is a run of one.
///
/// # Examples
/// ```
/// use elbus_plugin_api::{Encoding, FrameKind, Payload, Qos, Run};
///
/// let payloads = [Payload::from(&b"20.5"[..]), Payload::from(&b"20.7"[..])];
/// let mut encoding = Encoding::new();
/// let run = Run::new(FrameKind::Publish, Qos::NO, "boiler", "temperature", &payloads, None, &mut encoding);
/// assert_eq!((run.sender(), run.topic(), run.payloads().len()), ("boiler", "temperature", 2));
/// ```
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
    deferral: Option<&'a mut Deferral>,
}

/// The place for the result of a run that its sink defers.
#[doc(hidden)]
#[repr(C)]
#[derive(StableAbi, Default)]
pub struct Deferral {
    pending: ROption<PendingObject>,
}

impl Deferral {
    /// Returns whether the run was deferred.
    #[inline]
    pub fn is_used(&self) -> bool {
        self.pending.is_some()
    }

    /// Takes the result of a run that was deferred.
    pub fn take(&mut self) -> Option<PendingObject> {
        self.pending.take().into_option()
    }
}

/// [`Run::flags`]: the recipient gets it as a member of a group.
const FOR_GROUP: u32 = 1;

impl<'a> Run<'a> {
    /// Creates a run of `payloads`. `shared` holds the bytes of the only payload if they can be kept without
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
            deferral: None,
        }
    }

    /// Sets the registration id of the sender.
    #[inline]
    pub fn with_sender_id(mut self, id: u64) -> Self {
        self.sender_id = id;
        self
    }

    /// Lets the sink defer the result.
    #[doc(hidden)]
    #[inline]
    pub fn with_deferral(mut self, deferral: &'a mut Deferral) -> Self {
        self.deferral = Some(deferral);
        self
    }

    /// Defers the result of the run: its acknowledgements are sent once the [`Completion`] is completed, with
    /// its code, which is that of all messages of the run. Until then, later acknowledgements of the sender
    /// wait. `None` if the sender does not wait for a result that is supplied later: it gets the usual one.
    ///
    /// Only messages can be deferred, which have one recipient; and only if their sender requested an
    /// acknowledgement over a transport that waits for it (`unix`, `tcp`). A sink that defers takes no
    /// [mixed runs](crate::Sink::deliver_mixed). The sink must take the run, or the result means nothing. A
    /// transport has a time limit of 75 s; afterwards the sender has got
    /// [`Code::Timeout`](crate::Code::Timeout). An instance that has failed drops nothing: what it has
    /// deferred ends with that limit.
    ///
    /// # Examples
    /// ```
    /// use elbus_plugin_api::{Completion, DeliveryStatus, Run, Sink};
    /// use std::sync::mpsc;
    ///
    /// /// Acknowledges messages once a worker has stored them.
    /// struct Store(mpsc::Sender<(Vec<Vec<u8>>, Option<Completion>)>);
    ///
    /// impl Sink for Store {
    ///     fn deliver(&self, run: &mut Run<'_>) -> DeliveryStatus {
    ///         let messages = run.payloads().iter().map(|payload| payload.to_vec()).collect();
    ///         match self.0.send((messages, run.defer())) {
    ///             Ok(()) => DeliveryStatus::TAKEN,
    ///             Err(_) => DeliveryStatus::CLOSED,
    ///         }
    ///     }
    /// }
    /// ```
    pub fn defer(&mut self) -> Option<Completion> {
        let deferral = self.deferral.as_mut().filter(|deferral| !deferral.is_used())?;
        let (completion, pending) = Completion::pair();
        deferral.pending = RSome(pending.into_raw());
        Some(completion)
    }

    /// Declares whether the recipient gets the run as a member of a group.
    #[inline]
    pub fn set_for_group(&mut self, for_group: bool) {
        self.flags = if for_group { FOR_GROUP } else { 0 };
    }

    /// Returns whether the recipient gets the run as a member of a group: if it leaves before the run is
    /// sent, another member gets it, see [`Sink::take_unsent`](crate::Sink::take_unsent).
    #[inline]
    pub fn is_for_group(&self) -> bool {
        self.flags & FOR_GROUP != 0
    }

    /// Returns the kind of frame: message, broadcast or publication.
    #[inline]
    pub fn kind(&self) -> FrameKind {
        FrameKind::from_wire(self.kind).unwrap_or(FrameKind::Message)
    }

    /// Returns whether the messages were sent as real-time.
    #[inline]
    pub fn is_realtime(&self) -> bool {
        Qos::from_bits(self.qos).is_realtime()
    }

    /// Returns the quality of service.
    #[inline]
    pub fn qos(&self) -> Qos {
        Qos::from_bits(self.qos)
    }

    /// Returns whether the result [can be deferred](Self::defer), and is not yet.
    #[inline]
    pub fn can_defer(&self) -> bool {
        self.deferral.as_ref().is_some_and(|deferral| !deferral.is_used())
    }

    /// Returns the full registered name of the sender.
    #[inline]
    pub fn sender(&self) -> &'a str {
        self.sender.as_str()
    }

    /// Returns the id of the sender's registration: unique and never reused, unlike its name. 0 is the broker
    /// itself.
    #[inline]
    pub fn sender_id(&self) -> u64 {
        self.sender_id
    }

    /// Returns the topic of a publication; empty for other kinds.
    #[inline]
    pub fn topic(&self) -> &'a str {
        self.topic.as_str()
    }

    /// Returns the payloads in order; at least one.
    #[inline]
    pub fn payloads(&self) -> &'a [Payload<'a>] {
        self.payloads.as_slice()
    }

    /// Returns the only payload as bytes that can be kept without copying, if the sender provided them.
    #[inline]
    pub fn shared(&self) -> Option<&'a SharedBytes> {
        self.shared
    }

    /// Returns the wire form of the run, which all recipients with the same protocol share.
    #[inline]
    pub fn encoding(&mut self) -> &mut Encoding {
        self.encoding
    }
}

/// The wire form of a run: encoded by the first sink of a protocol, reused by the following ones.
///
/// # Examples
/// ```
/// use elbus_plugin_api::Encoding;
///
/// const LINES: u32 = 1;
/// let mut encoding = Encoding::new();
/// let mut encode = |line: &[u8]| {
///     let write = |room: &mut [u8]| room.iter_mut().zip(line).map(|(to, from)| *to = *from).count();
///     encoding.get_or_make(LINES, || line.len(), write).bytes().to_vec()
/// };
/// assert_eq!(encode(b"first"), b"first");
/// assert_eq!(encode(b"other"), b"first", "reused");
/// ```
#[repr(C)]
#[derive(StableAbi, Default)]
pub struct Encoding {
    protocol: u32,
    used: usize,
    bytes: RVec<u8>,
    /// Replaces `bytes` from [`SHARE_FROM_BYTES`](Self::SHARE_FROM_BYTES) on.
    shared: ROption<SharedBytes>,
}

/// An encoded run: to copy, or if it is long, to keep.
#[derive(Debug, Clone, Copy)]
pub struct Encoded<'a> {
    bytes: &'a [u8],
    shared: Option<&'a SharedBytes>,
}

impl<'a> Encoded<'a> {
    /// Returns all bytes, borrowed for the call.
    #[inline]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Returns the same bytes if there are enough of them that keeping is cheaper than copying.
    #[inline]
    pub fn shared(&self) -> Option<&'a SharedBytes> {
        self.shared
    }
}

impl Encoding {
    /// Length from which recipients share a wire form instead of copying it: an allocation and atomic
    /// counting cost less from there on.
    pub const SHARE_FROM_BYTES: usize = 4096;

    /// Creates an empty encoding.
    pub const fn new() -> Self {
        Encoding { protocol: 0, used: 0, bytes: RVec::new(), shared: RNone }
    }

    /// Discards the wire form and keeps a small buffer for the next run.
    #[inline]
    pub fn reset(&mut self) {
        self.protocol = 0;
        self.used = 0;
        self.shared = RNone;
    }

    /// Returns the wire form in `protocol`, a number other than 0 that the transport chooses for its frame
    /// format. If there is none yet, `encode` writes it into a buffer of at least `room` bytes and returns
    /// how many it used.
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
        // the buffer keeps its greatest length, so it is zeroed once rather than for every run
        if self.bytes.len() < room {
            self.bytes.resize(room, 0);
        }
        self.used = encode(self.bytes.as_mut_slice()).min(self.bytes.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_encoded_once_for_a_protocol() {
        let mut encoding = Encoding::new();
        let encode = |out: &mut [u8]| {
            out[..3].copy_from_slice(b"abc");
            3
        };
        assert_eq!(encoding.get_or_make(1, || 40, encode).bytes(), b"abc");
        let again = encoding.get_or_make(1, || unreachable!(), |_| unreachable!());
        assert_eq!((again.bytes(), again.shared().is_some()), (&b"abc"[..], false));
        assert_eq!(encoding.get_or_make(2, || 5, |_| 0).bytes(), b"");
    }

    #[test]
    fn a_long_encoding_is_shared_and_not_overwritten() {
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
    fn a_claimed_length_beyond_the_buffer_is_cut() {
        let mut encoding = Encoding::new();
        for room in [4, Encoding::SHARE_FROM_BYTES] {
            assert_eq!(encoding.get_or_make(1, || room, |_| room + 1).bytes().len(), room);
            encoding.reset();
        }
    }
}
