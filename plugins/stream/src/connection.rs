//! The outgoing side of one connection: its queue, flushing and closing. Owns the connection's lock; never
//! waits, and calls nothing outside while it holds the lock. [`queue_limit`] decides how much may be queued.

mod acknowledgement_list;
mod acknowledgements;
pub(crate) mod close_reason;
pub(crate) mod deferred;
pub(crate) mod limits;
pub(crate) mod liveness;
pub(crate) mod mixed_wire;
pub(crate) mod overdraft;
mod pauses;
pub(crate) mod pending_acknowledgements;
pub(crate) mod queue_limit;
mod reader_task;
pub(crate) mod sink;
mod unsent;
pub(crate) mod waiter;
pub(crate) mod wire;
pub(crate) mod writer;

use elbus_plugin_api::{DeliveryStatus, Notifier};
use elbus_socket::{Queue, Socket};
use std::{
    sync::{Arc, OnceLock, atomic::Ordering},
    task::Waker,
    time::{Duration, Instant},
};

use crate::{
    connection::{
        acknowledgement_list::PendingAcknowledgements,
        close_reason::CloseReason,
        deferred::Deferred,
        limits::ConnectionLimits,
        liveness::Liveness,
        overdraft::{Held, Overdrawn},
        pauses::NOP_TICKS,
        waiter::{Side, Waiter},
    },
    server::{source::Source, state::ServerState},
    sync::{AtomicBool, Mutex, MutexGuard},
};

/// One connection, shared by its reader, the broker, housekeeping and `stop`.
pub(crate) struct Connection {
    pub(crate) server: Arc<ServerState>,
    pub(crate) source: Source,
    pub(crate) liveness: Liveness,
    pub(crate) limits: ConnectionLimits,
    /// Set when the client registers.
    pub(crate) name: OnceLock<Box<str>>,
    /// Whether it has closed: a hint for readers without the lock.
    ended: AtomicBool,
    /// Whether the socket is full: a hint as well.
    blocked: AtomicBool,
    /// Whether the reader must read although readiness was not reported.
    is_read_requested: AtomicBool,
    /// Whether housekeeping has found it late since it was last in time.
    pub(crate) was_late: AtomicBool,
    /// Lock order: the connection table, this, then the frame memory or the buffer pool.
    send_state: Mutex<SendState>,
}

/// State behind the lock.
pub(crate) struct SendState {
    pub(crate) queue: Queue,
    /// Bytes counted in the broker's budget: the memory of the queue while the socket is full.
    accounted: usize,
    /// Whether the queue is recorded in the frame memory.
    is_recorded: bool,
    /// `None` once closed, so that cached references to the connection keep no file descriptor open.
    socket: Option<Arc<Socket>>,
    /// A sender has promised a flush.
    pub(crate) dirty: bool,
    /// Since when the socket is full and has taken nothing.
    pub(crate) full_since: Option<Instant>,
    /// Mixed runs of which other recipients have not got their frames yet: nothing is sent until then.
    pauses: u32,
    /// Pauses since there was last none.
    joined_pauses: u16,
    /// Ticks of housekeeping since the last pause began.
    paused_ticks: u16,
    /// Something was to be sent in the pause.
    pub(crate) is_write_due: bool,
    /// Attempts of housekeeping to send since then.
    pub(crate) attempts: u32,
    /// A writer task exists.
    writer: bool,
    /// Waiters, the overdraft, and where frames of groups begin; `None` if there is none of them.
    pub(crate) held: Option<Box<Held>>,
    /// Acknowledgements that wait for their codes; `None` some time after there are none.
    acknowledgements: Option<Box<PendingAcknowledgements>>,
    /// The reader's task, once it runs.
    reader: Option<Waker>,
    /// Shared, since a transport may ask for it after the session has reported it.
    reason: Option<Arc<CloseReason>>,
}

