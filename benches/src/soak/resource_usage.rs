//! What the broker uses, looked at again and again, and whether that grows. Reads files below /proc.

use std::{fs, time::Duration};

use crate::{Failure, process::resident_memory};

/// Looks at the broker in the whole time, about so many.
const SAMPLES: u32 = 360;
const SHORTEST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(5);
/// The part of the time in which the broker gets warm and nothing is judged.
const WARM_UP: f64 = 0.2;

/// One look.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    pub(super) memory: u64,
    pub(super) descriptors: u64,
    pub(super) threads: u64,
}

impl Sample {
    fn of(pid: u32) -> Option<Self> {
        let count = |what: &str| Some(fs::read_dir(format!("/proc/{pid}/{what}")).ok()?.count() as u64);
        Some(Sample { memory: resident_memory(pid)?, descriptors: count("fd")?, threads: count("task")? })
    }
}

#[derive(Debug)]
pub(super) struct Samples {
    pid: u32,
    interval: Duration,
    taken: Vec<Sample>,
}

/// One figure over the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Course {
    pub(super) first: u64,
    pub(super) median: u64,
    pub(super) last: u64,
    pub(super) peak: u64,
    /// The median of the last quarter above that of the first.
    pub(super) growth: i64,
}

impl Samples {
    pub(super) fn begin(pid: u32, time: Duration) -> Result<Self, Failure> {
        Sample::of(pid).ok_or("nothing is to be read of the broker below /proc")?;
        let interval = (time / SAMPLES).clamp(SHORTEST, LONGEST).min(time);
        Ok(Samples { pid, interval, taken: vec![] })
    }

    pub(super) fn interval(&self) -> Duration {
        self.interval
    }

    pub(super) fn take(&mut self) -> Option<Failure> {
        match Sample::of(self.pid) {
            Some(sample) => self.taken.push(sample),
            None => return Some("nothing is to be read of the broker any more".into()),
        }
        None
    }

    /// Of what was seen after the warm-up.
    pub(super) fn course(&self, of: impl Fn(&Sample) -> u64) -> Course {
        let warm = (self.taken.len() as f64 * WARM_UP) as usize;
        course(&self.taken[warm..].iter().map(of).collect::<Vec<_>>())
    }

    pub(super) fn count(&self) -> usize {
        self.taken.len()
    }
}

fn median(values: &[u64]) -> u64 {
    let mut values = values.to_vec();
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn course(values: &[u64]) -> Course {
    let quarter = values.len().div_ceil(4);
    let (early, late) = (&values[..quarter], &values[values.len() - quarter..]);
    Course {
        first: values.first().copied().unwrap_or_default(),
        median: median(values),
        last: values.last().copied().unwrap_or_default(),
        peak: values.iter().copied().max().unwrap_or_default(),
        growth: median(late) as i64 - median(early) as i64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grows_shows_and_what_merely_peaks_does_not() {
        let growing: Vec<u64> = (0..100).collect();
        assert_eq!(course(&growing), Course { first: 0, median: 50, last: 99, peak: 99, growth: 75 });
        let mut level = vec![5; 100];
        level[20] = 1000;
        level[99] = 1000;
        assert_eq!(course(&level), Course { first: 5, median: 5, last: 1000, peak: 1000, growth: 0 });
        assert_eq!(course(&[]).growth, 0);
        assert_eq!(course(&[7]).growth, 0);
    }
}
