//! A client that may send only so much: when its pace begins, how much of a read is dispatched, and when reading goes on. Owns
//! no arithmetic, which is [`pace`](crate::session::rate_limiter)'s, and no waiting.

use std::time::{Duration, Instant};

use super::Reader;
use crate::{connection::limits::Rates, session::rate_limiter::RateLimiter};

impl Reader {
    /// It has registered: what it has sent behind its name counts already, and so does what the last client of its identity
    /// had sent when it left.
    pub(super) fn start_rate_limit(&mut self) {
        let rates = self.connection.limits.rates();
        if rates == Rates::default() {
            return;
        }
        let now = Instant::now();
        let debt = {
            let rate_debts = self.connection.server.rate_debts.lock();
            rate_debts.of(rate_debts.identity(&self.peer), now)
        };
        self.rate_limiter = Some(Box::new(RateLimiter::new(rates, debt, now)));
    }

    /// It is about to leave: what it has sent counts for whoever of its identity comes next.
    pub(super) fn stop_rate_limit(&mut self) {
        let Some(rate_limiter) = &mut self.rate_limiter else { return };
        let now = Instant::now();
        rate_limiter.take(self.batch.frames.into(), self.batch.bytes.into(), now);
        self.note_debt(now);
        self.rate_limiter = None;
    }

    fn note_debt(&mut self, now: Instant) {
        let debt = self.rate_limiter.as_mut().map_or(Duration::ZERO, |rate_limiter| rate_limiter.debt(now));
        if debt > Duration::ZERO {
            let mut rate_debts = self.connection.server.rate_debts.lock();
            let identity = rate_debts.identity(&self.peer);
            rate_debts.add(identity, debt, now);
        }
    }

    /// How many frames may be dispatched now.
    #[cold]
    pub(super) fn refill_messages(&mut self) {
        if let Some(rate_limiter) = &mut self.rate_limiter {
            rate_limiter.messages_left =
                rate_limiter.left(self.batch.frames.into(), self.batch.bytes.into(), Instant::now());
        }
    }

    /// How much is read at once.
    pub(super) fn read_bytes(&mut self, room: usize) -> usize {
        self.rate_limiter
            .as_mut()
            .map_or(room, |rate_limiter| room.min(rate_limiter.read_bytes(Instant::now())))
    }

    /// Whether the client has sent as much as it may, so that it is not to be read from for a while.
    #[inline]
    pub(super) fn is_rate_limited(&mut self) -> bool {
        let rates = self.connection.limits.rates();
        (self.rate_limiter.is_some() || rates != Rates::default())
            && self.client.is_some()
            && self.apply_rates(rates)
    }

    #[cold]
    fn apply_rates(&mut self, rates: Rates) -> bool {
        let now = Instant::now();
        let (frames, bytes) = (std::mem::take(&mut self.batch.frames), std::mem::take(&mut self.batch.bytes));
        if let Some(rate_limiter) =
            self.rate_limiter.as_mut().filter(|rate_limiter| rate_limiter.rates == rates)
        {
            let early = rate_limiter.take(frames.into(), bytes.into(), now);
            if early {
                // not only as it leaves: another one may come before
                self.note_debt(now);
            }
            return early;
        }
        // what it has sent before there was this limit is not held against it
        let is_queued = rates != Rates::default();
        self.rate_limiter = is_queued.then(|| Box::new(RateLimiter::new(rates, Duration::ZERO, now)));
        false
    }
}
