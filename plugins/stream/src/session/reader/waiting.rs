//! Pauses of a reader: for its receivers, its own queue, its name, its turn, its rates and memory; and how it
//! resumes. Owns their order; dispatches nothing itself.

use elbus_plugin_api::Notified;
use elbus_protocol::request::RunBuffer;
use elbus_socket::READ_BYTES;
use std::{
    pin::pin,
    time::{Duration, Instant},
};
use tokio::{
    sync::oneshot,
    time::{sleep, sleep_until, timeout},
};

use super::{COUNTED_BYTES, LARGE_FRAME, Reader};
use crate::{
    connection::{close_reason::CloseReason, liveness::Phase, waiter::Side},
    server::{connection_table::DepartingClient, log_throttle::LogCategory},
    session::scratch::Scratch,
};

/// Time between two checks whether there is memory for a frame.
const MEMORY_POLL_PERIOD: Duration = Duration::from_millis(10);
/// A frame that waits for memory frees that of another connection after each such part of the timeout.
const EVICTIONS_PER_TIMEOUT: u32 = 16;
/// What a connection can keep without waiting for memory, in [`COUNTED_BYTES`]: one read.
const RESERVED: u32 = (READ_BYTES / COUNTED_BYTES) as u32;

impl Reader {
    /// Returns whether frames must be dispatched before anything is read.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Waits until reading can resume: for the client's turn to register, for its name, or for all receivers
    /// and its own queue to drain; or until the connection has closed.
    pub(crate) async fn wait_for_capacity(&mut self) -> Result<(), CloseReason> {
        self.batch.turn.pass().await;
        if let Some(turn) = self.unregistered.as_mut().and_then(|unregistered| unregistered.turn.take()) {
            return self.resume_when_due(turn).await;
        }
        if let Some(previous_owner) =
            self.unregistered.as_mut().and_then(|unregistered| unregistered.previous_owner.take())
        {
            return self.take_over_name(&previous_owner).await;
        }
        let after = self.phase;
        self.enter(Phase::Held);
        self.wait_for_memory().await?;
        let (notifier, receivers) = Notified::pair();
        match &mut self.client {
            Some(client) => client.when_ready(notifier),
            None => notifier.notify(),
        }
        self.connection.wait_unless_closed(receivers).await;
        if std::mem::take(&mut self.batch.full) {
            let (notifier, acknowledged) = Notified::pair();
            self.connection.when_acknowledged(notifier);
            self.connection.wait_unless_closed(acknowledged).await;
            let (notifier, own) = Notified::pair();
            self.connection.when_drained(notifier, Side::Own);
            self.client.iter_mut().for_each(|client| client.wait_for_itself(true));
            self.connection.wait_unless_closed(own).await;
            self.client.iter_mut().for_each(|client| client.wait_for_itself(false));
        }
        if let Some(until) = self.rate_limiter.as_mut().and_then(|rate_limiter| rate_limiter.take_deadline())
        {
            self.connection.wait_unless_closed(pin!(sleep_until(until.into()))).await;
        }
        self.enter(after);
        Ok(())
    }

    /// Resumes the handshake when it is the connection's turn.
    async fn resume_when_due(&mut self, turn: oneshot::Receiver<()>) -> Result<(), CloseReason> {
        let after = self.phase;
        self.enter(Phase::Turn);
        self.connection.clone().wait_unless_closed(pin!(async { drop(turn.await) })).await;
        if self.connection.is_closed() {
            return Err(CloseReason::Gone);
        }
        self.enter(after);
        self.feed_rest()?;
        self.end_batch(); // receivers that are full now are met again with the next read
        match self.unregistered.as_mut().and_then(|unregistered| unregistered.previous_owner.take()) {
            Some(previous_owner) => self.take_over_name(&previous_owner).await,
            None => Ok(()),
        }
    }

    /// Registers once the previous owner of the name has left, and dispatches what was sent behind the name.
    /// An owner that has not left after half the timeout keeps the name.
    async fn take_over_name(&mut self, previous_owner: &DepartingClient) -> Result<(), CloseReason> {
        let connection = self.connection.clone();
        let server = &connection.server;
        let left = timeout(server.settings.timeout() / 2, server.wait_for_departure(previous_owner));
        connection.wait_unless_closed(pin!(async { drop(left.await) })).await;
        if connection.is_closed() {
            return Err(CloseReason::Gone);
        }
        self.register(connection.name(), false)?;
        self.feed_rest()?;
        self.end_batch(); // receivers that are full now are met again with the next read
        Ok(())
    }

    /// Resumes where dispatching stopped.
    pub(super) fn resume(&mut self) -> Result<(), CloseReason> {
        self.stopped = false;
        if self.needed >= LARGE_FRAME { self.take_large() } else { self.feed_rest() }
    }

