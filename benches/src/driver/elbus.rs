//! The protocol of ELBUS and BUS/RT (docs/protocol.md).

use elbus_protocol::{
    Op, Qos,
    delivery::ACK_BYTES,
    handshake::{GREETING, encode_client_greeting, encode_client_greeting_with_rings, encode_client_name},
    request::{PING, encode_filters, encode_request},
};

use super::{ConnectOptions, Connection, Driver, Envelope, Handshake, MessageKind, Parsed};
use crate::BoxError;

const OK: u8 = 1;
const NOP: u8 = 0x00;
const PUBLISH: u8 = 0x01;
const MESSAGE: u8 = 0x12;
const BROADCAST: u8 = 0x13;
const ACK: u8 = 0xFE;

/// Connects and registers the name.
pub(super) fn connect(address: &str, name: &str) -> Result<Connection, BoxError> {
    let connection = Connection::connect(address)?;
    connection.expect(&GREETING)?;
    connection.send(&greeting(&connection))?;
    connection.expect(&[OK])?;
    connection.send(&encode_client_name(name)?)?;
    connection.expect(&[OK])?;
    Ok(connection)
}

fn greeting(connection: &Connection) -> [u8; 3] {
    if connection.asks_for_rings() { encode_client_greeting_with_rings() } else { encode_client_greeting() }
}

/// The handshake of a client that does not wait for replies in between.
pub(super) fn handshake(connection: &Connection, name: &str) -> Result<Handshake, BoxError> {
    Ok(Handshake {
        request: [&greeting(connection)[..], &encode_client_name(name)?].concat(),
        reply_end: [&GREETING[..], &[OK, OK]].concat(),
    })
}

/// Calls method `info` of `.broker` and returns the broker's version.
pub(crate) fn broker_version(address: &str) -> Result<String, BoxError> {
    let connection = connect(address, "load.version")?;
    let mut out = Vec::new();
    encode_request(&mut out, 0, Op::Message, Qos::NO, ".broker", "", b"\x01\x01\0\0\0info\0")?;
    connection.send(&out)?;
    let mut buffer = vec![0; 4096];
    let mut filled = 0;
    loop {
        filled += connection.receive(buffer.get_mut(filled..).unwrap_or_default())?;
        // in msgpack a short string follows its key, the length in the lower 5 bits of the first byte
        let reply = &buffer[..filled];
        let key = b"version";
        let Some(offset) = reply.windows(key.len()).position(|window| window == key) else { continue };
        let Some((length, text)) = reply[offset + key.len()..].split_first() else { continue };
        if let Some(version) = text.get(..usize::from(length & 0x1f)) {
            return Ok(String::from_utf8_lossy(version).into_owned());
        }
    }
}

/// Parses the beginning of what a broker has sent. Every payload is the end of its frame.
#[inline]
pub(super) fn parse(received: &[u8], payload_bytes: usize) -> Result<Parsed, BoxError> {
    let Some(header) = received.first_chunk::<6>() else { return Ok(Parsed::Incomplete { frame_bytes: 6 }) };
    let [kind, l0, l1, l2, l3, _] = *header;
    match kind {
        PUBLISH | MESSAGE | BROADCAST => {
            let frame_bytes = header.len() + u32::from_le_bytes([l0, l1, l2, l3]) as usize;
            if received.len() < frame_bytes {
                return Ok(Parsed::Incomplete { frame_bytes });
            }
            match frame_bytes.checked_sub(payload_bytes) {
                // an announcement of the broker
                _ if kind == PUBLISH && received.get(header.len()) == Some(&b'.') => {
                    Ok(Parsed::Other { frame_bytes })
                }
                Some(payload_offset)
                    if payload_offset > header.len() && received.get(payload_offset - 1) == Some(&0) =>
                {
                    Ok(Parsed::Message { payload_offset, frame_bytes })
                }
                _ => Err(unexpected_message(frame_bytes)),
            }
        }
        NOP | ACK => Ok(Parsed::Other { frame_bytes: ACK_BYTES }),
        _ => Err(unknown_kind(kind)),
    }
}

// functions of their own, so that `parse` stays short enough to be inlined into the receive loop

#[cold]
fn unexpected_message(frame_bytes: usize) -> BoxError {
    format!("received a message of {frame_bytes} bytes that the generator did not send").into()
}

