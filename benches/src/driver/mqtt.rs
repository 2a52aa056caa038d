//! MQTT 3.1.1 at QoS 0. Client names and topics are both MQTT topics.

use super::{ConnectOptions, Connection, Driver, Envelope, Handshake, Header, Parsed};
use crate::BoxError;

const CONNECT: u8 = 0x10;
const PUBLISH: u8 = 0x30;
const SUBSCRIBE: u8 = 0x82;
const CONNECTED: [u8; 4] = [0x20, 2, 0, 0];
const SUBSCRIBED: u8 = 0x90;

pub(crate) struct Mqtt {
    header: Header,
    payload_bytes: usize,
}

impl Driver for Mqtt {
    fn connect(options: &ConnectOptions<'_>) -> Result<(Self, Connection, Connection), BoxError> {
        let connection = Connection::connect(options.address)?;
        connection.send(&connect(options.name)?)?;
        connection.expect(&CONNECTED)?;
        let subscription = options.subscription_or_name()?;
        connection.send(&subscribe(&subscription.filters)?)?;
        connection.expect(&subscribed(subscription.filters.len())?)?;
        let receiver = connection.try_clone()?;
        let header = subscription.header(|topic| header(topic, options.payload_bytes))?;
        Ok((Mqtt { header, payload_bytes: options.payload_bytes }, connection, receiver))
    }

    fn handshake(_: &Connection, name: &str) -> Result<Handshake, BoxError> {
        Ok(Handshake {
            request: [connect(name)?, subscribe(&[name.to_owned()])?].concat(),
            reply_end: [&CONNECTED[..], &subscribed(1)?].concat(),
        })
    }

    fn encode(&self, out: &mut Vec<u8>, envelope: &Envelope, payload: &[u8]) -> Result<usize, BoxError> {
        let header = header(&envelope.target, payload.len())?;
        out.extend_from_slice(&header);
        out.extend_from_slice(payload);
        Ok(header.len())
    }

    #[inline]
    fn parse(&self, received: &[u8]) -> Result<Parsed, BoxError> {
        self.header.parse(received, self.payload_bytes, 0)
    }
}

/// A CONNECT packet: protocol level 4, a clean session, no keep-alive.
fn connect(name: &str) -> Result<Vec<u8>, BoxError> {
    let mut body = b"\0\x04MQTT\x04\x02\0\0".to_vec();
    push_text(&mut body, name)?;
    packet(CONNECT, &body, 0)
}

fn subscribe(filters: &[String]) -> Result<Vec<u8>, BoxError> {
    let mut body = vec![0, 1];
    for filter in filters {
        push_text(&mut body, filter)?;
        body.push(0);
    }
    packet(SUBSCRIBE, &body, 0)
}

/// The reply to a subscription to this number of filters.
fn subscribed(filters: usize) -> Result<Vec<u8>, BoxError> {
    packet(SUBSCRIBED, &[&[0, 1][..], &vec![0; filters]].concat(), 0)
}

fn header(topic: &str, payload_bytes: usize) -> Result<Vec<u8>, BoxError> {
    let mut body = Vec::new();
    push_text(&mut body, topic)?;
    packet(PUBLISH, &body, payload_bytes)
}

/// A packet whose last `payload_bytes` bytes the caller appends.
fn packet(kind: u8, body: &[u8], payload_bytes: usize) -> Result<Vec<u8>, BoxError> {
    let mut length = body.len() + payload_bytes;
    if length >= 1 << 28 {
        return Err(format!("a packet of {length} bytes is longer than MQTT allows (268,435,455)").into());
    }
    let mut out = vec![kind];
    loop {
        let continuation = if length >= 128 { 0x80 } else { 0 };
        out.push((length % 128) as u8 | continuation);
        length /= 128;
        if length == 0 {
            break;
        }
    }
    out.extend_from_slice(body);
    Ok(out)
}

fn push_text(out: &mut Vec<u8>, text: &str) -> Result<(), BoxError> {
    out.extend_from_slice(&u16::try_from(text.len())?.to_be_bytes());
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packet_lengths_are_encoded_in_one_to_four_bytes() {
        for (payload_bytes, length) in
            [(0, &[3u8][..]), (124, &[127]), (125, &[128, 1]), (16_381, &[0x80, 0x80, 1])]
        {
            let header = header("t", payload_bytes).unwrap_or_default();
            assert_eq!(header, [&[PUBLISH], length, &[0, 1, b't']].concat());
        }
        assert!(header("t", 1 << 28).is_err());
    }
}
