//! The protocol of ELBUS and BUS/RT (docs/protocol.md).

use elbus_protocol::{
    Op, Qos,
    delivery::ACK_BYTES,
    handshake::{GREETING, encode_client_greeting, encode_client_name},
    request::{PING, encode_filters, encode_request},
};

use super::{Dialect, Hello, Joining, Kind, Letter, Line, Step};
use crate::Failure;

const OK: u8 = 1;
const NOP: u8 = 0x00;
const PUBLISH: u8 = 0x01;
const MESSAGE: u8 = 0x12;
const BROADCAST: u8 = 0x13;
const ACK: u8 = 0xFE;

/// Connects and gives the name.
pub(super) fn shake_hands(address: &str, name: &str) -> Result<Line, Failure> {
    let line = Line::connect(address)?;
    line.expect(&GREETING)?;
    line.send(&encode_client_greeting())?;
    line.expect(&[OK])?;
    line.send(&encode_client_name(name)?)?;
    line.expect(&[OK])?;
    Ok(line)
}

/// The handshake without waiting in between.
pub(super) fn hello(name: &str) -> Result<Hello, Failure> {
    let said = [&encode_client_greeting()[..], &encode_client_name(name)?].concat();
    Ok(Hello { said, answered: [&GREETING[..], &[OK, OK]].concat() })
}

/// The version that a broker tells at `.broker`, method `info`.
pub(crate) fn ask_version(address: &str) -> Result<String, Failure> {
    let line = shake_hands(address, "load.version")?;
    let mut out = Vec::new();
    encode_request(&mut out, 0, Op::Message, Qos::NO, ".broker", "", b"\x01\x01\0\0\0info\0")?;
    line.send(&out)?;
    let mut buffer = vec![0; 4096];
    let mut filled = 0;
    loop {
        filled += line.receive(buffer.get_mut(filled..).unwrap_or_default())?;
        // msgpack: the key, then a short text
        let reply = &buffer[..filled];
        let key = b"version";
        let Some(place) = reply.windows(key.len()).position(|window| window == key) else { continue };
        let Some((head, text)) = reply[place + key.len()..].split_first() else { continue };
        if let Some(version) = text.get(..usize::from(head & 0x1f)) {
            return Ok(String::from_utf8_lossy(version).into_owned());
        }
    }
}

/// Looks at what a broker sends: every payload is the end of its frame.
#[inline]
pub(super) fn step(received: &[u8], payload_bytes: usize) -> Result<Step, Failure> {
    let Some(head) = received.first_chunk::<6>() else { return Ok(Step::Partial { needed: 6 }) };
    let [kind, l0, l1, l2, l3, _] = *head;
    match kind {
        PUBLISH | MESSAGE | BROADCAST => {
            let frame = head.len() + u32::from_le_bytes([l0, l1, l2, l3]) as usize;
            if received.len() < frame {
                return Ok(Step::Partial { needed: frame });
            }
            match frame.checked_sub(payload_bytes) {
                // what the broker announces
                _ if kind == PUBLISH && received.get(head.len()) == Some(&b'.') => Ok(Step::Other { frame }),
                Some(payload) if payload > head.len() && received.get(payload - 1) == Some(&0) => {
                    Ok(Step::Message { payload, frame })
                }
                _ => Err(strange_message(frame)),
            }
        }
        NOP | ACK => Ok(Step::Other { frame: ACK_BYTES }),
        _ => Err(strange_kind(kind)),
    }
}

// apart, so that looking at a message stays short enough to be part of the reader's loop

#[cold]
fn strange_message(frame: usize) -> Failure {
    format!("a message of {frame} bytes is not one that was sent").into()
}

#[cold]
fn strange_kind(kind: u8) -> Failure {
    format!("a frame of kind 0x{kind:02x}, which there is not").into()
}

pub(crate) struct Elbus {
    payload_bytes: usize,
}

impl Dialect for Elbus {
    const NUMBER: Option<usize> = Some(0);
    const PING: &'static [u8] = &PING;

    fn join(joining: &Joining<'_>) -> Result<(Self, Line, Line), Failure> {
        let line = shake_hands(joining.address, joining.name)?;
        if let Some(topic) = joining.topic {
            let mut out = Vec::new();
            encode_filters(&mut out, 1, Op::Subscribe, Qos::PROCESSED, [topic])?;
            line.send(&out)?;
            line.expect(&[ACK, 1, 0, 0, 0, OK])?;
        }
        let twin = line.twin()?;
        Ok((Elbus { payload_bytes: joining.payload_bytes }, line, twin))
    }

    fn hello(name: &str) -> Result<Hello, Failure> {
        hello(name)
    }

    fn encode(&self, out: &mut Vec<u8>, letter: &Letter, payload: &[u8]) -> Result<usize, Failure> {
        let op = match letter.kind {
            Kind::Message => Op::Message,
            Kind::Broadcast => Op::Broadcast,
            Kind::Publish => Op::Publish,
        };
        let before = out.len();
        encode_request(out, 0, op, Qos::from_bits(letter.qos), &letter.to, "", payload)?;
        Ok(out.len() - before - payload.len())
    }

    #[inline]
    fn step(&self, received: &[u8]) -> Result<Step, Failure> {
        step(received, self.payload_bytes)
    }

    fn answers(qos: u8) -> bool {
        Qos::from_bits(qos).wants_ack()
    }

    fn take_answers(received: &[u8], next: u32) -> Result<(usize, u32), Failure> {
        let (mut bytes, mut count) = (0, 0u32);
        while let Some([kind, id @ .., code]) = received[bytes..].first_chunk::<ACK_BYTES>() {
            let due = next.wrapping_add(count);
            match *kind {
                NOP => {}
                ACK if *code == OK && u32::from_le_bytes(*id) == due => count += 1,
                ACK => {
                    return Err(format!(
                        "acknowledgement {id:x?} with code 0x{code:02x} where 0x01 of {due} was due"
                    )
                    .into());
                }
                kind => {
                    return Err(format!("a frame of kind 0x{kind:02x} for a client that only sends").into());
                }
            }
            bytes += ACK_BYTES;
        }
        Ok((bytes, count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_are_found_at_the_end_of_frames() {
        let frame = b"\x12\x06\0\0\0\0a.b\0hi";
        assert!(matches!(step(frame, 2), Ok(Step::Message { payload: 10, frame: 12 })));
        assert!(step(frame, 3).is_err(), "no NUL before it");
        assert!(matches!(step(&frame[..9], 2), Ok(Step::Partial { needed: 12 })));
        assert!(matches!(step(&frame[..5], 2), Ok(Step::Partial { needed: 6 })));
        let announcement = b"\x01\x0c\0\0\0\0.broker\0t\0xx";
        assert!(matches!(step(announcement, 2), Ok(Step::Other { frame: 18 })));
        assert!(step(b"\x77\0\0\0\0\0", 2).is_err());
    }

    #[test]
    fn answers_must_be_in_order_and_good() {
        let ack = |id: u8, code: u8| [ACK, id, 0, 0, 0, code];
        let two = [ack(7, 1), ack(8, 1)].concat();
        assert_eq!(Elbus::take_answers(&two, 7).ok(), Some((12, 2)));
        assert_eq!(Elbus::take_answers(&two[..11], 7).ok(), Some((6, 1)));
        assert!(Elbus::take_answers(&two, 8).is_err());
        assert!(Elbus::take_answers(&ack(7, 0x77), 7).is_err());
    }
}
