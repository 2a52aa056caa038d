//! Encodes records into a batch.

use super::record::{
    ARRIVED, BEACON, Changes, DROP_PIECES, FIRST_PIECE, INTEREST, List, ListPart, NAMES, NEXT_PIECE, PING,
    RECORD_HEAD_BYTES, RESULTS, RUN, RUN_HEAD_BYTES, Ranges, Record, Results, RunHead, STOP, WINDOWS,
    Windows,
};
use elbus_protocol::Code;

/// Appends the head of a record, whose length [`end_record`] writes. Returns where the record begins.
fn begin_record(out: &mut Vec<u8>, kind: u8) -> usize {
    let at = out.len();
    out.extend_from_slice(&[kind, 0, 0, 0, 0]);
    at
}

/// Writes the length of the record that begins at `at` and ends with `out`.
fn end_record(out: &mut [u8], at: usize) {
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
