//! Raw blocking clients, one driver per broker. A driver does no more than the load needs, so that the broker
//! is measured and not the client. What differs between brokers is behind [`Driver`].

mod connection;
pub(crate) mod elbus;
pub(crate) mod mqtt;
pub(crate) mod nats;
pub(crate) mod redis;
pub(crate) mod relay;
mod rings;
mod subscription;
mod timeout;

pub(crate) use connection::{Connection, readable};
use subscription::Header;
pub(crate) use subscription::Subscription;
pub(crate) use timeout::TIMEOUT;

use crate::BoxError;

/// Everything of a message but its payload. A sender sends the same envelope again and again.
#[derive(Debug, Clone)]
pub(crate) struct Envelope {
    pub(crate) kind: MessageKind,
    /// Target, mask or topic.
    pub(crate) target: String,
    /// QoS bits, as in the ELBUS protocol.
    pub(crate) qos: u8,
}

/// How a message is routed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MessageKind {
    /// By the name of the one receiver.
    Direct,
    /// By a mask of names.
    Broadcast,
    /// By a topic that the receivers have subscribed to.
    Publish,
}

/// What a client needs to connect.
pub(crate) struct ConnectOptions<'a> {
    pub(crate) address: &'a str,
    pub(crate) name: &'a str,
    /// What to subscribe to. For brokers without client names, names are topics as well.
    pub(crate) subscription: Option<&'a Subscription>,
    /// The length of every payload that will be received.
    pub(crate) payload_bytes: usize,
}

/// What the received bytes begin with.
pub(crate) enum Parsed {
    /// A message: the offset of its payload, and the length of the frame.
    Message { payload_offset: usize, frame_bytes: usize },
    /// Any other frame.
    Other { frame_bytes: usize },
    /// An incomplete frame, of at least this length.
    Incomplete { frame_bytes: usize },
}

/// The bytes that register a client without waiting for replies in between, and the bytes that end the
/// broker's reply.
pub(crate) struct Handshake {
    pub(crate) request: Vec<u8>,
    pub(crate) reply_end: Vec<u8>,
}

/// The protocol of one broker.
pub(crate) trait Driver: Sized + Send {
    /// The offset in a frame of the number that its acknowledgement repeats, if there is one.
    const ACK_ID_OFFSET: Option<usize> = None;

    /// Whether a client has two connections, one per direction.
    const TWO_CONNECTIONS: bool = false;

    /// The frame that keeps an idle connection open; empty if none is needed.
    const PING: &'static [u8] = &[];

    /// Connects and returns once messages to this client will arrive: the driver, the connection to send on,
    /// and the connection to receive from.
    fn connect(options: &ConnectOptions<'_>) -> Result<(Self, Connection, Connection), BoxError>;

    /// The handshake of a client with this name on a new connection.
    fn handshake(connection: &Connection, name: &str) -> Result<Handshake, BoxError>;

    /// Appends a frame to `out` and returns the offset of the payload in it.
    fn encode(&self, out: &mut Vec<u8>, envelope: &Envelope, payload: &[u8]) -> Result<usize, BoxError>;

    /// Parses the beginning of the received bytes.
    fn parse(&self, received: &[u8]) -> Result<Parsed, BoxError>;

    /// Whether the broker acknowledges frames of this QoS.
    fn acknowledges(_qos: u8) -> bool {
        false
    }

    /// Parses complete acknowledgements, of which `next_id` is the first: their length in bytes and their
    /// count. One that does not confirm the delivery is an error.
    fn parse_acks(_received: &[u8], _next_id: u32) -> Result<(usize, u32), BoxError> {
        Ok((0, 0))
    }
}

/// A connected client: both directions.
pub(crate) struct Client<D> {
    pub(crate) sender: Sender<D>,
    pub(crate) receiver: Receiver,
}

/// The direction to the broker.
pub(crate) struct Sender<D> {
    pub(crate) driver: D,
    pub(crate) connection: Connection,
    pending_acks: u64,
    next_ack_id: u32,
    /// An acknowledgement that has arrived in part.
    ack_buffer: Vec<u8>,
}

/// The direction from the broker.
pub(crate) struct Receiver {
    pub(crate) connection: Connection,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    payload_bytes: usize,
}

/// An incomplete frame of up to this length is moved to the front of the buffer.
const MOVE_BYTES: usize = 4096;
const BUFFER_BYTES: usize = 128 * 1024;

impl ConnectOptions<'_> {
    /// The subscription for brokers whose clients have no names.
    fn subscription_or_name(&self) -> Result<Subscription, BoxError> {
        match self.subscription {
            Some(subscription) => Ok(subscription.clone()),
            None => Subscription::to_topics(vec![self.name.to_owned()]),
        }
    }
}

