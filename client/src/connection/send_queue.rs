//! The sending side of a client: what waits to be written, and which operations wait for their acknowledgement. Owns
//! the decision when to write; never reads, and calls nobody while it holds its lock.
//!
//! A frame after a pause is written at once by whoever sends it. Frames that follow closely are gathered: the flusher
//! task writes them as soon as it gets its turn, or the next sender does when [`GATHER`] has passed. So a lone frame
//! never waits, and a stream leaves in few writes without anybody having to ask for it.

use bytes::Bytes;
use elbus_protocol::{
    Code, EncodeError, Op, Qos,
    request::{PING, encode_filters, encode_request_head},
};
use elbus_socket::{Queue, Socket};
use parking_lot::Mutex;
use slab::Slab;
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};
use tokio::sync::Notify;

use crate::{Error, receive::read_limit::Gate};

/// For how long after a write the next frames are left to be gathered.
const GATHER: Duration = Duration::from_micros(20);
/// Frames that are gathered between two looks at the clock.
const CLOCK_EVERY: u32 = 16;
/// Payloads from here on are kept by reference count instead of copied, in bytes.
const SHARE_FROM_BYTES: usize = 64 * 1024;

/// A frame to be sent.
pub(crate) struct Request<'a> {
    pub(crate) op: Op,
    pub(crate) qos: Qos,
    pub(crate) target: &'a str,
    pub(crate) receiver: &'a str,
    /// What goes before the payload: the head of the RPC layer.
    pub(crate) head: &'a [u8],
    pub(crate) payload: Bytes,
}

/// What is to become of an acknowledgement.
pub(crate) enum Ack {
    /// A future waits for it.
    Awaited(Option<Waker>),
    /// It has come, or never will.
    Known(Result<u8, Error>),
    /// The future was dropped.
    Abandoned,
    /// It is that of a call, which goes on if it is good.
    Call(u32),
    /// Nobody waits. What is refused is asked for again in parts, and logged with these words where it cannot be divided.
    Again { op: Op, filters: Vec<String>, what: &'static str },
}

/// Why a frame was not taken.
pub(crate) enum Refusal {
    /// So much waits that the sender must wait too.
    Full,
    /// For good.
    Failed(Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Refusal::Failed(error)
    }
}

/// What an acknowledgement was about, where that is more than one future.
pub(crate) enum Told {
    /// A call was refused.
    CallRefused { call: u32, code: u8 },
    /// Filters were refused together, of which some may be granted.
    FiltersRefused { op: Op, filters: Vec<String>, what: &'static str },
}

pub(crate) struct Outgoing {
    limit: usize,
    max_frame: usize,
    gate: Arc<Gate>,
    flusher: Notify,
    /// A leaf, but for the pool of spare buffers.
    state: Mutex<State>,
}

struct State {
    queue: Queue,
    socket: Option<Arc<Socket>>,
    /// Why there is no socket.
    gone: Error,
    /// The socket takes nothing more; the flusher waits for it.
    full: bool,
    /// The flusher has been told.
    owed: bool,
    /// Frames since then.
    gathered: u32,
    last_write: Instant,
    /// Something was sent since the last [`Outgoing::ping_if_idle`].
    spoke: bool,
    acks: Slab<Ack>,
    /// Who waits until at most so many bytes wait.
    waiters: Vec<(usize, Waker)>,
    frames: u64,
    bytes: u64,
}

/// What the flusher has to do.
pub(crate) enum Flushed {
    /// Nothing until it is told.
    Done,
    /// Wait until the socket has room.
    Full(Arc<Socket>),
    /// End: there is no connection.
    Gone,
}

impl Outgoing {
    pub(crate) fn new(limit: usize, max_frame: usize, gate: Arc<Gate>) -> Self {
        Outgoing {
            limit,
            max_frame,
            gate,
            flusher: Notify::new(),
            state: Mutex::new(State {
                queue: Queue::default(),
                socket: None,
                gone: Error::disconnected("not yet connected"),
                full: false,
                owed: false,
                gathered: 0,
                last_write: Instant::now(),
                spoke: false,
                acks: Slab::new(),
                waiters: Vec::new(),
                frames: 0,
                bytes: 0,
            }),
        }
    }

