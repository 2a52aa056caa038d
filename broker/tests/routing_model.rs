//! A property: whatever clients do, the router delivers what a naive model of the specification delivers.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should not")]

mod support;

use elbus_plugin_api::{Code, Op};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use support::{Peer, broker};

#[derive(Debug, Clone)]
enum Step {
    Connect(usize),
    Leave(usize),
    Filters(usize, Op, Vec<String>),
    Publish(usize, String),
    PublishFor(usize, String, String),
    Broadcast(usize, String),
    Send(usize, String),
}

const NAMES: [&str; 7] = ["a", "a.b", "a.b.c", "b", "a%%0", "a.b%%x", "b%%0"];

fn path(separator: &'static str, wildcards: [&'static str; 2]) -> impl Strategy<Value = String> {
    let segment = prop::sample::select(vec!["a", "b", "c", wildcards[0], wildcards[1]]);
    prop::collection::vec(segment, 1..4).prop_map(move |segments| segments.join(separator))
}

fn step() -> impl Strategy<Value = Step> {
    let who = || 0..NAMES.len();
    let name = || prop::sample::select(NAMES.to_vec()).prop_map(str::to_owned);
    let topic = || path("/", ["+", "#"]);
    let filter_op =
        prop::sample::select(vec![Op::Subscribe, Op::Subscribe, Op::Unsubscribe, Op::Exclude, Op::Unexclude]);
    prop_oneof![
        3 => who().prop_map(Step::Connect),
        1 => who().prop_map(Step::Leave),
        5 => (who(), filter_op, prop::collection::vec(topic(), 1..4)).prop_map(|(w, op, f)| Step::Filters(w, op, f)),
        5 => (who(), topic()).prop_map(|(w, t)| Step::Publish(w, t)),
        2 => (who(), topic(), name()).prop_map(|(w, t, r)| Step::PublishFor(w, t, r)),
        3 => (who(), path(".", ["?", "*"])).prop_map(|(w, m)| Step::Broadcast(w, m)),
        3 => (who(), name()).prop_map(|(w, n)| Step::Send(w, n)),
    ]
}

/// The rules of section 6 for masks and filters alike, word for word.
fn fits(pattern: &str, text: &str, separator: char, one: &str, rest: &str) -> bool {
    let mut patterns = pattern.split(separator);
    let mut texts = text.split(separator);
    loop {
        match (patterns.next(), texts.next()) {
            (Some(p), Some(_)) if p == rest => return true,
            (None, None) => return true,
            (Some(p), Some(t)) if p == one || p == t => {}
            _ => return false,
        }
    }
}

/// A filter ends at its `#`.
fn normal(filter: &str) -> String {
    let segments: Vec<_> = filter.split('/').collect();
    let end = segments.iter().position(|s| *s == "#").map_or(segments.len(), |at| at + 1);
    segments[..end].join("/")
}

#[derive(Default)]
struct Wants {
    subscriptions: BTreeSet<String>,
    exclusions: BTreeSet<String>,
}

fn primary(name: &str) -> &str {
    name.split_once("%%").map_or(name, |(primary, _)| primary)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn equals_the_model(steps in prop::collection::vec(step(), 1..80)) {
        let broker = broker();
        let mut peers: BTreeMap<&str, Peer> = BTreeMap::new();
        let mut model: BTreeMap<&str, Wants> = BTreeMap::new();
        for step in steps {
            let (who, expected): (&str, Vec<&str>) = match &step {
                Step::Connect(who) => {
                    let name = NAMES[*who];
                    let allowed = !model.contains_key(name)
                        && (primary(name) == name || model.contains_key(primary(name)));
                    let peer = Peer::try_new(&broker, name);
                    prop_assert_eq!(peer.is_ok(), allowed, "{}", name);
                    if let Ok(peer) = peer {
                        peers.insert(name, peer);
                        let subscriptions = BTreeSet::from([".broker/warn".to_owned()]);
                        model.insert(name, Wants { subscriptions, ..Default::default() });
                    }
                    continue;
                }
                Step::Leave(who) => {
                    peers.remove(NAMES[*who]);
                    let gone = NAMES[*who];
                    if model.remove(gone).is_some() && primary(gone) == gone {
                        model.retain(|name, _| primary(name) != gone);
                        peers.retain(|name, _| primary(name) != gone);
                    }
                    continue;
                }
                Step::Filters(who, op, filters) => {
                    let name = NAMES[*who];
                    let (Some(peer), Some(wants)) = (peers.get_mut(name), model.get_mut(name)) else { continue };
                    let filters_text: Vec<_> = filters.iter().map(String::as_str).collect();
                    prop_assert_eq!(peer.filters(*op, &filters_text), Code::Ok);
                    for filter in filters.iter().map(|f| normal(f)) {
                        match op {
                            Op::Subscribe => _ = wants.subscriptions.insert(filter),
                            Op::Unsubscribe => _ = wants.subscriptions.remove(&filter),
                            Op::Exclude => _ = wants.exclusions.insert(filter),
                            _ => _ = wants.exclusions.remove(&filter),
                        }
                    }
                    continue;
                }
                Step::Publish(who, topic) | Step::PublishFor(who, topic, _) => {
                    let any = |set: &BTreeSet<String>| set.iter().any(|f| fits(f, topic, '/', "+", "#"));
                    let wanting = model.iter().filter(|(_, w)| any(&w.subscriptions) && !any(&w.exclusions));
                    let names = wanting.map(|(name, _)| *name);
                    let expected = match &step {
                        Step::PublishFor(_, _, receiver) => names.filter(|n| primary(n) == receiver).collect(),
                        _ => names.collect(),
                    };
                    (NAMES[*who], expected)
                }
                Step::Broadcast(who, mask) => {
                    (NAMES[*who], model.keys().copied().filter(|n| fits(mask, n, '.', "?", "*")).collect())
                }
                Step::Send(who, target) => (NAMES[*who], model.keys().copied().filter(|n| n == target).collect()),
            };
            let Some(sender) = peers.get_mut(who) else { continue };
            match &step {
                Step::Publish(_, topic) => _ = sender.publish(topic, b"x"),
                Step::PublishFor(_, topic, receiver) => _ = sender.publish_for(topic, receiver, b"x"),
                Step::Broadcast(_, mask) => _ = sender.broadcast(mask, b"x"),
                Step::Send(_, target) => _ = sender.send(target, b"x"),
                _ => {}
            }
            let got: Vec<(&str, usize)> =
                peers.iter().map(|(name, peer)| (*name, peer.take().len())).filter(|(_, n)| *n > 0).collect();
            let expected: Vec<(&str, usize)> = expected.into_iter().map(|name| (name, 1)).collect();
            prop_assert_eq!(got, expected, "{:?}", step);
        }
    }
}
