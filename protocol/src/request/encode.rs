//! Making the frames a client sends, one at a time; never checks what the broker has to judge.

use super::{REQUEST_HEADER_BYTES, prefix::find_nul};
use crate::{EncodeError, Field, Op, Qos};

/// A ping, as it should be sent: the broker looks at byte 4 alone.
pub const PING: [u8; REQUEST_HEADER_BYTES] = [0; REQUEST_HEADER_BYTES];

/// Appends a ping.
pub fn encode_ping(out: &mut Vec<u8>) {
    out.extend_from_slice(&PING);
}

/// Appends a whole frame of an operation with target and payload. The receiver counts for [`Op::PublishFor`]
/// alone. After an error `out` is as before.
pub fn encode_request(
    out: &mut Vec<u8>,
    op_id: u32,
    op: Op,
    qos: Qos,
    target: &str,
    receiver: &str,
    payload: &[u8],
) -> Result<(), EncodeError> {
    encode_request_head(out, op_id, op, qos, target, receiver, payload.len())?;
    out.extend_from_slice(payload);
    Ok(())
}

/// Appends everything but the payload, which the caller sends behind it: `payload_len` bytes.
pub fn encode_request_head(
    out: &mut Vec<u8>,
    op_id: u32,
    op: Op,
    qos: Qos,
    target: &str,
    receiver: &str,
    payload_len: usize,
) -> Result<(), EncodeError> {
    let (field, receiver) = match op {
        Op::Message => (Field::Target, None),
        Op::Broadcast => (Field::Mask, None),
        Op::Publish => (Field::Topic, None),
        Op::PublishFor => (Field::Topic, Some(receiver)),
        Op::Subscribe | Op::Unsubscribe | Op::Exclude | Op::Unexclude => {
            return Err(EncodeError::WrongOp { op });
        }
    };
    no_nul(target, field)?;
    no_nul(receiver.unwrap_or_default(), Field::Receiver)?;
    let prefix = target.len() + 1 + receiver.map_or(0, |receiver| receiver.len() + 1);
    let header = header(op_id, op, qos, prefix.saturating_add(payload_len))?;
    out.reserve(header.len() + prefix);
    out.extend_from_slice(&header);
    out.extend_from_slice(target.as_bytes());
    out.push(0);
    if let Some(receiver) = receiver {
        out.extend_from_slice(receiver.as_bytes());
        out.push(0);
    }
    Ok(())
}

/// Appends a whole frame of a topic operation. No filters give an empty body, which means the empty filter.
/// After an error `out` is as before.
pub fn encode_filters<'f>(
    out: &mut Vec<u8>,
    op_id: u32,
    op: Op,
    qos: Qos,
    filters: impl IntoIterator<Item = &'f str>,
) -> Result<(), EncodeError> {
    if !op.is_topic_op() {
        return Err(EncodeError::WrongOp { op });
    }
    let mut body = vec![];
    for (index, filter) in filters.into_iter().enumerate() {
        no_nul(filter, Field::Filters)?;
        if index > 0 {
            body.push(0);
        }
        body.extend_from_slice(filter.as_bytes());
    }
    out.extend_from_slice(&header(op_id, op, qos, body.len())?);
    out.extend_from_slice(&body);
    Ok(())
}

fn header(op_id: u32, op: Op, qos: Qos, len: usize) -> Result<[u8; REQUEST_HEADER_BYTES], EncodeError> {
    let [l0, l1, l2, l3] = u32::try_from(len).map_err(|_| EncodeError::TooLong { len })?.to_le_bytes();
    let [i0, i1, i2, i3] = op_id.to_le_bytes();
    Ok([i0, i1, i2, i3, op as u8 | qos.bits() << 6, l0, l1, l2, l3])
}

#[inline]
fn no_nul(text: &str, field: Field) -> Result<(), EncodeError> {
    match find_nul(text.as_bytes()) {
        None => Ok(()),
        Some(_) => Err(EncodeError::HasNul { field }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_section_3() {
        let mut out = vec![];
        encode_request(&mut out, 7, Op::Message, Qos::REALTIME_PROCESSED, "b.c", "unused", b"hi").unwrap();
        assert_eq!(out, b"\x07\0\0\0\xD2\x06\0\0\0b.c\0hi");
        out.clear();
        encode_request(&mut out, 1, Op::PublishFor, Qos::NO, "t", "r", b"").unwrap();
        assert_eq!(out, b"\x01\0\0\0\x06\x04\0\0\0t\0r\0");
        out.clear();
        encode_filters(&mut out, 2, Op::Subscribe, Qos::PROCESSED, ["a", "b/#"]).unwrap();
        assert_eq!(out, b"\x02\0\0\0\x42\x05\0\0\0a\0b/#");
        out.clear();
        encode_filters(&mut out, 2, Op::Exclude, Qos::NO, []).unwrap();
        encode_ping(&mut out);
        assert_eq!(out, b"\x02\0\0\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0");
    }

    #[test]
    fn what_cannot_be_framed_writes_nothing() {
        let mut out = vec![];
        let nul = encode_request(&mut out, 1, Op::Broadcast, Qos::NO, "a\0", "", b"");
        assert_eq!(nul, Err(EncodeError::HasNul { field: Field::Mask }));
        let nul = encode_request(&mut out, 1, Op::PublishFor, Qos::NO, "a", "\0", b"");
        assert_eq!(nul, Err(EncodeError::HasNul { field: Field::Receiver }));
        let nul = encode_filters(&mut out, 1, Op::Subscribe, Qos::NO, ["ok", "a\0b"]);
        assert_eq!(nul, Err(EncodeError::HasNul { field: Field::Filters }));
        let long = encode_request_head(&mut out, 1, Op::Message, Qos::NO, "a", "", usize::MAX);
        assert_eq!(long, Err(EncodeError::TooLong { len: usize::MAX }));
        let long = encode_request_head(&mut out, 1, Op::Message, Qos::NO, "a", "", u32::MAX as usize);
        assert_eq!(long, Err(EncodeError::TooLong { len: u32::MAX as usize + 2 }));
        let wrong = encode_request(&mut out, 1, Op::Subscribe, Qos::NO, "a", "", b"");
        assert_eq!(wrong, Err(EncodeError::WrongOp { op: Op::Subscribe }));
        let wrong = encode_filters(&mut out, 1, Op::Message, Qos::NO, ["a"]);
        assert_eq!(wrong, Err(EncodeError::WrongOp { op: Op::Message }));
        assert!(out.is_empty());
    }
}