    /// Queues a frame with target and payload. The number that comes back is that of its acknowledgement.
    #[inline]
    pub(crate) fn send(&self, request: &Request<'_>, ack: Option<Ack>) -> Result<u32, Refusal> {
        let Request { op, qos, target, receiver, head, payload } = request;
        let len = head.len().saturating_add(payload.len());
        if len > self.max_frame {
            return Err(Error::FrameTooLong { len, limit: self.max_frame }.into());
        }
        self.queue(qos.is_realtime(), ack, |queue, op_id| {
            let write_head = |out: &mut Vec<u8>| {
                encode_request_head(out, op_id, *op, *qos, target, receiver, len)?;
                out.extend_from_slice(head);
                Ok(())
            };
            if payload.len() >= SHARE_FROM_BYTES {
                queue.push_large(payload.clone(), write_head)
            } else {
                queue.push_with(1, |out| {
                    write_head(out)?;
                    out.extend_from_slice(payload);
                    Ok(())
                })
            }
        })
    }

    /// Queues a topic operation.
    pub(crate) fn change_filters(&self, op: Op, filters: &[&str], ack: Ack) -> Result<u32, Refusal> {
        self.queue(false, Some(ack), |queue, op_id| {
            queue.push_with(1, |out| encode_filters(out, op_id, op, Qos::PROCESSED, filters.iter().copied()))
        })
    }

    /// Queues a ping.
    pub(crate) fn ping(&self) -> Result<(), Error> {
        let queued = self.queue(false, None, |queue, _| {
            queue.push(&PING, 1);
            Ok(())
        });
        match queued {
            Ok(_) | Err(Refusal::Full) => Ok(()), // what waits is a sign of life as well
            Err(Refusal::Failed(error)) => Err(error),
        }
    }

    /// Queues a ping unless something has been sent since the last time.
    pub(crate) fn ping_if_idle(&self) {
        let idle = !std::mem::replace(&mut self.state.lock().spoke, false);
        if idle {
            // without a connection there is nothing to keep alive
            let _ = self.ping();
            self.state.lock().spoke = false;
        }
    }

    #[inline]
    fn queue(
        &self,
        realtime: bool,
        ack: Option<Ack>,
        append: impl FnOnce(&mut Queue, u32) -> Result<(), EncodeError>,
    ) -> Result<u32, Refusal> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if state.socket.is_none() {
            return Err(state.gone.clone().into());
        }
        let waiting = state.queue.waiting();
        if waiting > self.limit {
            match self.limit.saturating_mul(2) {
                _ if !realtime => return Err(Refusal::Full),
                limit if waiting > limit => return Err(Error::QueueFull { waiting, limit }.into()),
                _ => {}
            }
        }
        let alone = ack.is_some() && state.acks.is_empty();
        let key = match &ack {
            Some(_) => state.acks.vacant_key(),
            None => 0,
        };
        let op_id = key as u32;
        append(&mut state.queue, op_id).map_err(Error::from)?;
        if let Some(ack) = ack {
            state.acks.insert(ack);
            self.gate.begin();
        }
        state.frames += 1;
        state.bytes += (state.queue.waiting() - waiting) as u64;
        state.spoke = true;
        if state.full {
            return Ok(op_id);
        }
        // nothing else is under way, or the last write was a while ago: there is nothing to gather
        if realtime || alone || state.is_due() {
            let wakers = self.write(state);
            drop(guard);
            wake_all(wakers);
        } else if !std::mem::replace(&mut state.owed, true) {
            state.gathered = 0;
            drop(guard);
            self.flusher.notify_one();
        }
        Ok(op_id)
    }

