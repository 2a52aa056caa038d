//! The handshake, both sides (section 2). Owns the order of its bytes and their validation; never knows
//! clocks, sockets or which names are taken.

use crate::name::NameError;
use crate::{Code, GREETING_BYTE, PROTOCOL_VERSION};
use std::fmt;

const VERSION: [u8; 2] = PROTOCOL_VERSION.to_le_bytes();

/// The first bytes of either side: the greeting byte and the protocol version.
pub const GREETING: [u8; 3] = [GREETING_BYTE, VERSION[0], VERSION[1]];

/// The third byte of a client's greeting that asks for rings, with the size class in its low four bits.
const RINGS_ASKED: u8 = 0x80;
const RINGS_ASKED_LAST: u8 = RINGS_ASKED | 0x0F;

/// The result of a step of the broker's side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress<'a> {
    /// Nothing was consumed; call again with more bytes.
    NeedMore,
    /// The greeting is correct: answer with [`Code::Ok`], then call again with the remaining bytes.
    Greeted {
        /// Bytes of the input that were consumed.
        consumed: usize,
    },
    /// The greeting is correct and asks for rings of shared memory (section 12). The answer is [`Code::Ok`],
    /// or [`Code::NotSupported`] and the end of the connection. Only after
    /// [`ServerHandshake::with_rings`].
    RingsAsked {
        /// Bytes of the input that were consumed.
        consumed: usize,
        /// The size class that the client has asked for, 0 to 15.
        class: u8,
    },
    /// The client requests this name, which ends the handshake. `name::check_name` and the registry check the
    /// name.
    Name {
        /// Bytes of the input that were consumed; requests can follow them.
        consumed: usize,
        /// The name; can be empty.
        name: &'a str,
    },
}

/// Why a handshake cannot continue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The peer uses another protocol or another version.
    BadGreeting {
        /// What it sent.
        got: [u8; 3],
    },
    /// The name is not UTF-8.
    NameNotUtf8,
    /// A client that has asked for rings has sent something behind its name, before it had them.
    AheadOfRings,
    /// The caller continued after the name, which had ended the handshake.
    AlreadyOver,
}

impl HandshakeError {
    /// Returns the broker's answer before it closes the connection.
    pub fn reply(&self) -> Code {
        match self {
            HandshakeError::BadGreeting { .. } => Code::NotSupported,
            HandshakeError::NameNotUtf8 | HandshakeError::AheadOfRings => Code::BadData,
            HandshakeError::AlreadyOver => Code::Other,
        }
    }
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HandshakeError::BadGreeting { got } => {
                write!(f, "unsupported greeting {got:02x?}: expected {GREETING:02x?}")
            }
            HandshakeError::NameNotUtf8 => f.write_str("name is not UTF-8"),
            HandshakeError::AheadOfRings => f.write_str("sent bytes behind the name before it had rings"),
            HandshakeError::AlreadyOver => f.write_str("handshake is already complete"),
        }
    }
}

impl std::error::Error for HandshakeError {}

#[derive(Debug, Clone, Copy, Default)]
enum State {
    #[default]
    Greeting,
    Name,
    Over,
}

/// The broker's side of one connection: reads the greeting, then the name.
#[derive(Debug, Clone, Default)]
pub struct ServerHandshake {
    state: State,
    /// Whether clients can ask for rings.
    has_rings: bool,
}

impl ServerHandshake {
    /// Creates the state of a new connection, whose [`GREETING`] the broker has sent or will send.
    pub fn new() -> Self {
        Self::default()
    }

    /// As [`new`](Self::new), for a connection whose client can ask for rings of shared memory.
    pub fn with_rings() -> Self {
        ServerHandshake { has_rings: true, ..Self::default() }
    }

    /// Parses the bytes that are not consumed yet and takes at most one step.
    ///
    /// Allocates nothing for an announced length: until the complete name is there, the answer is
    /// [`Progress::NeedMore`]. The longest input ever needed is 65,537 bytes.
    pub fn advance<'a>(&mut self, input: &'a [u8]) -> Result<Progress<'a>, HandshakeError> {
        match self.state {
            State::Greeting => {
                let Some(got) = input.first_chunk::<3>() else { return Ok(Progress::NeedMore) };
                if let [GREETING_BYTE, 1, asked @ RINGS_ASKED..=RINGS_ASKED_LAST] = *got
                    && self.has_rings
                {
                    self.state = State::Name;
                    return Ok(Progress::RingsAsked { consumed: GREETING.len(), class: asked & 0x0F });
                }
                parse_server_greeting(got)?;
                self.state = State::Name;
                Ok(Progress::Greeted { consumed: GREETING.len() })
            }
            State::Name => {
                let Some((size, rest)) = input.split_first_chunk::<2>() else {
                    return Ok(Progress::NeedMore);
                };
                let len = usize::from(u16::from_le_bytes(*size));
                let Some(name) = rest.get(..len) else { return Ok(Progress::NeedMore) };
                let name = std::str::from_utf8(name).map_err(|_| HandshakeError::NameNotUtf8)?;
                self.state = State::Over;
                Ok(Progress::Name { consumed: size.len() + len, name })
            }
            State::Over => Err(HandshakeError::AlreadyOver),
        }
    }
}

