//! Makes and checks the payloads of a stage. Each carries its number if its size allows, so that a missing or
//! reordered message is found.

use bytes::{Bytes, BytesMut};
use std::mem::size_of;

/// The fill byte. As the first byte it marks the payload as no RPC frame, so that clients that serve calls
/// ignore it.
const FILL: u8 = 0xEE;
/// The number follows the first byte.
const NUMBER: std::ops::Range<usize> = 1..1 + size_of::<u64>();
/// Payloads are cut from blocks of about this size in bytes: one allocation serves many.
const BLOCK: usize = 64 * 1024;

/// Makes and checks the payloads of one task.
pub(super) struct Payloads {
    size: usize,
    expected: Vec<u8>,
    block: BytesMut,
}

impl Payloads {
    pub(super) fn new(size: usize) -> Self {
        Payloads { size, expected: vec![FILL; size], block: BytesMut::new() }
    }

    /// Returns the payload with this number.
    pub(super) fn make(&mut self, number: u64) -> Bytes {
        if self.block.capacity() < self.size {
            self.block.reserve(self.size.max(BLOCK));
        }
        self.number(number);
        self.block.extend_from_slice(&self.expected);
        self.block.split().freeze()
    }

    /// Checks that this is the payload with that number.
    ///
    /// # Errors
    /// How it differs.
    pub(super) fn check(&mut self, payload: &[u8], number: u64) -> Result<(), String> {
        self.number(number);
        if payload == self.expected {
            return Ok(());
        }
        if payload.len() != self.size {
            return Err(format!("received a payload of {} bytes, expected {}", payload.len(), self.size));
        }
        match payload.get(NUMBER).and_then(|bytes| bytes.first_chunk()) {
            Some(bytes) if u64::from_le_bytes(*bytes) != number => {
                Err(format!("received message {}, expected message {number}", u64::from_le_bytes(*bytes)))
            }
            _ => Err(format!("the payload of message {number} has changed")),
        }
    }

    fn number(&mut self, number: u64) {
        if let Some(bytes) = self.expected.get_mut(NUMBER) {
            bytes.copy_from_slice(&number.to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_identified_by_its_number() {
        let (mut sender, mut receiver) = (Payloads::new(100), Payloads::new(100));
        for number in [0, 1, 77, u64::MAX] {
            let payload = sender.make(number);
            assert_eq!(payload.len(), 100);
            assert_eq!(receiver.check(&payload, number), Ok(()));
        }
        let checked = receiver.check(&sender.make(5), 4);
        assert_eq!(checked, Err("received message 5, expected message 4".to_owned()));
    }

    #[test]
    fn a_changed_or_truncated_payload_is_an_error() {
        let mut payloads = Payloads::new(20);
        let mut changed = payloads.make(3).to_vec();
        changed[19] = 0;
        assert_eq!(payloads.check(&changed, 3), Err("the payload of message 3 has changed".to_owned()));
        let cut = payloads.check(&changed[..19], 3);
        assert_eq!(cut, Err("received a payload of 19 bytes, expected 20".to_owned()));
    }

    #[test]
    fn payloads_too_short_for_a_number_have_their_size() {
        for size in [0, 1, 8] {
            let mut payloads = Payloads::new(size);
            let payload = payloads.make(9);
            assert_eq!(payload.len(), size);
            assert_eq!(payloads.check(&payload, 10), Ok(()), "no number fits into {size} bytes");
        }
        assert!(Payloads::new(9).check(&Payloads::new(9).make(9), 10).is_err());
    }

    #[test]
    fn payloads_are_not_rpc_frames() {
        assert_eq!(Payloads::new(1).make(0).first(), Some(&FILL));
        assert!(![0x00, 0x01, 0x11, 0x12].contains(&FILL));
    }
}
