//! The messages of a run, as slices of the batch that they arrived in.

use bytes::Bytes;

/// The messages of a run. They keep the batch that they arrived in; nothing is copied or allocated for a
/// message.
#[derive(Debug, Clone)]
pub struct Payloads {
    /// For each message its length, u32, and its bytes. Checked when it was decoded.
    encoded: Bytes,
    count: usize,
}

impl Payloads {
    /// Returns the messages that `encoded` consists of; `None` if it is not well-formed or has another number
    /// of messages.
    pub(crate) fn decode(encoded: Bytes, count: usize) -> Option<Self> {
        let mut rest = &*encoded;
        for _ in 0..count {
            rest = split(rest)?.1;
        }
        rest.is_empty().then_some(Payloads { encoded, count })
    }

    /// Returns the bytes of the messages and their lengths.
    pub(crate) fn encoded_len(&self) -> usize {
        self.encoded.len()
    }

    /// Copies the messages, so that they no longer keep the batch that they arrived in.
    pub(crate) fn copy(&mut self) {
        self.encoded = Bytes::copy_from_slice(&self.encoded);
    }

    /// Returns the number of messages.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Returns whether there are no messages, which is never the case in a [`Delivery`](crate::Delivery).
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Returns the messages in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> + Clone {
        let mut rest = &*self.encoded;
        std::iter::from_fn(move || {
            let (payload, behind) = split(rest)?;
            rest = behind;
            Some(payload)
        })
    }

    /// Returns the only message as bytes that can be kept without copying them; `None` if there are several.
    pub fn only(&self) -> Option<Bytes> {
        (self.count == 1).then(|| self.encoded.slice(4..))
    }
}

/// Returns the first message and what is behind it.
fn split(encoded: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = encoded.split_first_chunk::<4>()?;
    rest.split_at_checked(usize::try_from(u32::from_le_bytes(*len)).ok()?)
}