impl<D: Driver> Client<D> {
    pub(crate) fn connect(options: &ConnectOptions<'_>) -> Result<Self, BoxError> {
        let (driver, outgoing, incoming) = D::connect(options)
            .map_err(|error| format!("{} could not connect to {}: {error}", options.name, options.address))?;
        Ok(Client {
            sender: Sender {
                driver,
                connection: outgoing,
                pending_acks: 0,
                next_ack_id: 0,
                ack_buffer: Vec::new(),
            },
            receiver: Receiver {
                connection: incoming,
                buffer: vec![0; BUFFER_BYTES],
                start: 0,
                end: 0,
                payload_bytes: options.payload_bytes,
            },
        })
    }

    /// The connection that messages arrive on.
    pub(crate) fn incoming(&self) -> &Connection {
        &self.receiver.connection
    }

    /// Reads once and passes the payload of every complete message to `accept`.
    #[inline]
    pub(crate) fn receive(
        &mut self,
        accept: impl FnMut(&[u8]) -> Result<(), BoxError>,
    ) -> Result<(), BoxError> {
        self.receiver.receive(&self.sender.driver, accept)
    }
}

impl<D: Driver> Sender<D> {
    /// Sends frames, for which `acks` acknowledgements will come.
    #[inline]
    pub(crate) fn send(&mut self, frames: &[u8], acks: u64) -> Result<(), BoxError> {
        self.pending_acks += acks;
        self.connection.send(frames)
    }

    /// Reads the acknowledgements that have arrived. Does not block.
    pub(crate) fn read_acks(&mut self) -> Result<(), BoxError> {
        while self.pending_acks > 0 && self.connection.try_receive(&mut self.ack_buffer)? {
            let (bytes, count) = D::parse_acks(&self.ack_buffer, self.next_ack_id)?;
            self.ack_buffer.drain(..bytes);
            self.next_ack_id = self.next_ack_id.wrapping_add(count);
            self.pending_acks = self
                .pending_acks
                .checked_sub(u64::from(count))
                .ok_or("the broker sent more acknowledgements than there were messages")?;
        }
        Ok(())
    }

    /// Waits until at most `limit` acknowledgements are pending.
    pub(crate) fn wait_for_acks(&mut self, limit: u64) -> Result<(), BoxError> {
        self.read_acks()?;
        while self.pending_acks > limit {
            self.connection.wait_readable()?;
            self.read_acks()?;
        }
        Ok(())
    }
}

impl Receiver {
    #[inline]
    fn receive<D: Driver>(
        &mut self,
        driver: &D,
        mut accept: impl FnMut(&[u8]) -> Result<(), BoxError>,
    ) -> Result<(), BoxError> {
        self.end += self.connection.receive(&mut self.buffer[self.end..])?;
        loop {
            let received = &self.buffer[self.start..self.end];
            match driver.parse(received)? {
                Parsed::Message { payload_offset, frame_bytes } => {
                    let payload = received.get(payload_offset..payload_offset + self.payload_bytes);
                    accept(payload.ok_or("a message is shorter than the one sent")?)?;
                    self.start += frame_bytes;
                }
                Parsed::Other { frame_bytes } => self.start += frame_bytes,
                Parsed::Incomplete { frame_bytes } => {
                    self.reserve(frame_bytes);
                    return Ok(());
                }
            }
        }
    }

    /// Makes room for a frame of this length at `start`.
    #[inline]
    fn reserve(&mut self, frame_bytes: usize) {
        let buffered = self.end - self.start;
        if buffered <= MOVE_BYTES || self.start + frame_bytes > self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, buffered);
        }
        if frame_bytes > self.buffer.len() {
            self.buffer.resize(frame_bytes + MOVE_BYTES, 0);
        }
    }
}

/// Whether an address is the path of a UNIX socket, by the rule of the broker's command line.
pub(crate) fn is_path(address: &str) -> bool {
    address.contains('/') || [".sock", ".socket", ".ipc"].iter().any(|end| address.ends_with(end))
}

/// Splits an address into the path of the socket and whether clients ask for rings of shared memory there
/// (`?rings`, as in the addresses of the Rust client).
fn without_rings(address: &str) -> (&str, bool) {
    address.strip_suffix("?rings").map_or((address, false), |path| (path, true))
}

/// A message if the frame is complete.
#[inline]
fn message_or_incomplete(received: &[u8], payload_offset: usize, frame_bytes: usize) -> Parsed {
    if received.len() >= frame_bytes {
        Parsed::Message { payload_offset, frame_bytes }
    } else {
        Parsed::Incomplete { frame_bytes }
    }
}

#[cold]
fn unexpected(received: &[u8], expected: &[u8]) -> BoxError {
    format!("received {}, expected {}", received.escape_ascii(), expected.escape_ascii()).into()
}

/// Appends a message whose payload is followed by a line break, and returns the offset of the payload.
fn push_terminated(out: &mut Vec<u8>, header: &str, payload: &[u8]) -> usize {
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(payload);
    out.extend_from_slice(b"\r\n");
    header.len()
}

/// Parses the decimal number that a text begins with.
fn leading_number(text: &[u8]) -> Option<usize> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(text.get(..digits)?).ok()?.parse().ok()
}
