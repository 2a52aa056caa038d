//! The account: what became of every message.

use elbus_bridge::{Counters, ReportKind};
use elbus_protocol::Code;
use std::collections::HashMap;

/// One message.
#[derive(Debug)]
struct Message {
    /// Whether its sender waits for a result.
    is_acknowledged: bool,
    result: Option<Code>,
    deliveries: u32,
    /// The start of its sender's node has ended: nobody waits for the result.
    is_orphan: bool,
    from: (usize, u64),
    to: usize,
}

/// All messages that outboxes have taken.
#[derive(Debug, Default)]
pub(crate) struct Account {
    messages: HashMap<u64, Message>,
    /// Last message of a sender that a receiver has got: by start of the sender's node, sender and receiver.
    order: HashMap<(u64, String, String), u64>,
    next: u64,
    /// What was counted in earlier starts.
    pub(crate) ended: u64,
}

/// Kinds that stand for messages that were not delivered.
const LOSSES: [ReportKind; 8] = [
    ReportKind::MessagesLost,
    ReportKind::MessagesUncertain,
    ReportKind::MessagesDropped,
    ReportKind::DeliveriesDropped,
    ReportKind::NotExported,
    ReportKind::NotImported,
    ReportKind::WindowExceeded,
    ReportKind::NamesOverLimit,
];

/// Returns the messages that were counted as not delivered.
pub(crate) fn losses(counters: &Counters) -> u64 {
    LOSSES.iter().map(|kind| counters.get(*kind)).sum()
}

impl Account {
    /// Returns the number of the next message.
    pub(crate) fn next_id(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// An outbox has taken a message.
    pub(crate) fn taken(&mut self, id: u64, is_acknowledged: bool, from: (usize, u64), to: usize) {
        let message = Message { is_acknowledged, result: None, deliveries: 0, is_orphan: false, from, to };
        self.messages.insert(id, message);
    }

    /// A result has come for the messages of a run.
    pub(crate) fn completed(&mut self, ids: &[u64], code: Code) {
        for id in ids {
            let message = self.messages.get_mut(id).expect("a result belongs to a message");
            assert!(message.is_acknowledged, "message {id} has a result that nobody wants");
            assert_eq!(message.result, None, "message {id} has two results");
            message.result = Some(code);
        }
    }

    /// A receiver has got a message.
    pub(crate) fn delivered(&mut self, id: u64, start: u64, sender: &str, receiver: &str) {
        let message = self.messages.get_mut(&id).expect("what arrives was sent");
        message.deliveries += 1;
        assert_eq!(message.deliveries, 1, "message {id} arrived twice");
        let last = self.order.entry((start, sender.to_owned(), receiver.to_owned())).or_insert(0);
        assert!(id > *last, "message {id} of {sender} arrived at {receiver} after {last}");
        *last = id;
    }

    /// A node has ended: nobody waits for its results, and nobody counts what it had not dispatched.
    pub(crate) fn ended(&mut self, node: usize, start: u64) {
        for message in self.messages.values_mut() {
            let was_there = message.to == node && message.deliveries == 0 && !message.is_acknowledged;
            message.is_orphan |= message.from == (node, start) || was_there;
        }
    }

    /// Checks that every message is accounted for. `counted` messages were counted as not delivered.
    pub(crate) fn check(&self, counted: u64) {
        let mut missing = 0;
        for (id, message) in &self.messages {
            if message.deliveries == 0 && !message.is_acknowledged {
                missing += u64::from(!message.is_orphan);
            }
            if !message.is_acknowledged || message.is_orphan {
                continue;
            }
            let code = message.result.unwrap_or_else(|| panic!("message {id} has no result"));
            match code {
                Code::Ok => {
                    assert_eq!(message.deliveries, 1, "message {id} was acknowledged and did not arrive")
                }
                Code::Timeout => {}
                code => assert_eq!(message.deliveries, 0, "message {id} arrived in spite of {code}"),
            }
        }
        assert!(missing <= counted, "{missing} messages did not arrive and {counted} were counted");
    }

    /// Returns how many messages were taken, acknowledged with success, and delivered.
    pub(crate) fn summary(&self) -> (usize, usize, usize) {
        let good = self.messages.values().filter(|message| message.result == Some(Code::Ok)).count();
        let delivered = self.messages.values().filter(|message| message.deliveries > 0).count();
        (self.messages.len(), good, delivered)
    }
}
