//! The wire format of ELBUS / BUS/RT, version 1, sans I/O.
//!
//! Owns the encoding of handshake, frames in both directions, RPC payloads, names and result codes, the
//! options of subscriptions, the matching of topics, and the syntax of addresses. It never opens a socket,
//! reads a clock or allocates memory for a length that a peer only announces. `docs/protocol.md` is the
//! specification; the code cites its sections.
#![forbid(unsafe_code)]

pub mod address;
mod code;
pub mod delivery;
mod error;
pub mod handshake;
pub mod name;
mod op;
pub mod request;
pub mod rpc;
pub mod subscription;
pub mod topic;

pub use code::Code;
pub use error::{EncodeError, Field, FrameError};
pub use op::{FrameKind, Op, Qos};
pub use request::Limits;

/// First byte of every handshake message (section 2).
pub const GREETING_BYTE: u8 = 0xEB;
/// The protocol version that this crate supports (section 1).
pub const PROTOCOL_VERSION: u16 = 1;
/// The name of the broker itself, as target and as sender (sections 6 to 8).
pub const BROKER_NAME: &str = ".broker";

/// The topic of warnings to every client. Transports subscribe their clients to it (protocol section 6).
pub const WARNINGS_TOPIC: &str = ".broker/warn";
/// The topic on which the broker reports to a client what its subscriptions with options have missed
/// (section 6).
pub const MISSED_TOPIC: &str = ".broker/missed";
/// Maximum length of a topic filter, in bytes. A broker answers a frame with a longer one with
/// [`Code::BadData`] (section 3).
pub const MAX_FILTER_BYTES: usize = 65_535;

/// Maximum total length of all filters of one request, in bytes. A longer body is refused as a whole, without
/// parsing the rest.
pub const MAX_FILTERS_BYTES: usize = 4 << 20;
