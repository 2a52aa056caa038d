//! What a process has used, as the kernel counts it, and how many descriptors this one may have. Reads files below /proc;
//! changes no other process.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::{
    collections::HashMap,
    fs,
    time::{Duration, Instant},
};

use crate::Failure;

/// CPU time of all threads of a process, for a difference later.
pub(crate) struct CpuTime {
    /// On-CPU time of each thread, exact to the nanosecond; empty where the kernel does not keep it.
    threads: HashMap<String, Duration>,
    /// What the whole process has used, threads that have ended included, exact to 10 ms.
    whole: Duration,
}

impl CpuTime {
    /// `None`: there is no such process.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let whole = whole(pid)?;
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
        Some(CpuTime { threads, whole })
    }

    /// What was used since. The sum over threads misses those that ended between; where it misses much, the count of the
    /// whole process is taken.
    pub(crate) fn since(&self, before: &CpuTime) -> Duration {
        let coarse = self.whole.saturating_sub(before.whole);
        let fine = self
            .threads
            .iter()
            .map(|(id, time)| time.saturating_sub(before.threads.get(id).copied().unwrap_or_default()))
            .sum::<Duration>();
        if fine + Duration::from_millis(50) < coarse { coarse } else { fine }
    }
}

/// User and system time of a process. The kernel counts them in hundredths of a second on all machines we know.
fn whole(pid: u32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit(')').next()?.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    Some(Duration::from_millis((ticks()? + ticks()?) * 10))
}

/// The most memory a process has had resident, in bytes.
pub(crate) fn peak_memory(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    kib_of(&status, "VmHWM:")
}

/// The memory a process has resident, in bytes.
pub(crate) fn resident_memory(pid: u32) -> Option<u64> {
    // exact, while the counts of `status` may be some pages off for each processor
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    kib_of(&rollup, "Rss:")
}

fn kib_of(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Raises the limit of open descriptors of this process as far as it may.
pub(crate) fn allow_descriptors(wanted: u64) -> Result<(), Failure> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    if let Some(most) = limit.maximum.filter(|most| *most < wanted) {
        return Err(format!(
            "{wanted} descriptors are needed, and the hard limit is {most}: raise it (ulimit -Hn {wanted}), \
             or ask for fewer clients"
        )
        .into());
    }
    Ok(setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?)
}

/// CPU time of the broker and of the generator over a stretch of time.
pub(crate) struct Stopwatch {
    begin: Instant,
    broker: Option<(u32, CpuTime)>,
    own: Option<CpuTime>,
}

/// What a [`Stopwatch`] shows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Used {
    pub(crate) elapsed: Duration,
    pub(crate) broker_cpu: Option<Duration>,
    pub(crate) own_cpu: Option<Duration>,
    pub(crate) broker_peak_memory: Option<u64>,
}

impl Stopwatch {
    pub(crate) fn start(broker: Option<u32>) -> Self {
        let broker = broker.and_then(|pid| Some((pid, CpuTime::of(pid)?)));
        Stopwatch { own: CpuTime::of(std::process::id()), broker, begin: Instant::now() }
    }

    pub(crate) fn stop(&self) -> Used {
        let elapsed = self.begin.elapsed();
        let since = |pid: u32, before: &CpuTime| Some(CpuTime::of(pid)?.since(before));
        Used {
            elapsed,
            broker_cpu: self.broker.as_ref().and_then(|(pid, before)| since(*pid, before)),
            own_cpu: self.own.as_ref().and_then(|before| since(std::process::id(), before)),
            broker_peak_memory: self.broker.as_ref().and_then(|(pid, _)| peak_memory(*pid)),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "what fails ends the test")]
mod tests {
    use super::*;

    #[test]
    fn work_of_this_process_is_counted() {
        let watch = Stopwatch::start(Some(std::process::id()));
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_millis(30) {
            std::hint::spin_loop();
        }
        let used = watch.stop();
        assert!(used.elapsed >= Duration::from_millis(30));
        assert!(used.broker_cpu.is_some_and(|cpu| cpu > Duration::ZERO));
        assert!(used.broker_peak_memory.is_some_and(|bytes| bytes > 100_000));
        assert!(CpuTime::of(u32::MAX).is_none());
        let (resident, peak) = (resident_memory(std::process::id()), peak_memory(std::process::id()));
        assert!(resident.is_some_and(|bytes| bytes > 100_000) && resident <= peak);
        assert!(resident_memory(u32::MAX).is_none());
    }

    #[test]
    fn more_descriptors_than_the_hard_limit_are_refused_with_both_numbers() {
        assert!(allow_descriptors(1).is_ok());
        if let Some(most) = getrlimit(Resource::Nofile).maximum {
            let error = allow_descriptors(most + 1).unwrap_err().to_string();
            assert!(error.contains(&most.to_string()) && error.contains(&(most + 1).to_string()), "{error}");
        }
    }
}
