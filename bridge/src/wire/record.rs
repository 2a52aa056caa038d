//! The records of a batch (section 3): encoding into a batch, decoding without copying.

use super::header::Fields;
use elbus_protocol::{Code, Op, Qos, request::MAX_RUN};

/// Bytes of a record before its body: kind and length.
pub const RECORD_HEAD_BYTES: usize = 5;
/// Bytes of the body of a run before the texts.
pub(crate) const RUN_HEAD_BYTES: usize = 23;

const BEACON: u8 = 0x01;
const RUN: u8 = 0x10;
const FIRST_PIECE: u8 = 0x11;
const NEXT_PIECE: u8 = 0x12;
const DROP_PIECES: u8 = 0x13;
const RESULTS: u8 = 0x20;
const ARRIVED: u8 = 0x21;
const WINDOWS: u8 = 0x22;
const NAMES: u8 = 0x30;
const INTEREST: u8 = 0x31;
const PING: u8 = 0x40;
const STOP: u8 = 0x41;

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
    fn from_wire(value: u8) -> Option<Self> {
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
pub struct Results<'a>(&'a [u8]);

/// Numbers of batches: pairs of the first one and how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ranges<'a>(&'a [u8]);

/// Returned bytes of windows: pairs of window and bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Windows<'a>(&'a [u8]);

/// Changes of a list of texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Changes<'a> {
    /// Version of the list after all parts.
    pub version: u64,
    /// Which part.
    pub part: ListPart,
    /// For each change 1 or 0, the length u16, and the text.
    entries: &'a [u8],
}

const RESULT_BYTES: usize = 9;
const RANGE_BYTES: usize = 16;
const WINDOW_BYTES: usize = 12;

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

fn change<'a>(fields: &mut Fields<'a>) -> Option<(bool, &'a str)> {
    let is_added = match fields.u8()? {
        0 => false,
        1 => true,
        _ => return None,
    };
    let len = usize::from(fields.u16()?);
    Some((is_added, std::str::from_utf8(fields.bytes(len)?).ok()?))
}

/// Takes the next record from the beginning of `rest`; `None` if it is malformed.
pub fn next_record<'a>(rest: &mut &'a [u8]) -> Option<Record<'a>> {
    let mut fields = Fields(rest);
    let kind = fields.u8()?;
    let len = usize::try_from(fields.u32()?).ok()?;
    let body = fields.bytes(len)?;
    *rest = fields.0;
    decode(kind, Fields(body))
}

