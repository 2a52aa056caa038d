//! A relay that passes on bytes without parsing them: the upper limit for any broker that reads and writes
//! sockets on this machine.
//!
//! It speaks the handshake, so that the generator's clients can connect, and groups the clients by their
//! names: what a sender of a group sends goes to all receivers of the group, and vice versa. Threads,
//! sockets, read size and the way of writing are those of the broker's transports; everything between read
//! and write is missing.

mod groups;
mod peer;

use elbus_protocol::{
    Code,
    handshake::{GREETING, Progress, ServerHandshake},
};
use elbus_socket::{READ_BYTES, Received, Socket};
use std::{
    cell::RefCell,
    net::TcpListener,
    os::{fd::OwnedFd, unix::net::UnixListener},
    sync::{Arc, PoisonError},
};

use crate::{BoxError, driver, names};
use groups::{Groups, Members};
use peer::Peer;

/// The longest handshake.
const HANDSHAKE_BYTES: usize = 65_540;

thread_local! {
    static READ_BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

/// Serves until the process ends.
///
/// # Errors
/// An address that cannot be bound.
pub fn serve(address: &str, workers: usize) -> Result<(), BoxError> {
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
    // spawned, so that a worker accepts and not this thread, as in the broker
    let accepting = runtime.spawn(accept(listener));
    runtime.block_on(accepting)?
}

async fn accept(listener: OwnedFd) -> Result<(), BoxError> {
    let (listener, groups) = (Socket::new(listener)?, Arc::new(Groups::default()));
    loop {
        listener.readable().await?;
        while let Some(socket) = listener.accept()? {
            let _ = rustix::net::sockopt::set_tcp_nodelay(&socket, true); // fails on UNIX sockets
            let groups = groups.clone();
            tokio::spawn(async move {
                if let Err(error) = serve_connection(socket, &groups).await {
                    eprintln!("elbus-relay: {error}");
                }
            });
        }
    }
}

/// Serves one connection, from the greeting to its end.
async fn serve_connection(socket: OwnedFd, groups: &Groups) -> Result<(), BoxError> {
    let write_socket = socket.try_clone()?;
    let socket = Arc::new(Socket::new(socket)?);
    let peer = Arc::new(Peer::new(socket.clone(), write_socket));
    let Some(name) = shake_hands(&socket, &peer).await? else { return Ok(()) };
    let (group, side) =
        names::parse(&name).ok_or_else(|| format!("{name:?} is not a client of the load generator"))?;
    let others = groups.join(group, side, &peer);
    peer.send(&[Code::Ok as u8]);
    let result = forward(&socket, &others).await;
    groups.leave(group, side, &peer);
    result
}

/// Performs the handshake except for the last reply, which must not be sent before the client is in its
/// group.
async fn shake_hands(socket: &Socket, peer: &Arc<Peer>) -> Result<Option<String>, BoxError> {
    peer.send(&GREETING);
    let (mut handshake, mut bytes) = (ServerHandshake::new(), Vec::with_capacity(HANDSHAKE_BYTES));
    loop {
        match handshake.advance(&bytes)? {
            Progress::NeedMore => {
                socket.readable().await?;
                if socket.receive_more(&mut bytes)? == Received::End {
                    return Ok(None);
                }
            }
            Progress::Greeted { consumed } | Progress::RingsAsked { consumed, .. } => {
                bytes.drain(..consumed);
                peer.send(&[Code::Ok as u8]);
            }
            Progress::Name { name, .. } => return Ok(Some(name.to_owned())),
        }
    }
}

/// Passes on what a client sends to the other side of its group, until the connection ends.
async fn forward(socket: &Socket, others: &Members) -> Result<(), BoxError> {
    loop {
        socket.readable().await?;
        let mut full = None;
        let received = READ_BUFFER.with_borrow_mut(|buffer| {
            let received = socket.receive(buffer)?;
            if let Received::Bytes(count) = received {
                for peer in others.read().unwrap_or_else(PoisonError::into_inner).iter() {
                    if peer.send(&buffer[..count]) {
                        full = Some(peer.clone());
                    }
                }
            }
            Ok::<_, BoxError>(received)
        })?;
        if received == Received::End {
            return Ok(());
        }
        if let Some(peer) = full {
            peer.wait_drained().await;
        }
    }
}
