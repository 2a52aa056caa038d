//! The turn of a reader: how much it may do before the runtime serves others. Owns the limit; looks at the clock only after so
//! much work that looking costs nothing beside it.

use std::{
    sync::OnceLock,
    time::{Duration, Instant},
};

/// How long a turn lasts. What is begun is ended, which takes longer by the work between two looks.
const TURN: Duration = Duration::from_millis(3);
/// Work between two looks at the clock: recipients and messages.
const WORK_PER_LOOK: u32 = 1024;
/// What a run counts whose recipients may have to be looked for.
pub(crate) const LOOKING: u32 = 128;
/// What a request with filters counts.
pub(crate) const FILTERS: u32 = WORK_PER_LOOK;

/// What a reader has done since others had their turn.
#[derive(Default)]
pub(crate) struct Turn {
    /// [`OVER`]: it is the turn of others.
    work: u16,
    /// When the clock was first looked at, in milliseconds since some moment, wrapping around; 0: not yet.
    began: u16,
}

const OVER: u16 = u16::MAX;

impl Turn {
    /// Counts work; whether it is the turn of others.
    #[inline]
    pub(crate) fn spend(&mut self, work: u32) -> bool {
        let work = u32::from(self.work).saturating_add(work);
        if work < WORK_PER_LOOK {
            self.work = work as u16;
            return false;
        }
        self.look(now())
    }

    #[cold]
    fn look(&mut self, now: u16) -> bool {
        if self.began == 0 {
            self.began = now;
        }
        let is_over = u128::from(now.wrapping_sub(self.began)) >= TURN.as_millis();
        self.work = if is_over { OVER } else { 0 };
        is_over
    }

    /// Whether it is the turn of others.
    #[inline]
    pub(crate) fn is_over(&self) -> bool {
        self.work == OVER
    }

    /// Lets others have their turn, if it is theirs.
    pub(crate) async fn pass(&mut self) {
        if std::mem::take(self).is_over() {
            tokio::task::yield_now().await;
        }
    }
}

/// Milliseconds, never 0, wrapping around.
fn now() -> u16 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_millis() as u16 | 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_over_after_its_time_and_begins_again_when_it_was_passed_on() {
        let mut turn = Turn::default();
        for now in [u16::MAX - 1, u16::MAX] {
            assert!(!turn.look(now));
        }
        assert!(turn.look(1) && turn.is_over(), "time has wrapped around");
        assert!(std::mem::take(&mut turn).is_over());
        assert!(!turn.look(100) && !turn.look(102) && turn.look(103));
    }

    #[test]
    fn the_clock_is_looked_at_after_some_work_only() {
        let mut turn = Turn::default();
        for _ in 1..WORK_PER_LOOK / LOOKING {
            assert!(!turn.spend(LOOKING));
            assert_eq!(turn.began, 0);
        }
        turn.spend(LOOKING);
        assert!(turn.began > 0 && turn.work == 0);
    }
}