fn decode(kind: u8, mut body: Fields<'_>) -> Option<Record<'_>> {
    let record = match kind {
        RUN => {
            let (head, count) = run_head(&mut body)?;
            let count = usize::from(count);
            if !(1..=MAX_RUN).contains(&count) {
                return None;
            }
            return Some(Record::Run { head, count, payloads: body.0 });
        }
        FIRST_PIECE => {
            let (transfer, total) = (body.u32()?, body.u32()?);
            let (head, count) = run_head(&mut body)?;
            let fits = body.0.len() < usize::try_from(total).ok()?;
            return (count == 1 && fits).then_some(Record::FirstPiece {
                transfer,
                total,
                head,
                piece: body.0,
            });
        }
        NEXT_PIECE => {
            return Some(Record::NextPiece { transfer: body.u32()?, offset: body.u32()?, piece: body.0 });
        }
        RESULTS => {
            let results = Results(body.0);
            let is_valid = body.0.len().is_multiple_of(RESULT_BYTES)
                && results.iter().count() == body.0.len() / RESULT_BYTES;
            return is_valid.then_some(Record::Results(results));
        }
        ARRIVED => {
            let upto = body.u64()?;
            let is_valid = body.0.len().is_multiple_of(RANGE_BYTES);
            return is_valid.then_some(Record::Arrived { upto, lost: Ranges(body.0) });
        }
        WINDOWS => {
            let is_valid = body.0.len().is_multiple_of(WINDOW_BYTES);
            return is_valid.then_some(Record::Windows(Windows(body.0)));
        }
        NAMES => return Some(Record::Names(changes(body)?)),
        INTEREST => return Some(Record::Interest(changes(body)?)),
        DROP_PIECES => Record::DropPieces { transfer: body.u32()? },
        BEACON => Record::Beacon {
            has_name: match body.u8()? {
                0 => false,
                1 => true,
                _ => return None,
            },
            count: body.u64()?,
            contender: body.u64()?,
        },
        PING => Record::Ping,
        STOP => Record::Stop,
        _ => return None,
    };
    body.is_empty().then_some(record)
}

fn changes(mut body: Fields<'_>) -> Option<Changes<'_>> {
    let version = body.u64()?;
    let part = ListPart::from_wire(body.u8()?)?;
    let entries = body.0;
    let mut fields = Fields(entries);
    while !fields.is_empty() {
        change(&mut fields)?;
    }
    Some(Changes { version, part, entries })
}

fn run_head<'a>(body: &mut Fields<'a>) -> Option<(RunHead<'a>, u16)> {
    let flags = body.u8()?;
    let op =
        Op::from_wire(flags & 0x3F).filter(|op| matches!(op, Op::Message | Op::Broadcast | Op::Publish))?;
    let (window, reference) = (body.u64()?, body.u64()?);
    let (sender, target) = (usize::from(body.u16()?), usize::from(body.u16()?));
    let count = body.u16()?;
    let sender = std::str::from_utf8(body.bytes(sender)?).ok()?;
    let target = std::str::from_utf8(body.bytes(target)?).ok()?;
    let head = RunHead { op, qos: Qos::from_bits(flags >> 6), window, reference, sender, target };
    Some((head, count))
}

/// Appends the head of a record, whose length [`end_record`] writes. Returns where the record begins.
fn begin_record(out: &mut Vec<u8>, kind: u8) -> usize {
    let at = out.len();
    out.extend_from_slice(&[kind, 0, 0, 0, 0]);
    at
}

/// Writes the length of the record that begins at `at` and ends with `out`.
pub(crate) fn end_record(out: &mut [u8], at: usize) {
    let len = out.len().saturating_sub(at + RECORD_HEAD_BYTES) as u32;
    if let Some(room) = out.get_mut(at + 1..at + RECORD_HEAD_BYTES) {
        room.copy_from_slice(&len.to_le_bytes());
    }
}

fn append_run_head(out: &mut Vec<u8>, head: &RunHead<'_>, count: u16) {
    out.push(head.op as u8 | head.qos.bits() << 6);
    out.extend_from_slice(&head.window.to_le_bytes());
    out.extend_from_slice(&head.reference.to_le_bytes());
    // callers have checked both texts
    out.extend_from_slice(&(head.sender.len() as u16).to_le_bytes());
    out.extend_from_slice(&(head.target.len() as u16).to_le_bytes());
    out.extend_from_slice(&count.to_le_bytes());
    out.extend_from_slice(head.sender.as_bytes());
    out.extend_from_slice(head.target.as_bytes());
}

/// Appends the beginning of a run without messages. Sender and target have at most 65,535 bytes. Messages and
/// [`end_run`] follow.
pub(crate) fn begin_run(out: &mut Vec<u8>, head: &RunHead<'_>) -> usize {
    let at = begin_record(out, RUN);
    append_run_head(out, head, 0);
    at
}

/// Appends one message of a run.
#[inline]
pub(crate) fn append_payload(out: &mut Vec<u8>, payload: &[u8]) {
    out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    out.extend_from_slice(payload);
}

/// Writes length and count of the run that begins at `at` and ends with `out`.
pub(crate) fn end_run(out: &mut [u8], at: usize, count: u16) {
    end_record(out, at);
    const COUNT_AT: usize = RECORD_HEAD_BYTES + RUN_HEAD_BYTES - 2;
    if let Some(room) = out.get_mut(at + COUNT_AT..at + COUNT_AT + 2) {
        room.copy_from_slice(&count.to_le_bytes());
    }
}

/// Appends a record. Runs of several messages are encoded by `begin_run` in the outbox.
pub fn append_record(out: &mut Vec<u8>, record: &Record<'_>) {
    let at = match record {
        Record::Beacon { has_name, count, contender } => {
            let at = begin_record(out, BEACON);
            out.push((*has_name).into());
            out.extend_from_slice(&count.to_le_bytes());
            out.extend_from_slice(&contender.to_le_bytes());
            at
        }
        Record::Run { head, count, payloads } => {
            let at = begin_record(out, RUN);
            append_run_head(out, head, *count as u16);
            out.extend_from_slice(payloads);
            at
        }
        Record::FirstPiece { transfer, total, head, piece } => {
            let at = begin_record(out, FIRST_PIECE);
            out.extend_from_slice(&transfer.to_le_bytes());
            out.extend_from_slice(&total.to_le_bytes());
            append_run_head(out, head, 1);
            out.extend_from_slice(piece);
            at
        }
        Record::NextPiece { transfer, offset, piece } => {
            let at = begin_record(out, NEXT_PIECE);
            out.extend_from_slice(&transfer.to_le_bytes());
            out.extend_from_slice(&offset.to_le_bytes());
            out.extend_from_slice(piece);
            at
        }
        Record::DropPieces { transfer } => {
            let at = begin_record(out, DROP_PIECES);
            out.extend_from_slice(&transfer.to_le_bytes());
            at
        }
        Record::Results(Results(entries)) => {
            let at = begin_record(out, RESULTS);
            out.extend_from_slice(entries);
            at
        }
        Record::Arrived { upto, lost: Ranges(ranges) } => {
            let at = begin_record(out, ARRIVED);
            out.extend_from_slice(&upto.to_le_bytes());
            out.extend_from_slice(ranges);
            at
        }
        Record::Windows(Windows(entries)) => {
            let at = begin_record(out, WINDOWS);
            out.extend_from_slice(entries);
            at
        }
        Record::Names(changes) => append_changes(out, NAMES, changes),
        Record::Interest(changes) => append_changes(out, INTEREST, changes),
        Record::Ping => begin_record(out, PING),
        Record::Stop => begin_record(out, STOP),
    };
    end_record(out, at);
}

fn append_changes(out: &mut Vec<u8>, kind: u8, changes: &Changes<'_>) -> usize {
    let at = begin_record(out, kind);
    out.extend_from_slice(&changes.version.to_le_bytes());
    out.push(changes.part as u8);
    out.extend_from_slice(changes.entries);
    at
}

/// Appends results.
pub(crate) fn append_results(out: &mut Vec<u8>, results: &[(u64, Code)]) {
    let at = begin_record(out, RESULTS);
    for (reference, code) in results {
        out.extend_from_slice(&reference.to_le_bytes());
        out.push(*code as u8);
    }
    end_record(out, at);
}

/// Appends which batches have arrived.
pub(crate) fn append_arrived(out: &mut Vec<u8>, upto: u64, lost: impl Iterator<Item = (u64, u64)>) {
    let at = begin_record(out, ARRIVED);
    out.extend_from_slice(&upto.to_le_bytes());
    for (first, count) in lost {
        out.extend_from_slice(&first.to_le_bytes());
        out.extend_from_slice(&count.to_le_bytes());
    }
    end_record(out, at);
}

/// Appends returned bytes of windows.
pub(crate) fn append_windows(out: &mut Vec<u8>, windows: &[(u64, u32)]) {
    let at = begin_record(out, WINDOWS);
    for (window, bytes) in windows {
        out.extend_from_slice(&window.to_le_bytes());
        out.extend_from_slice(&bytes.to_le_bytes());
    }
    end_record(out, at);
}

/// Which list a record of changes belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum List {
    /// Names of clients.
    Names,
    /// Filters.
    Interest,
}

/// Appends changes of a list. Texts have at most 65,535 bytes.
pub(crate) fn append_list<'t>(
    out: &mut Vec<u8>,
    list: List,
    version: u64,
    part: ListPart,
    changes: impl Iterator<Item = (bool, &'t str)>,
) {
    let at = begin_record(out, if list == List::Names { NAMES } else { INTEREST });
    out.extend_from_slice(&version.to_le_bytes());
    out.push(part as u8);
    for (is_added, text) in changes {
        out.push(is_added.into());
        out.extend_from_slice(&(text.len() as u16).to_le_bytes());
        out.extend_from_slice(text.as_bytes());
    }
    end_record(out, at);
}
