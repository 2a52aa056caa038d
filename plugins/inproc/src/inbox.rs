//! The queue of one client: what it holds, when senders have to wait, and whom to notifier. Has no lock and no clock of
//! its own, and calls no notifier: it hands them out.

use elbus_plugin_api::{
    BROKER_NAME, DeliveryStatus, Notifier, Queued, Run,
    inproc::{OwnedRun, RunBatch},
};
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use crate::settings::{Limits, Overflow};

/// What a run takes beside its bytes, about, so that empty messages are bounded too.
const RUN_BYTES: usize = 192;
const MESSAGE_BYTES: usize = 8;
/// A reader is given so much at once, at least a run: what it has not taken is under the limit and the watch.
const AT_ONCE_BYTES: usize = 64 * 1024;
/// Room for so many runs is kept when the queue is empty.
const KEEP_RUNS: usize = 64;
/// How often the log hears of refused messages.
const TELL_EVERY: Duration = Duration::from_secs(10);

#[derive(Default)]
pub(crate) struct Inbox {
    runs: VecDeque<OwnedRun>,
    /// What they count for.
    bytes: usize,
    messages: u64,
    /// Since when senders are held and nothing was taken.
    held_since: Option<Instant>,
    /// The watch has the client on its list.
    watched: bool,
    closed: bool,
    /// Takes nothing more; what it holds is read.
    draining: bool,
    /// Calls the readers.
    bell: Option<Notifier>,
    /// A reader found nothing and waits for the bell.
    awaited: bool,
    /// A flush is owed, by whoever was told so first.
    dirty: bool,
    senders: Vec<Notifier>,
    refused: u64,
    refused_told: Option<Instant>,
}

/// What became of a run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) delivery: DeliveryStatus,
    pub(crate) then: Then,
}

/// What is to be done after the lock is released.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Then {
    Nothing,
    /// The watch should look after the client.
    Watch,
    /// The queue is closed, since so many bytes wait: who waits is to be woken, and the client to leave.
    Disconnect {
        bytes: usize,
    },
    /// The log should hear how many messages were refused.
    Tell {
        refused: u64,
        bytes: usize,
    },
}

/// How a client does that the watch looks after.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// It has drained, or is closed: off the list.
    Well,
    /// To be looked at again.
    HeldUntil(Instant),
    /// It has taken nothing for too long.
    Stalled { bytes: usize },
}

/// What a run counts for.
#[inline]
fn cost(run: &OwnedRun) -> usize {
    cost_of(run.len(), run.bytes())
}

/// What so many messages in one run count for, with so many bytes in all.
#[inline]
pub(crate) fn cost_of(messages: usize, bytes: usize) -> usize {
    bytes.saturating_add(RUN_BYTES).saturating_add(messages.saturating_mul(MESSAGE_BYTES))
}

impl Inbox {
    /// Takes a run, or refuses it; an empty queue takes one of any size. `kept` is the run.
    #[inline]
    pub(crate) fn take(
        &mut self,
        run: &Run<'_>,
        kept: OwnedRun,
        limits: &Limits,
        now: impl Fn() -> Instant,
    ) -> Taken {
        let (count, cost) = (kept.len(), cost(&kept));
        let never_waits = run.is_realtime() || run.sender() == BROKER_NAME;
        if let Some(refusal) = self.refusal(count, cost, never_waits, limits, &now) {
            return refusal;
        }
        self.runs.push_back(kept);
        self.bytes += cost;
        self.messages += count as u64;
        let mut taken = Taken { delivery: DeliveryStatus::TAKEN, then: Then::Nothing };
        if self.awaited && !std::mem::replace(&mut self.dirty, true) {
            taken.delivery = DeliveryStatus::DIRTY;
        }
        if !never_waits && limits.overflow == Overflow::Block && self.bytes > limits.queue_bytes {
            taken.delivery = taken.delivery | DeliveryStatus::FULL;
            self.held_since.get_or_insert_with(now);
            if !std::mem::replace(&mut self.watched, true) {
                taken.then = Then::Watch;
            }
        }
        taken
    }