    fn feed_rest(&mut self) -> Result<(), CloseReason> {
        let rest = std::mem::take(&mut self.rest);
        let mut scratch = Scratch::take();
        let (mut run, mut mixed): (RunBuffer<_>, _) = (scratch.vectors.run(), scratch.vectors.mixed());
        let used = self.feed(&rest, &mut run, &mut mixed);
        scratch.vectors.put(run);
        scratch.vectors.put_mixed(mixed);
        scratch.give_back();
        self.keep(rest.get(used?..).unwrap_or_default());
        Ok(())
    }

    /// Dispatches what was received before the connection closed, as far as receivers take it in time.
    pub(crate) async fn finish(&mut self) {
        let limit = self.connection.server.settings.timeout();
        let finish = async {
            // a client that is no longer registered finds out at once
            while self.stopped && self.resume().is_ok() {
                self.account();
                self.batch.turn.pass().await;
                let (notifier, receivers) = Notified::pair();
                let Some(client) = &mut self.client else { return };
                client.end_batch();
                client.when_ready(notifier);
                receivers.await;
                self.is_rate_limited();
                if let Some(until) =
                    self.rate_limiter.as_mut().and_then(|rate_limiter| rate_limiter.take_deadline())
                {
                    sleep_until(until.into()).await;
                }
            }
        };
        if timeout(limit, finish).await.is_err()
            && self.connection.server.admits(LogCategory::Late, self.connection.source)
        {
            let (client, bytes) = (self.connection.name(), self.rest.len());
            let timeout_seconds = limit.as_secs_f64();
            tracing::warn!(
                client,
                bytes,
                timeout_seconds,
                "frames of a client that left dropped: receivers are full"
            );
        }
    }

    /// Returns whether the frame that is being received must wait for memory. One frame at a time can exceed
    /// the budget.
    #[inline]
    pub(super) fn must_wait_for_memory(&mut self) -> bool {
        self.charged > RESERVED
            && !self.stopped
            && !self.exceeds_budget
            && !self.has_room(0)
            && self.is_over_budget()
    }

    #[cold]
    fn is_over_budget(&mut self) -> bool {
        self.exceeds_budget = self.connection.server.try_exceed_budget(&self.connection);
        !self.exceeds_budget
    }

    /// Ends exceeding the budget if the frame was dispatched. Called after the flush, when queues have
    /// counted it.
    #[cold]
    pub(super) fn end_exceeding(&mut self) {
        if self.charged <= RESERVED {
            self.exceeds_budget = false;
            self.connection.server.end_exceeding(&self.connection);
        }
    }

    /// Waits until there is memory for the frame that is being received.
    async fn wait_for_memory(&mut self) -> Result<(), CloseReason> {
        if !self.must_wait_for_memory() {
            return Ok(());
        }
        let limit = self.connection.server.settings.timeout();
        let start = Instant::now();
        let (until, mut make_room) = (start + limit, start + limit / EVICTIONS_PER_TIMEOUT);
        while self.must_wait_for_memory() && !self.connection.is_closed() {
            if Instant::now() >= until {
                return Err(CloseReason::NoRoom { bytes: self.needed, timeout: limit });
            }
            if Instant::now() >= make_room {
                make_room += limit / EVICTIONS_PER_TIMEOUT;
                self.connection.server.free_memory_for(&self.connection);
            }
            self.connection.wait_unless_closed(pin!(sleep(MEMORY_POLL_PERIOD))).await;
        }
        Ok(())
    }

    /// Returns whether the broker's budget has this many bytes left.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.connection.server.budget.has_room(bytes)
    }

    /// Counts in the broker's budget what is kept.
    #[inline]
    pub(super) fn account(&mut self) {
        let kept = self.rest.capacity() / COUNTED_BYTES;
        if kept != self.charged as usize {
            self.charge(u32::try_from(kept).unwrap_or(u32::MAX));
        }
    }

    /// Counts memory that is about to be allocated, if the broker's budget has room for it.
    pub(super) fn charge_if_room(&mut self, capacity: usize) -> bool {
        let kept = u32::try_from(capacity / COUNTED_BYTES).unwrap_or(u32::MAX);
        if !self.connection.server.budget.try_charge(&mut counted(self.charged), counted(kept)) {
            return false;
        }
        let before = self.charged;
        self.charged = before.max(kept);
        self.note_large(before);
        true
    }

    #[cold]
    fn charge(&mut self, kept: u32) {
        let before = std::mem::replace(&mut self.charged, kept);
        self.note_large(before);
        self.connection.server.budget.charge(&mut counted(before), counted(kept));
    }

    fn note_large(&self, before: u32) {
        if before.max(self.charged) > RESERVED {
            let held = if self.charged > RESERVED { counted(self.charged) } else { 0 };
            self.connection.server.frame_memory.lock().set_received(&self.connection, held);
        }
    }
}

/// Returns the bytes of counted pieces.
fn counted(pieces: u32) -> usize {
    pieces as usize * COUNTED_BYTES
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.charge(0);
        if self.exceeds_budget {
            self.end_exceeding();
        }
    }
}
