//! Watches how much memory the process holds, and has what is unused given back once a burst or a crowd is over. Owns
//! when; `process/allocator.rs` gives it back.

use elbus_broker::Broker;
use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use crate::process::allocator::release_unused_memory;

/// How often to look.
const LOOK: Duration = Duration::from_millis(250);
/// So much more than the least there was is worth the effort, in bytes.
const WORTH: u64 = 1 << 20;
/// Held by this many looks in a row without growing: whatever caused it is over.
const QUIET: u32 = 2;
/// So many clients that left are a crowd.
const CROWD: usize = 16;
/// So many hundredths of a second of processor time between two looks are work, a tenth of a processor.
const WORK: u64 = 3;
/// Work is over when it is no more than this part of what it was.
const OVER: u64 = 4;
/// The shortest and the longest rest after an attempt, in looks.
const REST: (u32, u32) = (2, 240);

/// Starts the thread, which ends with the broker. Without it the broker only holds more memory than it needs.
pub(crate) fn watch(broker: &Arc<Broker>) {
    let broker: Weak<Broker> = Arc::downgrade(broker);
    let body = move || {
        let mut judge = Judge::default();
        while let Some(usage) = Usage::of_this_process() {
            let Some(clients) = broker.upgrade().map(|broker| broker.client_count()) else { return };
            if judge.look(usage, clients) {
                release_unused_memory();
                judge.released(Usage::of_this_process().map_or(usage.held, |usage| usage.held));
            }
            std::thread::sleep(LOOK);
        }
    };
    if let Err(error) = std::thread::Builder::new().name("memory".to_owned()).spawn(body) {
        tracing::warn!(%error, "no thread to give memory back");
    }
}

/// What the process has and has had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Usage {
    /// Memory in RAM, in bytes.
    held: u64,
    /// Processor time since the start, in ticks of the kernel: hundredths of a second on all common systems.
    ticks: u64,
}

impl Usage {
    /// `None` where the system does not say.
    fn of_this_process() -> Option<Self> {
        Self::parse(&std::fs::read_to_string("/proc/self/stat").ok()?)
    }

    /// Fields 14, 15 and 24 of proc(5); the second one is in parentheses and may hold anything.
    fn parse(stat: &str) -> Option<Self> {
        let fields: Vec<_> = stat.rsplit(')').next()?.split_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        let page = rustix::param::page_size() as u64;
        Some(Usage { held: number(24)? * page, ticks: number(14)? + number(15)? })
    }
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
    /// Processor time at the last look, and the most between two looks since the last attempt.
    ticks: u64,
    work: u64,
    /// Looks until the next attempt, and how many there were between the last two.
    rest: u32,
    last_rest: u32,
}

impl Judge {
    /// Whether to give memory back now.
    fn look(&mut self, Usage { held, ticks }: Usage, clients: usize) -> bool {
        let grown = held > self.before + WORTH / 4;
        self.quiet = if grown { 0 } else { self.quiet + 1 };
        self.before = held;
        let least = *self.least.insert(self.least.map_or(held, |least| least.min(held)));
        self.clients = self.clients.max(clients);
        let work = ticks.saturating_sub(self.ticks);
        (self.ticks, self.work) = (ticks, self.work.max(work));
        let idle_again = self.work >= WORK && work * OVER <= self.work;
        // something has happened since the last attempt: what it says is over
        let news = held >= self.after + WORTH || clients + CROWD <= self.clients || idle_again;
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
        (self.quiet, self.clients, self.work) = (0, 0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn idle(held: u64) -> Usage {
        Usage { held, ticks: 0 }
    }

    #[test]
    fn a_burst_is_waited_for_and_then_given_back() {
        let mut judge = Judge::default();
        for held in [10, 20, 30, 40] {
            assert!(!judge.look(idle(held * MIB), 1), "it grows");
        }
        assert!(!judge.look(idle(40 * MIB), 1));
        assert!(judge.look(idle(40 * MIB), 1));
        judge.released(10 * MIB + 1);
        assert!((0..1000).all(|_| !judge.look(idle(10 * MIB + 1), 1)), "nothing more to give back");
    }

    #[test]
    fn what_is_in_use_is_asked_for_less_and_less_until_a_crowd_leaves() {
        let mut judge = Judge::default();
        assert!(!judge.look(idle(10 * MIB), 100));
        let mut attempts = 0;
        for _ in 0..1000 {
            if judge.look(idle(50 * MIB), 100) {
                attempts += 1;
                judge.released(50 * MIB);
            }
        }
        assert!((5..15).contains(&attempts), "{attempts}");
        assert!(judge.look(idle(50 * MIB), 10), "the crowd has left");
    }

    #[test]
    fn what_a_steady_load_held_is_asked_for_when_the_load_ends() {
        let (mut judge, mut ticks) = (Judge::default(), 0);
        let mut look = |work, held| {
            ticks += work;
            let now = judge.look(Usage { held: held * MIB, ticks }, 2);
            if now {
                judge.released(held * MIB);
            }
            now
        };
        assert!(!look(0, 10));
        let attempts = (0..1000).filter(|_| look(25, 20)).count();
        assert!((5..15).contains(&attempts), "in vain: {attempts}");
        assert!(look(2, 20), "at once");
        assert_eq!((0..5).position(|_| look(0, 20)), Some(1), "and again a moment later");
        assert!((0..3).all(|_| !look(2, 20)), "a little work is none");
    }

    #[test]
    fn the_kernel_says_what_the_process_has() {
        let usage = Usage::of_this_process().unwrap();
        assert!(usage.held > MIB && usage.held < 1 << 40, "{usage:?}");
        let stat = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 21 22 13 14 15 16 17 18 19 20 30 0";
        let page = rustix::param::page_size() as u64;
        assert_eq!(Usage::parse(stat), Some(Usage { held: 30 * page, ticks: 43 }));
        assert_eq!(Usage::parse("7 (a) S 1 2"), None);
    }
}
