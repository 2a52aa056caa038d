//! One value: topic, sender, payload and mark in one allocation, so that replacing a value touches little
//! memory. Knows no limits.

use std::{fmt, ops::Range, sync::Arc};

/// Mark and lengths, before the texts.
const HEADER_BYTES: usize = 24;
/// The length of an allocation is a multiple of this, so that a value that is a little longer fits.
const STEP: usize = 16;
/// An allocation is replaced if it would stay longer than this many times what it contains.
const MAX_SLACK: usize = 2;

/// The last publication of a topic. Clones share it.
#[derive(Clone)]
pub(crate) struct Value(Arc<[u8]>);

impl Value {
    pub(crate) fn new(topic: &str, sender: &str, payload: &[u8], mark: u64) -> Self {
        let len = HEADER_BYTES + topic.len() + sender.len() + payload.len();
        let mut bytes = Vec::with_capacity(len.next_multiple_of(STEP));
        bytes.extend_from_slice(&mark.to_le_bytes());
        for part in [topic.len(), sender.len(), payload.len()] {
            bytes.extend_from_slice(&(part as u32).to_le_bytes());
        }
        bytes.resize(HEADER_BYTES, 0);
        for part in [topic.as_bytes(), sender.as_bytes(), payload] {
            bytes.extend_from_slice(part);
        }
        bytes.resize(len.next_multiple_of(STEP), 0);
        Value(bytes.into())
    }

    /// Replaces all but the topic, in place unless the value is being sent or its length differs much.
    pub(crate) fn set(&mut self, sender: &str, payload: &[u8], mark: u64) {
        let topic_end = HEADER_BYTES + self.topic_bytes().len();
        let (sender_end, end) = (topic_end + sender.len(), topic_end + sender.len() + payload.len());
        let is_about_as_long = self.0.len() <= MAX_SLACK * end;
        if let Some(bytes) = Arc::get_mut(&mut self.0).filter(|bytes| end <= bytes.len() && is_about_as_long)
        {
            let mut put = |place: Range<usize>, part: &[u8]| {
                if let Some(place) = bytes.get_mut(place) {
                    place.copy_from_slice(part);
                }
            };
            put(0..8, &mark.to_le_bytes());
            put(12..16, &(sender.len() as u32).to_le_bytes());
            put(16..20, &(payload.len() as u32).to_le_bytes());
            put(topic_end..sender_end, sender.as_bytes());
            put(sender_end..end, payload);
            return;
        }
        *self = Value::new(self.topic(), sender, payload, mark);
    }

    fn length(&self, at: usize) -> usize {
        let bytes = self.0.get(at..).and_then(|bytes| bytes.first_chunk());
        bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes) as usize)
    }

    fn part(&self, start: usize, len: usize) -> &[u8] {
        self.0.get(start..).and_then(|bytes| bytes.get(..len)).unwrap_or_default()
    }

    pub(crate) fn mark(&self) -> u64 {
        self.0.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }

    #[inline]
    pub(crate) fn topic_bytes(&self) -> &[u8] {
        self.part(HEADER_BYTES, self.length(8))
    }

    pub(crate) fn topic(&self) -> &str {
        std::str::from_utf8(self.topic_bytes()).unwrap_or_default()
    }

    pub(crate) fn sender(&self) -> &str {
        let sender = self.part(HEADER_BYTES + self.length(8), self.length(12));
        std::str::from_utf8(sender).unwrap_or_default()
    }

    pub(crate) fn payload(&self) -> &[u8] {
        self.part(HEADER_BYTES + self.length(8) + self.length(12), self.length(16))
    }

    /// Returns the length of its allocation in bytes.
    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        self.0.len()
    }

    /// Returns the length of sender and payload in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.length(12) + self.length(16)
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Value of {:?} by {:?}, mark {}", self.topic(), self.sender(), self.mark())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(value: &Value) -> (&str, &str, &[u8], u64) {
        (value.topic(), value.sender(), value.payload(), value.mark())
    }

    #[test]
    fn a_value_is_replaced_in_place_if_it_is_about_as_long_and_not_shared() {
        let mut value = Value::new("plant/é", "sender", b"20.5", 7);
        assert_eq!((parts(&value), value.bytes()), (("plant/é", "sender", &b"20.5"[..], 7), 10));
        let place = value.0.as_ptr();
        for (sender, payload) in [("s", &b""[..]), ("sender", b"123456"), ("", b"1234567890")] {
            value.set(sender, payload, u64::MAX);
            assert_eq!(parts(&value), ("plant/é", sender, payload, u64::MAX));
            assert_eq!(value.0.as_ptr(), place, "{payload:?}");
        }
        let sent = value.clone();
        value.set("t", b"1", 9);
        assert_eq!(parts(&sent), ("plant/é", "", &b"1234567890"[..], u64::MAX));
        assert_eq!(parts(&value), ("plant/é", "t", &b"1"[..], 9));
        value.set("t", &[5; 1000], 10);
        assert_eq!(parts(&value), ("plant/é", "t", &[5; 1000][..], 10));
        value.set("t", b"1", 11);
        assert!(value.0.len() < 100 && parts(&value) == ("plant/é", "t", &b"1"[..], 11));
        assert_eq!(parts(&Value::new("", "", b"", 0)), ("", "", &b""[..], 0));
    }
}
