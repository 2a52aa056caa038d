//! Returns unused memory to the system after a burst, after many clients have left, and after a load has
//! ended. Owns when to do so; `process/allocator.rs` does it.

use elbus_broker::Broker;
use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use crate::process::allocator::release_unused_memory;

/// Time between two samples.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(250);
/// Bytes above the minimum from which trimming is worth its cost.
const MIN_EXCESS: u64 = 1 << 20;
/// Samples without growth after which a burst is over.
const STABLE_SAMPLES: u32 = 2;
/// How many clients must have left to cause an attempt.
const MANY_CLIENTS: usize = 16;
/// CPU time between two samples that counts as load, in hundredths of a second: a tenth of a processor.
const MIN_LOAD: u64 = 3;
/// A load has ended when it is at most 1/4 of its maximum.
const LOAD_DECLINE: u64 = 4;
/// The minimum and maximum pause after an attempt, in samples.
const PAUSE: (u32, u32) = (2, 240);

/// Starts the thread, which ends with the broker. Without it the broker only holds more memory than it needs.
pub(crate) fn start(broker: &Arc<Broker>) {
    let broker: Weak<Broker> = Arc::downgrade(broker);
    let body = move || {
        let mut policy = TrimPolicy::default();
        while let Some(usage) = Usage::of_this_process() {
            let Some(clients) = broker.upgrade().map(|broker| broker.client_count()) else { return };
            if policy.should_trim(usage, clients) {
                release_unused_memory();
                policy.trimmed(Usage::of_this_process().map_or(usage.resident, |usage| usage.resident));
            }
            std::thread::sleep(SAMPLE_INTERVAL);
        }
    };
    if let Err(error) = std::thread::Builder::new().name("memory".to_owned()).spawn(body) {
        tracing::warn!(%error, "cannot start the memory thread; unused memory is not returned to the system");
    }
}

/// The resources used by the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Usage {
    /// Resident memory in bytes.
    resident: u64,
    /// CPU time since the start, in kernel ticks: hundredths of a second on all common systems.
    cpu_ticks: u64,
}

impl Usage {
    /// Reads the usage, or returns `None` if the system does not report it.
    fn of_this_process() -> Option<Self> {
        Self::parse(&std::fs::read_to_string("/proc/self/stat").ok()?)
    }

    /// Parses fields 14, 15 and 24 of proc(5). The second field is in parentheses and can contain any text.
    fn parse(stat: &str) -> Option<Self> {
        let fields: Vec<_> = stat.rsplit(')').next()?.split_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        let page = rustix::param::page_size() as u64;
        Some(Usage { resident: number(24)? * page, cpu_ticks: number(14)? + number(15)? })
    }
}

/// Decides when trimming is worth its cost.
#[derive(Default)]
struct TrimPolicy {
    /// The minimum of resident memory so far.
    min_resident: Option<u64>,
    /// Resident memory in the previous sample.
    last_resident: u64,
    /// Samples since it last grew.
    stable_samples: u32,
    /// Resident memory after the last attempt.
    trimmed_resident: u64,
    /// The maximum number of clients since the last attempt.
    max_clients: usize,
    /// CPU time in the previous sample.
    last_cpu_ticks: u64,
    /// The maximum CPU time between two samples since the last attempt.
    max_load: u64,
    /// Samples until the next attempt.
    pause: u32,
    /// The pause after the last attempt, which doubles while attempts free nothing.
    last_pause: u32,
}

