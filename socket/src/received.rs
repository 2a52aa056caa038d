//! What a read has found. Owns nothing; both kinds of connections answer with it.

/// Result of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// Nothing has arrived.
    Nothing,
    /// This many bytes.
    Bytes(usize),
    /// The peer will send no more.
    End,
}
