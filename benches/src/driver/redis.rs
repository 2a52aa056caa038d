//! RESP, version 2 of the Redis protocol. Client names and topics are both channels. A connection that has
//! subscribed cannot publish, so each client has two.

use super::{
    ConnectOptions, Connection, Driver, Envelope, Handshake, Parsed, leading_number, message_or_incomplete,
    push_terminated, unexpected,
};
use crate::BoxError;

pub(crate) struct Redis {
    /// The header of every message received.
    header: Vec<u8>,
    payload_bytes: usize,
}

impl Driver for Redis {
    const TWO_CONNECTIONS: bool = true;

    fn connect(options: &ConnectOptions<'_>) -> Result<(Self, Connection, Connection), BoxError> {
        let channel = options.topic.unwrap_or(options.name);
        let (outgoing, incoming) =
            (Connection::connect(options.address)?, Connection::connect(options.address)?);
        let Handshake { request, reply_end } = Self::handshake(channel)?;
        incoming.send(&request)?;
        incoming.expect(&reply_end)?;
        let (size, payload_bytes) = (channel.len(), options.payload_bytes);
        let header =
            format!("*3\r\n$7\r\nmessage\r\n${size}\r\n{channel}\r\n${payload_bytes}\r\n").into_bytes();
        Ok((Redis { header, payload_bytes }, outgoing, incoming))
    }

    fn handshake(channel: &str) -> Result<Handshake, BoxError> {
        let size = channel.len();
        Ok(Handshake {
            request: format!("*2\r\n$9\r\nSUBSCRIBE\r\n${size}\r\n{channel}\r\n").into_bytes(),
            reply_end: format!("*3\r\n$9\r\nsubscribe\r\n${size}\r\n{channel}\r\n:1\r\n").into_bytes(),
        })
    }

    fn encode(&self, out: &mut Vec<u8>, envelope: &Envelope, payload: &[u8]) -> Result<usize, BoxError> {
        let (channel, size) = (&envelope.target, payload.len());
        let header = format!("*3\r\n$7\r\nPUBLISH\r\n${}\r\n{channel}\r\n${size}\r\n", channel.len());
        Ok(push_terminated(out, &header, payload))
    }

    #[inline]
    fn parse(&self, received: &[u8]) -> Result<Parsed, BoxError> {
        if received.len() >= self.header.len() && !received.starts_with(&self.header) {
            return Err(unexpected(&received[..received.len().min(80)], &self.header));
        }
        let frame_bytes = self.header.len() + self.payload_bytes + 2;
        Ok(message_or_incomplete(received, self.header.len(), frame_bytes))
    }

    /// Redis replies to each publication with the number of its receivers.
    fn acknowledges(_: u8) -> bool {
        true
    }

    fn parse_acks(received: &[u8], _: u32) -> Result<(usize, u32), BoxError> {
        let (mut bytes, mut count) = (0, 0);
        for line in received.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n")) {
            match line.strip_prefix(b":").and_then(leading_number) {
                Some(1..) => count += 1,
                _ => return Err(format!("reply to a publication: {}", line.escape_ascii()).into()),
            }
            bytes += line.len();
        }
        Ok((bytes, count))
    }
}
