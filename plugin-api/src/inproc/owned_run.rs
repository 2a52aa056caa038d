//! What an in-process client receives: runs as the plugin keeps them, and the messages they are split into.
//! A run is one allocation, texts and payloads together; a single message keeps owning it.

use abi_stable::{
    StableAbi,
    std_types::{ROption, RVec},
};
use bytes::{Buf, Bytes};
use elbus_protocol::{FrameKind, Qos};
use std::{fmt, ops::Range};

use crate::{
    buffer::{Payload, SharedBytes},
    run::Run,
};

/// Bytes of an entry in the table of ends.
const END_BYTES: usize = size_of::<u64>();

/// Runs on their way to an in-process client, in order.
#[repr(C)]
#[derive(StableAbi, Default)]
pub struct RunBatch {
    /// Separate, so that a single run needs no allocation.
    first: ROption<OwnedRun>,
    more: RVec<OwnedRun>,
}

impl RunBatch {
    /// Appends a run.
    #[inline]
    pub fn push(&mut self, run: OwnedRun) {
        match self.first {
            ROption::RNone => self.first = ROption::RSome(run),
            ROption::RSome(_) => self.more.push(run),
        }
    }

    /// Returns the number of runs.
    pub fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.more.len()
    }

    /// Returns whether there are no runs.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// Returns all messages in order.
    pub fn into_messages(mut self) -> Vec<Message> {
        let mut all = Vec::with_capacity(self.len());
        self.split(0, |message| all.push(message));
        all
    }

    /// Takes the message if there is exactly one.
    #[inline]
    pub(super) fn take_single(&mut self) -> Option<Message> {
        let message = match &mut self.first {
            ROption::RSome(run) if run.count == 1 && self.more.is_empty() => run.take_all(),
            _ => return None,
        };
        // it owns nothing any more, so the library that made it need not be called
        std::mem::forget(std::mem::replace(&mut self.first, ROption::RNone));
        Some(message)
    }

    /// Splits all runs into messages, and keeps its capacity for at most `keep` runs.
    pub(super) fn split(&mut self, keep: usize, mut each: impl FnMut(Message)) {
        if let ROption::RSome(mut run) = self.first.take() {
            run.split(&mut each);
        }
        if self.more.is_empty() {
            return;
        }
        let mut runs = std::mem::take(&mut self.more).into_vec();
        for mut run in runs.drain(..) {
            run.split(&mut each);
        }
        if runs.capacity() > keep {
            runs.shrink_to(keep);
        }
        self.more = runs.into();
    }
}

/// A run of messages that owns its memory: what an in-process client receives.
#[repr(C)]
#[derive(StableAbi, Clone)]
pub struct OwnedRun {
    kind: u8,
    qos: u8,
    flags: u32,
    /// The number of messages.
    count: usize,
    sender_len: usize,
    topic_len: usize,
    /// For several messages, where each payload ends, 8 bytes each; then the sender, NUL, and of a
    /// publication the topic, NUL; then the payloads, unless shared.
    block: RVec<u8>,
    shared: ROption<SharedBytes>,
}

impl OwnedRun {
    /// Copies a run: one copy of small payloads, none of a shared one.
    #[inline]
    pub fn new(run: &Run<'_>) -> Self {
        let qos = if run.is_realtime() { Qos::REALTIME } else { Qos::NO };
        Self::from_parts(run.kind(), qos, run.sender(), run.topic(), run.payloads(), run.shared())
    }

