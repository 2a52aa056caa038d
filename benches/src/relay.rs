//! A relay that passes on bytes and looks at none: the limit for any broker that reads and writes sockets on this machine.
//!
//! It speaks the handshake, so that the generator's clients can join, and finds out by their names who belongs together:
//! what a writer of a group sends goes to all readers of the group, and the other way round. Threads, sockets, read size
//! and the way of writing are those of the broker's transports; what lies between read and write is missing.

mod groups;
mod peer;

use elbus_protocol::{
    Code,
    handshake::{GREETING, Progress, ServerHandshake},
};
use elbus_socket::{Received, Socket};
use std::{
    net::TcpListener,
    os::{fd::OwnedFd, unix::net::UnixListener},
    sync::Arc,
};

use crate::{Failure, driver, names};
use groups::Groups;
use peer::Peer;

/// The longest handshake.
const HANDSHAKE_BYTES: usize = 65_540;

/// Serves until the process is ended.
///
/// # Errors
/// An address that cannot be bound.
pub fn serve(address: &str, workers: usize) -> Result<(), Failure> {
    let listener: OwnedFd = if driver::is_path(address) {
        let _ = std::fs::remove_file(address);
        let listener = UnixListener::bind(address)?;
        listener.set_nonblocking(true)?;
        listener.into()
    } else {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        listener.into()
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build()?;
    // a worker, not this thread, accepts, as in the broker
    let accepting = runtime.spawn(accept(listener));
    runtime.block_on(accepting)?
}

async fn accept(listener: OwnedFd) -> Result<(), Failure> {
    let (listener, groups) = (Socket::new(listener)?, Arc::new(Groups::default()));
    loop {
        listener.readable().await?;
        while let Some(socket) = listener.accept()? {
            let _ = rustix::net::sockopt::set_tcp_nodelay(&socket, true); // fails for UNIX sockets
            let groups = groups.clone();
            tokio::spawn(async move {
                if let Err(error) = attend(socket, &groups).await {
                    eprintln!("elbus-relay: {error}");
                }
            });
        }
    }
}

/// One connection, from the greeting to its end.
async fn attend(socket: OwnedFd, groups: &Groups) -> Result<(), Failure> {
    let writing = socket.try_clone()?;
    let socket = Arc::new(Socket::new(socket)?);
    let peer = Arc::new(Peer::new(socket.clone(), writing));
    let Some(name) = shake_hands(&socket, &peer).await? else { return Ok(()) };
    let (group, side) =
        names::parse(&name).ok_or_else(|| format!("{name} is not a client of the load generator"))?;
    let others = groups.join(group, side, &peer);
    peer.say(&[Code::Ok as u8]);
    let result = peer::pump(&socket, &others).await;
    groups.leave(group, side, &peer);
    result
}

/// Everything but the last answer, which would be too early before the client is in its group.
async fn shake_hands(socket: &Socket, peer: &Arc<Peer>) -> Result<Option<String>, Failure> {
    peer.say(&GREETING);
    let (mut handshake, mut bytes) = (ServerHandshake::new(), Vec::with_capacity(HANDSHAKE_BYTES));
    loop {
        match handshake.advance(&bytes)? {
            Progress::NeedMore => {
                socket.readable().await?;
                if socket.receive_more(&mut bytes)? == Received::End {
                    return Ok(None);
                }
            }
            Progress::Greeted { consumed } => {
                bytes.drain(..consumed);
                peer.say(&[Code::Ok as u8]);
            }
            Progress::Name { name, .. } => return Ok(Some(name.to_owned())),
        }
    }
}