    /// One write of what waits.
    fn write(&self, state: &mut State) -> Vec<Waker> {
        state.owed = false;
        let Some(socket) = &state.socket else { return Vec::new() };
        match socket.send(&state.queue) {
            Ok(sent) => state.queue.advance(sent),
            Err(error) => {
                tracing::debug!(%error, "writing failed");
                socket.shutdown(); // the reader wakes, reads what has arrived, and ends the connection
                return self.forget(state, &Error::disconnected(&format!("writing failed: {error}")));
            }
        }
        let was_full = std::mem::replace(&mut state.full, !state.queue.is_empty());
        if state.full {
            if !was_full {
                self.flusher.notify_one();
            }
        } else {
            state.last_write = Instant::now();
        }
        state.wakers()
    }

    /// Writes what waits, for the flusher.
    pub(crate) fn flush(&self) -> Flushed {
        let mut state = self.state.lock();
        let wakers = if state.queue.is_empty() { Vec::new() } else { self.write(&mut state) };
        state.owed = false;
        let flushed = match &state.socket {
            None => Flushed::Gone,
            Some(socket) if state.full => Flushed::Full(socket.clone()),
            Some(_) => Flushed::Done,
        };
        drop(state);
        wake_all(wakers);
        flushed
    }

    /// Waits until there is something to flush.
    pub(crate) async fn flush_wanted(&self) {
        self.flusher.notified().await;
    }

    /// Waits until senders may go on, or the connection is gone.
    pub(crate) async fn room(&self) {
        self.at_most(self.limit / 2).await;
    }

    /// Waits until everything is written, or the connection is gone.
    pub(crate) async fn drained(&self) {
        self.at_most(0).await;
    }

    async fn at_most(&self, bytes: usize) {
        std::future::poll_fn(|context| {
            let mut state = self.state.lock();
            if state.socket.is_none() || state.queue.waiting() <= bytes {
                return Poll::Ready(());
            }
            state.waiters.push((bytes, context.waker().clone()));
            Poll::Pending
        })
        .await;
    }

    /// The outcome of the operation of that number; dropping the future forgets it.
    pub(crate) fn acknowledgement(&self, op_id: u32) -> Acknowledgement<'_> {
        Acknowledgement { outgoing: self, key: Some(op_id as usize) }
    }

    /// Takes acknowledgements in.
    pub(crate) fn acknowledge(&self, acks: &[(u32, u8)], told: &mut Vec<Told>) {
        let mut wakers = Vec::new();
        let mut state = self.state.lock();
        for &(op_id, code) in acks {
            let key = op_id as usize;
            let Some(ack) = state.acks.get_mut(key) else {
                tracing::debug!(op_id, "acknowledgement of an unknown operation");
                continue;
            };
            match ack {
                Ack::Known(_) => continue, // twice: the first one counts
                Ack::Awaited(waker) => {
                    wakers.extend(waker.take());
                    *ack = Ack::Known(Ok(code));
                }
                Ack::Abandoned => drop(state.acks.remove(key)),
                Ack::Call(call) => {
                    if code != Code::Ok as u8 {
                        told.push(Told::CallRefused { call: *call, code });
                    }
                    state.acks.remove(key);
                }
                Ack::Again { op, filters, what } => {
                    let (op, filters, what) = (*op, std::mem::take(filters), *what);
                    if code != Code::Ok as u8 {
                        // others concern all of them alike, such as a limit
                        let is_of_one = [Code::AccessDenied as u8, Code::BadData as u8].contains(&code);
                        if is_of_one && filters.len() > 1 {
                            told.push(Told::FiltersRefused { op, filters, what });
                        } else {
                            let (first, count) = (filters.first(), filters.len());
                            tracing::warn!(code, first, count, "refused by the broker: {what}");
                        }
                    }
                    state.acks.remove(key);
                }
            }
            self.gate.finish();
        }
        drop(state);
        wake_all(wakers);
    }