impl Connection {
    pub(crate) fn new(server: Arc<ServerState>, socket: Arc<Socket>, source: Source) -> Arc<Self> {
        Arc::new(Connection {
            liveness: Liveness::default(),
            limits: ConnectionLimits::new(&server.settings),
            server,
            source,
            name: OnceLock::new(),
            ended: AtomicBool::new(false),
            blocked: AtomicBool::new(false),
            is_read_requested: AtomicBool::new(false),
            was_late: AtomicBool::new(false),
            send_state: Mutex::new(SendState {
                queue: Queue::default(),
                accounted: 0,
                is_recorded: false,
                socket: Some(socket),
                dirty: false,
                full_since: None,
                pauses: 0,
                joined_pauses: 0,
                paused_ticks: 0,
                is_write_due: false,
                attempts: 0,
                writer: false,
                held: None,
                acknowledgements: None,
                reader: None,
                reason: None,
            }),
        })
    }

    /// Returns the name of the client, empty before it has registered.
    pub(crate) fn name(&self) -> &str {
        self.name.get().map_or("", |name| name)
    }

    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// Returns whether its client is registered.
    pub(crate) fn is_registered(&self) -> bool {
        self.liveness.last().0.is_registered()
    }

    /// Returns whether the client has sent bytes that are unread.
    pub(crate) fn has_unread(&self) -> bool {
        self.lock().socket().is_some_and(Socket::has_unread)
    }

    /// Returns whether the client has closed its end.
    pub(crate) fn peer_has_closed(&self) -> bool {
        self.lock().socket().is_none_or(Socket::peer_has_closed)
    }

