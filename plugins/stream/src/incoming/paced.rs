//! A client that may send only so much: when its pace begins, how much of a read is dispatched, and when reading goes on. Owns
//! no arithmetic, which is [`pace`](crate::pace)'s, and no waiting.

use std::time::{Duration, Instant};

use super::Incoming;
use crate::{allowance::Rates, pace::Pace};

impl Incoming {
    /// It has registered: what it has sent behind its name counts already, and so does what the last client of its identity
    /// had sent when it left.
    pub(super) fn begin_pace(&mut self) {
        let rates = self.connection.allowance.rates();
        if rates == Rates::default() {
            return;
        }
        let now = Instant::now();
        let debt = {
            let debts = self.connection.instance.debts.lock();
            debts.of(debts.debtor(&self.origin), now)
        };
        self.pace = Some(Box::new(Pace::new(rates, debt, now)));
    }

    /// It is about to leave: what it has sent counts for whoever of its identity comes next.
    pub(super) fn end_pace(&mut self) {
        let Some(pace) = &mut self.pace else { return };
        let now = Instant::now();
        pace.take(self.own.frames.into(), self.own.bytes.into(), now);
        self.note_debt(now);
        self.pace = None;
    }

    fn note_debt(&mut self, now: Instant) {
        let debt = self.pace.as_mut().map_or(Duration::ZERO, |pace| pace.debt(now));
        if debt > Duration::ZERO {
            let mut debts = self.connection.instance.debts.lock();
            let debtor = debts.debtor(&self.origin);
            debts.add(debtor, debt, now);
        }
    }

    /// How many frames may be dispatched now.
    #[cold]
    pub(super) fn look_what_is_left(&mut self) {
        if let Some(pace) = &mut self.pace {
            pace.may_send = pace.left(self.own.frames.into(), self.own.bytes.into(), Instant::now());
        }
    }

    /// How much is read at once.
    pub(super) fn read_bytes(&mut self, room: usize) -> usize {
        self.pace.as_mut().map_or(room, |pace| room.min(pace.read_bytes(Instant::now())))
    }

    /// Whether the client has sent as much as it may, so that it is not to be read from for a while.
    #[inline]
    pub(super) fn is_too_early(&mut self) -> bool {
        let rates = self.connection.allowance.rates();
        (self.pace.is_some() || rates != Rates::default()) && self.client.is_some() && self.keep_pace(rates)
    }

    #[cold]
    fn keep_pace(&mut self, rates: Rates) -> bool {
        let now = Instant::now();
        let (frames, bytes) = (std::mem::take(&mut self.own.frames), std::mem::take(&mut self.own.bytes));
        if let Some(pace) = self.pace.as_mut().filter(|pace| pace.rates == rates) {
            let early = pace.take(frames.into(), bytes.into(), now);
            if early {
                // not only as it leaves: another one may come before
                self.note_debt(now);
            }
            return early;
        }
        // what it has sent before there was this limit is not held against it
        let is_paced = rates != Rates::default();
        self.pace = is_paced.then(|| Box::new(Pace::new(rates, Duration::ZERO, now)));
        false
    }
}
