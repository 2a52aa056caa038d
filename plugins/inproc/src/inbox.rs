//! The queue of one client: its runs, when senders must wait, and their notifiers. Has no lock and no clock
//! of its own; returns notifiers and never calls them.

use elbus_plugin_api::{
    BROKER_NAME, DeliveryStatus, FrameKind, Notifier, Queued, Run,
    config::Admission,
    inproc::{OwnedRun, RunBatch},
    rate::LogThrottle,
};
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use crate::settings::Limits;

/// The approximate memory of a run without its payloads, so that empty messages are limited too.
const RUN_BYTES: usize = 192;
const MESSAGE_BYTES: usize = 8;
/// Maximum bytes returned by one read, but at least one run: unread messages remain subject to the limit and
/// the watch.
const READ_BYTES: usize = 64 * 1024;
/// Capacity in runs that an empty queue keeps.
const MIN_CAPACITY: usize = 64;
/// The interval at which refused messages are logged.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

pub(crate) struct Inbox {
    runs: VecDeque<OwnedRun>,
    /// The total cost of the queued runs, see [`cost_of`].
    bytes: usize,
    messages: u64,
    /// Since when senders have been held without any read.
    held_since: Option<Instant>,
    /// The watch thread watches the client.
    watched: bool,
    closed: bool,
    /// Refuses new messages; queued ones can be read.
    draining: bool,
    /// Wakes the readers.
    reader: Option<Notifier>,
    /// A reader found the queue empty and waits for the notifier.
    reader_waits: bool,
    /// A sender was asked to flush, and has not yet flushed.
    dirty: bool,
    senders: Vec<Notifier>,
    /// Whether a run was queued for it as a member of a group.
    has_group_runs: bool,
    /// Called when the queue is empty.
    empty: Vec<Notifier>,
    /// Of lines about refused messages.
    log_throttle: LogThrottle,
}

impl Default for Inbox {
    fn default() -> Self {
        Inbox {
            runs: VecDeque::new(),
            bytes: 0,
            messages: 0,
            held_since: None,
            watched: false,
            closed: false,
            draining: false,
            reader: None,
            reader_waits: false,
            dirty: false,
            senders: Vec::new(),
            has_group_runs: false,
            empty: Vec::new(),
            log_throttle: LogThrottle::new(1, LOG_INTERVAL),
        }
    }
}

/// The result of [`Inbox::accept`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Accepted {
    pub(crate) delivery: DeliveryStatus,
    pub(crate) follow_up: FollowUp,
}

/// What the caller must do after releasing the lock.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum FollowUp {
    Nothing,
    /// Let the watch thread watch the client.
    Watch,
    /// Disconnect the client and wake waiting tasks: the queue has closed itself with this many bytes queued.
    Disconnect {
        bytes: usize,
    },
    /// Log the number of refused messages.
    LogRefused {
        refused: u64,
        bytes: usize,
    },
}

/// Whether a watched client reads.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Health {
    /// The queue has drained or is closed; the client is no longer watched.
    Drained,
    /// Senders are held; it must be checked again at this time.
    HeldUntil(Instant),
    /// The client has read nothing for `stall_seconds`.
    Stalled { bytes: usize },
}

/// Returns the cost of a run.
#[inline]
fn cost(run: &OwnedRun) -> usize {
    cost_of(run.len(), run.bytes())
}

/// Returns the cost of a run of `messages` with `bytes` in total: its approximate memory, which the limits
/// count.
#[inline]
pub(crate) fn cost_of(messages: usize, bytes: usize) -> usize {
    bytes.saturating_add(RUN_BYTES).saturating_add(messages.saturating_mul(MESSAGE_BYTES))
}

impl Inbox {
    /// Accepts a run or refuses it. `owned` is the same run.
    ///
    /// Senders of real-time messages never wait, nor does the broker itself: their messages are accepted up
    /// to twice the limit.
    #[inline]
    pub(crate) fn accept(
        &mut self,
        run: &Run<'_>,
        owned: OwnedRun,
        limits: &Limits,
        now: impl Fn() -> Instant,
    ) -> Accepted {
        let (count, cost) = (owned.len(), cost(&owned));
        let never_waits = run.is_realtime() || run.sender() == BROKER_NAME;
        if self.closed || self.draining {
            return Accepted { delivery: DeliveryStatus::CLOSED, follow_up: FollowUp::Nothing };
        }
        let cannot_wait = never_waits.then(|| limits.queue_bytes.saturating_mul(2));
        let admission = limits.overflow.admit(self.bytes, cost, limits.queue_bytes, cannot_wait);
        match admission {
            Admission::Take | Admission::TakeFull => {}
            Admission::Refuse => {
                let follow_up = self.refuse(count, now());
                return Accepted { delivery: DeliveryStatus::REFUSED, follow_up };
            }
            Admission::Disconnect => {
                self.closed = true;
                self.held_since = None;
                let follow_up = FollowUp::Disconnect { bytes: self.bytes };
                return Accepted { delivery: DeliveryStatus::CLOSED, follow_up };
            }
        }
        self.has_group_runs |= run.is_for_group();
        self.runs.push_back(owned);
        self.bytes += cost;
        self.messages += count as u64;
        let mut accepted = Accepted { delivery: DeliveryStatus::TAKEN, follow_up: FollowUp::Nothing };
        if self.reader_waits && !std::mem::replace(&mut self.dirty, true) {
            accepted.delivery = DeliveryStatus::DIRTY;
        }
        if admission == Admission::TakeFull {
            accepted.delivery = accepted.delivery | DeliveryStatus::FULL;
            self.held_since.get_or_insert_with(now);
            if !std::mem::replace(&mut self.watched, true) {
                accepted.follow_up = FollowUp::Watch;
            }
        }
        accepted
    }

