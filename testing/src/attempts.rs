//! Attempts at tests whose outcome depends on how punctual the machine is, for example that a client which
//! pings in time stays connected. A machine that stalls for longer than the first time limit fails no test.
//! Not for tests that can wait for an event instead.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

/// Calls `attempt` with a time limit, and if it panics with one four times as long, twice. What is wrong
/// whatever the limit fails all three.
pub fn with_growing_limits(first: Duration, attempt: impl Fn(Duration)) {
    for limit in [first, 4 * first] {
        if catch_unwind(AssertUnwindSafe(|| attempt(limit))).is_ok() {
            return;
        }
        eprintln!("attempted again with a longer time limit");
    }
    attempt(16 * first);
}

/// Calls `attempt` until it does not panic, at most three times. For upper bounds of times that are far
/// greater if what is tested does not work.
pub fn three_times_at_most(attempt: impl Fn()) {
    for _ in 0..2 {
        if catch_unwind(AssertUnwindSafe(&attempt)).is_ok() {
            return;
        }
        eprintln!("attempted again");
    }
    attempt();
}
