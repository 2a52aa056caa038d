//! Errors of received frames and of frames to be sent (sections 3 and 4). Owns their texts; does not decide
//! how a broker reacts.

use std::fmt;

/// The text within a frame that an error refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Field {
    /// The target of a message: a client's name.
    Target,
    /// The mask of a broadcast.
    Mask,
    /// The topic of a publication.
    Topic,
    /// The primary name that a publication is limited to.
    Receiver,
    /// One or more topic filters.
    Filters,
    /// The name of the sender of a frame from the broker.
    Sender,
    /// The method of an RPC request.
    Method,
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Field::Target => "target",
            Field::Mask => "mask",
            Field::Topic => "topic",
            Field::Receiver => "receiver",
            Field::Filters => "filters",
            Field::Sender => "sender",
            Field::Method => "method",
        })
    }
}

/// A protocol error in a received frame; the connection cannot continue (section 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FrameError {
    /// The low six bits of the flags are not a known operation.
    UnknownOp {
        /// Their value.
        op: u8,
    },
    /// The first byte of a frame from the broker is not a known kind.
    UnknownKind {
        /// The byte.
        kind: u8,
    },
    /// The declared body is longer than `max_frame_bytes`.
    TooLong {
        /// The declared length, in bytes.
        len: u32,
        /// The limit, in bytes.
        limit: usize,
    },
    /// A text has no terminating NUL.
    MissingNul {
        /// The text.
        field: Field,
    },
    /// A text is not UTF-8.
    NotUtf8 {
        /// The text.
        field: Field,
    },
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrameError::UnknownOp { op } => write!(f, "unknown operation 0x{op:02x}"),
            FrameError::UnknownKind { kind } => write!(f, "unknown frame kind 0x{kind:02x}"),
            FrameError::TooLong { len, limit } => {
                write!(f, "body of {len} bytes exceeds {limit} (max_frame_bytes)")
            }
            FrameError::MissingNul { field } => write!(f, "{field} has no terminating NUL"),
            FrameError::NotUtf8 { field } => write!(f, "{field} is not UTF-8"),
        }
    }
}

impl std::error::Error for FrameError {}

/// A frame or payload that cannot be encoded; nothing has been written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EncodeError {
    /// A text contains a NUL, which would end it early.
    HasNul {
        /// The text.
        field: Field,
    },
    /// The body exceeds its 32-bit length field.
    TooLong {
        /// Its length in bytes; `usize::MAX` if it overflows.
        len: usize,
    },
    /// Filters for an operation without filters, or a target for an operation with filters.
    WrongOp {
        /// The operation.
        op: crate::Op,
    },
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EncodeError::HasNul { field } => write!(f, "{field} contains a NUL"),
            EncodeError::TooLong { len } => write!(f, "body of {len} bytes exceeds {} (u32)", u32::MAX),
            EncodeError::WrongOp { op } => write!(f, "operation {op:?} does not have this kind of body"),
        }
    }
}

impl std::error::Error for EncodeError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_value_limit_and_key() {
        let error = FrameError::TooLong { len: 70_000, limit: 65_536 };
        assert_eq!(error.to_string(), "body of 70000 bytes exceeds 65536 (max_frame_bytes)");
        assert_eq!(FrameError::UnknownOp { op: 0x3f }.to_string(), "unknown operation 0x3f");
        assert_eq!(
            FrameError::MissingNul { field: Field::Receiver }.to_string(),
            "receiver has no terminating NUL"
        );
        assert_eq!(EncodeError::HasNul { field: Field::Topic }.to_string(), "topic contains a NUL");
    }
}
