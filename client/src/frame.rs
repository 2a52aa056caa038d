//! A frame that was received. Owns where its texts and payload lie; never knows who it is for.

use bytes::Bytes;
use elbus_protocol::FrameKind;
use std::{fmt, sync::Arc};

/// A message, a broadcast or a publication that was received. Cloning shares the bytes.
///
/// Small frames that arrive together share one piece of memory, which is freed with the last of them.
#[derive(Clone)]
pub struct Frame {
    kind: FrameKind,
    realtime: bool,
    /// The payload, behind the texts where they were received with it.
    body: Bytes,
    payload_at: usize,
    texts: Texts,
    missed: u64,
}

#[derive(Clone)]
enum Texts {
    /// At the front of the body: sender, NUL, and of a publication the topic, NUL. Checked to be UTF-8.
    InBody { sender_len: usize },
    /// Of an in-process connection, which has them as they are.
    #[cfg_attr(not(feature = "in-process"), expect(dead_code, reason = "made for in-process connections"))]
    Apart { sender: Arc<str>, topic: Arc<str> },
}

impl Frame {
    /// Of a body as it is on the wire, whose texts have been checked (protocol section 4).
    pub(crate) fn from_wire(
        kind: FrameKind,
        realtime: bool,
        body: Bytes,
        sender_len: usize,
        payload_at: usize,
    ) -> Self {
        Frame { kind, realtime, body, payload_at, texts: Texts::InBody { sender_len }, missed: 0 }
    }

    /// Of parts.
    #[cfg(feature = "in-process")]
    pub(crate) fn from_parts(
        kind: FrameKind,
        realtime: bool,
        sender: Arc<str>,
        topic: Arc<str>,
        payload: Bytes,
    ) -> Self {
        Frame {
            kind,
            realtime,
            body: payload,
            payload_at: 0,
            texts: Texts::Apart { sender, topic },
            missed: 0,
        }
    }

    /// [`FrameKind::Message`], [`FrameKind::Broadcast`] or [`FrameKind::Publish`].
    pub fn kind(&self) -> FrameKind {
        self.kind
    }

    /// Whether it was sent as real-time.
    pub fn is_realtime(&self) -> bool {
        self.realtime
    }

    /// The full name of the sender; of a secondary client with its suffix.
    pub fn sender(&self) -> &str {
        match &self.texts {
            Texts::InBody { sender_len } => self.text(0, *sender_len),
            Texts::Apart { sender, .. } => sender,
        }
    }

    /// The name of the sender without the suffix of a secondary client.
    pub fn primary_sender(&self) -> &str {
        elbus_protocol::name::primary_of(self.sender())
    }

    /// The topic of a publication, perhaps empty; of anything else empty.
    pub fn topic(&self) -> &str {
        match &self.texts {
            Texts::InBody { sender_len } => self.text(sender_len + 1, self.payload_at.saturating_sub(1)),
            Texts::Apart { topic, .. } => topic,
        }
    }

    /// The payload.
    pub fn payload(&self) -> &[u8] {
        self.body.get(self.payload_at..).unwrap_or_default()
    }

    /// The payload; shares its memory.
    pub fn to_payload(&self) -> Bytes {
        self.body.slice(self.payload_at..)
    }

    /// The payload; copies nothing.
    pub fn into_payload(mut self) -> Bytes {
        bytes::Buf::advance(&mut self.body, self.payload_at);
        self.body
    }

    /// How many frames were dropped directly before this one, by an [`Overflow`](crate::Overflow) that drops.
    pub fn missed(&self) -> u64 {
        self.missed
    }

    pub(crate) fn add_missed(&mut self, count: u64) {
        self.missed += count;
    }

    /// Memory it is counted with, in bytes.
    pub(crate) fn cost(&self) -> usize {
        self.body.len() + size_of::<Self>()
    }

    fn text(&self, from: usize, to: usize) -> &str {
        let bytes = self.body.get(from..to).unwrap_or_default();
        std::str::from_utf8(bytes).unwrap_or_default()
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame")
            .field("kind", &self.kind)
            .field("realtime", &self.realtime)
            .field("sender", &self.sender())
            .field("topic", &self.topic())
            .field("payload", &self.to_payload())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_publication() {
        let body = Bytes::from_static(b"a.b%%0\0x/y\0value");
        let frame = Frame::from_wire(FrameKind::Publish, true, body, 6, 11);
        assert_eq!((frame.sender(), frame.primary_sender(), frame.topic()), ("a.b%%0", "a.b", "x/y"));
        assert_eq!((frame.payload(), frame.to_payload()), (&b"value"[..], Bytes::from_static(b"value")));
        assert_eq!(frame.clone().into_payload(), &b"value"[..]);
        assert!(frame.is_realtime() && frame.missed() == 0);
    }

    #[test]
    fn parts_of_a_message() {
        let frame = Frame::from_wire(FrameKind::Message, false, Bytes::from_static(b"a\0"), 1, 2);
        assert_eq!((frame.sender(), frame.topic(), frame.payload()), ("a", "", &b""[..]));
        assert!(frame.into_payload().is_empty());
    }
}
