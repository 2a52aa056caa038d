//! Names of the generator's clients, topics and masks. A group is one stream of messages: its senders, and
//! the receivers that get everything they send. The relay finds the two sides of a group by these names, so
//! no other module formats them.

/// The side of a group that a client is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// Sends, or requests.
    Sender,
    /// Receives, or responds.
    Receiver,
}

impl Side {
    fn segment(self) -> &'static str {
        match self {
            Side::Sender => "s",
            Side::Receiver => "r",
        }
    }
}

/// The name of a client, unique among all generators that load one broker.
pub(crate) fn client(group: usize, side: Side, index: usize) -> String {
    format!("{}.{}.{index}", self::group(group), side.segment())
}

/// The mask that matches all receivers of a group.
pub(crate) fn receivers(group: usize) -> String {
    format!("{}.{}.*", self::group(group), Side::Receiver.segment())
}

/// The topic of a group. Dots do not separate levels in topics of ELBUS and MQTT but do in subjects of NATS;
/// either way the topic matches only itself.
pub(crate) fn topic(group: usize) -> String {
    format!("{}.topic", self::group(group))
}

/// One of the topics that a sender publishes to in turn, with levels as in MQTT. All topics of a group are
/// equally long, so that receivers find the payload without parsing the topic.
pub(crate) fn topic_in_turn(group: usize, sender: usize, index: usize) -> String {
    format!("{}/line{sender:05}/value{index:06}", plant(group))
}

/// The filter that matches all topics in turn of a group, in the syntax of MQTT.
pub(crate) fn all_topics_in_turn(group: usize) -> String {
    format!("{}/#", plant(group))
}

fn plant(group: usize) -> String {
    format!("plant/{}-{group}", std::process::id())
}

fn group(group: usize) -> String {
    format!("load.{}.{group}", std::process::id())
}

/// Splits the name of a client into its group and its side.
pub(crate) fn parse(name: &str) -> Option<(&str, Side)> {
    let (rest, index) = name.rsplit_once('.')?;
    index.parse::<usize>().ok()?;
    let (group, side) = rest.rsplit_once('.')?;
    [Side::Sender, Side::Receiver].into_iter().find(|s| s.segment() == side).map(|side| (group, side))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_parsed_into_group_and_side() {
        let (sender, receiver) = (client(3, Side::Sender, 0), client(3, Side::Receiver, 17));
        assert_eq!(parse(&sender).map(|(_, side)| side), Some(Side::Sender));
        assert_eq!(parse(&receiver).map(|(_, side)| side), Some(Side::Receiver));
        assert_eq!(parse(&sender).map(|(group, _)| group), parse(&receiver).map(|(group, _)| group));
        for other in ["", "x", "load.1.0.x.0", "load.1.0.s.z", "elbus.cli"] {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
