//! The records of a batch (section 3): what they are and what they contain. Files beside this one encode and
//! decode them.

use super::header::Fields;
use elbus_protocol::{Code, Op, Qos};

/// Bytes of a record before its body: kind and length.
pub const RECORD_HEAD_BYTES: usize = 5;
/// Bytes of the body of a run before the texts.
pub(crate) const RUN_HEAD_BYTES: usize = 23;

pub(super) const BEACON: u8 = 0x01;
pub(super) const RUN: u8 = 0x10;
pub(super) const FIRST_PIECE: u8 = 0x11;
pub(super) const NEXT_PIECE: u8 = 0x12;
pub(super) const DROP_PIECES: u8 = 0x13;
pub(super) const RESULTS: u8 = 0x20;
pub(super) const ARRIVED: u8 = 0x21;
pub(super) const WINDOWS: u8 = 0x22;
pub(super) const NAMES: u8 = 0x30;
pub(super) const INTEREST: u8 = 0x31;
pub(super) const PING: u8 = 0x40;
pub(super) const STOP: u8 = 0x41;

/// What the messages of a run have in common, as it travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunHead<'a> {
    /// Message, broadcast or publication.
    pub op: Op,
    /// The quality of service.
    pub qos: Qos,
    /// By which the receiver returns the bytes of the record, chosen by the sender; 0 for publications.
    pub window: u64,
    /// By which the receiver returns the result, chosen by the sender; 0 if none is wanted.
    pub reference: u64,
    /// Name of the sender at its node.
    pub sender: &'a str,
    /// Name, mask or topic at the destination.
    pub target: &'a str,
}

/// Which part of a list of changes a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ListPart {
    /// A change of the previous version.
    Delta = 0,
    /// The first part of a snapshot: everything that the list has follows.
    First = 1,
    /// A further part.
    Next = 2,
    /// The last part, which can be the first as well.
    Last = 3,
    /// The only part.
    Only = 4,
}

impl ListPart {
    pub(super) fn from_wire(value: u8) -> Option<Self> {
        Some(match value {
            0 => ListPart::Delta,
            1 => ListPart::First,
            2 => ListPart::Next,
            3 => ListPart::Last,
            4 => ListPart::Only,
            _ => return None,
        })
    }

    /// Returns whether the part begins a snapshot.
    pub fn begins(self) -> bool {
        matches!(self, ListPart::First | ListPart::Only)
    }

    /// Returns whether the part ends a snapshot.
    pub fn ends(self) -> bool {
        matches!(self, ListPart::Last | ListPart::Only)
    }
}

/// A record.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Record<'a> {
    /// A node exists. The only record of a beacon.
    Beacon {
        /// Whether the node has its name; otherwise it asks for it.
        has_name: bool,
        /// Beacons since it has its name.
        count: u64,
        /// Epoch of another node that wants the same name; 0 if there is none.
        contender: u64,
    },
    /// Messages of one sender.
    Run {
        /// What they have in common.
        head: RunHead<'a>,
        /// How many they are.
        count: usize,
        /// For each its length, u32, and its bytes; not checked.
        payloads: &'a [u8],
    },
    /// The first piece of a message.
    FirstPiece {
        /// Number of the message, chosen by the sender.
        transfer: u32,
        /// Length of the whole message, in bytes.
        total: u32,
        /// As of a run.
        head: RunHead<'a>,
        /// The beginning of the message.
        piece: &'a [u8],
    },
    /// A further piece of a message.
    NextPiece {
        /// Number of the message.
        transfer: u32,
        /// Bytes of the message before the piece.
        offset: u32,
        /// The piece.
        piece: &'a [u8],
    },
    /// No further piece of a message follows.
    DropPieces {
        /// Number of the message.
        transfer: u32,
    },
    /// Results of runs.
    Results(Results<'a>),
    /// Which batches have arrived.
    Arrived {
        /// Number of the last batch that has arrived or is known to be lost.
        upto: u64,
        /// The lost ones among them, as far as the sender may not know.
        lost: Ranges<'a>,
    },
    /// Bytes of runs that the broker has taken.
    Windows(Windows<'a>),
    /// Names that a node announces.
    Names(Changes<'a>),
    /// Filters that a node announces.
    Interest(Changes<'a>),
    /// A request to answer.
    Ping,
    /// The node stops.
    Stop,
}

/// Results of runs: pairs of reference and code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Results<'a>(pub(super) &'a [u8]);

/// Numbers of batches: pairs of the first one and how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ranges<'a>(pub(super) &'a [u8]);

/// Returned bytes of windows: pairs of window and bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Windows<'a>(pub(super) &'a [u8]);

/// Changes of a list of texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Changes<'a> {
    /// Version of the list after all parts.
    pub version: u64,
    /// Which part.
    pub part: ListPart,
    /// For each change 1 or 0, the length u16, and the text.
    pub(super) entries: &'a [u8],
}

/// Which list a record of changes belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum List {
    /// Names of clients.
    Names,
    /// Filters.
    Interest,
}

pub(super) const RESULT_BYTES: usize = 9;
pub(super) const RANGE_BYTES: usize = 16;
pub(super) const WINDOW_BYTES: usize = 12;

impl Results<'_> {
    /// Returns references and codes.
    pub fn iter(&self) -> impl Iterator<Item = (u64, Code)> {
        self.0.chunks_exact(RESULT_BYTES).filter_map(|entry| {
            let mut fields = Fields(entry);
            Some((fields.u64()?, Code::from_wire(fields.u8()?)?))
        })
    }
}

impl Ranges<'_> {
    /// Returns the first number of each range and how many it has.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        self.0.chunks_exact(RANGE_BYTES).filter_map(|entry| {
            let mut fields = Fields(entry);
            Some((fields.u64()?, fields.u64()?))
        })
    }
}

impl Windows<'_> {
    /// Returns windows and bytes.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u32)> {
        self.0.chunks_exact(WINDOW_BYTES).filter_map(|entry| {
            let mut fields = Fields(entry);
            Some((fields.u64()?, fields.u32()?))
        })
    }
}

impl<'a> Changes<'a> {
    /// Returns the changes: whether the text was added, and the text.
    pub fn iter(&self) -> impl Iterator<Item = (bool, &'a str)> {
        let mut fields = Fields(self.entries);
        std::iter::from_fn(move || change(&mut fields))
    }
}

/// Takes the next change: whether the text was added, and the text.
pub(super) fn change<'a>(fields: &mut Fields<'a>) -> Option<(bool, &'a str)> {
    let is_added = match fields.u8()? {
        0 => false,
        1 => true,
        _ => return None,
    };
    let len = usize::from(fields.u16()?);
    Some((is_added, std::str::from_utf8(fields.bytes(len)?).ok()?))
}
