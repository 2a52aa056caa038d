//! The topics of the publish stages. Publishes nothing.

use super::stage::Stage;

/// The topics in turn of [`Stage::PublishTopics`].
const TOPICS: usize = 128;

/// The topics that a stage publishes to in turn, and the filter of its subscribers.
pub(super) struct Topics {
    topics: Vec<String>,
    filter: String,
    /// What all topics begin with.
    prefix: String,
}

impl Topics {
    /// Returns the topics of a stage for the client name of the command line.
    pub(super) fn of(stage: Stage, name: &str) -> Topics {
        if stage == Stage::PublishTopics {
            let prefix = format!("{name}/benchmark/");
            let topics = (0..TOPICS).map(|index| format!("{prefix}{index}")).collect();
            Topics { topics, filter: format!("{prefix}#"), prefix }
        } else {
            let topic = format!("{name}/benchmark");
            Topics { topics: vec![topic.clone()], filter: topic.clone(), prefix: topic }
        }
    }

    /// Returns the filter that matches all topics.
    pub(super) fn filter(&self) -> &str {
        &self.filter
    }

    /// Returns the topics in turn, indefinitely.
    pub(super) fn in_turn(&self) -> impl Iterator<Item = &String> {
        self.topics.iter().cycle()
    }

    /// Whether a publication to this topic belongs to the stage.
    pub(super) fn contain(&self, topic: &str) -> bool {
        topic.starts_with(&self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_topics_of_a_stage_take_turns() {
        let many = Topics::of(Stage::PublishTopics, "bench");
        let order: Vec<_> = many.in_turn().take(TOPICS + 1).collect();
        assert_eq!((order[1].as_str(), order[TOPICS]), ("bench/benchmark/1", order[0]));
        assert!(order.iter().all(|topic| many.contain(topic)) && !many.contain("bench/benchmark"));
        assert_eq!(many.filter(), "bench/benchmark/#");
        let one = Topics::of(Stage::Publish, "bench");
        assert_eq!(one.filter(), "bench/benchmark");
        assert!(one.in_turn().take(3).all(|topic| topic == "bench/benchmark" && one.contain(topic)));
    }
}
