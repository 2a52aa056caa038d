//! Messages that arrive in pieces.

use crate::{outbox::MAX_TRANSFERS, settings::Limits, wire::RunHead};
use bytes::Bytes;
use elbus_protocol::{Op, Qos};
use std::collections::HashMap;

/// What the pieces of a message have in common.
#[derive(Debug)]
pub(super) struct LongHead {
    pub(super) op: Op,
    pub(super) qos: Qos,
    pub(super) window: u64,
    pub(super) reference: u64,
    pub(super) sender: Box<str>,
    pub(super) target: Box<str>,
}

impl LongHead {
    pub(super) fn as_run(&self) -> RunHead<'_> {
        RunHead {
            op: self.op,
            qos: self.qos,
            window: self.window,
            reference: self.reference,
            sender: &self.sender,
            target: &self.target,
        }
    }
}

/// Incomplete messages of one node.
#[derive(Debug)]
pub(super) struct Pieces {
    incomplete: HashMap<u32, Incomplete>,
    /// Of what has arrived of them.
    bytes: usize,
    max_bytes: usize,
    max_message_bytes: usize,
}

#[derive(Debug)]
struct Incomplete {
    head: LongHead,
    total: usize,
    /// The encoded message: its length, u32, and what has arrived.
    encoded: Vec<u8>,
}

impl Incomplete {
    /// Returns how many bytes of the message have arrived.
    fn present(&self) -> usize {
        self.encoded.len() - 4
    }
}

/// What a piece results in.
#[derive(Debug)]
pub(super) enum Assembled {
    /// Further pieces are missing.
    Incomplete,
    /// The message is complete: its head, and its encoded form.
    Complete(LongHead, Bytes),
    /// The message is too long, or there are too many: it is refused.
    Refused(LongHead, usize),
    /// The piece belongs to no message, or an earlier one was lost.
    Unknown,
}

impl Pieces {
    pub(super) fn new(limits: &Limits) -> Self {
        Pieces {
            incomplete: HashMap::new(),
            bytes: 0,
            max_bytes: limits.most_untaken(),
            max_message_bytes: limits.max_message_bytes,
        }
    }

    /// The first piece of a message.
    pub(super) fn first(
        &mut self,
        transfer: u32,
        total: usize,
        head: &RunHead<'_>,
        piece: &[u8],
    ) -> Assembled {
        let head = LongHead {
            op: head.op,
            qos: head.qos,
            window: head.window,
            reference: head.reference,
            sender: head.sender.into(),
            target: head.target.into(),
        };
        let is_refused = total > self.max_message_bytes
            || self.incomplete.len() >= 2 * MAX_TRANSFERS
            || self.bytes + piece.len() > self.max_bytes;
        if is_refused {
            return Assembled::Refused(head, total);
        }
        // grows with what arrives: the length is only a claim
        let mut encoded = Vec::with_capacity(4 + 2 * piece.len());
        encoded.extend_from_slice(&(total as u32).to_le_bytes());
        encoded.extend_from_slice(piece);
        self.bytes += piece.len();
        match self.incomplete.insert(transfer, Incomplete { head, total, encoded }) {
            None => Assembled::Incomplete,
            Some(replaced) => {
                self.bytes -= replaced.present();
                Assembled::Unknown
            }
        }
    }

    /// A further piece of a message.
    pub(super) fn next(&mut self, transfer: u32, offset: usize, piece: &[u8]) -> Assembled {
        let Some(message) = self.incomplete.get_mut(&transfer) else { return Assembled::Unknown };
        let present = message.present();
        if offset != present || piece.is_empty() || piece.len() > message.total - present {
            self.remove(transfer);
            return Assembled::Unknown;
        }
        if self.bytes + piece.len() > self.max_bytes {
            let refused = self.remove(transfer);
            return refused.map_or(Assembled::Unknown, |of| Assembled::Refused(of.head, of.total));
        }
        message.encoded.extend_from_slice(piece);
        self.bytes += piece.len();
        if message.present() < message.total {
            return Assembled::Incomplete;
        }
        match self.remove(transfer) {
            Some(message) => Assembled::Complete(message.head, message.encoded.into()),
            None => Assembled::Unknown,
        }
    }

    fn remove(&mut self, transfer: u32) -> Option<Incomplete> {
        let message = self.incomplete.remove(&transfer)?;
        self.bytes -= message.present();
        Some(message)
    }

    /// No further piece of a message follows. Returns whether it was incomplete.
    pub(super) fn drop_message(&mut self, transfer: u32) -> bool {
        self.remove(transfer).is_some()
    }

    /// Returns how many messages are incomplete.
    pub(super) fn len(&self) -> usize {
        self.incomplete.len()
    }
}
