//! Why clients leave, in kinds that can be counted.

/// Why the registration of a client ends. The text for people is set beside it, see
/// [`Client::set_close_reason`](crate::Client::set_close_reason).
///
/// # Examples
/// ```
/// use elbus_plugin_api::Departure;
///
/// assert_eq!(Departure::Stalled.key(), "stalled");
/// assert_eq!(Departure::from_number(Departure::Stalled as u32), Departure::Stalled);
/// assert_eq!(Departure::from_number(1000), Departure::Other);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
#[repr(u32)]
pub enum Departure {
    /// None of the others.
    Other = 0,
    /// The client has closed its connection.
    #[default]
    Closed = 1,
    /// The connection has failed, or was reset.
    Broken = 2,
    /// The client has exceeded a time limit of the protocol.
    Late = 3,
    /// The client took nothing from its queue for too long.
    Stalled = 4,
    /// The queue of the client was over its limit, and such clients are disconnected.
    Overflow = 5,
    /// A frame of the client was wrong.
    Protocol = 6,
    /// There was no memory for what the client sends.
    Memory = 7,
    /// The client had to make room for another one.
    Evicted = 8,
    /// The plugin that has registered it has stopped, failed or was reloaded.
    Stopped = 9,
    /// Another client has taken its name.
    Replaced = 10,
    /// An administrator has disconnected it.
    Kicked = 11,
    /// Access rules do not admit it any more.
    Denied = 12,
    /// It was a secondary, and its primary has left.
    PrimaryLeft = 13,
}

impl Departure {
    /// All kinds, in the order of their numbers.
    pub const ALL: [Departure; 14] = [
        Departure::Other,
        Departure::Closed,
        Departure::Broken,
        Departure::Late,
        Departure::Stalled,
        Departure::Overflow,
        Departure::Protocol,
        Departure::Memory,
        Departure::Evicted,
        Departure::Stopped,
        Departure::Replaced,
        Departure::Kicked,
        Departure::Denied,
        Departure::PrimaryLeft,
    ];

    /// Returns the kind with this number; [`Other`](Departure::Other) if there is none.
    pub fn from_number(number: u32) -> Self {
        Self::ALL.into_iter().find(|kind| *kind as u32 == number).unwrap_or(Departure::Other)
    }

    /// Returns its name in statistics: one word in lower case.
    pub fn key(self) -> &'static str {
        match self {
            Departure::Other => "other",
            Departure::Closed => "closed",
            Departure::Broken => "broken",
            Departure::Late => "late",
            Departure::Stalled => "stalled",
            Departure::Overflow => "overflow",
            Departure::Protocol => "protocol",
            Departure::Memory => "memory",
            Departure::Evicted => "evicted",
            Departure::Stopped => "stopped",
            Departure::Replaced => "replaced",
            Departure::Kicked => "kicked",
            Departure::Denied => "denied",
            Departure::PrimaryLeft => "primary_left",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_positions_and_keys_differ() {
        for (number, kind) in Departure::ALL.into_iter().enumerate() {
            assert_eq!((kind as usize, Departure::from_number(number as u32)), (number, kind));
            assert_eq!(Departure::ALL.iter().filter(|other| other.key() == kind.key()).count(), 1);
        }
    }
}
