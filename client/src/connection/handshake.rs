//! The client's side of the handshake: returns a registered connection to an address. Never sends anything
//! after the handshake.

use elbus_protocol::{
    Code,
    handshake::{
        encode_client_greeting, encode_client_greeting_with_rings, encode_client_name, parse_server_greeting,
    },
};
use elbus_socket::{Queue, Received, ReceivedAnswer, RingDescriptors, Socket};
use std::{io, sync::Arc};

use super::{
    dial::{Dialed, dial},
    ring_refusals,
};
use crate::{address::Address, error::Error, settings::Settings};

/// A registered connection.
pub(crate) struct Registered {
    pub(crate) socket: Arc<Socket>,
    /// The bytes that the broker sent after its answer.
    pub(crate) read_ahead: Vec<u8>,
}

/// Connects and registers. The timeout covers both.
pub(crate) async fn register(
    address: &Address,
    name: &str,
    settings: &Settings,
) -> Result<Registered, Error> {
    let timeout = settings.timeout;
    let attempt = async {
        if let Some(path) = ring_refusals::path_to_ask(address, settings) {
            if let Some(registered) = register_with_rings(address, name, settings).await? {
                return Ok(registered);
            }
            ring_refusals::remember(path);
        }
        let Dialed { socket, tls_fault } = dial(address, settings).await?;
        let registered = handshake(socket, &address.to_string(), name).await;
        // the broker can refuse the client's certificate after the client has completed the TLS handshake
        match (registered, tls_fault) {
            (Err(Error::NotABroker { .. } | Error::Disconnected { .. }), Some(fault)) if fault.is_set() => {
                let (address, reason) = (address.to_string(), fault.to_string());
                Err(Error::Tls { address, reason, source: Some(Arc::new(fault)) })
            }
            (registered, _) => registered,
        }
    };
    tokio::time::timeout(timeout, attempt).await.unwrap_or_else(|_| {
        Err(Error::Timeout { operation: format!("connecting to {address}"), after: timeout })
    })
}

/// Connects and asks for rings. Returns `None` if the broker, or whatever is between, does not pass them.
async fn register_with_rings(
    address: &Address,
    name: &str,
    settings: &Settings,
) -> Result<Option<Registered>, Error> {
    let Dialed { socket, .. } = dial(address, settings).await?;
    let address = address.to_string();
    let mut stream = HandshakeStream { socket: &socket, bytes: Vec::new(), address: &address };
    stream.greet(encode_client_greeting_with_rings(), name).await?;
    for stage in ["greeting", "name"] {
        let (code, rings) = stream.read_answer().await?;
        match (code, stage) {
            _ if code == Code::NotSupported as u8 => return Ok(None),
            _ if code != Code::Ok as u8 => return Err(refused(code, stage, name, &stream)),
            (_, "greeting") => {}
            _ => {
                let Some(rings) = rings else { return Ok(None) };
                if let Err(error) = socket.use_rings(rings) {
                    tracing::warn!(address, %error, "cannot use the rings of the broker; using its socket");
                    return Ok(None);
                }
            }
        }
    }
    Ok(Some(Registered { socket, read_ahead: Vec::new() }))
}

async fn handshake(socket: Arc<Socket>, address: &str, name: &str) -> Result<Registered, Error> {
    let mut stream = HandshakeStream { socket: &socket, bytes: Vec::new(), address };
    stream.greet(encode_client_greeting(), name).await?;
    for stage in ["greeting", "name"] {
        let [code] = stream.read().await?;
        if code != Code::Ok as u8 {
            return Err(refused(code, stage, name, &stream));
        }
    }
    let read_ahead = stream.bytes;
    Ok(Registered { socket, read_ahead })
}

fn refused(code: u8, stage: &str, name: &str, stream: &HandshakeStream<'_>) -> Error {
    let name = name.to_owned();
    match Code::from_wire(code) {
        Some(Code::Busy) => Error::NameTaken { name },
        Some(code @ Code::BadData) => Error::NameRefused { name, code },
        Some(Code::NotRegistered) => Error::NoPrimary { name },
        Some(Code::AccessDenied) => Error::AccessDenied { operation: format!("register as {name:?}") },
        Some(code) => stream.not_a_broker(&format!("refused the {stage} ({code})")),
        None => stream.not_a_broker(&format!("answered the {stage} with 0x{code:02x}")),
    }
}

/// Reads and writes during the handshake.
struct HandshakeStream<'a> {
    socket: &'a Socket,
    /// Received and not yet returned by [`read`](Self::read).
    bytes: Vec<u8>,
    address: &'a str,
}

impl HandshakeStream<'_> {
    /// Reads the greeting of the broker, and sends the client's and its name.
    async fn greet(&mut self, greeting: [u8; 3], name: &str) -> Result<(), Error> {
        let of_broker = self.read().await?;
        parse_server_greeting(&of_broker).map_err(|error| Error::NotABroker {
            address: self.address.to_owned(),
            reason: format!("sent a {error}"),
            source: Some(Arc::new(error)),
        })?;
        let too_long = Error::NameRefused { name: name.to_owned(), code: Code::BadData };
        let mut hello = greeting.to_vec();
        hello.extend(encode_client_name(name).map_err(|_| too_long)?);
        let mut queue = Queue::default();
        queue.push(&hello, 0);
        self.write(&mut queue).await
    }

    /// Reads one byte and the descriptors that came with it. Everything before must have been read.
    async fn read_answer(&mut self) -> Result<(u8, Option<RingDescriptors>), Error> {
        loop {
            self.socket.readable().await.map_err(|error| self.lost(error))?;
            match self.socket.receive_answer().map_err(|error| self.lost(error))? {
                ReceivedAnswer::Nothing => {}
                ReceivedAnswer::Byte(code, rings) => return Ok((code, rings)),
                ReceivedAnswer::End => {
                    return Err(self.not_a_broker("closed the connection during the handshake"));
                }
            }
        }
    }

    async fn read<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        loop {
            if let Some((bytes, rest)) = self.bytes.split_first_chunk::<N>() {
                let (bytes, rest) = (*bytes, rest.to_vec());
                self.bytes = rest;
                return Ok(bytes);
            }
            self.socket.readable().await.map_err(|error| self.lost(error))?;
            let mut buffer = [0; 1024];
            match self.socket.receive(&mut buffer).map_err(|error| self.lost(error))? {
                Received::Nothing => {}
                Received::End => {
                    return Err(self.not_a_broker("closed the connection during the handshake"));
                }
                Received::Bytes(count) => self.bytes.extend(buffer.iter().take(count)),
            }
        }
    }

    async fn write(&self, queue: &mut Queue) -> Result<(), Error> {
        loop {
            let sent = self.socket.send(queue).map_err(|error| self.lost(error))?;
            queue.advance(sent);
            if queue.is_empty() {
                return Ok(());
            }
            let twin = self.socket.writable_twin().map_err(|error| self.lost(error))?;
            twin.writable().await.map_err(|error| self.lost(error))?;
        }
    }

    fn lost(&self, error: io::Error) -> Error {
        Error::disconnected_by(&format!("{} during the handshake", self.address), error)
    }

    fn not_a_broker(&self, reason: &str) -> Error {
        Error::NotABroker { address: self.address.to_owned(), reason: reason.to_owned(), source: None }
    }
}
