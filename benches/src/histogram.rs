//! Durations, counted in buckets that are 1.6 % wide at most: what it takes to tell percentiles without keeping each. Owns
//! counts; never a clock.

/// Buckets of each doubling.
const STEPS: u64 = 64;
const STEP_BITS: u32 = STEPS.trailing_zeros();

/// Counts of nanoseconds.
#[derive(Debug, Clone)]
pub(crate) struct Histogram {
    counts: Vec<u64>,
    samples: u64,
    max: u64,
}

impl Histogram {
    pub(crate) fn new() -> Self {
        let last = bucket(u64::MAX) + 1;
        Histogram { counts: vec![0; last], samples: 0, max: 0 }
    }

    #[inline]
    pub(crate) fn record(&mut self, nanos: u64) {
        if let Some(count) = self.counts.get_mut(bucket(nanos)) {
            *count += 1;
        }
        self.samples += 1;
        self.max = self.max.max(nanos);
    }

    pub(crate) fn merge(&mut self, other: &Histogram) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.samples += other.samples;
        self.max = self.max.max(other.max);
    }

    pub(crate) fn samples(&self) -> u64 {
        self.samples
    }

    pub(crate) fn max(&self) -> u64 {
        self.max
    }

    /// The upper end of the bucket that holds this share of all samples; 0 where there are none.
    pub(crate) fn at(&self, share: f64) -> u64 {
        let wanted = ((self.samples as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return highest(index).min(self.max);
            }
        }
        self.max
    }
}

#[inline]
fn bucket(nanos: u64) -> usize {
    if nanos < STEPS {
        return nanos as usize;
    }
    let shift = nanos.ilog2() - STEP_BITS;
    ((u64::from(shift) + 1) * STEPS + ((nanos >> shift) - STEPS)) as usize
}

fn highest(bucket: usize) -> u64 {
    let (bucket, shift) = (bucket as u64, (bucket as u64 / STEPS).saturating_sub(1));
    if bucket < STEPS {
        return bucket;
    }
    let start = (bucket % STEPS + STEPS) << shift;
    start + ((1 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_its_bucket_and_no_bucket_is_wide() {
        for exponent in 0..64 {
            for offset in [0, 1, 3] {
                let value = (1u64 << exponent).saturating_add(offset << exponent >> 2);
                let top = highest(bucket(value));
                assert!(top >= value && top - value <= value / 60, "{value} {top}");
                assert_eq!(bucket(top), bucket(value));
            }
        }
        assert_eq!(highest(bucket(u64::MAX)), u64::MAX);
    }

    #[test]
    fn percentiles_of_a_thousand() {
        let mut all = Histogram::new();
        for half in [1..=500, 501..=1000] {
            let mut part = Histogram::new();
            half.for_each(|value| part.record(value * 1000));
            all.merge(&part);
        }
        assert_eq!((all.samples(), all.max(), all.at(1.0)), (1000, 1_000_000, 1_000_000));
        for (share, exact) in [(0.5, 500_000.0), (0.99, 990_000.0)] {
            assert!((all.at(share) as f64 / exact - 1.0).abs() < 0.02);
        }
        assert_eq!(Histogram::new().at(0.5), 0);
    }
}