/// Returns the client's first three bytes if it asks for rings of shared memory; the broker chooses their
/// size.
pub fn encode_client_greeting_with_rings() -> [u8; 3] {
    [GREETING[0], GREETING[1], RINGS_ASKED]
}

/// Returns the client's first three bytes.
pub fn encode_client_greeting() -> [u8; 3] {
    GREETING
}

/// Encodes the client's name after its length. Refuses only a name that exceeds the length field; the broker
/// checks the rest.
pub fn encode_client_name(name: &str) -> Result<Vec<u8>, NameError> {
    let size = u16::try_from(name.len()).map_err(|_| NameError::TooLong { len: name.len() })?;
    let mut out = Vec::with_capacity(2 + name.len());
    out.extend_from_slice(&size.to_le_bytes());
    out.extend_from_slice(name.as_bytes());
    Ok(out)
}

/// Checks a client's view of the broker's greeting: it must be the one that this crate supports.
pub fn parse_server_greeting(greeting: &[u8; 3]) -> Result<(), HandshakeError> {
    if *greeting == GREETING { Ok(()) } else { Err(HandshakeError::BadGreeting { got: *greeting }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greeting_then_name_then_nothing() {
        let mut wire = encode_client_greeting().to_vec();
        wire.extend(encode_client_name("a.b").unwrap());
        wire.extend(b"rest");
        let mut server = ServerHandshake::new();
        assert_eq!(server.advance(&wire[..2]), Ok(Progress::NeedMore));
        assert_eq!(server.advance(&wire), Ok(Progress::Greeted { consumed: 3 }));
        for end in 3..8 {
            assert_eq!(server.advance(&wire[3..end]), Ok(Progress::NeedMore));
        }
        assert_eq!(server.advance(&wire[3..]), Ok(Progress::Name { consumed: 5, name: "a.b" }));
        assert_eq!(server.advance(b"rest"), Err(HandshakeError::AlreadyOver));
    }

    #[test]
    fn refusals_have_a_reply() {
        let error = ServerHandshake::new().advance(&[0xEB, 2, 0]).unwrap_err();
        assert_eq!(error, HandshakeError::BadGreeting { got: [0xEB, 2, 0] });
        assert_eq!(error.reply(), Code::NotSupported);
        assert_eq!(error.to_string(), "unsupported greeting [eb, 02, 00]: expected [eb, 01, 00]");

        let mut server = ServerHandshake::new();
        server.advance(&GREETING).unwrap();
        let error = server.advance(&[2, 0, 0xFF, 0xFE]).unwrap_err();
        assert_eq!((error, error.reply()), (HandshakeError::NameNotUtf8, Code::BadData));
    }

    #[test]
    fn rings_are_asked_for_where_there_are_some() {
        for class in 0..16 {
            let greeting = [0xEB, 1, 0x80 | class];
            let mut server = ServerHandshake::with_rings();
            assert_eq!(server.advance(&greeting), Ok(Progress::RingsAsked { consumed: 3, class }));
            assert_eq!(server.advance(&[1, 0, b'a']), Ok(Progress::Name { consumed: 3, name: "a" }));
            let error = ServerHandshake::new().advance(&greeting).unwrap_err();
            assert_eq!(error.reply(), Code::NotSupported);
        }
        for greeting in [[0xEB, 1, 0x7F], [0xEB, 1, 0x90], [0xEB, 0, 0x80], [0xEA, 1, 0x80]] {
            assert!(ServerHandshake::with_rings().advance(&greeting).is_err());
        }
        let mut plain = ServerHandshake::with_rings();
        assert_eq!(plain.advance(&GREETING), Ok(Progress::Greeted { consumed: 3 }));
        assert_eq!(encode_client_greeting_with_rings(), [0xEB, 1, 0x80]);
    }

    #[test]
    fn a_name_has_at_most_65535_bytes() {
        let longest = encode_client_name(&"n".repeat(65_535)).unwrap();
        assert_eq!((longest.len(), &longest[..2]), (65_537, &[0xFF, 0xFF][..]));
        assert_eq!(encode_client_name(&"n".repeat(65_536)), Err(NameError::TooLong { len: 65_536 }));
        assert_eq!(encode_client_name(""), Ok(vec![0, 0]));
    }
}
