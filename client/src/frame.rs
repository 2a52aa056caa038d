//! A received frame. Owns the positions of its texts and payload; never knows its consumer.

use bytes::Bytes;
use elbus_protocol::FrameKind;
use std::{fmt, sync::Arc};

/// A received message, broadcast or publication. Cloning shares the bytes.
///
/// Small frames that arrive together share one allocation, which is freed with the last of them.
///
/// ```no_run
/// # fn example(frame: elbus_client::Frame) {
/// use elbus_client::FrameKind;
/// match frame.kind() {
///     FrameKind::Publish => println!("{}: {:?}", frame.topic(), frame.payload()),
///     _ => println!("{} sent {} bytes", frame.sender(), frame.payload().len()),
/// }
/// # }
/// ```
#[derive(Clone)]
pub struct Frame {
    kind: FrameKind,
    realtime: bool,
    /// The payload, preceded by the texts if they were received with it.
    body: Bytes,
    payload_at: usize,
    texts: Texts,
    missed: u64,
}

#[derive(Clone)]
enum Texts {
    /// At the start of the body: sender, NUL, and for a publication topic, NUL. Checked to be UTF-8.
    InBody { sender_len: usize },
    /// Separate texts, from an in-process connection.
    #[cfg_attr(not(feature = "in-process"), expect(dead_code, reason = "made for in-process connections"))]
    Separate { sender: Arc<str>, topic: Arc<str> },
}

impl Frame {
    /// Creates a frame from a body as on the wire, whose texts have been checked (protocol section 4).
    pub(crate) fn from_wire(
        kind: FrameKind,
        realtime: bool,
        body: Bytes,
        sender_len: usize,
        payload_at: usize,
    ) -> Self {
        Frame { kind, realtime, body, payload_at, texts: Texts::InBody { sender_len }, missed: 0 }
    }

    /// Creates a frame from separate parts.
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
            texts: Texts::Separate { sender, topic },
            missed: 0,
        }
    }

    /// Returns [`FrameKind::Message`], [`FrameKind::Broadcast`] or [`FrameKind::Publish`].
    pub fn kind(&self) -> FrameKind {
        self.kind
    }

    /// Returns whether the frame was sent as real-time.
    pub fn is_realtime(&self) -> bool {
        self.realtime
    }

    /// Returns the full name of the sender, including the suffix of a secondary client.
    pub fn sender(&self) -> &str {
        match &self.texts {
            Texts::InBody { sender_len } => self.text(0, *sender_len),
            Texts::Separate { sender, .. } => sender,
        }
    }

    /// Returns the name of the sender without the suffix of a secondary client.
    pub fn primary_sender(&self) -> &str {
        elbus_protocol::name::primary_of(self.sender())
    }

    /// Returns the topic of a publication, which can be empty. For other frames it is empty.
    pub fn topic(&self) -> &str {
        match &self.texts {
            Texts::InBody { sender_len } => self.text(sender_len + 1, self.payload_at.saturating_sub(1)),
            Texts::Separate { topic, .. } => topic,
        }
    }

    /// Returns the payload.
    pub fn payload(&self) -> &[u8] {
        self.body.get(self.payload_at..).unwrap_or_default()
    }

    /// Returns the payload as [`Bytes`] that share its memory.
    pub fn to_payload(&self) -> Bytes {
        self.body.slice(self.payload_at..)
    }

    /// Converts the frame to its payload without copying.
    pub fn into_payload(mut self) -> Bytes {
        bytes::Buf::advance(&mut self.body, self.payload_at);
        self.body
    }

    /// Returns how many frames were dropped before this one: by the client directly before it
    /// ([`Overflow`](crate::Overflow)), or by the broker at some time before, as it has reported since the
    /// last frame ([`Options`](crate::Options)).
    pub fn missed(&self) -> u64 {
        self.missed
    }

    pub(crate) fn add_missed(&mut self, count: u64) {
        self.missed = self.missed.saturating_add(count);
    }

    /// Returns the memory that the frame is counted with, in bytes.
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
