//! The key `overflow` of transports: what happens to messages for a client whose queue is full.

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
