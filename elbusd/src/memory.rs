//! Watches how much memory the process holds, and has what is unused given back once a burst or a crowd is over. Owns
//! when; the giving back is the broker library's.

use elbus_broker::Broker;
use std::{
    sync::{Arc, Weak},
    time::Duration,
};

/// How often to look.
const LOOK: Duration = Duration::from_millis(250);
/// So much more than the least there was is worth the effort, in bytes.
const WORTH: u64 = 1 << 20;
/// Held by this many looks in a row without growing: whatever caused it is over.
const QUIET: u32 = 2;
/// So many clients that left are a crowd.
const CROWD: usize = 16;
/// The shortest and the longest rest after an attempt, in looks.
const REST: (u32, u32) = (4, 240);

/// Starts the thread, which ends with the broker. Without it the broker only holds more memory than it needs.
pub(crate) fn watch(broker: &Arc<Broker>) {
    let broker: Weak<Broker> = Arc::downgrade(broker);
    let body = move || {
        let mut judge = Judge::default();
        loop {
            std::thread::sleep(LOOK);
            let (Some(clients), Some(held)) =
                (broker.upgrade().map(|broker| broker.client_count()), resident_bytes())
            else {
                return;
            };
            if judge.look(held, clients) {
                elbus_broker::release_unused_memory();
                judge.released(resident_bytes().unwrap_or(held));
            }
        }
    };
    if let Err(error) = std::thread::Builder::new().name("memory".to_owned()).spawn(body) {
        tracing::warn!(%error, "no thread to give memory back");
    }
}

/// Memory of the process that is in RAM; `None` where the system does not say.
fn resident_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// Decides when it is worth it.
#[derive(Default)]
struct Judge {
    /// The least that was ever held.
    least: Option<u64>,
    /// At the last look, and for how many looks it has not grown.
    before: u64,
    quiet: u32,
    /// After the last attempt.
    after: u64,
    /// The most clients since the last attempt.
    clients: usize,
    /// Looks until the next attempt, and how many there were between the last two.
    rest: u32,
    last_rest: u32,
}

impl Judge {
    /// Whether to give memory back now.
    fn look(&mut self, held: u64, clients: usize) -> bool {
        let grown = held > self.before + WORTH / 4;
        self.quiet = if grown { 0 } else { self.quiet + 1 };
        self.before = held;
        let least = *self.least.insert(self.least.map_or(held, |least| least.min(held)));
        self.clients = self.clients.max(clients);
        // something has happened since the last attempt: what it says is over
        let news = held >= self.after + WORTH || clients + CROWD <= self.clients;
        self.rest = if news { 0 } else { self.rest.saturating_sub(1) };
        if news {
            self.last_rest = 0;
        }
        self.quiet >= QUIET && self.rest == 0 && held >= least + WORTH
    }

    /// Notes what is held after it. What is in use is looked for less and less often.
    fn released(&mut self, held: u64) {
        self.last_rest = (self.last_rest * 2).clamp(REST.0, REST.1);
        (self.rest, self.after, self.before) = (self.last_rest, held, held);
        (self.quiet, self.clients) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_burst_is_waited_for_and_then_given_back() {
        let mut judge = Judge::default();
        for held in [10, 20, 30, 40] {
            assert!(!judge.look(held * MIB, 1), "it grows");
        }
        assert!(!judge.look(40 * MIB, 1));
        assert!(judge.look(40 * MIB, 1));
        judge.released(10 * MIB + 1);
        assert!((0..1000).all(|_| !judge.look(10 * MIB + 1, 1)), "nothing more to give back");
    }

    #[test]
    fn what_is_in_use_is_asked_for_less_and_less_until_a_crowd_leaves() {
        let mut judge = Judge::default();
        assert!(!judge.look(10 * MIB, 100));
        let mut attempts = 0;
        for _ in 0..1000 {
            if judge.look(50 * MIB, 100) {
                attempts += 1;
                judge.released(50 * MIB);
            }
        }
        assert!((5..15).contains(&attempts), "{attempts}");
        assert!(judge.look(50 * MIB, 10), "the crowd has left");
    }
}
