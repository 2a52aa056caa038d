//! A reader that waits: for its receivers, for itself, for its name, for memory; and what it does first when it goes on.
//! Owns the order of these; dispatches nothing itself.

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

use super::{COUNTED_BYTES, Incoming, LARGE_FRAME};
use crate::{Notice, instance::Leaving, liveness::Phase, overdraft::Side, reason::Reason, scratch::Scratch};

/// How often a frame that waits for memory looks whether there is some.
const LOOK_FOR_ROOM: Duration = Duration::from_millis(10);
/// After this part of the timeout somebody else has to make room for it, and again after it.
const MAKE_ROOM_PARTS: u32 = 16;
/// What any connection may keep without waiting for memory, in [`COUNTED_BYTES`]: one read.
const RESERVED: u32 = (READ_BYTES / COUNTED_BYTES) as u32;

impl Incoming {
    /// Whether there are frames that are to be dispatched before anything is read.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Waits until reading may go on: until it is the client's turn to register, until the name is free, or all
    /// receivers, and the client itself, have drained; or until the connection has ended.
    pub(crate) async fn held_back(&mut self) -> Result<(), Reason> {
        self.own.turn.pass().await;
        if let Some(turn) = self.newcomer.as_mut().and_then(|newcomer| newcomer.turn.take()) {
            return self.take_turn(turn).await;
        }
        if let Some(former) = self.newcomer.as_mut().and_then(|newcomer| newcomer.former.take()) {
            return self.take_name_of(&former).await;
        }
        let after = self.phase;
        self.enter(Phase::Held);
        self.until_room().await?;
        let (notifier, receivers) = Notified::pair();
        match &mut self.client {
            Some(client) => client.when_ready(notifier),
            None => notifier.notify(),
        }
        self.connection.until_ended_or(receivers).await;
        if std::mem::take(&mut self.own.full) {
            let (notifier, own) = Notified::pair();
            self.connection.when_drained(notifier, Side::Own);
            self.client.iter_mut().for_each(|client| client.wait_for_itself(true));
            self.connection.until_ended_or(own).await;
            self.client.iter_mut().for_each(|client| client.wait_for_itself(false));
        }
        if let Some(until) = self.pace.as_mut().and_then(|pace| pace.take_pause()) {
            self.connection.until_ended_or(pin!(sleep_until(until.into()))).await;
        }
        self.enter(after);
        Ok(())
    }

    /// Goes on with what the client has sent, once it is its turn.
    async fn take_turn(&mut self, turn: oneshot::Receiver<()>) -> Result<(), Reason> {
        let after = self.phase;
        self.enter(Phase::Turn);
        self.connection.clone().until_ended_or(pin!(async { drop(turn.await) })).await;
        if self.connection.has_ended() {
            return Err(Reason::Gone);
        }
        self.enter(after);
        self.feed_rest()?;
        self.end_batch(); // whoever is full now is met again with the next read
        match self.newcomer.as_mut().and_then(|newcomer| newcomer.former.take()) {
            Some(former) => self.take_name_of(&former).await,
            None => Ok(()),
        }
    }

    /// Registers once the former holder of the name has left, and takes what the client has sent behind its name. Who
    /// has not left after half the timeout has the name still.
    async fn take_name_of(&mut self, former: &Leaving) -> Result<(), Reason> {
        let connection = self.connection.clone();
        let instance = &connection.instance;
        let left = timeout(instance.settings.timeout() / 2, instance.until_left(former));
        connection.until_ended_or(pin!(async { drop(left.await) })).await;
        if connection.has_ended() {
            return Err(Reason::Gone);
        }
        self.register(connection.name(), false)?;
        self.feed_rest()?;
        self.end_batch(); // whoever is full now is met again with the next read
        Ok(())
    }

    /// Goes on where dispatching has stopped.
    pub(super) fn go_on(&mut self) -> Result<(), Reason> {
        self.stopped = false;
        if self.needed >= LARGE_FRAME { self.take_large() } else { self.feed_rest() }
    }

