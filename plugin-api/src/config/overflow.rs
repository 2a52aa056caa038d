//! The key `overflow` of transports: what happens to messages for a client whose queue is full. Owns the
//! decision; the transport knows its queue and carries the decision out.

use serde::Deserialize;

/// What happens to messages for a client whose queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overflow {
    /// Its senders are not read until the queue has drained.
    #[default]
    Block,
    /// The client is disconnected.
    Disconnect,
    /// The message is refused with the code `0x77`.
    DropNewest,
}

/// What to do with messages for a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Queue them.
    Take,
    /// Queue them, and report that the queue is over its limit
    /// ([`DeliveryStatus::FULL`](crate::DeliveryStatus::FULL)).
    TakeFull,
    /// Refuse them ([`DeliveryStatus::REFUSED`](crate::DeliveryStatus::REFUSED)).
    Refuse,
    /// Disconnect the client ([`DeliveryStatus::CLOSED`](crate::DeliveryStatus::CLOSED)).
    Disconnect,
}

impl Overflow {
    /// Decides about `added` bytes for a queue of `queued` bytes with a `limit`.
    ///
    /// An empty queue takes messages of any size: they could never be delivered otherwise. Senders that
    /// cannot wait (real-time messages) have a limit of their own, `cannot_wait`, and never make the queue
    /// full.
    ///
    /// # Examples
    /// ```
    /// use elbus_plugin_api::config::{Admission, Overflow};
    ///
    /// assert_eq!(Overflow::Block.admit(90, 20, 100, None), Admission::TakeFull);
    /// assert_eq!(Overflow::DropNewest.admit(90, 20, 100, None), Admission::Refuse);
    /// assert_eq!(Overflow::Block.admit(90, 20, 100, Some(200)), Admission::Take);
    /// ```
    #[inline]
    pub fn admit(self, queued: usize, added: usize, limit: usize, cannot_wait: Option<usize>) -> Admission {
        let total = queued.saturating_add(added);
        if self == Overflow::Block && cannot_wait.is_none() {
            return if total > limit { Admission::TakeFull } else { Admission::Take };
        }
        if queued == 0 || total <= cannot_wait.unwrap_or(limit) {
            return Admission::Take;
        }
        match self {
            Overflow::Disconnect => Admission::Disconnect,
            Overflow::Block | Overflow::DropNewest => Admission::Refuse,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_policy_decides_by_limit_and_by_what_is_queued() {
        use Admission::{Disconnect, Refuse, Take, TakeFull};
        let policies = [Overflow::Block, Overflow::Disconnect, Overflow::DropNewest];
        for (queued, added, cannot_wait, expected) in [
            (0, 100, None, [Take, Take, Take]),
            (0, 101, None, [TakeFull, Take, Take]),
            (1, 99, None, [Take, Take, Take]),
            (1, 100, None, [TakeFull, Disconnect, Refuse]),
            (1, usize::MAX, None, [TakeFull, Disconnect, Refuse]),
            (0, 500, Some(200), [Take, Take, Take]),
            (150, 50, Some(200), [Take, Take, Take]),
            (150, 51, Some(200), [Refuse, Disconnect, Refuse]),
        ] {
            let decided = policies.map(|policy| policy.admit(queued, added, 100, cannot_wait));
            assert_eq!(decided, expected, "{queued} + {added}, {cannot_wait:?}");
        }
    }
}
