//! Figures of the broker's process: processor time, memory, file descriptors, threads. Reads `/proc/self`
//! only: a service manager may hide the rest of `/proc`.

use elbus_plugin_api::unix_nanos;
use rustix::{
    param::clock_ticks_per_second,
    time::{ClockId, clock_gettime},
};
use std::{
    fs,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use crate::{
    exposition::Samples,
    families::{CPU, MAX_FDS, OPEN_FDS, RESIDENT_MEMORY, START_TIME, THREADS, VIRTUAL_MEMORY},
};

/// For how long a number of descriptors that took long to count is used.
const RECOUNT_AFTER: Duration = Duration::from_secs(10);

/// What `/proc/self/stat` says.
#[derive(Debug, PartialEq)]
struct Stat {
    cpu_seconds: f64,
    threads: u64,
    virtual_bytes: u64,
    resident_pages: u64,
    /// Seconds from the start of the machine to that of the process.
    started: f64,
}

/// Reads the figures at each scrape.
pub(crate) struct Process {
    begun: Instant,
    /// When the machine has started, in seconds since 1970.
    boot: f64,
    /// The number of descriptors as it was counted last, and when, in milliseconds since `begun`. Kernels
    /// before 6.2 make counting expensive.
    counted: AtomicU64,
    counted_at: AtomicU64,
}

impl Process {
    pub(crate) fn new() -> Self {
        let up = clock_gettime(ClockId::Boottime);
        let up = up.tv_sec as f64 + up.tv_nsec as f64 / 1e9;
        Process {
            begun: Instant::now(),
            boot: unix_nanos() as f64 / 1e9 - up,
            counted: AtomicU64::new(0),
            counted_at: AtomicU64::new(u64::MAX),
        }
    }

    /// Adds the figures. Those that cannot be read are left out.
    pub(crate) fn sample(&self, samples: &mut Samples) {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        if let Some(stat) = parse_stat(&stat, clock_ticks_per_second() as f64) {
            samples.number(&CPU, &[], stat.cpu_seconds);
            samples.count(&THREADS, &[], stat.threads);
            samples.count(&VIRTUAL_MEMORY, &[], stat.virtual_bytes);
            let page = rustix::param::page_size() as u64;
            samples.count(&RESIDENT_MEMORY, &[], stat.resident_pages.saturating_mul(page));
            samples.number(&START_TIME, &[], self.boot + stat.started);
        }
        if let Some(count) = self.open_fds() {
            samples.count(&OPEN_FDS, &[], count);
        }
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        if let Some(limit) = max_fds(&limits) {
            samples.count(&MAX_FDS, &[], limit);
        }
    }

    fn open_fds(&self) -> Option<u64> {
        // the size of the folder is the number of descriptors, from Linux 6.2 on
        let size = fs::metadata("/proc/self/fd").ok()?.len();
        if size > 0 {
            return Some(size);
        }
        let now = self.begun.elapsed().as_millis() as u64;
        let at = self.counted_at.load(Relaxed);
        if at == u64::MAX || now.saturating_sub(at) >= RECOUNT_AFTER.as_millis() as u64 {
            // one of them is that of the folder
            let count = fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1);
            self.counted.store(count as u64, Relaxed);
            self.counted_at.store(now, Relaxed);
        }
        Some(self.counted.load(Relaxed))
    }
}

fn parse_stat(text: &str, ticks_per_second: f64) -> Option<Stat> {
    // the name of the program, in parentheses, can contain anything
    let (_, behind_name) = text.rsplit_once(')')?;
    let fields: Vec<&str> = behind_name.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    Some(Stat {
        cpu_seconds: (field(14)? + field(15)?) as f64 / ticks_per_second,
        threads: field(20)?,
        started: field(22)? as f64 / ticks_per_second,
        virtual_bytes: field(23)?,
        resident_pages: field(24)?,
    })
}

/// Returns the limit of open files; `None` if there is none.
fn max_fds(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_the_program_can_contain_anything() {
        let text =
            "7 (a ) S 1 (x) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 9 0 1000 4096 3 18446744073709551615";
        let stat = parse_stat(text, 100.0).unwrap();
        let expected =
            Stat { cpu_seconds: 2.0, threads: 9, virtual_bytes: 4096, resident_pages: 3, started: 10.0 };
        assert_eq!(stat, expected);
        assert_eq!(parse_stat("7 (a) S", 100.0), None);
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024                 4096   files\n";
        assert_eq!(max_fds(limits), Some(1024));
        assert_eq!(max_fds(&limits.replace("1024", "unlimited")), None);
    }

    #[test]
    fn this_process_has_all_figures() {
        let mut samples = Samples::default();
        Process::new().sample(&mut samples);
        let text = samples.encode().unwrap();
        for family in [&CPU, &RESIDENT_MEMORY, &VIRTUAL_MEMORY, &OPEN_FDS, &MAX_FDS, &THREADS, &START_TIME] {
            assert!(text.lines().any(|line| line.starts_with(family.name)), "{}\n{text}", family.name);
        }
    }
}