    fn feed_rest(&mut self) -> Result<(), Reason> {
        let rest = std::mem::take(&mut self.rest);
        let mut scratch = Scratch::take();
        let mut run: RunBuffer<_> = scratch.places.run();
        let used = self.feed(&rest, &mut run);
        scratch.places.put(run);
        scratch.give_back();
        self.keep(rest.get(used?..).unwrap_or_default());
        Ok(())
    }

    /// Dispatches what was received before the connection ended, as far as its receivers take it in time.
    pub(crate) async fn finish(&mut self) {
        let limit = self.connection.instance.settings.timeout();
        let finish = async {
            // whoever is no longer registered finds out at once
            while self.stopped && self.go_on().is_ok() {
                self.account();
                self.own.turn.pass().await;
                let (notifier, receivers) = Notified::pair();
                let Some(client) = &mut self.client else { return };
                client.end_batch();
                client.when_ready(notifier);
                receivers.await;
                self.is_too_early();
                if let Some(until) = self.pace.as_mut().and_then(|pace| pace.take_pause()) {
                    sleep_until(until.into()).await;
                }
            }
        };
        if timeout(limit, finish).await.is_err()
            && self.connection.instance.admits(Notice::Late, self.connection.source)
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

    /// Whether the frame that is being received has to wait for memory. One of them may go on without, so that there will
    /// be some.
    #[inline]
    pub(super) fn is_crowded(&mut self) -> bool {
        self.charged > RESERVED
            && !self.stopped
            && !self.finishing
            && !self.has_room(0)
            && self.is_not_first()
    }

    #[cold]
    fn is_not_first(&mut self) -> bool {
        self.finishing = self.connection.instance.finish_first(&self.connection);
        !self.finishing
    }

    /// Whether the frame that went on without memory has been dispatched. Called after the flush, when queues have counted it.
    #[cold]
    pub(super) fn has_finished(&mut self) {
        if self.charged <= RESERVED {
            self.finishing = false;
            self.connection.instance.has_finished(&self.connection);
        }
    }

    /// Waits until there is memory for the frame that is being received.
    async fn until_room(&mut self) -> Result<(), Reason> {
        if !self.is_crowded() {
            return Ok(());
        }
        let limit = self.connection.instance.settings.timeout();
        let start = Instant::now();
        let (until, mut make_room) = (start + limit, start + limit / MAKE_ROOM_PARTS);
        while self.is_crowded() && !self.connection.has_ended() {
            if Instant::now() >= until {
                return Err(Reason::NoRoom { bytes: self.needed, timeout: limit });
            }
            if Instant::now() >= make_room {
                make_room += limit / MAKE_ROOM_PARTS;
                self.connection.instance.make_room_for(&self.connection);
            }
            self.connection.until_ended_or(pin!(sleep(LOOK_FOR_ROOM))).await;
        }
        Ok(())
    }

    /// Whether the budget of the broker has so many bytes.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.connection.instance.budget.has_room(bytes)
    }

    /// Tells the budget of the broker what is kept.
    #[inline]
    pub(super) fn account(&mut self) {
        let kept = self.rest.capacity() / COUNTED_BYTES;
        if kept != self.charged as usize {
            self.charge(u32::try_from(kept).unwrap_or(u32::MAX));
        }
    }

    #[cold]
    fn charge(&mut self, kept: u32) {
        let bytes = |pieces: u32| pieces as usize * COUNTED_BYTES;
        let before = std::mem::replace(&mut self.charged, kept);
        if before.max(kept) > RESERVED {
            let held = if kept > RESERVED { bytes(kept) } else { 0 };
            self.connection.instance.receiving.lock().note_received(&self.connection, held);
        }
        self.connection.instance.budget.charge(&mut bytes(before), bytes(kept));
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.charge(0);
        if self.finishing {
            self.has_finished();
        }
    }
}