    /// Begins with a connection.
    pub(crate) fn attach(&self, socket: Arc<Socket>) {
        let mut state = self.state.lock();
        state.queue.clear();
        state.socket = Some(socket);
        state.full = false;
        state.owed = false;
    }

    /// Forgets the connection: what waits is dropped, what waits for an acknowledgement fails.
    pub(crate) fn detach(&self, reason: &Error) {
        let wakers = self.forget(&mut self.state.lock(), reason);
        wake_all(wakers);
    }

    fn forget(&self, state: &mut State, reason: &Error) -> Vec<Waker> {
        state.socket = None;
        state.gone = reason.clone();
        state.queue.clear();
        let mut wakers: Vec<_> = state.waiters.drain(..).map(|(_, waker)| waker).collect();
        state.acks.retain(|_, ack| {
            if matches!(ack, Ack::Known(_)) {
                return true;
            }
            self.gate.finish();
            match std::mem::replace(ack, Ack::Known(Err(reason.clone()))) {
                Ack::Awaited(waker) => {
                    wakers.extend(waker);
                    true
                }
                _ => false,
            }
        });
        self.flusher.notify_one();
        self.gate.open(); // the reader, where consumers hold it back
        wakers
    }

    /// Whether there is no connection that takes anything.
    pub(crate) fn is_gone(&self) -> bool {
        self.state.lock().socket.is_none()
    }

    /// Frames and bytes that were queued so far, and bytes that wait now.
    pub(crate) fn counts(&self) -> (u64, u64, usize) {
        let state = self.state.lock();
        (state.frames, state.bytes, state.queue.waiting())
    }
}

impl State {
    /// Whether the last write was long enough ago. Looks at the clock for every few frames only while some are gathered.
    #[inline]
    fn is_due(&mut self) -> bool {
        self.gathered += 1;
        (!self.owed || self.gathered.is_multiple_of(CLOCK_EVERY)) && self.last_write.elapsed() >= GATHER
    }

    fn wakers(&mut self) -> Vec<Waker> {
        if self.waiters.is_empty() {
            return Vec::new();
        }
        let waiting = self.queue.waiting();
        let ready = self.waiters.extract_if(.., |(bytes, _)| waiting <= *bytes);
        ready.map(|(_, waker)| waker).collect()
    }
}

fn wake_all(wakers: Vec<Waker>) {
    for waker in wakers {
        waker.wake();
    }
}

/// See [`Outgoing::acknowledgement`].
pub(crate) struct Acknowledgement<'a> {
    outgoing: &'a Outgoing,
    key: Option<usize>,
}

impl Future for Acknowledgement<'_> {
    type Output = Result<u8, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(key) = self.key else { return Poll::Ready(Err(Error::Closed)) };
        let mut state = self.outgoing.state.lock();
        match state.acks.get_mut(key) {
            Some(Ack::Awaited(waker)) => {
                match waker {
                    Some(waker) => waker.clone_from(context.waker()),
                    None => *waker = Some(context.waker().clone()),
                }
                return Poll::Pending;
            }
            Some(Ack::Known(_)) => {}
            _ => return Poll::Ready(Err(state.gone.clone())),
        }
        let ack = state.acks.remove(key);
        drop(state);
        self.key = None;
        match ack {
            Ack::Known(outcome) => Poll::Ready(outcome),
            _ => Poll::Ready(Err(Error::Closed)),
        }
    }
}

impl Drop for Acknowledgement<'_> {
    fn drop(&mut self) {
        let Some(key) = self.key else { return };
        let mut state = self.outgoing.state.lock();
        match state.acks.get_mut(key) {
            Some(Ack::Known(_)) => drop(state.acks.remove(key)),
            Some(ack @ Ack::Awaited(_)) => *ack = Ack::Abandoned,
            _ => {}
        }
    }
}
