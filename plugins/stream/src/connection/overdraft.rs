//! What may wait for a client beyond its limit while it is in a cycle of clients that wait for each other.
//! Owns what was given, and for whom; the broker finds the cycles and decides, and the connection ends it
//! once senders may go on.

use elbus_plugin_api::Overdraft;
use std::{sync::Arc, time::Instant};

use crate::connection::{
    Connection, SendState,
    deferred::Deferred,
    unsent::GroupFrames,
    waiter::{Side, Waiter},
};

/// Who waits for a queue to drain, and what may wait in it beyond its limit.
#[derive(Default)]
pub(crate) struct Held {
    pub(crate) waiters: Vec<Waiter>,
    pub(crate) overdrawn: Option<Overdrawn>,
    /// Where frames of groups begin in the queue, if there are any.
    pub(crate) group_frames: Option<Box<GroupFrames>>,
}

/// The present overdraft of a connection.
pub(crate) struct Overdrawn {
    /// Bytes of anything.
    queue: usize,
    /// Bytes before the client itself is read no more.
    own: usize,
    /// The cycle, in words.
    pub(crate) cycle: Box<str>,
}

impl Overdrawn {
    pub(crate) fn bytes(&self, side: Side) -> usize {
        match side {
            Side::Senders => self.queue,
            Side::Own => self.queue.saturating_add(self.own),
            Side::Empty => 0,
        }
    }
}

impl Connection {
    /// Whether an overdraft lets one side go on although so much waits.
    pub(crate) fn may_overdraw(&self, out: &SendState, side: Side, waiting: usize) -> bool {
        let has_any = out.overdrawn().is_some_and(|overdrawn| overdrawn.bytes(side) > 0);
        has_any && waiting <= self.limit(out, side).bytes
    }

    /// Replaces the overdraft. Who may go on now does, and the time begins again in which the client must
    /// take something.
    pub(crate) fn overdraw(self: &Arc<Self>, overdraft: &Overdraft<'_>) -> bool {
        let mut out = self.lock();
        if out.is_closed() || !out.is_blocked() {
            return false;
        }
        let bytes = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        let (queue, own) = (bytes(overdraft.queue_bytes), bytes(overdraft.own_bytes));
        let cycle: Box<str> = overdraft.cycle().into();
        if !cycle.is_empty() {
            out.full_since = Some(Instant::now());
            out.attempts = 0;
        }
        let is_any = queue > 0 || own > 0 || !cycle.is_empty();
        if is_any || out.held.is_some() {
            out.held.get_or_insert_default().overdrawn = is_any.then_some(Overdrawn { queue, own, cycle });
        }
        let waiting = out.queue.bytes();
        let mut after = Deferred::default();
        let (senders, own) =
            (self.may_overdraw(&out, Side::Senders, waiting), self.may_overdraw(&out, Side::Own, waiting));
        if let Some(held) = out.held.as_mut().filter(|_| senders || own) {
            let waiters = std::mem::take(&mut held.waiters);
            let may_go_on = |waiter: &Waiter| match waiter.side {
                Side::Senders => senders,
                Side::Own => own,
                Side::Empty => false,
            };
            (after.notifiers, held.waiters) = waiters.into_iter().partition(may_go_on);
        }
        drop(out);
        self.finish(after);
        true
    }

    /// The bytes of the present overdraft.
    pub(crate) fn overdrawn(&self) -> u64 {
        self.lock().overdrawn().map_or(0, |overdrawn| overdrawn.bytes(Side::Own) as u64)
    }
}