#[cold]
fn unknown_kind(kind: u8) -> BoxError {
    format!("received a frame of unknown kind 0x{kind:02x}").into()
}

pub(crate) struct Elbus {
    payload_bytes: usize,
}

impl Elbus {
    pub(crate) fn new(payload_bytes: usize) -> Self {
        Elbus { payload_bytes }
    }
}

impl Driver for Elbus {
    const ACK_ID_OFFSET: Option<usize> = Some(0);
    const PING: &'static [u8] = &PING;

    fn connect(options: &ConnectOptions<'_>) -> Result<(Self, Connection, Connection), BoxError> {
        let connection = connect(options.address, options.name)?;
        if let Some(subscription) = options.subscription {
            let (mut out, filters) = (Vec::new(), subscription.filters.iter().map(String::as_str));
            encode_filters(&mut out, 1, Op::Subscribe, Qos::PROCESSED, filters)?;
            connection.send(&out)?;
            connection.expect(&[ACK, 1, 0, 0, 0, OK])?;
        }
        let receiver = connection.try_clone()?;
        Ok((Elbus::new(options.payload_bytes), connection, receiver))
    }

    fn handshake(connection: &Connection, name: &str) -> Result<Handshake, BoxError> {
        handshake(connection, name)
    }

    fn encode(&self, out: &mut Vec<u8>, envelope: &Envelope, payload: &[u8]) -> Result<usize, BoxError> {
        let op = match envelope.kind {
            MessageKind::Direct => Op::Message,
            MessageKind::Broadcast => Op::Broadcast,
            MessageKind::Publish => Op::Publish,
        };
        let before = out.len();
        encode_request(out, 0, op, Qos::from_bits(envelope.qos), &envelope.target, "", payload)?;
        Ok(out.len() - before - payload.len())
    }

    #[inline]
    fn parse(&self, received: &[u8]) -> Result<Parsed, BoxError> {
        parse(received, self.payload_bytes)
    }

    fn acknowledges(qos: u8) -> bool {
        Qos::from_bits(qos).wants_ack()
    }

    fn parse_acks(received: &[u8], next: u32) -> Result<(usize, u32), BoxError> {
        let (mut bytes, mut count) = (0, 0u32);
        while let Some([kind, id @ .., code]) = received[bytes..].first_chunk::<ACK_BYTES>() {
            let expected = next.wrapping_add(count);
            match *kind {
                NOP => {}
                ACK if *code == OK && u32::from_le_bytes(*id) == expected => count += 1,
                ACK => {
                    let id = u32::from_le_bytes(*id);
                    return Err(format!(
                        "acknowledgement {id} with code 0x{code:02x}, expected {expected} with code 0x01"
                    )
                    .into());
                }
                kind => {
                    return Err(format!(
                        "received a frame of kind 0x{kind:02x}, expected an acknowledgement"
                    )
                    .into());
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
        assert!(matches!(parse(frame, 2), Ok(Parsed::Message { payload_offset: 10, frame_bytes: 12 })));
        assert!(parse(frame, 3).is_err(), "no NUL before it");
        assert!(matches!(parse(&frame[..9], 2), Ok(Parsed::Incomplete { frame_bytes: 12 })));
        assert!(matches!(parse(&frame[..5], 2), Ok(Parsed::Incomplete { frame_bytes: 6 })));
        let announcement = b"\x01\x0c\0\0\0\0.broker\0t\0xx";
        assert!(matches!(parse(announcement, 2), Ok(Parsed::Other { frame_bytes: 18 })));
        assert!(parse(b"\x77\0\0\0\0\0", 2).is_err());
    }

    #[test]
    fn acknowledgements_must_be_positive_and_in_order() {
        let ack = |id: u8, code: u8| [ACK, id, 0, 0, 0, code];
        let two = [ack(7, 1), ack(8, 1)].concat();
        assert_eq!(Elbus::parse_acks(&two, 7).ok(), Some((12, 2)));
        assert_eq!(Elbus::parse_acks(&two[..11], 7).ok(), Some((6, 1)));
        assert!(Elbus::parse_acks(&two, 8).is_err());
        assert!(Elbus::parse_acks(&ack(7, 0x77), 7).is_err());
    }
}
