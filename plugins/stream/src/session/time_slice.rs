//! The time slice of a reader before other tasks run. Owns the limit; reads the clock only after so much work
//! that the cost is negligible.

use std::{
    sync::OnceLock,
    time::{Duration, Instant},
};

/// Length of a slice. It can be exceeded by the work between two checks.
const TURN: Duration = Duration::from_millis(3);
/// Work between two checks of the clock, in recipients and messages.
const WORK_PER_LOOK: u32 = 1023;
/// Work of a run whose recipients may have to be resolved.
pub(crate) const LOOKING: u32 = 128;
/// Work of a message to a part of the broker, which can be a call.
pub(crate) const CALL: u32 = 32;
/// Work of a request with filters.
pub(crate) const FILTERS: u32 = WORK_PER_LOOK;

/// Work of a reader since it last yielded, in two bytes, as there is one for each connection: the work in the
/// lower ten bits, above them the time of the first check, 0 for none; or [`OVER`].
#[derive(Default)]
pub(crate) struct TimeSlice(u16);

const WORK_BITS: u32 = 10;
/// Times wrap around at this, in milliseconds.
const WRAP: u16 = 1 << (u16::BITS - WORK_BITS);
/// The slice is over; no work reaches this value.
const OVER: u16 = u16::MAX;

impl TimeSlice {
    /// Counts work; returns whether the slice is over.
    #[inline]
    pub(crate) fn spend(&mut self, work: u32) -> bool {
        let work = u32::from(self.0 & (WORK_PER_LOOK as u16)).saturating_add(work);
        if work < WORK_PER_LOOK {
            self.0 = (self.0 >> WORK_BITS) << WORK_BITS | work as u16;
            return false;
        }
        self.look(now())
    }

    #[cold]
    fn look(&mut self, now: u16) -> bool {
        let began = match self.0 >> WORK_BITS {
            0 => now,
            began => began,
        };
        let is_over = u128::from(now.wrapping_sub(began) % WRAP) >= TURN.as_millis();
        self.0 = if is_over { OVER } else { began << WORK_BITS };
        is_over
    }

    /// Returns whether the slice is over.
    #[inline]
    pub(crate) fn is_over(&self) -> bool {
        self.0 == OVER
    }

    /// Yields if the slice is over, and begins a new one.
    pub(crate) async fn pass(&mut self) {
        if std::mem::take(self).is_over() {
            tokio::task::yield_now().await;
        }
    }
}

/// Milliseconds, never 0, wrapping around.
fn now() -> u16 {
    static START: OnceLock<Instant> = OnceLock::new();
    (START.get_or_init(Instant::now).elapsed().as_millis() as u16 % WRAP) | 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_over_after_its_time_and_begins_again_when_it_was_passed_on() {
        let mut turn = TimeSlice::default();
        for now in [WRAP - 2, WRAP - 1] {
            assert!(!turn.look(now) && !turn.is_over());
        }
        assert!(turn.look(1) && turn.is_over(), "time has wrapped around");
        assert!(std::mem::take(&mut turn).is_over());
        assert!(!turn.look(10) && !turn.look(12) && turn.look(13));
    }

    #[test]
    fn the_clock_is_looked_at_after_some_work_only() {
        let mut turn = TimeSlice::default();
        for work in 1..WORK_PER_LOOK {
            assert!(!turn.spend(1));
            assert_eq!(u32::from(turn.0), work);
        }
        turn.spend(1);
        assert!(turn.0 > WORK_PER_LOOK as u16, "the time, and no work");
        for _ in 1..WORK_PER_LOOK / LOOKING {
            assert!(!turn.spend(LOOKING));
        }
    }
}
