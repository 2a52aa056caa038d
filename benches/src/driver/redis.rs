//! RESP, version 2 of the Redis protocol. Client names and topics are both channels, filters are patterns. A
//! connection that has subscribed cannot publish, so each client has two.

use super::{
    ConnectOptions, Connection, Driver, Envelope, Handshake, Header, Parsed, leading_number, push_terminated,
};
use crate::BoxError;

pub(crate) struct Redis {
    header: Header,
    payload_bytes: usize,
}

impl Driver for Redis {
    const TWO_CONNECTIONS: bool = true;

    fn connect(options: &ConnectOptions<'_>) -> Result<(Self, Connection, Connection), BoxError> {
        let subscription = options.subscription_or_name()?;
        let (outgoing, incoming) =
            (Connection::connect(options.address)?, Connection::connect(options.address)?);
        for (filter, count) in subscription.filters.iter().zip(1..) {
            let Handshake { request, reply_end } = subscribe(filter, count);
            incoming.send(&request)?;
            incoming.expect(&reply_end)?;
        }
        let payload_bytes = options.payload_bytes;
        let header = subscription.header(|channel| {
            let kind = match subscription.filters.first().and_then(|filter| pattern(filter)) {
                Some(pattern) => format!("*4\r\n$8\r\npmessage\r\n${}\r\n{pattern}", pattern.len()),
                None => "*3\r\n$7\r\nmessage".to_owned(),
            };
            let size = channel.len();
            Ok(format!("{kind}\r\n${size}\r\n{channel}\r\n${payload_bytes}\r\n").into_bytes())
        })?;
        Ok((Redis { header, payload_bytes }, outgoing, incoming))
    }

    fn handshake(_: &Connection, channel: &str) -> Result<Handshake, BoxError> {
        Ok(subscribe(channel, 1))
    }

    fn encode(&self, out: &mut Vec<u8>, envelope: &Envelope, payload: &[u8]) -> Result<usize, BoxError> {
        let (channel, size) = (&envelope.target, payload.len());
        let header = format!("*3\r\n$7\r\nPUBLISH\r\n${}\r\n{channel}\r\n${size}\r\n", channel.len());
        Ok(push_terminated(out, &header, payload))
    }

    #[inline]
    fn parse(&self, received: &[u8]) -> Result<Parsed, BoxError> {
        self.header.parse(received, self.payload_bytes, 2)
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

/// The pattern for a filter that ends with `#`; `None` for a channel.
fn pattern(filter: &str) -> Option<String> {
    filter.strip_suffix('#').map(|levels| format!("{levels}*"))
}

/// The command that subscribes to a filter as the connection's subscription number `count`, and its reply.
fn subscribe(filter: &str, count: usize) -> Handshake {
    let (command, reply, name) = match pattern(filter) {
        Some(pattern) => ("$10\r\nPSUBSCRIBE", "$10\r\npsubscribe", pattern),
        None => ("$9\r\nSUBSCRIBE", "$9\r\nsubscribe", filter.to_owned()),
    };
    let size = name.len();
    Handshake {
        request: format!("*2\r\n{command}\r\n${size}\r\n{name}\r\n").into_bytes(),
        reply_end: format!("*3\r\n{reply}\r\n${size}\r\n{name}\r\n:{count}\r\n").into_bytes(),
    }
}
