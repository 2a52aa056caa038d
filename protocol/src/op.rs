//! Operations, frame kinds and the quality-of-service bits (sections 1, 3 and 4).

/// An operation that a client requests: the low six bits of a request's flags (section 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Op {
    /// Publish to a topic.
    Publish = 0x01,
    /// Subscribe to topic filters.
    Subscribe = 0x02,
    /// Remove subscriptions.
    Unsubscribe = 0x03,
    /// Exclude publications that match filters.
    Exclude = 0x04,
    /// Remove exclusions.
    Unexclude = 0x05,
    /// Publish to the subscribers of one primary name.
    PublishFor = 0x06,
    /// Send to one client.
    Message = 0x12,
    /// Send to every client whose name matches a mask.
    Broadcast = 0x13,
}

impl Op {
    /// Returns the operation with this value; `None` is a protocol error.
    #[inline]
    pub fn from_wire(value: u8) -> Option<Self> {
        Some(match value {
            0x01 => Op::Publish,
            0x02 => Op::Subscribe,
            0x03 => Op::Unsubscribe,
            0x04 => Op::Exclude,
            0x05 => Op::Unexclude,
            0x06 => Op::PublishFor,
            0x12 => Op::Message,
            0x13 => Op::Broadcast,
            _ => return None,
        })
    }

    /// Returns whether the body is a list of topic filters instead of a target and a payload.
    #[inline]
    pub fn is_topic_op(self) -> bool {
        matches!(self, Op::Subscribe | Op::Unsubscribe | Op::Exclude | Op::Unexclude)
    }
}

/// The kind of a frame from the broker: its first byte (section 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FrameKind {
    /// Keep-alive, no body.
    Nop = 0x00,
    /// A publication: sender, topic, payload.
    Publish = 0x01,
    /// A one-to-one message: sender, payload.
    Message = 0x12,
    /// A broadcast: sender, payload.
    Broadcast = 0x13,
    /// An acknowledgement: operation id and result code, no body.
    Ack = 0xFE,
}

impl FrameKind {
    /// Returns the kind with this value; `None` is a protocol error.
    #[inline]
    pub fn from_wire(value: u8) -> Option<Self> {
        Some(match value {
            0x00 => FrameKind::Nop,
            0x01 => FrameKind::Publish,
            0x12 => FrameKind::Message,
            0x13 => FrameKind::Broadcast,
            0xFE => FrameKind::Ack,
            _ => return None,
        })
    }
}

/// Quality of service: the top two bits of a request's flags (section 1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Qos(u8);

impl Qos {
    /// No acknowledgement, batched.
    pub const NO: Qos = Qos(0);
    /// Acknowledged.
    pub const PROCESSED: Qos = Qos(1);
    /// Real-time: flushed at once, never delayed.
    pub const REALTIME: Qos = Qos(2);
    /// Real-time and acknowledged.
    pub const REALTIME_PROCESSED: Qos = Qos(3);

    /// Returns the quality of service with the number 0 to 3; ignores higher bits.
    #[inline]
    pub fn from_bits(bits: u8) -> Self {
        Qos(bits & 3)
    }

    /// Returns the number 0 to 3.
    #[inline]
    pub fn bits(self) -> u8 {
        self.0
    }

    /// Returns whether the sender waits for an acknowledgement.
    #[inline]
    pub fn wants_ack(self) -> bool {
        self.0 & 1 != 0
    }

    /// Returns whether the frame is real-time.
    #[inline]
    pub fn is_realtime(self) -> bool {
        self.0 & 2 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_listed_operations_exist() {
        let known = (0u8..=255).filter(|v| Op::from_wire(*v).is_some()).count();
        assert_eq!(known, 8);
        for value in 0u8..=255 {
            if let Some(op) = Op::from_wire(value) {
                assert_eq!(op as u8, value);
            }
            if let Some(kind) = FrameKind::from_wire(value) {
                assert_eq!(kind as u8, value);
            }
        }
    }

    #[test]
    fn qos_bits() {
        assert!(Qos::PROCESSED.wants_ack() && !Qos::PROCESSED.is_realtime());
        assert!(!Qos::REALTIME.wants_ack() && Qos::REALTIME.is_realtime());
        assert_eq!(Qos::from_bits(7), Qos::REALTIME_PROCESSED);
    }
}