    fn refuse(&mut self, count: usize, now: Instant) -> FollowUp {
        let count = count as u64;
        match self.log_throttle.admit_many(count, now) {
            Some(before) => FollowUp::LogRefused { refused: before + count, bytes: self.bytes },
            None => FollowUp::Nothing,
        }
    }

    /// Sets the notifier of the readers.
    pub(crate) fn set_notifier(&mut self, notifier: Notifier) {
        self.reader = Some(notifier);
    }

    /// Moves queued runs to a reader; returns `false` once no more can follow. If the queue is empty and the
    /// reader `waits`, the next run returns the notifier of the readers. Also returns the notifiers of
    /// senders that can send again, and those that wait for an empty queue.
    pub(crate) fn read(
        &mut self,
        into: &mut RunBatch,
        waits: bool,
        limits: &Limits,
        now: impl FnOnce() -> Instant,
    ) -> (bool, Vec<Notifier>) {
        let mut read = 0;
        while read < READ_BYTES
            && let Some(run) = self.runs.pop_front()
        {
            let cost = cost(&run);
            read += cost;
            self.messages -= run.len() as u64;
            self.bytes -= cost;
            into.push(run);
        }
        if self.runs.is_empty() {
            if self.runs.capacity() > MIN_CAPACITY {
                self.runs.shrink_to(MIN_CAPACITY);
            }
            self.reader_waits |= waits && read == 0 && !self.closed;
        }
        let mut notifiers = Vec::new();
        if self.held_since.is_some() {
            let drained = self.bytes <= limits.queue_bytes / 4;
            self.held_since = if drained { None } else { Some(now()) };
            if drained {
                notifiers = std::mem::take(&mut self.senders);
            }
        }
        if self.runs.is_empty() && !self.empty.is_empty() {
            notifiers.append(&mut self.empty);
        }
        (!(self.closed && self.runs.is_empty()), notifiers)
    }

    /// Returns the notifier of the readers if a reader waits and the queue is not empty.
    pub(crate) fn flush(&mut self) -> Option<Notifier> {
        self.dirty = false;
        if self.runs.is_empty() && !self.closed { None } else { self.take_waiting_reader() }
    }

    fn take_waiting_reader(&mut self) -> Option<Notifier> {
        if std::mem::take(&mut self.reader_waits) { self.reader.clone() } else { None }
    }

    /// Stores the notifier of a waiting sender; returns it if the sender can send now.
    pub(crate) fn when_drained(&mut self, notifier: Notifier) -> Option<Notifier> {
        if self.closed || self.held_since.is_none() {
            return Some(notifier);
        }
        self.senders.push(notifier);
        None
    }

    /// Stores a notifier that is called when the queue is empty; returns it if it is.
    pub(crate) fn when_empty(&mut self, notifier: Notifier) -> Option<Notifier> {
        if self.closed || self.runs.is_empty() {
            return Some(notifier);
        }
        self.empty.push(notifier);
        None
    }

    /// Takes no more messages, and returns the publications if any of them is for a member of a group.
    pub(crate) fn take_unread(&mut self) -> Vec<OwnedRun> {
        self.draining = true;
        if !self.has_group_runs {
            return Vec::new();
        }
        let (taken, left): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.runs).into_iter().partition(|run| run.kind() == FrameKind::Publish);
        self.runs = left.into();
        self.bytes = self.runs.iter().map(cost).sum();
        self.messages = self.runs.iter().map(|run| run.len() as u64).sum();
        taken
    }

    /// Closes the queue, which stays readable. Returns whether it was open, and the notifiers of waiting
    /// tasks.
    pub(crate) fn close(&mut self) -> (bool, Vec<Notifier>) {
        let was_open = !std::mem::replace(&mut self.closed, true);
        self.held_since = None;
        let mut notifiers = std::mem::take(&mut self.senders);
        notifiers.append(&mut self.empty);
        notifiers.extend(self.take_waiting_reader());
        (was_open, notifiers)
    }

    /// Refuses further messages.
    pub(crate) fn drain(&mut self) {
        self.draining = true;
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Checks whether the client reads; a drained one is no longer watched.
    pub(crate) fn check(&mut self, limits: &Limits, now: Instant) -> Health {
        match self.held_since {
            Some(since) if now.saturating_duration_since(since) >= limits.stall => {
                Health::Stalled { bytes: self.bytes }
            }
            Some(since) => Health::HeldUntil(since + limits.stall),
            None => {
                self.watched = false;
                Health::Drained
            }
        }
    }

    pub(crate) fn queued(&self) -> Queued {
        Queued { frames: self.messages, bytes: self.bytes as u64 }
    }
}

#[cfg(test)]
mod tests;
