//! Applies the rate limits of a client: when they begin, how much of a read is dispatched, and when reading
//! resumes. The arithmetic is [`rate_limiter`](crate::session::rate_limiter)'s.

use std::time::{Duration, Instant};

use super::Reader;
use crate::{connection::limits::Rates, session::rate_limiter::RateLimiter};

impl Reader {
    /// Starts the rate limits of a registered client: bytes sent behind its name count already, and so does
    /// the debt of its identity.
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

    /// Stops the rate limits of a client that leaves, and records its debt for its identity.
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

    /// Updates how many frames can be dispatched now.
    #[cold]
    pub(super) fn refill_messages(&mut self) {
        if let Some(rate_limiter) = &mut self.rate_limiter {
            rate_limiter.messages_left =
                rate_limiter.left(self.batch.frames.into(), self.batch.bytes.into(), Instant::now());
        }
    }

    /// Returns how many bytes to read at once.
    pub(super) fn read_bytes(&mut self, room: usize) -> usize {
        self.rate_limiter
            .as_mut()
            .map_or(room, |rate_limiter| room.min(rate_limiter.read_bytes(Instant::now())))
    }

    /// Returns whether the client has used up its rates, so that reading must pause.
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
                // not only when it leaves: another client may register before
                self.note_debt(now);
            }
            return early;
        }
        // what was sent before the limit existed does not count
        let is_queued = rates != Rates::default();
        self.rate_limiter = is_queued.then(|| Box::new(RateLimiter::new(rates, Duration::ZERO, now)));
        false
    }
}
