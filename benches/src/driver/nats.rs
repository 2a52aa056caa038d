//! The text protocol of NATS. Client names and topics are both subjects.

use super::{
    ConnectOptions, Connection, Driver, Envelope, Handshake, Parsed, message_or_incomplete, push_terminated,
    unexpected,
};
use crate::BoxError;

const CONNECT: &[u8] =
    b"CONNECT {\"verbose\":false,\"pedantic\":false,\"lang\":\"raw\",\"version\":\"1\"}\r\n";

pub(crate) struct Nats {
    /// The header of every message received.
    header: Vec<u8>,
    payload_bytes: usize,
}

impl Driver for Nats {
    fn connect(options: &ConnectOptions<'_>) -> Result<(Self, Connection, Connection), BoxError> {
        let connection = Connection::connect(options.address)?;
        let info = connection.read_line()?;
        if !info.starts_with("INFO ") {
            return Err(format!("the broker sent {info}, expected INFO").into());
        }
        let subject = options.topic.unwrap_or(options.name);
        connection.send(CONNECT)?;
        connection.send(format!("SUB {subject} 1\r\nPING\r\n").as_bytes())?;
        connection.expect(b"PONG\r\n")?;
        let header = format!("MSG {subject} 1 {}\r\n", options.payload_bytes).into_bytes();
        let receiver = connection.try_clone()?;
        Ok((Nats { header, payload_bytes: options.payload_bytes }, connection, receiver))
    }

    fn handshake(name: &str) -> Result<Handshake, BoxError> {
        Ok(Handshake {
            request: [CONNECT, format!("SUB {name} 1\r\nPING\r\n").as_bytes()].concat(),
            reply_end: b"PONG\r\n".to_vec(),
        })
    }

    fn encode(&self, out: &mut Vec<u8>, envelope: &Envelope, payload: &[u8]) -> Result<usize, BoxError> {
        let header = format!("PUB {} {}\r\n", envelope.target, payload.len());
        Ok(push_terminated(out, &header, payload))
    }

    #[inline]
    fn parse(&self, received: &[u8]) -> Result<Parsed, BoxError> {
        if received.starts_with(&self.header) {
            let frame_bytes = self.header.len() + self.payload_bytes + 2;
            return Ok(message_or_incomplete(received, self.header.len(), frame_bytes));
        }
        let Some(end) = received.iter().position(|byte| *byte == b'\n') else {
            return Ok(Parsed::Incomplete { frame_bytes: received.len() + 1 });
        };
        match received[..end] {
            // PINGs of the server are not answered: it tolerates two, sent two minutes apart
            [b'P' | b'I' | b'+', ..] => Ok(Parsed::Other { frame_bytes: end + 1 }),
            _ => Err(unexpected(&received[..end], &self.header)),
        }
    }
}
