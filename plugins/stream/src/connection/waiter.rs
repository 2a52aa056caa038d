//! Who waits for the queue of a connection to drain. Owns no queue.

use elbus_plugin_api::Notifier;

/// Who waits for a queue to drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// Those who send to the client.
    Senders,
    /// The client: it is not read.
    Own,
    /// The broker, which delivers more once it is empty.
    Empty,
}

/// Somebody who waits for a queue to drain.
pub(crate) struct Waiter {
    pub(crate) notifier: Notifier,
    pub(crate) side: Side,
}