    /// Why a run is not taken, if it is not.
    ///
    /// Real-time messages make nobody wait, nor does what the broker itself says, which waits for nobody: so these
    /// may go up to twice the limit.
    #[inline]
    fn refusal(
        &mut self,
        count: usize,
        cost: usize,
        never_waits: bool,
        limits: &Limits,
        now: &impl Fn() -> Instant,
    ) -> Option<Taken> {
        if self.closed || self.draining {
            return Some(Taken { delivery: DeliveryStatus::CLOSED, then: Then::Nothing });
        }
        let after = self.bytes.saturating_add(cost);
        let over = match (never_waits, limits.overflow) {
            (true, _) => after > limits.queue_bytes.saturating_mul(2),
            (false, Overflow::Block) => false,
            (false, _) => after > limits.queue_bytes,
        };
        if !over || self.runs.is_empty() {
            return None;
        }
        if limits.overflow == Overflow::Disconnect {
            self.closed = true;
            self.held_since = None;
            return Some(Taken {
                delivery: DeliveryStatus::CLOSED,
                then: Then::Disconnect { bytes: self.bytes },
            });
        }
        Some(Taken { delivery: DeliveryStatus::REFUSED, then: self.refuse(count, now()) })
    }

    fn refuse(&mut self, count: usize, now: Instant) -> Then {
        self.refused += count as u64;
        let recently = |told: Instant| now.saturating_duration_since(told) < TELL_EVERY;
        if self.refused_told.is_some_and(recently) {
            return Then::Nothing;
        }
        self.refused_told = Some(now);
        Then::Tell { refused: std::mem::take(&mut self.refused), bytes: self.bytes }
    }

    /// Sets what calls the readers.
    pub(crate) fn set_notifier(&mut self, bell: Notifier) {
        self.bell = Some(bell);
    }

    /// Gives a reader some of what is there; `false` once nothing will follow. One that `waits` where there is
    /// nothing hears the bell. The notifiers are those of senders that may go on.
    pub(crate) fn give(
        &mut self,
        into: &mut RunBatch,
        waits: bool,
        limits: &Limits,
        now: impl FnOnce() -> Instant,
    ) -> (bool, Vec<Notifier>) {
        let mut given = 0;
        while given < AT_ONCE_BYTES
            && let Some(run) = self.runs.pop_front()
        {
            let cost = cost(&run);
            given += cost;
            self.messages -= run.len() as u64;
            self.bytes -= cost;
            into.push(run);
        }
        if self.runs.is_empty() {
            if self.runs.capacity() > KEEP_RUNS {
                self.runs.shrink_to(KEEP_RUNS);
            }
            self.awaited |= waits && given == 0 && !self.closed;
        }
        let mut notifiers = Vec::new();
        if self.held_since.is_some() {
            let drained = self.bytes <= limits.queue_bytes / 4;
            self.held_since = if drained { None } else { Some(now()) };
            if drained {
                notifiers = std::mem::take(&mut self.senders);
            }
        }
        (!(self.closed && self.runs.is_empty()), notifiers)
    }

    /// The bell that a flush rings, if a reader waits and there is anything for it.
    pub(crate) fn flush(&mut self) -> Option<Notifier> {
        self.dirty = false;
        if self.runs.is_empty() && !self.closed { None } else { self.bell_if_awaited() }
    }

    fn bell_if_awaited(&mut self) -> Option<Notifier> {
        if std::mem::take(&mut self.awaited) { self.bell.clone() } else { None }
    }

    /// Lets a sender wait; `Some`: it need not.
    pub(crate) fn when_drained(&mut self, notifier: Notifier) -> Option<Notifier> {
        if self.closed || self.held_since.is_none() {
            return Some(notifier);
        }
        self.senders.push(notifier);
        None
    }

    /// Takes no more; what is there stays readable. Says whether it was open, and who waited.
    pub(crate) fn close(&mut self) -> (bool, Vec<Notifier>) {
        let was_open = !std::mem::replace(&mut self.closed, true);
        self.held_since = None;
        let mut notifiers = std::mem::take(&mut self.senders);
        notifiers.extend(self.bell_if_awaited());
        (was_open, notifiers)
    }

    /// Refuses what is on its way to it from now on.
    pub(crate) fn drain(&mut self) {
        self.draining = true;
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// How the client does, for the watch; one that does well must be told of anew.
    pub(crate) fn look(&mut self, limits: &Limits, now: Instant) -> Look {
        match self.held_since {
            Some(since) if now.saturating_duration_since(since) >= limits.stall => {
                Look::Stalled { bytes: self.bytes }
            }
            Some(since) => Look::HeldUntil(since + limits.stall),
            None => {
                self.watched = false;
                Look::Well
            }
        }
    }

    pub(crate) fn queued(&self) -> Queued {
        Queued { frames: self.messages, bytes: self.bytes as u64 }
    }
}

#[cfg(test)]
mod tests;
