//! Calls to clients of a node that have no reply yet, so that they get an error if the node is lost.

use super::{is_call, recent::Recent};
use std::sync::Arc;

/// A call to a client of a node that was lost.
#[derive(Debug)]
pub(crate) struct LostCall {
    pub(crate) caller: Arc<str>,
    pub(crate) window: u64,
    pub(crate) call_id: u32,
}

/// The calls of an outbox. The oldest ones are forgotten beyond a limit.
#[derive(Debug)]
pub(super) struct Calls {
    calls: Recent<LostCall>,
    dropped: u64,
}

impl Calls {
    pub(super) fn new(max: usize) -> Self {
        Calls { calls: Recent::new(max), dropped: 0 }
    }

    /// Adds the calls among messages of a sender.
    pub(super) fn add<'p>(&mut self, sender: &str, window: u64, payloads: impl Iterator<Item = &'p [u8]>) {
        let caller: Arc<str> = Arc::from(sender);
        for payload in payloads.filter(|payload| is_call(payload)) {
            let call_id = call_id(payload);
            let call = LostCall { caller: Arc::clone(&caller), window, call_id };
            self.dropped += self.calls.insert(&(sender, window, call_id), call) as u64;
        }
    }

    /// Removes the calls that these replies end.
    pub(super) fn replied<'p>(&mut self, window: u64, caller: &str, replies: impl Iterator<Item = &'p [u8]>) {
        for reply in replies {
            self.calls.remove(&(caller, window, call_id(reply)));
        }
    }

    /// Takes how many calls were forgotten since the last call.
    pub(super) fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }

    /// Takes all calls.
    pub(super) fn take(&mut self) -> Vec<LostCall> {
        self.calls.take().collect()
    }
}

/// Returns the id of a call or reply.
fn call_id(payload: &[u8]) -> u32 {
    payload.get(1..).and_then(|rest| rest.first_chunk()).map_or(0, |id| u32::from_le_bytes(*id))
}
