//! What an in-process client receives: runs as the plugin keeps them, and the messages they are taken apart into. A
//! run is one piece of memory, texts and payloads together; a lone message goes on owning it.

use abi_stable::{
    StableAbi,
    std_types::{ROption, RVec},
};
use bytes::{Buf, Bytes};
use elbus_protocol::{FrameKind, Qos};
use std::{fmt, ops::Range};

use crate::{Run, SharedBytes};

/// Bytes of an entry in the table of ends.
const END_BYTES: usize = size_of::<u64>();

/// Runs on their way to an in-process client, in order.
#[repr(C)]
#[derive(StableAbi, Default)]
pub struct RunBatch {
    /// Apart, so that a lone run needs no memory.
    first: ROption<OwnedRun>,
    more: RVec<OwnedRun>,
}

impl RunBatch {
    /// Adds a run behind the others.
    #[inline]
    pub fn push(&mut self, run: OwnedRun) {
        match self.first {
            ROption::RNone => self.first = ROption::RSome(run),
            ROption::RSome(_) => self.more.push(run),
        }
    }

    /// How many runs there are.
    pub fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.more.len()
    }

    /// Whether there is none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// Takes the only message, where there is just one.
    #[inline]
    pub(super) fn take_lone(&mut self) -> Option<Message> {
        let message = match &mut self.first {
            ROption::RSome(run) if run.count == 1 && self.more.is_empty() => run.take_whole(),
            _ => return None,
        };
        // nothing is left in it, which is not worth asking the library that made it
        std::mem::forget(std::mem::replace(&mut self.first, ROption::RNone));
        Some(message)
    }

    /// Takes all runs apart, and keeps its memory, but for what is room for more than `keep` of them.
    pub(super) fn take_apart(&mut self, keep: usize, mut each: impl FnMut(Message)) {
        if let ROption::RSome(mut run) = self.first.take() {
            run.take_apart(&mut each);
        }
        if self.more.is_empty() {
            return;
        }
        let mut runs = std::mem::take(&mut self.more).into_vec();
        for mut run in runs.drain(..) {
            run.take_apart(&mut each);
        }
        if runs.capacity() > keep {
            runs.shrink_to(keep);
        }
        self.more = runs.into();
    }
}

/// A run of messages, kept: what an in-process client receives.
#[repr(C)]
#[derive(StableAbi, Clone)]
pub struct OwnedRun {
    kind: u8,
    qos: u8,
    flags: u32,
    /// How many messages.
    count: usize,
    sender_len: usize,
    topic_len: usize,
    /// Of several messages, where each payload ends, 8 bytes each; sender, NUL, and of a publication the topic, NUL;
    /// the payloads, unless shared.
    block: RVec<u8>,
    shared: ROption<SharedBytes>,
}

impl OwnedRun {
    /// Keeps a run: one copy of small payloads, none of a shared one.
    #[inline]
    pub fn new(run: &Run<'_>) -> Self {
        let (kind, sender, topic, payloads) = (run.kind(), run.sender(), run.topic(), run.payloads());
        let payload_bytes = match payloads {
            [payload] => payload.len(),
            _ => payloads.iter().map(|payload| payload.len()).sum(),
        };
        let topic_room = if kind == FrameKind::Publish { topic.len() + 1 } else { 0 };
        let table = if payloads.len() > 1 { payloads.len() * END_BYTES } else { 0 };
        let copied = if run.shared().is_some() { 0 } else { payload_bytes };
        // exactly as large as it must be, so that it becomes `Bytes` without another allocation
        let mut block = Vec::with_capacity(table + sender.len() + 1 + topic_room + copied);
        if table > 0 {
            let mut end = 0;
            for payload in payloads {
                end += payload.len() as u64;
                block.extend_from_slice(&end.to_le_bytes());
            }
        }
        block.extend_from_slice(sender.as_bytes());
        block.push(0);
        if topic_room > 0 {
            block.extend_from_slice(topic.as_bytes());
            block.push(0);
        }
        if run.shared().is_none() {
            for payload in payloads {
                block.extend_from_slice(payload);
            }
        }
        OwnedRun {
            kind: kind as u8,
            qos: if run.is_realtime() { Qos::REALTIME.bits() } else { 0 },
            flags: 0,
            count: payloads.len(),
            sender_len: sender.len(),
            topic_len: topic_room.saturating_sub(1),
            block: block.into(),
            shared: run.shared().cloned().into(),
        }
    }

