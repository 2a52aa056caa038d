//! What a process has used, as the kernel counts it, and the file descriptor limit of this process. Reads
//! files below /proc; changes no other process.

use rustix::{
    process::{Resource, Rlimit, getrlimit, setrlimit},
    time::{ClockId, clock_gettime},
};
use std::{
    collections::HashMap,
    fs,
    time::{Duration, Instant},
};

use crate::BoxError;

/// The CPU time of all threads of a process at one moment.
pub(crate) struct CpuTime {
    /// On-CPU time by thread, exact to a nanosecond; empty if the kernel does not count it.
    threads: HashMap<String, Duration>,
    /// The time of the whole process, including threads that have ended, exact to 10 ms.
    process: Duration,
}

impl CpuTime {
    /// `None` if there is no such process.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let process = process_time(pid)?;
        let mut threads = HashMap::new();
        for thread in fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
            let nanos = fs::read_to_string(thread.path().join("schedstat"))
                .ok()
                .and_then(|text| text.split_whitespace().next()?.parse().ok());
            if let Some(nanos) = nanos {
                threads
                    .insert(thread.file_name().to_string_lossy().into_owned(), Duration::from_nanos(nanos));
            }
        }
        Some(CpuTime { threads, process })
    }

    /// The time used since `before`. The sum over threads misses those that have ended since; if it misses
    /// much, the time of the whole process is used instead.
    pub(crate) fn since(&self, before: &CpuTime) -> Duration {
        let coarse = self.process.saturating_sub(before.process);
        let fine = self
            .threads
            .iter()
            .map(|(id, time)| time.saturating_sub(before.threads.get(id).copied().unwrap_or_default()))
            .sum::<Duration>();
        if fine + Duration::from_millis(50) < coarse { coarse } else { fine }
    }
}

/// The CPU time of this process, including threads that have ended.
fn own_cpu_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default()
}

/// User and system time of a process. The kernel counts both in hundredths of a second on all known machines.
fn process_time(pid: u32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit(')').next()?.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    Some(Duration::from_millis((ticks()? + ticks()?) * 10))
}

/// The peak resident memory of a process, in bytes.
pub(crate) fn peak_memory(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    parse_kib(&status, "VmHWM:")
}

/// The resident memory of a process, in bytes.
pub(crate) fn resident_memory(pid: u32) -> Option<u64> {
    // exact, while the counts in `status` may be off by some pages per processor
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    parse_kib(&rollup, "Rss:")
}

fn parse_kib(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Raises the file descriptor limit of this process to at least `needed`.
pub(crate) fn raise_fd_limit(needed: u64) -> Result<(), BoxError> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    if let Some(hard_limit) = limit.maximum.filter(|hard_limit| *hard_limit < needed) {
        return Err(format!(
            "{needed} file descriptors are needed, but the hard limit is {hard_limit}: raise it \
             (ulimit -Hn {needed}) or use fewer clients"
        )
        .into());
    }
    Ok(setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?)
}

/// Measures what the broker and the generator use.
pub(crate) struct UsageMeter {
    begin: Instant,
    broker: Option<(u32, CpuTime)>,
    generator: Duration,
}

/// What was used while a [`UsageMeter`] ran.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    pub(crate) elapsed: Duration,
    pub(crate) broker_cpu: Option<Duration>,
    pub(crate) generator_cpu: Option<Duration>,
    /// Since the broker was started.
    pub(crate) broker_peak_memory: Option<u64>,
}

impl UsageMeter {
    pub(crate) fn start(broker_pid: Option<u32>) -> Self {
        let broker = broker_pid.and_then(|pid| Some((pid, CpuTime::of(pid)?)));
        UsageMeter { generator: own_cpu_time(), broker, begin: Instant::now() }
    }

    pub(crate) fn stop(&self) -> Usage {
        let elapsed = self.begin.elapsed();
        let since = |pid: u32, before: &CpuTime| Some(CpuTime::of(pid)?.since(before));
        Usage {
            elapsed,
            broker_cpu: self.broker.as_ref().and_then(|(pid, before)| since(*pid, before)),
            generator_cpu: Some(own_cpu_time().saturating_sub(self.generator)),
            broker_peak_memory: self.broker.as_ref().and_then(|(pid, _)| peak_memory(*pid)),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn the_usage_of_this_process_is_measured() {
        let meter = UsageMeter::start(Some(std::process::id()));
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_millis(30) {
            std::hint::spin_loop();
        }
        let usage = meter.stop();
        assert!(usage.elapsed >= Duration::from_millis(30));
        assert!(usage.broker_cpu.is_some_and(|cpu| cpu > Duration::ZERO));
        assert!(usage.broker_peak_memory.is_some_and(|bytes| bytes > 100_000));
        assert!(CpuTime::of(u32::MAX).is_none());
        let (resident, peak) = (resident_memory(std::process::id()), peak_memory(std::process::id()));
        assert!(resident.is_some_and(|bytes| bytes > 100_000) && resident <= peak);
        assert!(resident_memory(u32::MAX).is_none());
    }

    #[test]
    fn more_file_descriptors_than_the_hard_limit_are_an_error_with_both_numbers() {
        assert!(raise_fd_limit(1).is_ok());
        if let Some(hard_limit) = getrlimit(Resource::Nofile).maximum {
            let error = raise_fd_limit(hard_limit + 1).unwrap_err().to_string();
            let numbers = [hard_limit.to_string(), (hard_limit + 1).to_string()];
            assert!(numbers.iter().all(|number| error.contains(number)), "{error}");
        }
    }
}
