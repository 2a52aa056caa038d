//! One client of the relay: reading what it sends, and writing to it at once, or as soon as its socket has room.

use elbus_socket::{Queue, READ_BYTES, Received, Socket};
use rustix::{
    io::Errno,
    net::{SendFlags, send},
};
use std::{
    cell::RefCell,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Notify;

use super::groups::Members;
use crate::Failure;

/// While more waits for a client, those who send to it are not read. The broker's default.
const LIMIT_BYTES: usize = 8 << 20;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

pub(super) struct Peer {
    socket: Arc<Socket>,
    /// The same socket, to write to without a queue in between.
    writing: OwnedFd,
    rest: Mutex<Rest>,
    drained: Notify,
}

/// What the socket did not take.
#[derive(Default)]
struct Rest {
    queue: Queue,
    /// A task writes it.
    busy: bool,
    gone: bool,
}

impl Peer {
    pub(super) fn new(socket: Arc<Socket>, writing: OwnedFd) -> Self {
        Peer { socket, writing, rest: Mutex::default(), drained: Notify::new() }
    }

    fn rest(&self) -> MutexGuard<'_, Rest> {
        self.rest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes, now or later; `true`: too much waits.
    pub(super) fn say(self: &Arc<Self>, mut bytes: &[u8]) -> bool {
        let mut rest = self.rest();
        if rest.gone {
            return false;
        }
        if rest.queue.is_empty() {
            match send(&self.writing, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(sent) => bytes = &bytes[sent..],
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(_) => {
                    rest.gone = true;
                    return false;
                }
            }
        }
        if !bytes.is_empty() {
            rest.queue.push(bytes, 1);
            if !std::mem::replace(&mut rest.busy, true) {
                tokio::spawn(write_rest(self.clone()));
            }
        }
        rest.queue.waiting() > LIMIT_BYTES
    }

    async fn wait_drained(&self) {
        loop {
            let drained = self.drained.notified();
            if self.rest().queue.waiting() <= LIMIT_BYTES / 4 {
                return;
            }
            drained.await;
        }
    }

    /// Writes what the socket takes: `None` once nothing waits, else whether there is room for more.
    fn write_on(&self) -> Option<bool> {
        let mut rest = self.rest();
        let waiting = rest.queue.waiting();
        match self.socket.send(&rest.queue) {
            Ok(sent) => rest.queue.advance(sent),
            Err(_) => {
                rest.gone = true;
                rest.queue.clear();
            }
        }
        let left = rest.queue.waiting();
        if left <= LIMIT_BYTES / 4 {
            self.drained.notify_waiters();
        }
        rest.busy = left > 0;
        rest.busy.then_some(left < waiting)
    }
}

async fn write_rest(peer: Arc<Peer>) {
    let Ok(twin) = peer.socket.writable_twin() else {
        eprintln!("elbus-relay: no descriptor to wait with; the client is stuck");
        return;
    };
    while twin.writable().await.is_ok() {
        let mut done = false;
        twin.while_writable(|| {
            let more = peer.write_on();
            done = more.is_none();
            more.unwrap_or(true)
        });
        if done {
            return;
        }
    }
}

/// Passes on what comes, until the end.
pub(super) async fn pump(socket: &Socket, others: &Members) -> Result<(), Failure> {
    loop {
        socket.readable().await?;
        let full = BUFFER.with_borrow_mut(|buffer| match socket.receive(buffer)? {
            Received::Nothing => Ok(Some(None)),
            Received::End => Ok(None),
            Received::Bytes(count) => {
                let mut full = None;
                for peer in others.read().unwrap_or_else(PoisonError::into_inner).iter() {
                    if peer.say(&buffer[..count]) {
                        full = Some(peer.clone());
                    }
                }
                Ok::<_, Failure>(Some(full))
            }
        })?;
        match full {
            None => return Ok(()),
            Some(None) => {}
            Some(Some(peer)) => peer.wait_drained().await,
        }
    }
}
