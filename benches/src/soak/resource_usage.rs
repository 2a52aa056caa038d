//! The broker's memory, file descriptors and threads, sampled at an interval, and whether they grow. Reads
//! files below /proc.

use std::{fs, time::Duration};

use crate::{BoxError, process::resident_memory};

/// The number of samples over the whole time, within the limits of the interval.
const SAMPLES: u32 = 360;
const MIN_INTERVAL: Duration = Duration::from_millis(500);
const MAX_INTERVAL: Duration = Duration::from_secs(5);
/// The share of the samples at the start that is ignored, because caches fill.
const WARM_UP: f64 = 0.2;

#[derive(Debug, Clone, Copy)]
pub(super) struct UsageSample {
    pub(super) memory: u64,
    pub(super) fds: u64,
    pub(super) threads: u64,
}

impl UsageSample {
    fn of(pid: u32) -> Result<Self, BoxError> {
        let count =
            |folder: &str| fs::read_dir(format!("/proc/{pid}/{folder}")).map(|dir| dir.count() as u64);
        let memory = resident_memory(pid).ok_or_else(|| format!("cannot read /proc/{pid}/smaps_rollup"))?;
        Ok(UsageSample { memory, fds: count("fd")?, threads: count("task")? })
    }
}

#[derive(Debug)]
pub(super) struct UsageSamples {
    pid: u32,
    interval: Duration,
    samples: Vec<UsageSample>,
}

/// One figure over the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Trend {
    pub(super) first: u64,
    pub(super) median: u64,
    pub(super) last: u64,
    pub(super) peak: u64,
    /// The difference between the medians of the last quarter and the first.
    pub(super) growth: i64,
}

impl UsageSamples {
    pub(super) fn start(pid: u32, time: Duration) -> Result<Self, BoxError> {
        UsageSample::of(pid)?;
        let interval = (time / SAMPLES).clamp(MIN_INTERVAL, MAX_INTERVAL).min(time);
        Ok(UsageSamples { pid, interval, samples: vec![] })
    }

    pub(super) fn interval(&self) -> Duration {
        self.interval
    }

    pub(super) fn take(&mut self) -> Result<(), BoxError> {
        self.samples.push(UsageSample::of(self.pid)?);
        Ok(())
    }

    /// The trend of a figure after the warm-up.
    pub(super) fn trend(&self, figure: impl Fn(&UsageSample) -> u64) -> Trend {
        let warm_up = (self.samples.len() as f64 * WARM_UP) as usize;
        trend(&self.samples[warm_up..].iter().map(figure).collect::<Vec<_>>())
    }

    pub(super) fn count(&self) -> usize {
        self.samples.len()
    }
}

fn median(values: &[u64]) -> u64 {
    let mut values = values.to_vec();
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn trend(values: &[u64]) -> Trend {
    let quarter = values.len().div_ceil(4);
    let (first, last) = (&values[..quarter], &values[values.len() - quarter..]);
    Trend {
        first: values.first().copied().unwrap_or_default(),
        median: median(values),
        last: values.last().copied().unwrap_or_default(),
        peak: values.iter().copied().max().unwrap_or_default(),
        growth: median(last) as i64 - median(first) as i64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_reported_and_single_peaks_are_not() {
        let growing: Vec<u64> = (0..100).collect();
        assert_eq!(trend(&growing), Trend { first: 0, median: 50, last: 99, peak: 99, growth: 75 });
        let mut level = vec![5; 100];
        level[20] = 1000;
        level[99] = 1000;
        assert_eq!(trend(&level), Trend { first: 5, median: 5, last: 1000, peak: 1000, growth: 0 });
        assert_eq!(trend(&[]).growth, 0);
        assert_eq!(trend(&[7]).growth, 0);
    }
}
