//! Who sends to whom, as observed: messages and bytes from a client to a client or to topics. Bounded in
//! number and bytes; what is not seen again is forgotten.

use elbus_protocol::{Op, name::primary_of};
use serde::Serialize;
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// Flows that are kept, and bytes of their names.
const MAX_FLOWS: usize = 2000;
const MAX_BYTES: usize = 1 << 20;
/// Time after which a flow that is not seen again is forgotten.
const MAX_AGE: Duration = Duration::from_secs(300);
/// Segments of a topic that are kept apart.
const TOPIC_SEGMENTS: usize = 2;
/// Bytes of a topic that is kept as an example.
const MAX_EXAMPLE_BYTES: usize = 1024;

/// What a flow consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// Messages to a client, or broadcasts to a mask.
    Message,
    /// Publications.
    Topic,
    /// Calls and notifications.
    Rpc,
}

/// A flow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Flow {
    /// A client, with its secondaries.
    pub(crate) from: Box<str>,
    /// A client, a mask, a topic, or the beginning of topics with `/#`.
    pub(crate) to: Box<str>,
    pub(crate) kind: Kind,
    /// One of the topics that begin with `to`, if it stands for several.
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<Box<str>>,
    messages: u64,
    bytes: u64,
}

/// All flows.
#[derive(Default)]
pub(crate) struct Flows {
    /// By kind, sender and target in one text, so that looking one up allocates nothing.
    flows: HashMap<Box<str>, (Flow, Instant)>,
    bytes: usize,
    key: String,
    /// Messages of flows that were not added.
    omitted: u64,
}

impl Flows {
    /// Counts a message that is `rpc` or not.
    pub(crate) fn add(&mut self, op: Op, from: &str, target: &str, is_rpc: bool, bytes: usize, now: Instant) {
        let (kind, to, is_prefix) = match op {
            Op::Publish | Op::PublishFor => {
                let prefix = prefix_of(target);
                (Kind::Topic, prefix, prefix.len() < target.len())
            }
            Op::Broadcast => (Kind::Message, target, false),
            _ => (if is_rpc { Kind::Rpc } else { Kind::Message }, primary_of(target), false),
        };
        let from = primary_of(from);
        self.key.clear();
        self.key.push(match kind {
            Kind::Message => 'm',
            Kind::Topic => 't',
            Kind::Rpc => 'r',
        });
        // neither names nor topics contain NUL
        for part in [from, "\0", to, if is_prefix { "/#" } else { "" }] {
            self.key.push_str(part);
        }
        if let Some((flow, seen)) = self.flows.get_mut(&*self.key) {
            flow.messages += 1;
            flow.bytes += bytes as u64;
            *seen = now;
            return;
        }
        let topic = Some(target).filter(|target| is_prefix && target.len() <= MAX_EXAMPLE_BYTES);
        let size = size_of(&self.key, topic);
        if self.flows.len() >= MAX_FLOWS || self.bytes + size > MAX_BYTES {
            self.omitted += 1;
            return;
        }
        self.bytes += size;
        let to = if is_prefix { format!("{to}/#").into() } else { to.into() };
        let topic = topic.map(Box::from);
        let flow = Flow { from: from.into(), to, kind, topic, messages: 1, bytes: bytes as u64 };
        self.flows.insert(self.key.as_str().into(), (flow, now));
    }

    /// Forgets what was not seen for long.
    pub(crate) fn expire(&mut self, now: Instant) {
        let bytes = &mut self.bytes;
        self.flows.retain(|key, (flow, seen)| {
            let keeps = now.saturating_duration_since(*seen) < MAX_AGE;
            if !keeps {
                *bytes -= size_of(key, flow.topic.as_deref());
            }
            keeps
        });
    }

    /// Returns the flows, those with most messages first.
    pub(crate) fn all(&self) -> Vec<Flow> {
        let mut all: Vec<_> = self.flows.values().map(|(flow, _)| flow.clone()).collect();
        let names = |flow: &Flow| (flow.from.clone(), flow.to.clone(), flow.kind);
        all.sort_by(|a, b| b.messages.cmp(&a.messages).then_with(|| names(a).cmp(&names(b))));
        all
    }