impl TrimPolicy {
    /// Adds a sample. Returns whether to trim now.
    fn should_trim(&mut self, Usage { resident, cpu_ticks }: Usage, clients: usize) -> bool {
        let grown = resident > self.last_resident + MIN_EXCESS / 4;
        self.stable_samples = if grown { 0 } else { self.stable_samples + 1 };
        self.last_resident = resident;
        let min_resident = self.min_resident.map_or(resident, |min_resident| min_resident.min(resident));
        self.min_resident = Some(min_resident);
        self.max_clients = self.max_clients.max(clients);
        let load = cpu_ticks.saturating_sub(self.last_cpu_ticks);
        (self.last_cpu_ticks, self.max_load) = (cpu_ticks, self.max_load.max(load));
        // memory may have become unused since the last attempt, so its pause ends
        let grown_since_trim = resident >= self.trimmed_resident + MIN_EXCESS;
        let clients_left = clients + MANY_CLIENTS <= self.max_clients;
        let load_ended = self.max_load >= MIN_LOAD && load * LOAD_DECLINE <= self.max_load;
        if grown_since_trim || clients_left || load_ended {
            (self.pause, self.last_pause) = (0, 0);
        } else {
            self.pause = self.pause.saturating_sub(1);
        }
        self.stable_samples >= STABLE_SAMPLES && self.pause == 0 && resident >= min_resident + MIN_EXCESS
    }

    /// Records resident memory after an attempt. Attempts that free nothing become less frequent.
    fn trimmed(&mut self, resident: u64) {
        self.last_pause = (self.last_pause * 2).clamp(PAUSE.0, PAUSE.1);
        (self.pause, self.trimmed_resident, self.last_resident) = (self.last_pause, resident, resident);
        (self.stable_samples, self.max_clients, self.max_load) = (0, 0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn idle(resident: u64) -> Usage {
        Usage { resident, cpu_ticks: 0 }
    }

    #[test]
    fn memory_is_trimmed_after_a_burst_and_not_during_it() {
        let mut policy = TrimPolicy::default();
        for resident in [10, 20, 30, 40] {
            assert!(!policy.should_trim(idle(resident * MIB), 1), "it grows");
        }
        assert!(!policy.should_trim(idle(40 * MIB), 1));
        assert!(policy.should_trim(idle(40 * MIB), 1));
        policy.trimmed(10 * MIB + 1);
        assert!((0..1000).all(|_| !policy.should_trim(idle(10 * MIB + 1), 1)), "nothing more to trim");
    }

    #[test]
    fn attempts_become_rarer_until_many_clients_leave() {
        let mut policy = TrimPolicy::default();
        assert!(!policy.should_trim(idle(10 * MIB), 100));
        let mut attempts = 0;
        for _ in 0..1000 {
            if policy.should_trim(idle(50 * MIB), 100) {
                attempts += 1;
                policy.trimmed(50 * MIB);
            }
        }
        assert!((5..15).contains(&attempts), "{attempts}");
        assert!(policy.should_trim(idle(50 * MIB), 10), "many clients have left");
    }

    #[test]
    fn memory_of_a_steady_load_is_trimmed_when_the_load_ends() {
        let (mut policy, mut cpu_ticks) = (TrimPolicy::default(), 0);
        let mut sample = |load, resident| {
            cpu_ticks += load;
            let trims = policy.should_trim(Usage { resident: resident * MIB, cpu_ticks }, 2);
            if trims {
                policy.trimmed(resident * MIB);
            }
            trims
        };
        assert!(!sample(0, 10));
        let attempts = (0..1000).filter(|_| sample(25, 20)).count();
        assert!((5..15).contains(&attempts), "in vain: {attempts}");
        assert!(sample(2, 20), "immediately");
        assert_eq!((0..5).position(|_| sample(0, 20)), Some(1), "and again shortly after");
        assert!((0..3).all(|_| !sample(2, 20)), "a small load does not count");
    }

    #[test]
    fn usage_is_read_from_the_kernel() {
        let usage = Usage::of_this_process().unwrap();
        assert!(usage.resident > MIB && usage.resident < 1 << 40, "{usage:?}");
        let stat = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 21 22 13 14 15 16 17 18 19 20 30 0";
        let page = rustix::param::page_size() as u64;
        assert_eq!(Usage::parse(stat), Some(Usage { resident: 30 * page, cpu_ticks: 43 }));
        assert_eq!(Usage::parse("7 (a) S 1 2"), None);
    }
}
