//! Frames as a broker would deliver them, for the byte relay, which does not transform what it passes on. The
//! relay finds the receivers by the names of the clients.

use elbus_protocol::{
    FrameKind,
    delivery::{DeliveryHead, encode_head},
};

use super::{ConnectOptions, Connection, Driver, Envelope, Handshake, MessageKind, Parsed, elbus};
use crate::BoxError;

pub(crate) struct Relay {
    name: String,
    payload_bytes: usize,
}

impl Driver for Relay {
    fn connect(options: &ConnectOptions<'_>) -> Result<(Self, Connection, Connection), BoxError> {
        let connection = elbus::connect(options.address, options.name)?;
        let receiver = connection.try_clone()?;
        let driver = Relay { name: options.name.to_owned(), payload_bytes: options.payload_bytes };
        Ok((driver, connection, receiver))
    }

    fn handshake(connection: &Connection, name: &str) -> Result<Handshake, BoxError> {
        elbus::handshake(connection, name)
    }

    fn encode(&self, out: &mut Vec<u8>, envelope: &Envelope, payload: &[u8]) -> Result<usize, BoxError> {
        let (kind, topic) = match envelope.kind {
            MessageKind::Direct => (FrameKind::Message, ""),
            MessageKind::Broadcast => (FrameKind::Broadcast, ""),
            MessageKind::Publish => (FrameKind::Publish, &*envelope.target),
        };
        let head = DeliveryHead { kind, realtime: envelope.qos & 2 != 0, sender: &self.name, topic };
        encode_head(out, &head, payload.len())?;
        out.extend_from_slice(payload);
        Ok(head.prefix_len())
    }

    #[inline]
    fn parse(&self, received: &[u8]) -> Result<Parsed, BoxError> {
        elbus::parse(received, self.payload_bytes)
    }
}