    /// Returns whether the socket was full at the last write.
    #[inline]
    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked.load(Ordering::Relaxed)
    }

    #[inline]
    pub(crate) fn lock(&self) -> MutexGuard<'_, SendState> {
        self.send_state.lock()
    }

    /// Appends bytes and flushes.
    pub(crate) fn send(self: &Arc<Self>, bytes: &[u8]) {
        let mut out = self.lock();
        if !out.is_closed() {
            out.queue.push(bytes, 1);
        }
        let after = self.write(&mut out);
        drop(out);
        self.finish(after);
    }

    /// Appends a handshake answer ahead of any delivery, without sending it.
    pub(crate) fn push_answer(&self, answer: u8) {
        let mut out = self.lock();
        if !out.is_closed() {
            out.queue.push(&[answer], 0);
        }
    }

    /// Replaces the byte of [`push_answer`](Self::push_answer), if nothing can have followed it, and sends.
    pub(crate) fn replace_answer(self: &Arc<Self>, answer: u8) {
        self.pop_answer();
        self.send(&[answer]);
    }

    /// Removes the byte of [`push_answer`](Self::push_answer), if nothing can have followed it.
    pub(crate) fn pop_answer(&self) {
        self.lock().queue.pop_byte();
    }

    /// Sends a keep-alive, unless something is queued.
    pub(crate) fn send_nop(self: &Arc<Self>) {
        let mut out = self.lock();
        if out.pauses > 0 {
            let after = self.check_pauses(&mut out, NOP_TICKS);
            drop(out);
            return self.finish(after);
        }
        let is_empty = out.queue.is_empty();
        if is_empty && let Some(socket) = &out.socket {
            socket.give_back_memory();
        }
        drop(out);
        if is_empty {
            self.send(&elbus_protocol::delivery::NOP);
        }
    }

    /// Sends as much as the socket takes.
    #[inline]
    pub(crate) fn flush(self: &Arc<Self>) {
        let mut out = self.lock();
        out.dirty = false;
        if out.full_since.is_some() || out.queue.is_empty() {
            return;
        }
        let after = self.write(&mut out);
        drop(out);
        self.finish(after);
    }

    /// Sends as much as the socket takes; returns whether the queue is empty.
    pub(crate) fn drained(self: &Arc<Self>) -> bool {
        let mut out = self.lock();
        let after = self.write(&mut out);
        let drained = out.queue.is_empty();
        drop(out);
        self.finish(after);
        drained
    }

    /// Tries to send although the socket was full, and closes a connection that has taken nothing for `stall`
    /// and in `attempts` attempts: time without attempts does not count. A socket reports room only when much
    /// of it is free; an attempt finds out earlier.
    pub(crate) fn retry_write(self: &Arc<Self>, now: Instant, stall: Duration, attempts: u32) {
        let mut out = self.lock();
        if out.pauses > 0 {
            // not an attempt
            out.is_write_due = true;
            let after = self.check_pauses(&mut out, 1);
            drop(out);
            return self.finish(after);
        }
        let mut after = self.write(&mut out);
        out.queue.shrink();
        self.account(&mut out);
        out.attempts = out.attempts.saturating_add(1);
        if let Some(stalled) = out.full_since.map(|since| now.saturating_duration_since(since))
            && stalled >= stall
            && out.attempts >= attempts
        {
            let bytes = out.queue.bytes();
            let cycle = out.overdrawn().map(|overdrawn| overdrawn.cycle.clone()).unwrap_or_default();
            after.merge(self.end(&mut out, CloseReason::Stalled { bytes, stalled, cycle }));
        }
        drop(out);
        self.finish(after);
    }

    /// Sends once, unless sending is paused; a writer task sends the rest.
    #[inline]
    pub(crate) fn write(self: &Arc<Self>, out: &mut SendState) -> Deferred {
        if out.pauses > 0 {
            out.is_write_due = true;
            return Deferred::default();
        }
        self.write_even_paused(out)
    }

    /// Sends once; a writer task sends the rest.
    #[inline]
    pub(crate) fn write_even_paused(self: &Arc<Self>, out: &mut SendState) -> Deferred {
        let mut after = Deferred::default();
        let Some(socket) = &out.socket else { return after };
        if out.queue.is_empty() {
            return after;
        }
        let sent = match socket.send(&out.queue) {
            Ok(sent) => sent,
            Err(error) => return self.end(out, CloseReason::of_error(error)),
        };
        out.advance(sent);
        if out.queue.is_empty() {
            if out.full_since.take().is_some() {
                self.blocked.store(false, Ordering::Relaxed);
            }
        } else {
            if sent > 0 || out.full_since.is_none() {
                out.full_since = Some(Instant::now());
                out.attempts = 0;
                self.blocked.store(true, Ordering::Relaxed);
                self.server.any_blocked.store(true, Ordering::Release);
            }
            after.write = !std::mem::replace(&mut out.writer, true);
        }
        self.account(out);
        if out.held.is_some() && out.queue.bytes() <= self.resume_bytes(out) {
            after.notifiers = out.take_waiters();
        }
        after
    }

    /// One step of the writer task: `None` if it is no longer needed, else whether the socket may take more.
    pub(crate) fn continue_write(self: &Arc<Self>) -> Option<bool> {
        let mut out = self.lock();
        let before = out.queue.bytes();
        let after = self.write(&mut out);
        let left = out.queue.bytes();
        // the end of a pause starts another writer
        let more = if left == 0 || out.is_closed() || out.pauses > 0 {
            out.writer = false;
            None
        } else {
            Some(left < before)
        };
        drop(out);
        self.finish(after);
        more
    }

    /// Calls `notifier` once senders, or the client itself, can go on.
    pub(crate) fn when_drained(&self, notifier: Notifier, side: Side) {
        let mut out = self.lock();
        let waiting = out.queue.bytes();
        if out.is_closed() || waiting <= self.resume_bytes(&out) || self.may_overdraw(&out, side, waiting) {
            drop(out);
            notifier.notify();
        } else {
            out.held.get_or_insert_default().waiters.push(Waiter { notifier, side });
        }
    }

    /// Calls `notifier` once the queue is empty or closed.
    pub(crate) fn when_empty(&self, notifier: Notifier) {
        let mut out = self.lock();
        if out.is_closed() || out.queue.is_empty() {
            drop(out);
            notifier.notify();
        } else {
            out.held.get_or_insert_default().waiters.push(Waiter { notifier, side: Side::Empty });
        }
    }

    /// Closes the connection. The first reason is kept; the reader reports it.
    pub(crate) fn close(self: &Arc<Self>, reason: CloseReason) {
        let mut out = self.lock();
        let after = self.end(&mut out, reason);
        drop(out);
        self.finish(after);
    }

    /// Offers the queue to the socket once more and drops the rest. If the name is not free yet, the session
    /// closes the socket once it is.
    pub(crate) fn end(self: &Arc<Self>, out: &mut SendState, reason: CloseReason) -> Deferred {
        let Some(socket) = out.socket.take() else { return Deferred::default() };
        if !self.is_registered() {
            // the answer may be queued before access rules have decided
            socket.withdraw_rings();
        }
        if !out.queue.is_empty()
            && !reason.is_broken()
            && let Ok(sent) = socket.send(&out.queue)
        {
            out.advance(sent);
        }
        socket.forfeit_rings(reason.is_violation());
        if reason.is_forced() {
            // its name is free already, or goes with the transport
            socket.shutdown();
        } else if !reason.lingers() {
            socket.shutdown_read();
        }
        match out.held.as_mut().and_then(|held| held.group_frames.as_mut()) {
            Some(frames) => frames.keep(std::mem::take(&mut out.queue)),
            None => out.queue.clear(),
        }
        out.full_since = None;
        self.account(out);
        out.reason = Some(Arc::new(reason));
        self.blocked.store(false, Ordering::Relaxed);
        self.ended.store(true, Ordering::Relaxed);
        let acknowledgements = out.acknowledgements.take();
        Deferred { notifiers: out.take_waiters(), reader: out.reader.take(), write: false, acknowledgements }
    }

    /// Returns whether it was closed to free memory for others.
    pub(crate) fn was_closed_for_memory(&self) -> bool {
        matches!(self.lock().reason.as_deref(), Some(CloseReason::MadeRoom { .. }))
    }

    /// Returns the close reason, if it is closed.
    pub(crate) fn close_reason(&self) -> Option<Arc<CloseReason>> {
        self.lock().reason.clone()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // a connection that was never closed, since its runtime has ended first
        let out = self.send_state.get_mut();
        self.server.budget.account(&mut out.accounted, 0);
    }
}