    /// How many messages it is.
    #[inline]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether it is none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The bytes of all payloads, of the sender and the topic.
    #[inline]
    pub fn bytes(&self) -> usize {
        let shared = self.shared.as_ref().map_or(0, |shared| shared.len());
        self.block.len().saturating_sub(self.texts()) + shared
    }

    /// Where the texts begin, behind the table of ends.
    #[inline]
    fn texts(&self) -> usize {
        if self.count > 1 { self.count * END_BYTES } else { 0 }
    }

    /// All payloads as those of one message, which of a run of one it is. No memory is left.
    #[inline]
    fn take_whole(&mut self) -> Message {
        let kind = FrameKind::from_wire(self.kind).unwrap_or(FrameKind::Message);
        let topic_room = if kind == FrameKind::Publish { self.topic_len + 1 } else { 0 };
        let texts = self.texts();
        let block = std::mem::take(&mut self.block).into_vec();
        Message {
            kind,
            realtime: Qos::from_bits(self.qos).is_realtime(),
            texts,
            sender_len: self.sender_len,
            topic_len: self.topic_len,
            payload: texts + self.sender_len + 1 + topic_room..block.len(),
            block: block.into(),
            shared: self.shared.take().into_option().map(|shared| Box::new(shared.into())),
        }
    }

    #[inline]
    fn take_apart(&mut self, each: &mut impl FnMut(Message)) {
        let table = self.texts();
        let whole = self.take_whole();
        if table == 0 {
            return each(whole);
        }
        let (block, payloads) = (whole.block.clone(), whole.payload.start);
        let mut start = payloads;
        for end in block.get(..table).unwrap_or_default().chunks_exact(END_BYTES) {
            let end = payloads + end.try_into().map_or(0, u64::from_le_bytes) as usize;
            each(Message { payload: start..end, ..whole.clone() });
            start = end;
        }
    }
}

/// A message that an in-process client received. Cloning shares its memory.
///
/// Small messages that were sent together share one piece of memory, which is freed with the last of them.
#[derive(Clone)]
pub struct Message {
    kind: FrameKind,
    realtime: bool,
    /// Where the sender begins in the block, followed by NUL, and of a publication by topic and NUL.
    texts: usize,
    sender_len: usize,
    topic_len: usize,
    /// Where the payload lies in the block, unless it is shared with its sender.
    payload: Range<usize>,
    block: Bytes,
    /// Boxed, since it is rare, and messages are moved often.
    shared: Option<Box<Bytes>>,
}

impl Message {
    /// One-to-one message, broadcast or publication.
    #[inline]
    pub fn kind(&self) -> FrameKind {
        self.kind
    }

    /// Whether it was sent as real-time.
    #[inline]
    pub fn is_realtime(&self) -> bool {
        self.realtime
    }

    /// The full name of the sender.
    #[inline]
    pub fn sender(&self) -> &str {
        self.text(self.texts, self.sender_len)
    }

    /// The topic of a publication, else empty.
    #[inline]
    pub fn topic(&self) -> &str {
        self.text(self.texts + self.sender_len + 1, self.topic_len)
    }

    #[inline]
    fn text(&self, start: usize, len: usize) -> &str {
        let bytes = self.block.get(start..start + len).unwrap_or_default();
        std::str::from_utf8(bytes).unwrap_or_default()
    }

    /// The payload.
    #[inline]
    pub fn payload(&self) -> &[u8] {
        match &self.shared {
            Some(shared) => shared,
            None => self.block.get(self.payload.clone()).unwrap_or_default(),
        }
    }

