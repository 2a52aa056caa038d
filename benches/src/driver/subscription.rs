//! What a client subscribes to, and how the messages that match begin. Encodes nothing: the drivers do that,
//! each in its protocol.

use super::{Parsed, message_or_incomplete, unexpected};
use crate::BoxError;

/// A subscription, in the syntax of MQTT. All topics that match are equally long and have the same beginning,
/// so that a receiver finds the payload without parsing the topic.
#[derive(Debug, Clone)]
pub(crate) struct Subscription {
    /// Topics, or one filter that ends with `#`.
    pub(crate) filters: Vec<String>,
    /// One of the topics that match.
    example: String,
    /// The number of bytes that all topics begin with.
    prefix_bytes: usize,
}

impl Subscription {
    /// A subscription to these topics.
    pub(crate) fn to_topics(topics: Vec<String>) -> Result<Self, BoxError> {
        let example = topics.first().cloned().ok_or("a subscription needs at least one topic")?;
        let common = |topic: &String| common_bytes(topic.as_bytes(), example.as_bytes());
        let prefix_bytes = topics.iter().map(common).min().unwrap_or_default();
        Ok(Subscription { filters: topics, example, prefix_bytes })
    }

    /// A subscription to a filter that ends with `#`, and a topic that matches.
    pub(crate) fn to_filter(filter: String, example: String) -> Self {
        let prefix_bytes = filter.trim_end_matches('#').len();
        Subscription { filters: vec![filter], example, prefix_bytes }
    }

    /// What `encode` returns for every topic that matches.
    pub(super) fn header(
        &self,
        encode: impl Fn(&str) -> Result<Vec<u8>, BoxError>,
    ) -> Result<Header, BoxError> {
        let (prefix, rest) = self.example.split_at_checked(self.prefix_bytes).unwrap_or_default();
        // differs from the example in every byte after the prefix
        let other = format!("{prefix}{}", "~".repeat(rest.len()));
        let (mut start, other) = (encode(&self.example)?, encode(&other)?);
        let bytes = start.len();
        start.truncate(common_bytes(&start, &other));
        Ok(Header { start, bytes })
    }
}

fn common_bytes(one: &[u8], other: &[u8]) -> usize {
    one.iter().zip(other).take_while(|(one, other)| one == other).count()
}

/// The header of the messages that a client receives.
pub(super) struct Header {
    /// How all begin.
    pub(super) start: Vec<u8>,
    /// Their length.
    bytes: usize,
}

impl Header {
    /// Parses a message of this header, a payload, and `tail_bytes` that end the frame.
    #[inline]
    pub(super) fn parse(
        &self,
        received: &[u8],
        payload_bytes: usize,
        tail_bytes: usize,
    ) -> Result<Parsed, BoxError> {
        if received.len() >= self.start.len() && !received.starts_with(&self.start) {
            return Err(unexpected(&received[..received.len().min(80)], &self.start));
        }
        let frame_bytes = self.bytes + payload_bytes + tail_bytes;
        Ok(message_or_incomplete(received, self.bytes, frame_bytes))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn header(subscription: &Subscription) -> (String, usize) {
        let header = subscription.header(|topic| Ok(format!("MSG {topic} 1\r\n").into_bytes())).unwrap();
        (String::from_utf8(header.start).unwrap(), header.bytes)
    }

    #[test]
    fn headers_begin_with_what_all_topics_have_in_common() {
        let topics = |topics: &[&str]| {
            header(
                &Subscription::to_topics(topics.iter().map(|topic| (*topic).to_owned()).collect()).unwrap(),
            )
        };
        assert_eq!(topics(&["a/1"]), ("MSG a/1 1\r\n".to_owned(), 11));
        assert_eq!(topics(&["a/12", "a/13"]), ("MSG a/1".to_owned(), 12));
        assert!(Subscription::to_topics(vec![]).is_err());
        let filter = Subscription::to_filter("a/#".to_owned(), "a/12".to_owned());
        assert_eq!(header(&filter), ("MSG a/".to_owned(), 12));
    }

    #[test]
    fn messages_with_another_header_are_errors() {
        let subscription = Subscription::to_filter("a/#".to_owned(), "a/12".to_owned());
        let header = subscription.header(|topic| Ok(format!("MSG {topic} 1\r\n").into_bytes())).unwrap();
        let parse = |received: &[u8]| header.parse(received, 2, 2);
        assert!(matches!(
            parse(b"MSG a/99 1\r\nhi\r\nM"),
            Ok(Parsed::Message { payload_offset: 12, frame_bytes: 16 })
        ));
        assert!(matches!(parse(b"MSG a/99 1\r\nhi"), Ok(Parsed::Incomplete { frame_bytes: 16 })));
        assert!(parse(b"MSG b/99 1\r\nhi\r\n").is_err());
    }
}
