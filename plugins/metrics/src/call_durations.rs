//! Durations, errors and missing answers of calls, by the methods that were asked for. Bounded in methods.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    exposition::{Samples, Value},
    families::{OMITTED_SERIES, RPC_DURATION, RPC_ERRORS, RPC_UNANSWERED, SERIES_LIMIT},
};

/// Upper bounds of the buckets in seconds; a last bucket has everything above.
const BOUNDS: [f64; 15] =
    [1e-5, 5e-5, 1e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.5, 1.0, 5.0, 30.0];
/// The label of all methods without series of their own. No method has this name: it is empty.
const OTHERS: &str = "";

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallEnd {
    Reply,
    Error,
    Unanswered,
}

#[derive(Debug, Default, Clone)]
struct OfMethod {
    buckets: [u64; BOUNDS.len() + 1],
    seconds: f64,
    errors: u64,
    unanswered: u64,
}

/// The counters.
#[derive(Debug)]
pub(crate) struct CallDurations {
    prefixes: Vec<String>,
    limit: usize,
    methods: BTreeMap<Box<str>, OfMethod>,
    /// Calls of methods that were asked for and exceed the limit.
    omitted: u64,
}

impl CallDurations {
    /// Methods that begin with one of the prefixes get series of their own, at most `limit` of them.
    pub(crate) fn new(prefixes: &[String], limit: usize) -> Self {
        let methods = BTreeMap::from([(OTHERS.into(), OfMethod::default())]);
        CallDurations { prefixes: prefixes.to_vec(), limit, methods, omitted: 0 }
    }

    /// Counts a call that has ended.
    pub(crate) fn count(&mut self, method: &str, end: CallEnd, duration: Duration) {
        let wanted = self.prefixes.iter().any(|prefix| method.starts_with(prefix));
        let has_place = self.methods.len() <= self.limit || self.methods.contains_key(method);
        self.omitted += u64::from(wanted && !has_place);
        let name = if wanted && has_place { method } else { OTHERS };
        let of_method = match self.methods.get_mut(name) {
            Some(known) => known,
            None => self.methods.entry(name.into()).or_default(),
        };
        match end {
            CallEnd::Unanswered => of_method.unanswered += 1,
            CallEnd::Reply | CallEnd::Error => {
                let seconds = duration.as_secs_f64();
                let bucket = BOUNDS.partition_point(|bound| *bound < seconds);
                if let Some(count) = of_method.buckets.get_mut(bucket) {
                    *count += 1;
                }
                of_method.seconds += seconds;
                of_method.errors += u64::from(end == CallEnd::Error);
            }
        }
    }

    /// Adds the figures.
    pub(crate) fn sample(&self, samples: &mut Samples) {
        for (method, figures) in &self.methods {
            let bounds = BOUNDS.into_iter().chain([f64::INFINITY]);
            let buckets = bounds.zip(figures.buckets).collect();
            samples.add(&RPC_DURATION, &[method], Value::Histogram { sum: figures.seconds, buckets });
            samples.count(&RPC_ERRORS, &[method], figures.errors);
            samples.count(&RPC_UNANSWERED, &[method], figures.unanswered);
        }
        samples.count(&SERIES_LIMIT, &["method"], self.limit as u64);
        samples.count(&OMITTED_SERIES, &["method"], self.omitted);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use super::*;

    #[test]
    fn methods_that_were_asked_for_have_their_own_series() {
        let mut counts = CallDurations::new(&["get".to_owned()], 1);
        let second = Duration::from_secs(1);
        counts.count("get", CallEnd::Reply, second);
        counts.count("get", CallEnd::Error, 2 * second);
        counts.count("get.more", CallEnd::Reply, second);
        counts.count("set", CallEnd::Unanswered, second);
        let mut samples = Samples::default();
        counts.sample(&mut samples);
        let text = samples.encode().unwrap();
        for line in [
            r#"elbus_rpc_duration_seconds_count{method="get"} 2"#,
            r#"elbus_rpc_duration_seconds_sum{method="get"} 3.0"#,
            r#"elbus_rpc_duration_seconds_bucket{le="1.0",method="get"} 1"#,
            r#"elbus_rpc_errors_total{method="get"} 1"#,
            r#"elbus_rpc_duration_seconds_count{method=""} 1"#,
            r#"elbus_rpc_unanswered_total{method=""} 1"#,
            r#"elbus_metrics_omitted_series{kind="method"} 1"#,
        ] {
            assert!(text.lines().any(|other| other == line), "{line}\n{text}");
        }
        assert!(!text.contains("get.more"));
    }
}
