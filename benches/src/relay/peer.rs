//! The writing side of one client of the relay: writes at once, or as soon as the socket has room.

use elbus_socket::{Queue, Socket};
use rustix::{
    io::Errno,
    net::{SendFlags, send},
};
use std::{
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Notify;

/// Clients that send to a longer queue are not read. The broker's default.
const LIMIT_BYTES: usize = 8 << 20;

pub(super) struct Peer {
    socket: Arc<Socket>,
    /// The same socket, to write without a queue in between.
    write_socket: OwnedFd,
    backlog: Mutex<Backlog>,
    drained: Notify,
}

/// The bytes that did not fit into the socket.
#[derive(Default)]
struct Backlog {
    queue: Queue,
    /// Whether a task writes the queue.
    writing: bool,
    closed: bool,
}

impl Peer {
    pub(super) fn new(socket: Arc<Socket>, write_socket: OwnedFd) -> Self {
        Peer { socket, write_socket, backlog: Mutex::default(), drained: Notify::new() }
    }

    fn backlog(&self) -> MutexGuard<'_, Backlog> {
        self.backlog.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes or queues bytes; `true` if the queue is over its limit.
    pub(super) fn send(self: &Arc<Self>, mut bytes: &[u8]) -> bool {
        let mut backlog = self.backlog();
        if backlog.closed {
            return false;
        }
        if backlog.queue.is_empty() {
            match send(&self.write_socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(sent) => bytes = &bytes[sent..],
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(_) => {
                    backlog.closed = true;
                    return false;
                }
            }
        }
        if !bytes.is_empty() {
            backlog.queue.push(bytes, 1);
            if !std::mem::replace(&mut backlog.writing, true) {
                tokio::spawn(write_backlog(self.clone()));
            }
        }
        backlog.queue.bytes() > LIMIT_BYTES
    }

    pub(super) async fn wait_drained(&self) {
        loop {
            let drained = self.drained.notified();
            if self.backlog().queue.bytes() <= LIMIT_BYTES / 4 {
                return;
            }
            drained.await;
        }
    }

    /// Writes as much as fits into the socket: `None` once the queue is empty, else whether anything was
    /// written.
    fn continue_write(&self) -> Option<bool> {
        let mut backlog = self.backlog();
        let before = backlog.queue.bytes();
        match self.socket.send(&backlog.queue) {
            Ok(sent) => backlog.queue.advance(sent),
            Err(_) => {
                backlog.closed = true;
                backlog.queue.clear();
            }
        }
        let queued = backlog.queue.bytes();
        if queued <= LIMIT_BYTES / 4 {
            self.drained.notify_waiters();
        }
        backlog.writing = queued > 0;
        backlog.writing.then_some(queued < before)
    }
}

async fn write_backlog(peer: Arc<Peer>) {
    let Ok(socket) = peer.socket.writable_twin() else {
        eprintln!("elbus-relay: no file descriptor left to wait for a writable socket; a client is stuck");
        return;
    };
    while socket.writable().await.is_ok() {
        let mut done = false;
        socket.while_writable(|| {
            let progress = peer.continue_write();
            done = progress.is_none();
            progress.unwrap_or(true)
        });
        if done {
            return;
        }
    }
}
