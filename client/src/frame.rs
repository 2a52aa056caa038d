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
    /// Of the sender at the start of the body. Texts in the body are checked to be UTF-8.
    sender_len: u32,
    /// Position of the payload in the body, behind the texts: sender, NUL, and for a publication topic, NUL.
    payload_at: u32,
    body: Bytes,
    /// The texts, if they are not in the body.
    texts: Option<Arc<Texts>>,
    missed: u64,
}

/// The texts of a frame from an in-process connection.
struct Texts {
    sender: Box<str>,
    topic: Box<str>,
}

// a queued frame is moved several times; one cache line is cheaper to move than two
const _: () = assert!(size_of::<Frame>() <= 64);

impl Frame {
    /// Creates a frame from a body as on the wire, whose texts have been checked and whose length is at most
    /// [`u32::MAX`] (protocol section 4).
    #[inline]
    pub(crate) fn from_wire(
        kind: FrameKind,
        realtime: bool,
        body: Bytes,
        sender_len: usize,
        payload_at: usize,
    ) -> Self {
        let (sender_len, payload_at) = (sender_len as u32, payload_at as u32);
        Frame { kind, realtime, sender_len, payload_at, body, texts: None, missed: 0 }
    }

    /// Creates a frame from separate parts.
    #[cfg(feature = "in-process")]
    pub(crate) fn from_parts(
        kind: FrameKind,
        realtime: bool,
        sender: &str,
        topic: &str,
        payload: Bytes,
    ) -> Self {
        let texts = Some(Arc::new(Texts { sender: sender.into(), topic: topic.into() }));
        Frame { kind, realtime, sender_len: 0, payload_at: 0, body: payload, texts, missed: 0 }
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
            None => self.text(0, self.sender_len as usize),
            Some(texts) => &texts.sender,
        }
    }

    /// Returns the name of the sender without the suffix of a secondary client.
    pub fn primary_sender(&self) -> &str {
        elbus_protocol::name::primary_of(self.sender())
    }

    /// Returns the topic of a publication, which can be empty. For other frames it is empty.
    pub fn topic(&self) -> &str {
        match &self.texts {
            None => self.text(self.sender_len as usize + 1, self.payload_at().saturating_sub(1)),
            Some(texts) => &texts.topic,
        }
    }

    /// Returns the payload.
    pub fn payload(&self) -> &[u8] {
        self.body.get(self.payload_at()..).unwrap_or_default()
    }

    /// Returns the payload as [`Bytes`] that share its memory.
    pub fn to_payload(&self) -> Bytes {
        self.body.slice(self.payload_at()..)
    }

    /// Converts the frame to its payload without copying.
    pub fn into_payload(mut self) -> Bytes {
        let payload_at = self.payload_at();
        bytes::Buf::advance(&mut self.body, payload_at);
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
        let texts = self.texts.as_ref().map_or(0, |texts| texts.sender.len() + texts.topic.len());
        self.body.len() + texts + size_of::<Self>()
    }

    /// Copies the body out of the memory that it shares with other frames.
    pub(crate) fn copy_body(&mut self) {
        self.body = Bytes::copy_from_slice(&self.body);
    }

    fn payload_at(&self) -> usize {
        self.payload_at as usize
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

    #[cfg(feature = "in-process")]
    #[test]
    fn texts_outside_the_body_count_as_memory() {
        let (sender, topic) = ("a".repeat(100), "t".repeat(60_000));
        let separate = Frame::from_parts(FrameKind::Publish, false, &sender, &topic, Bytes::new());
        assert!(separate.cost() >= 60_100, "{}", separate.cost());
        let body = Bytes::from([sender.as_bytes(), b"\0", topic.as_bytes(), b"\0"].concat());
        let joined = Frame::from_wire(FrameKind::Publish, false, body, 100, 60_102);
        assert_eq!((joined.sender(), joined.topic()), (separate.sender(), separate.topic()));
        assert_eq!(joined.cost(), separate.cost() + 2, "and two separators");
    }
}
