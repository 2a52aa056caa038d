//! The text protocol of NATS. Client names and topics are both subjects: dots separate their levels, and `>`
//! matches all levels below.

use super::{
    ConnectOptions, Connection, Driver, Envelope, Handshake, Header, Parsed, push_terminated, unexpected,
};
use crate::BoxError;

const CONNECT: &[u8] =
    b"CONNECT {\"verbose\":false,\"pedantic\":false,\"lang\":\"raw\",\"version\":\"1\"}\r\n";

pub(crate) struct Nats {
    header: Header,
    payload_bytes: usize,
}

impl Driver for Nats {
    fn connect(options: &ConnectOptions<'_>) -> Result<(Self, Connection, Connection), BoxError> {
        let connection = Connection::connect(options.address)?;
        let info = connection.read_line()?;
        if !info.starts_with("INFO ") {
            return Err(format!("the broker sent {info}, expected INFO").into());
        }
        let subscription = options.subscription_or_name()?;
        // ids of equal length, so that all headers are equally long
        let (mut request, width) = (CONNECT.to_vec(), subscription.filters.len().to_string().len());
        for (filter, id) in subscription.filters.iter().zip(1..) {
            request.extend_from_slice(format!("SUB {} {id:0width$}\r\n", subject(filter)).as_bytes());
        }
        request.extend_from_slice(b"PING\r\n");
        connection.send(&request)?;
        connection.expect(b"PONG\r\n")?;
        let header = subscription.header(|topic| {
            let payload_bytes = options.payload_bytes;
            Ok(format!("MSG {} {:0width$} {payload_bytes}\r\n", subject(topic), 1).into_bytes())
        })?;
        let receiver = connection.try_clone()?;
        Ok((Nats { header, payload_bytes: options.payload_bytes }, connection, receiver))
    }

    fn handshake(_: &Connection, name: &str) -> Result<Handshake, BoxError> {
        Ok(Handshake {
            request: [CONNECT, format!("SUB {name} 1\r\nPING\r\n").as_bytes()].concat(),
            reply_end: b"PONG\r\n".to_vec(),
        })
    }

    fn encode(&self, out: &mut Vec<u8>, envelope: &Envelope, payload: &[u8]) -> Result<usize, BoxError> {
        let header = format!("PUB {} {}\r\n", subject(&envelope.target), payload.len());
        Ok(push_terminated(out, &header, payload))
    }

    #[inline]
    fn parse(&self, received: &[u8]) -> Result<Parsed, BoxError> {
        if received.starts_with(&self.header.start) {
            return self.header.parse(received, self.payload_bytes, 2);
        }
        let Some(end) = received.iter().position(|byte| *byte == b'\n') else {
            return Ok(Parsed::Incomplete { frame_bytes: received.len() + 1 });
        };
        match received[..end] {
            // PINGs of the server are not answered: it tolerates two, sent two minutes apart
            [b'P' | b'I' | b'+', ..] => Ok(Parsed::Other { frame_bytes: end + 1 }),
            _ => Err(unexpected(&received[..end], &self.header.start)),
        }
    }
}

/// The subject of a topic or a filter.
fn subject(topic: &str) -> String {
    topic.replace('/', ".").replace('#', ">")
}
