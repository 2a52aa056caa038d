//! Who is called what. A group is one stream of messages: its writers, and the readers that get all they write. The relay
//! finds the two sides of a group by these names, so they are written here alone.

/// Which side of a group a client is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// It sends, or asks.
    Writer,
    /// It receives, or answers.
    Reader,
}

impl Side {
    fn segment(self) -> &'static str {
        match self {
            Side::Writer => "w",
            Side::Reader => "r",
        }
    }
}

/// The name of a client, unique among all generators that load one broker.
pub(crate) fn client(group: usize, side: Side, index: usize) -> String {
    format!("{}.{}.{index}", self::group(group), side.segment())
}

/// A mask of all readers of a group.
pub(crate) fn readers(group: usize) -> String {
    format!("{}.{}.*", self::group(group), Side::Reader.segment())
}

/// The topic of a group. A dot is no separator in topics of ELBUS and of MQTT, and one in subjects of NATS: nowhere does
/// it mean more than itself.
pub(crate) fn topic(group: usize) -> String {
    format!("{}.topic", self::group(group))
}

fn group(group: usize) -> String {
    format!("load.{}.{group}", std::process::id())
}

/// Takes the name of a client apart: its group and its side.
pub(crate) fn parse(name: &str) -> Option<(&str, Side)> {
    let (rest, index) = name.rsplit_once('.')?;
    index.parse::<usize>().ok()?;
    let (group, side) = rest.rsplit_once('.')?;
    [Side::Writer, Side::Reader].into_iter().find(|s| s.segment() == side).map(|side| (group, side))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_group_and_side() {
        let (writer, reader) = (client(3, Side::Writer, 0), client(3, Side::Reader, 17));
        assert_eq!(parse(&writer).map(|(_, side)| side), Some(Side::Writer));
        assert_eq!(parse(&reader).map(|(_, side)| side), Some(Side::Reader));
        assert_eq!(parse(&writer).map(|(group, _)| group), parse(&reader).map(|(group, _)| group));
        for other in ["", "x", "load.1.0.x.0", "load.1.0.w.z", "elbus.cli"] {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
