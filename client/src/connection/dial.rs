//! From an address to a registered connection. Owns dialling and the client's side of the handshake; never what is
//! sent afterwards.

use elbus_protocol::{
    Code,
    handshake::{encode_client_greeting, encode_client_name, parse_server_greeting},
};
use elbus_socket::{Queue, Received, Socket};
use std::{
    io,
    os::fd::OwnedFd,
    path::Path,
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio::net::{TcpStream, UnixStream};

use crate::{Address, Error, settings::Settings};

/// How soon an address whose queue of connections is full is tried again.
const RETRY: Duration = Duration::from_millis(5);

/// A registered connection.
pub(crate) struct Registered {
    pub(crate) socket: Arc<Socket>,
    /// What the broker sent behind its answer.
    pub(crate) ahead: Vec<u8>,
}

/// Why a connection that was secured has ended, once it has.
type Fault = Arc<OnceLock<io::Error>>;

/// Connects and registers, within the timeout in all.
pub(crate) async fn register(
    address: &Address,
    name: &str,
    settings: &Settings,
) -> Result<Registered, Error> {
    let timeout = settings.timeout;
    let attempt = async {
        let (socket, fault) = dial(address, settings).await?;
        let registered = shake_hands(socket, &address.to_string(), name).await;
        // the broker judges the client's certificate when the client is done already
        match (registered, fault.as_ref().and_then(|fault| fault.get())) {
            (Err(Error::NotABroker { .. } | Error::Disconnected { .. }), Some(fault)) => {
                Err(Error::Tls { address: address.to_string(), what: fault.to_string() })
            }
            (registered, _) => registered,
        }
    };
    tokio::time::timeout(timeout, attempt)
        .await
        .unwrap_or_else(|_| Err(Error::Timeout { what: format!("connecting to {address}"), after: timeout }))
}

async fn dial(address: &Address, settings: &Settings) -> Result<(Arc<Socket>, Option<Fault>), Error> {
    let nobody = |error| Error::NoBroker { address: address.to_string(), source: Arc::new(error) };
    let (socket, fault) = match address {
        Address::Unix(path) | Address::Default(path) => {
            let stream = dial_unix(path).await.map_err(nobody)?;
            check_peer(address, &stream).map_err(nobody)?;
            let stream = stream.into_std().map_err(nobody)?;
            (OwnedFd::from(stream), None)
        }
        Address::Tcp(place) | Address::Tls(place) => {
            let stream = dial_tcp(place, settings.timeout).await.map_err(nobody)?;
            secure(stream, address, place, settings).await?
        }
    };
    let socket = Socket::new(socket).map_err(nobody)?;
    Ok((Arc::new(socket), fault))
}

#[cfg(feature = "tls")]
async fn secure(
    stream: TcpStream,
    address: &Address,
    place: &str,
    settings: &Settings,
) -> Result<(OwnedFd, Option<Fault>), Error> {
    if settings.tls.is_none() && matches!(address, Address::Tcp(_)) {
        return plain(stream, address);
    }
    let tls = settings.tls.clone().unwrap_or_default();
    let (socket, fault) = tls.secure(stream, place).await?;
    Ok((socket, Some(fault)))
}

#[cfg(not(feature = "tls"))]
async fn secure(
    stream: TcpStream,
    address: &Address,
    place: &str,
    _: &Settings,
) -> Result<(OwnedFd, Option<Fault>), Error> {
    if let Address::Tls(_) = address {
        let what = "this program was built without it (cargo feature tls of elbus-client)".to_owned();
        return Err(Error::Tls { address: place.to_owned(), what });
    }
    plain(stream, address)
}

fn plain(stream: TcpStream, address: &Address) -> Result<(OwnedFd, Option<Fault>), Error> {
    match stream.into_std() {
        Ok(stream) => Ok((stream.into(), None)),
        Err(error) => Err(Error::NoBroker { address: address.to_string(), source: Arc::new(error) }),
    }
}

async fn dial_tcp(place: &str, timeout: Duration) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(place).await?;
    stream.set_nodelay(true)?;
    // a peer that vanished is noticed although nothing is being sent but pings
    #[cfg(target_os = "linux")]
    rustix::net::sockopt::set_tcp_user_timeout(
        &stream,
        u32::try_from(timeout.saturating_mul(2).as_millis()).unwrap_or(u32::MAX),
    )?;
    Ok(stream)
}

