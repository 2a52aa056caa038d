//! The sum of all clients' counters, cached for a moment: a flood of `stats` does not visit all clients each
//! time.

use std::time::{Duration, Instant};

use crate::{statistics::Totals, sync::Mutex};

/// With more clients than this, the sum is computed once in [`VALID_FOR`].
const FEW_CLIENTS: usize = 64;
/// How long a sum over many clients stays valid.
const VALID_FOR: Duration = Duration::from_millis(100);

/// The sum, and when it was computed. Its lock is held while the sum is computed, and taken before the
/// registry's.
#[derive(Default)]
pub(super) struct TotalsCache(Mutex<Option<(Instant, Totals)>>);

impl TotalsCache {
    /// Returns the cached sum if it is recent, otherwise that of `compute`, which also returns the number of
    /// clients.
    pub(super) fn get(&self, now: Instant, compute: impl FnOnce() -> (Totals, usize)) -> Totals {
        let mut cached = self.0.lock();
        if let Some((since, totals)) = *cached
            && now.saturating_duration_since(since) < VALID_FOR
        {
            return totals;
        }
        let (totals, clients) = compute();
        *cached = (clients > FEW_CLIENTS).then_some((now, totals));
        totals
    }
}

#[cfg(all(test, not(elbus_model)))]
mod tests {
    use super::*;

    fn frames(received_frames: u64) -> Totals {
        Totals { received_frames, ..Totals::default() }
    }

    #[test]
    fn a_sum_over_many_clients_is_computed_once_in_a_while_and_over_few_each_time() {
        let (cache, start) = (TotalsCache::default(), Instant::now());
        assert_eq!(cache.get(start, || (frames(1), FEW_CLIENTS)), frames(1));
        assert_eq!(cache.get(start, || (frames(2), FEW_CLIENTS + 1)), frames(2));
        let later = start + VALID_FOR - Duration::from_millis(1);
        assert_eq!(cache.get(later, || unreachable!("it is valid still")), frames(2));
        assert_eq!(cache.get(start + VALID_FOR, || (frames(3), FEW_CLIENTS + 1)), frames(3));
    }
}
