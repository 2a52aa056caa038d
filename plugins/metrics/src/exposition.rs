//! Samples of one scrape, and their text. Escapes every label value; owns no figure.

use elbus_plugin_api::PluginError;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, LabelSetEncoder, MetricEncoder, NoLabelSet, text},
    metrics::MetricType,
    registry::{Registry, Unit as EncodedUnit},
};
use std::{collections::HashMap, fmt};

use crate::families::{FAMILIES, Family, Kind, Unit};

/// The value of a sample.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Count(u64),
    Number(f64),
    /// The sum, and the upper bounds with the counts between them.
    Histogram {
        sum: f64,
        buckets: Vec<(f64, u64)>,
    },
    /// The labels are all that there is.
    Present,
}

#[derive(Debug)]
struct Sample {
    labels: Vec<String>,
    value: Value,
}

/// The samples of a scrape, by the addresses of their families.
#[derive(Debug, Default)]
pub(crate) struct Samples(HashMap<usize, Vec<Sample>>);

impl Samples {
    /// Adds a sample. `labels` are the values of the family's labels, in their order.
    pub(crate) fn add(&mut self, family: &'static Family, labels: &[&str], value: Value) {
        debug_assert_eq!(labels.len(), family.labels.len(), "{}", family.name);
        let labels = labels.iter().map(|label| (*label).to_owned()).collect();
        self.0.entry(key(family)).or_default().push(Sample { labels, value });
    }

    /// Adds a sample that is a whole number.
    pub(crate) fn count(&mut self, family: &'static Family, labels: &[&str], value: u64) {
        self.add(family, labels, Value::Count(value));
    }

    /// Adds a sample that is any number.
    pub(crate) fn number(&mut self, family: &'static Family, labels: &[&str], value: f64) {
        self.add(family, labels, Value::Number(value));
    }

    /// Returns the text of all families, in the OpenMetrics format. Those without samples are described.
    ///
    /// # Errors
    /// Does not happen: writing to memory does not fail.
    pub(crate) fn encode(self) -> Result<String, PluginError> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut encoded = String::with_capacity(64 << 10);
        text::encode(&mut encoded, &registry).map_err(|error| PluginError::new(error.to_string()))?;
        Ok(encoded)
    }
}

/// Each family is a static, which has one address.
fn key(family: &'static Family) -> usize {
    std::ptr::from_ref(family).addr()
}

impl Collector for Samples {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for family in FAMILIES {
            let kind = match family.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
                Kind::Histogram => MetricType::Histogram,
                Kind::Info => MetricType::Info,
            };
            let unit = family.unit.map(|unit| match unit {
                Unit::Seconds => EncodedUnit::Seconds,
                Unit::Bytes => EncodedUnit::Bytes,
            });
            let mut of_family = encoder.encode_descriptor(family.name, family.help, unit.as_ref(), kind)?;
            for sample in self.0.get(&key(family)).into_iter().flatten() {
                let labels = Labels { keys: family.labels, values: &sample.labels };
                encode_sample(&mut of_family, family.kind, &labels, &sample.value)?;
            }
        }
        Ok(())
    }
}

fn encode_sample(
    of_family: &mut MetricEncoder<'_>,
    kind: Kind,
    labels: &Labels<'_>,
    value: &Value,
) -> fmt::Result {
    if kind == Kind::Info {
        return of_family.encode_info(labels);
    }
    let mut encoder = of_family.encode_family(labels)?;
    match (kind, value) {
        (Kind::Counter, Value::Count(count)) => encoder.encode_counter::<NoLabelSet, _, f64>(count, None),
        (Kind::Counter, Value::Number(number)) => encoder.encode_counter::<NoLabelSet, _, f64>(number, None),
        (_, Value::Count(count)) => encoder.encode_gauge(count),
        (_, Value::Number(number)) => encoder.encode_gauge(number),
        (_, Value::Histogram { sum, buckets }) => {
            let count = buckets.iter().map(|(_, count)| count).sum();
            encoder.encode_histogram::<NoLabelSet>(*sum, count, buckets, None)
        }
        (_, Value::Present) => Ok(()),
    }
}

/// The labels of a sample.
struct Labels<'a> {
    keys: &'a [&'static str],
    values: &'a [String],
}

impl EncodeLabelSet for Labels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        let pairs: Vec<(&str, &str)> =
            self.keys.iter().copied().zip(self.values.iter().map(String::as_str)).collect();
        pairs.encode(encoder)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use super::*;
    use crate::families;

    #[test]
    fn samples_become_lines_and_hostile_labels_are_escaped() {
        let mut samples = Samples::default();
        samples.count(&families::RECEIVED_FRAMES, &[], 7);
        samples.number(&families::HELD, &[], 0.5);
        samples.count(&families::CLIENT_QUEUED, &["a\"} 1\n# EOF\\"], 3);
        samples.add(&families::PLUGIN, &["local", "elbus-unix"], Value::Present);
        let buckets = vec![(0.1, 2), (f64::INFINITY, 1)];
        samples.add(&families::HOOK_DURATION, &["p", "h"], Value::Histogram { sum: 1.5, buckets });
        let text = samples.encode().unwrap();
        for line in [
            "# TYPE elbus_received_frames counter",
            "elbus_received_frames_total 7",
            "# UNIT elbus_held_seconds seconds",
            "elbus_held_seconds_total 0.5",
            r#"elbus_client_queued_bytes{client="a\"} 1\n# EOF\\"} 3"#,
            r#"elbus_plugin_info{plugin="local",library="elbus-unix"} 1"#,
            r#"elbus_hook_duration_seconds_bucket{le="0.1",plugin="p",hook="h"} 2"#,
            r#"elbus_hook_duration_seconds_bucket{le="+Inf",plugin="p",hook="h"} 3"#,
            r#"elbus_hook_duration_seconds_count{plugin="p",hook="h"} 3"#,
        ] {
            assert!(text.lines().any(|other| other == line), "{line}\n{text}");
        }
        assert_eq!((text.matches("# EOF\n").count(), text.ends_with("# EOF\n")), (1, true));
    }

    #[test]
    fn every_family_is_described_once() {
        let text = Samples::default().encode().unwrap();
        let types: Vec<_> = text.lines().filter(|line| line.starts_with("# TYPE")).collect();
        assert_eq!(types.len(), FAMILIES.len());
        let mut unique = types.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), types.len());
    }
}
