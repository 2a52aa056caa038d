//! Decodes records of a batch without copying. Whatever is malformed is `None`.

use super::{
    header::Fields,
    record::{
        ARRIVED, BEACON, Changes, DROP_PIECES, FIRST_PIECE, INTEREST, ListPart, NAMES, NEXT_PIECE, PING,
        RANGE_BYTES, RESULT_BYTES, RESULTS, RUN, Ranges, Record, Results, RunHead, STOP, WINDOW_BYTES,
        WINDOWS, Windows, change,
    },
};
use elbus_protocol::{Op, Qos, request::MAX_RUN};

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