    /// Copies messages, as [`new`](Self::new). `shared` has the bytes of the only payload.
    #[inline]
    pub fn from_parts(
        kind: FrameKind,
        qos: Qos,
        sender: &str,
        topic: &str,
        payloads: &[Payload<'_>],
        shared: Option<&SharedBytes>,
    ) -> Self {
        let payload_bytes = match payloads {
            [payload] => payload.len(),
            _ => payloads.iter().map(|payload| payload.len()).sum(),
        };
        let topic_room = if kind == FrameKind::Publish { topic.len() + 1 } else { 0 };
        let table = if payloads.len() > 1 { payloads.len() * END_BYTES } else { 0 };
        let copied = if shared.is_some() { 0 } else { payload_bytes };
        // exactly as large as needed, so that it becomes `Bytes` without another allocation
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
        if shared.is_none() {
            for payload in payloads {
                block.extend_from_slice(payload);
            }
        }
        OwnedRun {
            kind: kind as u8,
            qos: if qos.is_realtime() { Qos::REALTIME.bits() } else { 0 },
            flags: 0,
            count: payloads.len(),
            sender_len: sender.len(),
            topic_len: topic_room.saturating_sub(1),
            block: block.into(),
            shared: shared.cloned().into(),
        }
    }

    /// Splits the run into its messages.
    pub(crate) fn into_messages(mut self, mut each: impl FnMut(Message)) {
        self.split(&mut each);
    }

    /// Returns the number of messages.
    #[inline]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Returns whether there are no messages.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Returns the kind of its messages.
    pub fn kind(&self) -> FrameKind {
        FrameKind::from_wire(self.kind).unwrap_or(FrameKind::Message)
    }

    /// Returns the bytes of all payloads, of the sender and the topic.
    #[inline]
    pub fn bytes(&self) -> usize {
        let shared = self.shared.as_ref().map_or(0, |shared| shared.len());
        self.block.len().saturating_sub(self.texts()) + shared
    }

    /// Returns where the texts begin, behind the table of ends.
    #[inline]
    fn texts(&self) -> usize {
        if self.count > 1 { self.count * END_BYTES } else { 0 }
    }

    /// Takes all payloads as those of one message, which a run of one is. Leaves no memory behind.
    #[inline]
    fn take_all(&mut self) -> Message {
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
    fn split(&mut self, each: &mut impl FnMut(Message)) {
        let table = self.texts();
        let whole = self.take_all();
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
/// Small messages that were sent together share one allocation, which is freed with the last of them.
///
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
    /// Boxed because it is rare, and messages are moved often.
    shared: Option<Box<Bytes>>,
}

impl Message {
    /// Returns the kind: message, broadcast or publication.
    #[inline]
    pub fn kind(&self) -> FrameKind {
        self.kind
    }

    /// Returns whether it was sent as real-time.
    #[inline]
    pub fn is_realtime(&self) -> bool {
        self.realtime
    }

    /// Returns the full name of the sender.
    #[inline]
    pub fn sender(&self) -> &str {
        self.text(self.texts, self.sender_len)
    }

    /// Returns the topic of a publication; empty for other kinds.
    #[inline]
    pub fn topic(&self) -> &str {
        self.text(self.texts + self.sender_len + 1, self.topic_len)
    }

    #[inline]
    fn text(&self, start: usize, len: usize) -> &str {
        let bytes = self.block.get(start..start + len).unwrap_or_default();
        std::str::from_utf8(bytes).unwrap_or_default()
    }

    /// Returns the payload.
    #[inline]
    pub fn payload(&self) -> &[u8] {
        match &self.shared {
            Some(shared) => shared,
            None => self.block.get(self.payload.clone()).unwrap_or_default(),
        }
    }

    /// Returns the payload in a form that can be kept without copying. A large one is the sender's memory.
    pub fn to_payload(&self) -> Bytes {
        match &self.shared {
            Some(shared) => Bytes::clone(shared),
            None => self.block.slice_ref(self.payload()),
        }
    }

    /// Converts the message into its payload without copying.
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

    /// Converts the message into the body of a frame on the wire (sender, NUL, of a publication topic and
    /// NUL, payload), with the length of the sender and the offset of the payload. Returns the message if
    /// its memory has another layout.
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
    use crate::Encoding;

    fn batch_of(kind: FrameKind, topic: &str, payloads: &[&[u8]], shared: Option<&SharedBytes>) -> RunBatch {
        let payloads: Vec<_> = payloads.iter().map(|payload| Payload::from(*payload)).collect();
        let mut encoding = Encoding::new();
        let run = Run::new(kind, Qos::REALTIME, "sender", topic, &payloads, shared, &mut encoding);
        let mut received = RunBatch::default();
        received.push(OwnedRun::new(&run));
        received
    }

    fn messages_of(mut received: RunBatch) -> Vec<Message> {
        let mut messages = Vec::new();
        received.split(1, |message| messages.push(message));
        messages
    }

    #[test]
    fn messages_are_what_was_batch_of() {
        for (kind, topic) in
            [(FrameKind::Message, ""), (FrameKind::Broadcast, ""), (FrameKind::Publish, "a/b")]
        {
            for payloads in [&[&b"one"[..]][..], &[b"", b"two", b"", b"three"], &[b""]] {
                let messages = messages_of(batch_of(kind, topic, payloads, None));
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
        let message = messages_of(batch_of(FrameKind::Publish, "t", &[&shared], Some(&shared))).remove(0);
        assert_eq!((message.sender(), message.topic()), ("sender", "t"));
        assert_eq!(message.payload().as_ptr(), shared.as_ptr());
        assert_eq!(message.clone().into_body().unwrap_err().to_payload().as_ptr(), shared.as_ptr());
        assert_eq!(message.into_payload().as_ptr(), shared.as_ptr());
    }

    #[test]
    fn a_lone_payload_stays_where_it_was_batch_of() {
        let message = messages_of(batch_of(FrameKind::Message, "", &[b"payload"], None)).remove(0);
        let address = message.payload().as_ptr();
        assert_eq!(message.into_payload().as_ptr(), address);
    }
}
