//! WebSocket frames decoded in pieces give the same data, pings and end as those of a decoder that has
//! everything at once.
#![no_main]

use elbus_http::{FrameDecoder, Step};
use libfuzzer_sys::fuzz_target;
use std::time::Instant;

/// How a stream of frames ends.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Open,
    Closed(u16),
    Violated,
}

/// Data, payloads of pings, and the end.
type Outcome = (Vec<u8>, Vec<Vec<u8>>, End);

fn decode(wire: &[u8], piece: usize) -> Outcome {
    let mut decoder = FrameDecoder::new(Instant::now());
    let (mut data, mut pings) = (vec![], vec![]);
    for chunk in wire.chunks(piece) {
        let (mut input, mut at) = (chunk.to_vec(), 0);
        while at < input.len() {
            let count = match decoder.step(&mut input[at..]) {
                Ok(Step::Skip(count)) => count,
                Ok(Step::Data(count)) => {
                    data.extend_from_slice(&input[at..at + count]);
                    count
                }
                Ok(Step::Ping(count)) => {
                    pings.push(decoder.control().to_vec());
                    count
                }
                Ok(Step::Close(code)) => return (data, pings, End::Closed(code.into())),
                Err(violation) => {
                    assert!(!violation.to_string().is_empty());
                    return (data, pings, End::Violated);
                }
            };
            assert!(count > 0 && count <= input.len() - at, "every step uses input");
            at += count;
        }
    }
    (data, pings, End::Open)
}

/// RFC 6455, section 5, without a state between calls.
fn reference(mut wire: &[u8]) -> Outcome {
    let (mut data, mut pings, mut is_fragmented) = (vec![], vec![], false);
    loop {
        let [first, second, rest @ ..] = wire else { return (data, pings, End::Open) };
        let length_bytes = match second & 0x7F {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask_bytes = if second & 0x80 == 0 { 0 } else { 4 };
        if rest.len() < length_bytes + mask_bytes {
            return (data, pings, End::Open);
        }
        let (length, rest) = rest.split_at(length_bytes);
        let (mask, rest) = rest.split_at(mask_bytes);
        let len = match length_bytes {
            0 => u64::from(second & 0x7F),
            _ => length.iter().fold(0, |len, byte| len << 8 | u64::from(*byte)),
        };
        let is_shortest = match length_bytes {
            2 => len >= 126,
            8 => len >= 65_536 && len >> 63 == 0,
            _ => true,
        };
        let (is_final, operation) = (first & 0x80 != 0, first & 0x0F);
        let is_control = operation & 8 != 0;
        let is_valid = first & 0x70 == 0
            && is_shortest
            && mask_bytes == 4
            && match operation {
                0 => is_fragmented,
                2 => !is_fragmented,
                8..=10 => is_final && len <= 125,
                _ => false,
            };
        if !is_valid {
            return (data, pings, End::Violated);
        }
        let available = rest.len().min(usize::try_from(len).unwrap_or(usize::MAX));
        let (payload, rest) = rest.split_at(available);
        let payload = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
        if !is_control {
            is_fragmented = !is_final;
            data.extend(payload);
        } else if (available as u64) < len {
            return (data, pings, End::Open);
        } else if operation == 9 {
            pings.push(payload.collect());
        } else if operation == 8 {
            let payload: Vec<u8> = payload.collect();
            return (data, pings, closed(&payload));
        }
        wire = rest;
    }
}

/// The end of a stream whose close frame has this payload.
fn closed(payload: &[u8]) -> End {
    match payload {
        [] => End::Closed(1000),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            let is_allowed = matches!(code, 1000..=1003 | 1007..=1013 | 3000..=4999);
            match is_allowed && std::str::from_utf8(reason).is_ok() {
                true => End::Closed(code),
                false => End::Violated,
            }
        }
        [_] => End::Violated,
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((size, wire)) = input.split_first() else { return };
    let expected = reference(wire);
    assert_eq!(decode(wire, wire.len().max(1)), expected);
    assert_eq!(decode(wire, usize::from(*size).max(1)), expected);
    assert_eq!(decode(wire, 1), expected);
});