impl SendState {
    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.socket.is_none()
    }

    /// Returns whether the socket was full at the last write.
    #[inline]
    pub(crate) fn is_blocked(&self) -> bool {
        self.full_since.is_some()
    }

    /// Removes the first `sent` bytes of the queue, which were sent.
    #[inline]
    fn advance(&mut self, sent: usize) {
        if let Some(held) = &mut self.held
            && let Some(frames) = &mut held.group_frames
        {
            frames.advance(&self.queue, sent);
        }
        self.queue.advance(sent);
    }

    /// Marks the queue dirty after an append; returns whether the caller must flush it.
    #[inline]
    pub(crate) fn mark_dirty(&mut self) -> DeliveryStatus {
        if self.dirty || self.full_since.is_some() {
            return DeliveryStatus::TAKEN;
        }
        self.dirty = true;
        DeliveryStatus::DIRTY
    }

    /// What may wait beyond the limit.
    pub(crate) fn overdrawn(&self) -> Option<&Overdrawn> {
        self.held.as_ref()?.overdrawn.as_ref()
    }

    /// Those who wait for the queue to drain, or to be empty if it is: whatever was overdrawn ends with that.
    fn take_waiters(&mut self) -> Vec<Waiter> {
        let Some(held) = self.held.take() else { return Vec::new() };
        let Held { waiters, group_frames, .. } = *held;
        let is_empty = self.queue.is_empty();
        let (waiting, ready): (Vec<_>, Vec<_>) =
            waiters.into_iter().partition(|waiter| waiter.side == Side::Empty && !is_empty);
        if !waiting.is_empty() || group_frames.is_some() {
            self.held = Some(Box::new(Held { waiters: waiting, overdrawn: None, group_frames }));
        }
        ready
    }

    /// The socket, for the writer task.
    pub(crate) fn socket(&self) -> Option<&Socket> {
        self.socket.as_deref()
    }

    /// The writer task cannot continue; housekeeping sends instead.
    #[cfg_attr(elbus_model, expect(dead_code, reason = "a schedule needs no descriptor"))]
    pub(crate) fn without_writer(&mut self) {
        self.writer = false;
    }
}
