//! What a sink answers when a run is delivered.

use std::ops::BitOr;

/// The result of [`Sink::deliver`](crate::Sink::deliver): a set of flags.
///
/// # Examples
/// ```
/// use elbus_plugin_api::DeliveryStatus;
///
/// let status = DeliveryStatus::DIRTY | DeliveryStatus::FULL;
/// assert!(status.is_taken() && status.has(DeliveryStatus::FULL));
/// assert!(!DeliveryStatus::REFUSED.is_taken());
/// ```
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeliveryStatus(u8);

impl DeliveryStatus {
    /// The run was taken and needs no flush: no flag is set.
    pub const TAKEN: DeliveryStatus = DeliveryStatus(0);
    /// The caller must call [`flush`](crate::Sink::flush) once before it waits.
    pub const DIRTY: DeliveryStatus = DeliveryStatus(1);
    /// The queue is over its limit: senders should not be read until it has drained.
    pub const FULL: DeliveryStatus = DeliveryStatus(2);
    /// The run was not taken: the connection is closed.
    pub const CLOSED: DeliveryStatus = DeliveryStatus(4);
    /// The run was not taken: the queue is too full for it.
    pub const REFUSED: DeliveryStatus = DeliveryStatus(8);
    /// The run was not taken: the sink takes no [mixed runs](crate::Sink::deliver_mixed).
    pub const UNSUPPORTED: DeliveryStatus = DeliveryStatus(16);

    /// Returns whether all flags of `other` are set.
    #[inline]
    pub fn has(self, other: DeliveryStatus) -> bool {
        self.0 & other.0 == other.0
    }

    /// Returns the flags without those of `other`.
    #[inline]
    #[must_use]
    pub fn without(self, other: DeliveryStatus) -> DeliveryStatus {
        DeliveryStatus(self.0 & !other.0)
    }

    /// Returns whether the run was taken.
    #[inline]
    pub fn is_taken(self) -> bool {
        self.0 & (Self::CLOSED.0 | Self::REFUSED.0 | Self::UNSUPPORTED.0) == 0
    }

    /// Returns the flags as a number, as they cross the boundary.
    #[inline]
    pub fn bits(self) -> u8 {
        self.0
    }

    /// Creates the flags from a number, see [`bits`](Self::bits).
    #[inline]
    pub fn from_bits(bits: u8) -> Self {
        DeliveryStatus(bits)
    }
}

impl BitOr for DeliveryStatus {
    type Output = DeliveryStatus;

    #[inline]
    fn bitor(self, other: DeliveryStatus) -> DeliveryStatus {
        DeliveryStatus(self.0 | other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_combine_and_tell_whether_a_run_was_taken() {
        let both = DeliveryStatus::DIRTY | DeliveryStatus::FULL;
        assert!(both.has(DeliveryStatus::DIRTY) && both.has(DeliveryStatus::FULL) && both.is_taken());
        assert_eq!(both.without(DeliveryStatus::DIRTY), DeliveryStatus::FULL);
        let not_taken = [DeliveryStatus::CLOSED, DeliveryStatus::REFUSED, DeliveryStatus::UNSUPPORTED];
        assert!(not_taken.iter().all(|status| !status.is_taken()));
    }
}
