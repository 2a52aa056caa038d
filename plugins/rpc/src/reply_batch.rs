//! The replies of one run to one caller, in one buffer, so that they cross the plugin boundary as a run.
//! Never sends.

use elbus_plugin_api::{CallError, Payload};
use elbus_protocol::rpc;
use std::cell::Cell;

/// Largest capacity of a kept buffer, in bytes.
const KEEP_BYTES: usize = 256 * 1024;

thread_local! {
    /// A buffer for the next run on this thread. Taken out while in use, since a method can call back into
    /// this code.
    static SPARE: Cell<ReplyBatch> = const { Cell::new(ReplyBatch { bytes: Vec::new(), ends: Vec::new() }) };
}

#[derive(Debug, Default)]
pub(crate) struct ReplyBatch {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl ReplyBatch {
    pub(crate) fn take_spare() -> Self {
        // a thread that is ending has none
        SPARE.try_with(Cell::take).unwrap_or_default()
    }

    pub(crate) fn keep_spare(mut self) {
        self.clear();
        if self.bytes.capacity() <= KEEP_BYTES {
            _ = SPARE.try_with(|spare| spare.set(self));
        }
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn push_result(&mut self, call_id: u32, result: &[u8]) {
        self.push(&[&[rpc::REPLY], &call_id.to_le_bytes(), result]);
    }

    pub(crate) fn push_error(&mut self, call_id: u32, error: &CallError) {
        let code = error.code.to_le_bytes();
        self.push(&[&[rpc::ERROR], &call_id.to_le_bytes(), &code, error.text.as_bytes()]);
    }

    fn push(&mut self, parts: &[&[u8]]) {
        parts.iter().for_each(|part| self.bytes.extend_from_slice(part));
        self.ends.push(self.bytes.len());
    }

    /// Passes the payloads to `f`, if there are any. A single one needs no allocation.
    pub(crate) fn with_payloads<R>(&self, f: impl FnOnce(&[Payload<'_>]) -> R) -> Option<R> {
        match self.ends.as_slice() {
            [] => None,
            [_] => Some(f(&[Payload::from(self.bytes.as_slice())])),
            ends => {
                let starts = std::iter::once(0).chain(ends.iter().copied());
                let payloads: Vec<_> = starts
                    .zip(ends.iter().copied())
                    .map(|(start, end)| Payload::from(self.bytes.get(start..end).unwrap_or_default()))
                    .collect();
                Some(f(&payloads))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use elbus_protocol::rpc::{RpcFrame, decode_rpc};

    #[test]
    fn replies_decode_with_the_protocol_crate() {
        let mut replies = ReplyBatch::default();
        assert_eq!(replies.with_payloads(|_| ()), None);
        replies.push_result(7, b"seven");
        replies.with_payloads(|p| assert_eq!(&*p[0], rpc::encode_reply(7, b"seven"))).unwrap();
        replies.push_result(8, b"");
        replies.push_error(9, &CallError::new(-5, "no"));
        replies
            .with_payloads(|payloads| {
                let frames: Vec<_> = payloads.iter().map(|p| decode_rpc(p).unwrap()).collect();
                let expected = [
                    RpcFrame::Reply { call_id: 7, result: b"seven" },
                    RpcFrame::Reply { call_id: 8, result: b"" },
                    RpcFrame::Error { call_id: 9, code: -5, data: b"no" },
                ];
                assert_eq!(frames, expected);
            })
            .unwrap();
    }

    #[test]
    fn a_large_buffer_is_freed() {
        let mut replies = ReplyBatch::take_spare();
        replies.push_result(1, &vec![0; KEEP_BYTES]);
        replies.keep_spare();
        assert_eq!(ReplyBatch::take_spare().bytes.capacity(), 0);
        let mut replies = ReplyBatch::default();
        replies.push_result(1, &[0; 100]);
        replies.keep_spare();
        let again = ReplyBatch::take_spare();
        assert!(again.bytes.capacity() >= 100 && again.ends.is_empty());
    }
}
