//! What has arrived on a link and is not acknowledged, and which batches were lost.

use crate::{settings::Limits, wire::append_arrived};
use std::{collections::VecDeque, time::Duration};

/// Time within which the arrival of a batch is acknowledged.
pub(super) const ACKNOWLEDGE_AFTER: Duration = Duration::from_millis(20);
/// Ranges of lost batches whose report has not arrived, from which on the link is given up.
const MAX_RANGES: usize = 1024;
/// The greatest number of a batch, far from the end of its field.
const MAX_SEQUENCE: u64 = u64::MAX / 2;

/// A link is not usable any more, because the other node does what only a defective node does.
#[derive(Debug)]
pub(super) struct Violation;

/// What has arrived and is not acknowledged.
#[derive(Debug)]
pub(super) struct Receiving {
    /// Number of the next batch.
    next: u64,
    /// Ranges of lost batches whose report has not arrived: first number and how many.
    lost: VecDeque<(u64, u64)>,
    /// Whether something has arrived since the last acknowledgement.
    has_news: bool,
    /// Bytes that have arrived since the last acknowledgement.
    bytes: usize,
    /// Bytes from which the acknowledgement is not delayed.
    enough: usize,
    due: Duration,
}

impl Receiving {
    pub(super) fn new(limits: &Limits) -> Self {
        let enough = limits.pair_credit / 8;
        Receiving { next: 1, lost: VecDeque::new(), has_news: false, bytes: 0, enough, due: Duration::MAX }
    }

    /// A batch has arrived. Returns how many before it are lost; `None` if it has arrived before, or comes
    /// after a later one.
    pub(super) fn arrived(&mut self, number: u64, now: Duration) -> Result<Option<u64>, Violation> {
        if number > MAX_SEQUENCE {
            return Err(Violation);
        }
        if number < self.next {
            return Ok(None);
        }
        let missing = number - self.next;
        if missing > 0 {
            self.lost.push_back((self.next, missing));
            self.due = now;
        }
        self.next = number + 1;
        self.has_news = true;
        Ok(Some(missing))
    }

    /// Returns whether too many batches were lost for the link to go on.
    pub(super) fn is_unreliable(&self) -> bool {
        self.lost.len() > MAX_RANGES
    }

    /// Returns when an acknowledgement is due.
    pub(super) fn due(&self) -> Duration {
        self.due
    }

    /// The batch that has arrived last had this length, and contents that are acknowledged soon.
    pub(super) fn elicited(&mut self, bytes: usize, now: Duration) {
        self.bytes += bytes;
        let is_enough = self.bytes >= self.enough;
        self.due = self.due.min(if is_enough { now } else { now + ACKNOWLEDGE_AFTER });
    }

    pub(super) fn is_due(&self, now: Duration) -> bool {
        now >= self.due
    }

    /// Appends the acknowledgement if there are news. Returns the end of the last range of lost batches in
    /// it.
    pub(super) fn append_due(&mut self, out: &mut Vec<u8>) -> u64 {
        if !self.has_news {
            return 0;
        }
        append_arrived(out, self.next - 1, self.lost.iter().copied());
        (self.has_news, self.bytes, self.due) = (false, 0, Duration::MAX);
        self.lost.back().map_or(0, |(first, count)| first + count)
    }

    /// An acknowledgement was lost.
    pub(super) fn repeat(&mut self, now: Duration) {
        self.has_news = true;
        self.due = now;
    }

    /// A report of losses up to this number has arrived.
    pub(super) fn confirm(&mut self, upto: u64) {
        while self.lost.front().is_some_and(|(first, count)| first + count <= upto) {
            self.lost.pop_front();
        }
    }
}