async fn dial_unix(path: &Path) -> io::Result<UnixStream> {
    loop {
        match UnixStream::connect(path).await {
            // the broker is there, and has not yet accepted those before us
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => tokio::time::sleep(RETRY).await,
            result => return result,
        }
    }
}

/// A socket that was found where anybody could have put it must be served by somebody who is trusted.
fn check_peer(address: &Address, stream: &UnixStream) -> io::Result<()> {
    let uid = stream.peer_cred()?.uid();
    if address.may_be_served_by(uid) {
        return Ok(());
    }
    let message = format!(
        "user {uid} serves it, who is neither root nor the user of this program; if that is right, give the address explicitly"
    );
    Err(io::Error::new(io::ErrorKind::PermissionDenied, message))
}

async fn shake_hands(socket: Arc<Socket>, address: &str, name: &str) -> Result<Registered, Error> {
    let mut answers = Answers { socket: &socket, bytes: Vec::new(), address };
    let greeting = answers.next().await?;
    parse_server_greeting(&greeting).map_err(|error| answers.stranger(&format!("sent a {error}")))?;
    let long_name = Error::NameRefused { name: name.to_owned(), code: Code::BadData };
    let mut hello = encode_client_greeting().to_vec();
    hello.extend(encode_client_name(name).map_err(|_| long_name)?);
    let mut queue = Queue::default();
    queue.push(&hello, 0);
    answers.write(&mut queue).await?;
    for stage in ["greeting", "name"] {
        let [code] = answers.next().await?;
        if code != Code::Ok as u8 {
            return Err(refused(code, stage, name, &answers));
        }
    }
    let ahead = answers.bytes;
    Ok(Registered { socket, ahead })
}

fn refused(code: u8, stage: &str, name: &str, answers: &Answers<'_>) -> Error {
    let name = name.to_owned();
    match Code::from_wire(code) {
        Some(Code::Busy) => Error::NameTaken { name },
        Some(code @ Code::BadData) => Error::NameRefused { name, code },
        Some(Code::NotRegistered) => Error::NoPrimary { name },
        Some(Code::AccessDenied) => Error::AccessDenied { what: format!("registering as {name:?}") },
        Some(code) => answers.stranger(&format!("refused the {stage} ({code})")),
        None => answers.stranger(&format!("answered the {stage} with 0x{code:02x}")),
    }
}

/// What the broker says during the handshake.
struct Answers<'a> {
    socket: &'a Socket,
    bytes: Vec<u8>,
    address: &'a str,
}

impl Answers<'_> {
    /// The next bytes.
    async fn next<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        loop {
            if let Some((bytes, rest)) = self.bytes.split_first_chunk::<N>() {
                let (bytes, rest) = (*bytes, rest.to_vec());
                self.bytes = rest;
                return Ok(bytes);
            }
            self.socket.readable().await.map_err(|error| self.lost(&error))?;
            let mut buffer = [0; 1024];
            match self.socket.receive(&mut buffer).map_err(|error| self.lost(&error))? {
                Received::Nothing => {}
                Received::End => return Err(self.stranger("closed the connection during the handshake")),
                Received::Bytes(count) => self.bytes.extend(buffer.iter().take(count)),
            }
        }
    }

    async fn write(&self, queue: &mut Queue) -> Result<(), Error> {
        loop {
            let sent = self.socket.send(queue).map_err(|error| self.lost(&error))?;
            queue.advance(sent);
            if queue.is_empty() {
                return Ok(());
            }
            let twin = self.socket.writable_twin().map_err(|error| self.lost(&error))?;
            twin.writable().await.map_err(|error| self.lost(&error))?;
        }
    }

    fn lost(&self, error: &io::Error) -> Error {
        Error::disconnected(&format!("{} during the handshake: {error}", self.address))
    }

    fn stranger(&self, what: &str) -> Error {
        Error::NotABroker { address: self.address.to_owned(), what: what.to_owned() }
    }
}
