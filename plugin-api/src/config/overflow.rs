//! The key `overflow` of transports: what happens to messages for a client whose queue is full. Owns the
//! decision; the transport knows its queue and carries the decision out.

use serde::{Deserialize, Serialize};

/// What happens to messages for a client whose queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overflow {
    /// Its senders are not read until the queue has drained.
    #[default]
    Block,
    /// The client is disconnected.
    Disconnect,
    /// The message is refused with the code `0x77`.
    DropNewest,
    /// Publications never hold their senders: while the client is slow, the newest one of each topic waits,
    /// as with `$latest` in front of a filter. Everything else is as with [`Block`](Self::Block). The broker
    /// does this for a transport that [says so](crate::ClientInfo::overflow).
    Latest,
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
        if matches!(self, Overflow::Block | Overflow::Latest) && cannot_wait.is_none() {
            return if total > limit { Admission::TakeFull } else { Admission::Take };
        }
        if queued == 0 || total <= cannot_wait.unwrap_or(limit) {
            return Admission::Take;
        }
        match self {
            Overflow::Disconnect => Admission::Disconnect,
            Overflow::Block | Overflow::DropNewest | Overflow::Latest => Admission::Refuse,
        }
    }

    /// Returns the number by which it crosses the boundary, 1 to 4.
    pub(crate) fn number(self) -> u32 {
        match self {
            Overflow::Block => 1,
            Overflow::Disconnect => 2,
            Overflow::DropNewest => 3,
            Overflow::Latest => 4,
        }
    }

    /// Returns the policy with this number; `None` if there is none, or none that is known.
    pub(crate) fn from_number(number: u32) -> Option<Self> {
        [Overflow::Block, Overflow::Disconnect, Overflow::DropNewest, Overflow::Latest]
            .into_iter()
            .find(|overflow| overflow.number() == number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_policy_decides_by_limit_and_by_what_is_queued() {
        use Admission::{Disconnect, Refuse, Take, TakeFull};
        assert_eq!(Overflow::from_number(0).or(Overflow::from_number(5)), None);
        let policies = [Overflow::Block, Overflow::Disconnect, Overflow::DropNewest];
        assert!(policies.iter().all(|policy| Overflow::from_number(policy.number()) == Some(*policy)));
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
            assert_eq!(Overflow::Latest.admit(queued, added, 100, cannot_wait), decided[0], "as block");
        }
    }
}