    /// Returns the number of messages of flows that were not added because there were too many.
    pub(crate) fn omitted(&self) -> u64 {
        self.omitted
    }
}

/// Returns how many bytes a flow counts as: those of its texts.
fn size_of(key: &str, topic: Option<&str>) -> usize {
    2 * key.len() + topic.map_or(0, str::len)
}

/// Returns the beginning of a topic, or all of it if it is short.
fn prefix_of(topic: &str) -> &str {
    match topic.match_indices('/').nth(TOPIC_SEGMENTS - 1) {
        Some((at, _)) => topic.get(..at).unwrap_or(topic),
        None => topic,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn shown(flows: &Flows) -> Vec<(String, String, Kind, u64, u64)> {
        let text = |text: &str| text.to_owned();
        flows.all().iter().map(|it| (text(&it.from), text(&it.to), it.kind, it.messages, it.bytes)).collect()
    }

    #[test]
    fn messages_calls_and_topics_are_apart_and_topics_have_two_segments() {
        let (mut flows, now) = (Flows::default(), Instant::now());
        for topic in ["line1/boiler/temperature", "line1/boiler/pressure/x"] {
            flows.add(Op::Publish, "plc", topic, false, 10, now);
        }
        flows.add(Op::Publish, "plc", "line1/boiler", false, 1, now);
        flows.add(Op::PublishFor, "plc", "short", false, 1, now);
        flows.add(Op::Message, "a%%1", "b%%2", false, 3, now);
        flows.add(Op::Message, "a", "b", true, 4, now);
        flows.add(Op::Broadcast, "a", "b", true, 5, now);
        let of = |from: &str, to: &str, kind, messages, bytes| {
            (from.to_owned(), to.to_owned(), kind, messages, bytes)
        };
        assert_eq!(
            shown(&flows),
            [
                of("a", "b", Kind::Message, 2, 8),
                of("plc", "line1/boiler/#", Kind::Topic, 2, 20),
                of("a", "b", Kind::Rpc, 1, 4),
                of("plc", "line1/boiler", Kind::Topic, 1, 1),
                of("plc", "short", Kind::Topic, 1, 1),
            ]
        );
        let example = |to: &str| flows.all().into_iter().find(|flow| &*flow.to == to).unwrap().topic;
        assert_eq!(example("line1/boiler/#").as_deref(), Some("line1/boiler/temperature"));
        assert_eq!((example("line1/boiler"), example("b")), (None, None));
    }

    #[test]
    fn number_and_bytes_are_bounded_and_old_flows_make_room() {
        let (mut flows, now) = (Flows::default(), Instant::now());
        let total = MAX_FLOWS as u64 + 500;
        for number in 0..total {
            flows.add(Op::Message, &format!("a{number}"), "b", false, 1, now);
        }
        assert_eq!((flows.all().len(), flows.omitted()), (MAX_FLOWS, 500));
        flows.expire(now + MAX_AGE);
        assert_eq!((flows.all().len(), flows.bytes), (0, 0));
        let deep = format!("a/b/{}", "x".repeat(MAX_EXAMPLE_BYTES - 4));
        for number in 0..2000 {
            flows.add(Op::Publish, &format!("a{number}"), &deep, false, 1, now);
            assert!(flows.bytes <= MAX_BYTES);
        }
        assert!(flows.all().len() < 1100);
        flows.expire(now + MAX_AGE);
        assert_eq!((flows.all().len(), flows.bytes), (0, 0));
        let long = "x".repeat(60_000);
        for number in 0..100 {
            flows.add(Op::Publish, &format!("a{number}"), &long, false, 1, now);
            assert!(flows.bytes <= MAX_BYTES);
        }
        assert!(flows.all().len() < 10 && flows.omitted() > 1490);
    }
}
