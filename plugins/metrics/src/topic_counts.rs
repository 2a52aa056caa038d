//! Publications by topic, for a bounded number of topics.

use std::collections::BTreeMap;

use crate::{
    exposition::Samples,
    families::{OMITTED_SERIES, SERIES_LIMIT, TOPIC, TOPIC_MESSAGES},
};

/// The counters. Topics beyond the limit are counted together.
#[derive(Debug, Default)]
pub(crate) struct TopicCounts {
    limit: usize,
    topics: BTreeMap<Box<str>, (u64, u64)>,
    /// Publications to topics that have no counters.
    omitted: u64,
}

impl TopicCounts {
    pub(crate) fn new(limit: usize) -> Self {
        TopicCounts { limit, ..TopicCounts::default() }
    }

    /// Counts a publication.
    pub(crate) fn count(&mut self, topic: &str, bytes: usize) {
        if let Some((messages, sum)) = self.topics.get_mut(topic) {
            *messages += 1;
            *sum += bytes as u64;
        } else if self.topics.len() < self.limit {
            self.topics.insert(topic.into(), (1, bytes as u64));
        } else {
            self.omitted += 1;
        }
    }

    /// Adds the figures.
    pub(crate) fn sample(&self, samples: &mut Samples) {
        for (topic, (messages, bytes)) in &self.topics {
            samples.count(&TOPIC_MESSAGES, &[topic], *messages);
            samples.count(&TOPIC, &[topic], *bytes);
        }
        samples.count(&SERIES_LIMIT, &["topic"], self.limit as u64);
        samples.count(&OMITTED_SERIES, &["topic"], self.omitted);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use super::*;

    #[test]
    fn topics_beyond_the_limit_are_counted_together() {
        let mut counts = TopicCounts::new(2);
        for (topic, bytes) in [("a", 1), ("b", 2), ("c", 4), ("a", 8), ("d", 16)] {
            counts.count(topic, bytes);
        }
        let mut samples = Samples::default();
        counts.sample(&mut samples);
        let text = samples.encode().unwrap();
        for line in [
            r#"elbus_topic_messages_total{topic="a"} 2"#,
            r#"elbus_topic_bytes_total{topic="a"} 9"#,
            r#"elbus_topic_messages_total{topic="b"} 1"#,
            r#"elbus_metrics_series_limit{kind="topic"} 2"#,
            r#"elbus_metrics_omitted_series{kind="topic"} 2"#,
        ] {
            assert!(text.lines().any(|other| other == line), "{line}\n{text}");
        }
        assert!(!text.contains("topic=\"c\""));
    }
}
