//! What the whole-broker tests share: an `elbusd` of their own and clients that speak the bare wire format.
#![allow(dead_code, reason = "each test file uses some of it")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should not")]

pub(crate) mod daemon;
pub(crate) mod level;
pub(crate) mod load;
pub(crate) mod wire;

use std::time::{Duration, Instant};

/// How long anything that must happen may take before a test fails; generous, since nothing waits for it that goes
/// well.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `ready` says so.
pub(crate) fn wait_until(what: &str, mut ready: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !ready() {
        assert!(Instant::now() < until, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
