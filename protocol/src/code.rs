//! The result codes of section 1, in one table.

/// A result code of handshake answers and acknowledgements (section 1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum Code {
    /// The operation was done.
    Ok = 0x01,
    /// The target is not registered; for a secondary name, its primary is not registered.
    NotRegistered = 0x71,
    /// The data is invalid: a name, for instance.
    BadData = 0x72,
    /// An input or output error.
    Io = 0x73,
    /// Any other error.
    Other = 0x74,
    /// The greeting or the protocol version is not supported.
    NotSupported = 0x75,
    /// The name is taken.
    Busy = 0x76,
    /// The queue of the target is full.
    NotDelivered = 0x77,
    /// The operation timed out.
    Timeout = 0x78,
    /// The access rules deny it.
    AccessDenied = 0x79,
}

const TABLE: [(Code, &str); 10] = [
    (Code::Ok, "ok"),
    (Code::NotRegistered, "not registered"),
    (Code::BadData, "bad data"),
    (Code::Io, "input or output error"),
    (Code::Other, "other error"),
    (Code::NotSupported, "not supported"),
    (Code::Busy, "busy"),
    (Code::NotDelivered, "not delivered"),
    (Code::Timeout, "timeout"),
    (Code::AccessDenied, "access denied"),
];

impl Code {
    /// Returns the code with this value on the wire; `None` if the protocol does not define it.
    pub fn from_wire(value: u8) -> Option<Self> {
        TABLE.iter().map(|(code, _)| *code).find(|code| *code as u8 == value)
    }

    /// Returns a short text that names the code, for messages and logs.
    pub fn text(self) -> &'static str {
        TABLE.iter().find(|(code, _)| *code == self).map_or("unknown code", |(_, text)| text)
    }

    /// Returns the RPC error code for this bus error: `-32000 - code` (section 7).
    pub fn rpc_code(self) -> i16 {
        -32000 - i16::from(self as u8)
    }
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.text())
    }
}

impl std::error::Error for Code {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_survives_the_wire() {
        for (code, text) in TABLE {
            assert_eq!(Code::from_wire(code as u8), Some(code));
            assert_eq!(code.text(), text);
        }
        assert_eq!(Code::from_wire(0), None);
        assert_eq!(Code::from_wire(0xFE), None);
    }

    #[test]
    fn bus_errors_have_an_rpc_code() {
        assert_eq!(Code::NotRegistered.rpc_code(), -32113);
        assert_eq!(Code::BadData.rpc_code(), -32114);
    }
}