    /// The payload, to be kept without copying it. Where it was large it is the sender's memory.
    pub fn to_payload(&self) -> Bytes {
        match &self.shared {
            Some(shared) => Bytes::clone(shared),
            None => self.block.slice_ref(self.payload()),
        }
    }

    /// The payload alone, for no more than the message itself.
    pub fn into_payload(self) -> Bytes {
        match self.shared {
            Some(shared) => *shared,
            None => {
                let mut block = self.block;
                block.truncate(self.payload.end);
                block.advance(self.payload.start.min(block.len()));
                block
            }
        }
    }

    /// As the body of a frame on the wire (sender, NUL, of a publication topic and NUL, payload), with the length of
    /// the sender and where the payload begins; the message itself where its memory is not laid out so.
    #[doc(hidden)]
    pub fn into_body(self) -> Result<(Bytes, usize, usize), Message> {
        if self.texts == 0 && self.shared.is_none() {
            Ok((self.block, self.sender_len, self.payload.start))
        } else {
            Err(self)
        }
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("kind", &self.kind)
            .field("realtime", &self.realtime)
            .field("sender", &self.sender())
            .field("topic", &self.topic())
            .field("payload", &format_args!("{} bytes", self.payload().len()))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Encoding, Payload};

    fn kept(kind: FrameKind, topic: &str, payloads: &[&[u8]], shared: Option<&SharedBytes>) -> RunBatch {
        let payloads: Vec<_> = payloads.iter().map(|payload| Payload::from(*payload)).collect();
        let mut encoding = Encoding::new();
        let run = Run::new(kind, Qos::REALTIME, "sender", topic, &payloads, shared, &mut encoding);
        let mut received = RunBatch::default();
        received.push(OwnedRun::new(&run));
        received
    }

    fn taken_apart(mut received: RunBatch) -> Vec<Message> {
        let mut messages = Vec::new();
        received.take_apart(1, |message| messages.push(message));
        messages
    }

    #[test]
    fn messages_are_what_was_kept() {
        for (kind, topic) in
            [(FrameKind::Message, ""), (FrameKind::Broadcast, ""), (FrameKind::Publish, "a/b")]
        {
            for payloads in [&[&b"one"[..]][..], &[b"", b"two", b"", b"three"], &[b""]] {
                let messages = taken_apart(kept(kind, topic, payloads, None));
                assert_eq!(messages.len(), payloads.len());
                for (message, payload) in messages.into_iter().zip(payloads) {
                    assert_eq!((message.kind(), message.is_realtime()), (kind, true));
                    assert_eq!((message.sender(), message.topic()), ("sender", topic));
                    assert_eq!((message.payload(), &message.to_payload()[..]), (*payload, *payload));
                    assert_eq!(message.clone().into_payload(), payload);
                    let Ok((body, sender_len, payload_at)) = message.into_body() else {
                        assert!(payloads.len() > 1);
                        continue;
                    };
                    assert_eq!((&body[..sender_len], &body[payload_at..]), (&b"sender"[..], *payload));
                    let topic = if kind == FrameKind::Publish { format!("{topic}\0") } else { String::new() };
                    assert_eq!(body[sender_len..payload_at], *format!("\0{topic}").as_bytes());
                }
            }
        }
    }

    #[test]
    fn shared_payloads_are_not_copied() {
        let shared = SharedBytes::from(vec![7; 100]);
        let message = taken_apart(kept(FrameKind::Publish, "t", &[&shared], Some(&shared))).remove(0);
        assert_eq!((message.sender(), message.topic()), ("sender", "t"));
        assert_eq!(message.payload().as_ptr(), shared.as_ptr());
        assert_eq!(message.clone().into_body().unwrap_err().to_payload().as_ptr(), shared.as_ptr());
        assert_eq!(message.into_payload().as_ptr(), shared.as_ptr());
    }

    #[test]
    fn a_lone_payload_stays_where_it_was_kept() {
        let message = taken_apart(kept(FrameKind::Message, "", &[b"payload"], None)).remove(0);
        let address = message.payload().as_ptr();
        assert_eq!(message.into_payload().as_ptr(), address);
    }
}
