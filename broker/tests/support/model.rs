//! A naive model of the specification: determines the recipients by checking every client. Steps are
//! performed by a broker and by the model, with equal results.

mod interception;

use elbus_broker::{Broker, BrokerSettings};
use elbus_plugin_api::{Code, DeliveryStatus, FrameKind, Op, hooks::Verdict};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::Ordering,
};

use super::Peer;
use interception::{Interception, NEW_TOPIC};

/// Operations of clients; clients are numbers of their names.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Connect(usize),
    Leave(usize),
    Filters(usize, Op, Vec<String>),
    Publish(usize, String),
    PublishFor(usize, String, String),
    Broadcast(usize, String),
    Send(usize, String),
    /// Messages and publications in mixed runs.
    Mixed(usize, Vec<(Op, String)>),
    /// Its queue takes this many frames more, or any number of them.
    Room(usize, Option<usize>),
    /// The client's queue is over its limit from now on.
    Fill(usize),
    Drain(usize),
    /// An interceptor decides about frames of mixed runs, or none does.
    Intercept(bool),
}

pub(crate) const NAMES: [&str; 7] = ["a", "a.b", "a.b.c", "b", "a%%0", "a.b%%x", "b%%0"];

/// Returns whether a mask or filter matches, by the literal rules of section 6.
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

/// Returns the filter up to its `#`, with its options.
fn normal(filter: &str) -> String {
    let (options, filter) = split_options(filter);
    let segments: Vec<_> = filter.split('/').collect();
    let end = segments.iter().position(|s| *s == "#").map_or(segments.len(), |at| at + 1);
    [options, &segments[..end].join("/")].concat()
}

/// Returns the options of the model's steps, and the filter behind them.
fn split_options(filter: &str) -> (&str, &str) {
    for options in ["$share/g/$lossy/", "$share/g/", "$share/h/", "$lossy/"] {
        if let Some(filter) = filter.strip_prefix(options) {
            return (options, filter);
        }
    }
    ("", filter)
}

/// How a client gets a publication.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Way {
    Plain,
    Lossy,
    /// As a member of these groups, and whether it holds nobody as such.
    Groups(BTreeMap<char, bool>),
}

/// A limit so low that requests are refused.
const MAX_FILTERS: usize = 6;
const MAX_COMPLEX: usize = 8 * 30;

/// Returns a broker with the limits of the model.
pub(crate) fn limited() -> Broker {
    let mut settings = BrokerSettings::default();
    (settings.max_filters, settings.max_complex_segments) = (MAX_FILTERS, MAX_COMPLEX);
    Broker::builder().settings(settings).start().unwrap()
}

/// Returns the shape of a complex filter: its wildcards, and an empty text for any other segment.
fn complex_shape(filter: &str) -> Option<Vec<&str>> {
    let kinds = filter.split('/').map(|segment| if ["+", "#"].contains(&segment) { segment } else { "" });
    let shape: Vec<_> = kinds.collect();
    let pluses = shape.iter().filter(|kind| **kind == "+").count();
    let is_wild = pluses > 0 || shape.last() == Some(&"#");
    let is_ordinary = shape.len() <= 8 || shape.len() <= 16 && pluses <= 2;
    (is_wild && !is_ordinary).then_some(shape)
}

/// Returns the number of segments of all complex shapes.
fn cost<'f>(filters: impl Iterator<Item = &'f String>) -> usize {
    let shapes: BTreeSet<_> = filters.filter_map(|filter| complex_shape(split_options(filter).1)).collect();
    shapes.iter().map(Vec::len).sum()
}

#[derive(Default, Clone)]
struct Wants {
    subscriptions: BTreeSet<String>,
    exclusions: BTreeSet<String>,
}

fn primary(name: &str) -> &str {
    name.split_once("%%").map_or(name, |(primary, _)| primary)
}

/// A broker, its clients, and the model of their filters. The broker must have no other clients.
pub(crate) struct Compared<'a> {
    broker: &'a Broker,
    peers: BTreeMap<&'static str, Peer>,
    model: BTreeMap<&'static str, Wants>,
    full: BTreeSet<&'static str>,
    interception: Interception,
}

impl<'a> Compared<'a> {
    pub(crate) fn new(broker: &'a Broker) -> Self {
        Compared {
            broker,
            peers: BTreeMap::new(),
            model: BTreeMap::new(),
            full: BTreeSet::new(),
            interception: Interception::default(),
        }
    }

    /// Performs a step; panics if broker and model differ.
    pub(crate) fn step(&mut self, step: &Step) {
        match step {
            Step::Connect(who) => self.connect(NAMES[*who]),
            Step::Leave(who) => self.leave(NAMES[*who]),
            Step::Filters(who, op, filters) => self.filters(NAMES[*who], *op, filters),
            Step::Fill(who) => self.fill(NAMES[*who]),
            Step::Drain(who) => self.drain(NAMES[*who]),
            Step::Mixed(who, frames) => self.mixed(NAMES[*who], frames),
            Step::Room(who, room) => self.set_room(NAMES[*who], *room),
            Step::Intercept(intercepts) => self.interception.set(self.broker, *intercepts),
            Step::Publish(who, _)
            | Step::PublishFor(who, _, _)
            | Step::Broadcast(who, _)
            | Step::Send(who, _) => self.carry(NAMES[*who], step),
        }
    }

    fn connect(&mut self, name: &'static str) {
        let allowed = !self.model.contains_key(name)
            && (primary(name) == name || self.model.contains_key(primary(name)));
        let peer = Peer::try_new(self.broker, name);
        assert_eq!(peer.is_ok(), allowed, "{name}");
        if let Ok(peer) = peer {
            let takes_mixed = ["a", "a.b", "b", "a%%0"].contains(&name);
            peer.record.takes_mixed.store(takes_mixed, Ordering::SeqCst);
            let mut peer = peer;
            // reports of what it misses come at any time
            assert_eq!(peer.filters(Op::Exclude, &[".broker/missed"]), Code::Ok);
            self.peers.insert(name, peer);
            let subscriptions = BTreeSet::from([".broker/warn".to_owned()]);
            let exclusions = BTreeSet::from([".broker/missed".to_owned()]);
            self.model.insert(name, Wants { subscriptions, exclusions });
        }
    }

    fn leave(&mut self, gone: &'static str) {
        self.peers.remove(gone);
        if self.model.remove(gone).is_some() && primary(gone) == gone {
            self.model.retain(|name, _| primary(name) != gone);
            self.peers.retain(|name, _| primary(name) != gone);
        }
        self.full.retain(|name| self.model.contains_key(name));
    }

    fn set_room(&mut self, name: &'static str, room: Option<usize>) {
        if let Some(peer) = self.peers.get_mut(name) {
            *peer.record.room.lock().unwrap() = room;
        }
    }

    /// Fills the queue with a message to itself, which a queue that is not full accepts.
    fn fill(&mut self, name: &'static str) {
        let Some(peer) = self.peers.get_mut(name) else { return };
        *peer.record.room.lock().unwrap() = None;
        peer.record.answer.store(DeliveryStatus::FULL.bits(), Ordering::SeqCst);
        assert_eq!(peer.send(name, b"x"), Code::Ok);
        peer.record.answer.store(DeliveryStatus::TAKEN.bits(), Ordering::SeqCst);
        assert_eq!(peer.take().len(), 1);
        peer.record.times.lock().unwrap().clear();
        self.full.insert(name);
    }

    fn drain(&mut self, name: &'static str) {
        if let Some(peer) = self.peers.get_mut(name) {
            let wakes = std::mem::take(&mut *peer.record.drained.lock().unwrap());
            assert_eq!(wakes.len(), usize::from(self.full.remove(name)), "asked once");
            wakes.iter().for_each(|notifier| notifier.notify());
        }
    }

    fn filters(&mut self, name: &'static str, op: Op, filters: &[String]) {
        let (Some(peer), Some(wants)) = (self.peers.get_mut(name), self.model.get(name)) else { return };
        let texts: Vec<_> = filters.iter().map(String::as_str).collect();
        let code = peer.filters(op, &texts);
        let mut after = wants.clone();
        for filter in filters.iter().map(|f| normal(f)) {
            match op {
                Op::Subscribe => _ = after.subscriptions.insert(filter),
                Op::Unsubscribe => _ = after.subscriptions.remove(&filter),
                Op::Exclude => _ = after.exclusions.insert(filter),
                _ => _ = after.exclusions.remove(&filter),
            }
        }
        // all filters or none
        let before = self.model.insert(name, after);
        if self.is_within_limits(name) {
            assert_eq!(code, Code::Ok, "{op:?} {filters:?}");
        } else {
            assert_eq!(code, Code::Other, "{op:?} {filters:?}");
            self.model.insert(name, before.unwrap_or_default());
        }
    }

    fn is_within_limits(&self, name: &str) -> bool {
        let sets: [fn(&Wants) -> &BTreeSet<String>; 2] =
            [|wants| &wants.subscriptions, |wants| &wants.exclusions];
        sets.into_iter().all(|set| {
            let own = set(&self.model[name]);
            let all = self.model.values().flat_map(set); // they are of one identity
            own.len() <= MAX_FILTERS && cost(own.iter()) <= MAX_COMPLEX / 8 && cost(all) <= MAX_COMPLEX / 2
        })
    }

    /// Returns how a client gets a publication, if it does.
    fn way(wants: &Wants, topic: &str) -> Option<Way> {
        let fits = |filter: &str| fits(filter, topic, '/', "+", "#");
        if wants.exclusions.iter().any(|filter| fits(filter)) {
            return None;
        }
        let matching = wants.subscriptions.iter().map(|filter| split_options(filter));
        let matching: Vec<_> =
            matching.filter(|(_, filter)| fits(filter)).map(|(options, _)| options).collect();
        if matching.contains(&"") {
            return Some(Way::Plain);
        }
        if matching.contains(&"$lossy/") {
            return Some(Way::Lossy);
        }
        let mut groups = BTreeMap::new();
        for options in &matching {
            let group = options.chars().nth("$share/".len()).unwrap();
            let is_lossy = groups.entry(group).or_insert(true);
            *is_lossy &= options.ends_with("$lossy/");
        }
        (!groups.is_empty()).then_some(Way::Groups(groups))
    }

    /// Returns the possible recipients of a step, and how each of them gets it.
    fn expected(&self, step: &Step) -> Vec<(&'static str, Way)> {
        let way = |name: &str, wants: &Wants| match step {
            Step::Publish(_, topic) => Self::way(wants, topic),
            Step::PublishFor(_, topic, receiver) if primary(name) == receiver => Self::way(wants, topic),
            Step::Broadcast(_, mask) => fits(mask, name, '.', "?", "*").then_some(Way::Plain),
            Step::Send(_, target) => (name == target).then_some(Way::Plain),
            _ => None,
        };
        self.model.iter().filter_map(|(name, wants)| Some((*name, way(name, wants)?))).collect()
    }

    fn carry(&mut self, who: &'static str, step: &Step) {
        let expected = self.expected(step);
        let Some(sender) = self.peers.get_mut(who) else { return };
        let result = match step {
            Step::Publish(_, topic) => sender.blocking(Op::Publish, topic, ""),
            Step::PublishFor(_, topic, receiver) => sender.blocking(Op::PublishFor, topic, receiver),
            Step::Broadcast(_, mask) => sender.blocking(Op::Broadcast, mask, ""),
            Step::Send(_, target) => sender.blocking(Op::Message, target, ""),
            _ => return,
        };
        // all recipients, or none while one of them is full
        let refuses = |name: &str| self.peers[name].record.room.lock().unwrap().is_some();
        if expected.iter().any(|(name, _)| refuses(name)) {
            for peer in self.peers.values() {
                peer.take();
                peer.record.times.lock().unwrap().clear();
            }
            return; // left to mixed runs
        }
        let is_full = |name: &str| self.full.contains(name);
        // the members of each group, and which of them hold nobody
        let mut groups = BTreeMap::<char, Vec<(&str, bool)>>::new();
        for (name, way) in &expected {
            if let Way::Groups(own) = way {
                own.iter().for_each(|(group, lossy)| groups.entry(*group).or_default().push((name, *lossy)));
            }
        }
        let holds = |members: &Vec<(&str, bool)>| members.iter().all(|(name, lossy)| is_full(name) && !lossy);
        let blocked = expected.iter().any(|(name, way)| *way == Way::Plain && is_full(name))
            || groups.values().any(holds);
        assert_eq!(result.is_blocked(), blocked, "{step:?}");
        self.peers.values().for_each(|peer| peer.record.times.lock().unwrap().clear());
        let taken = self.peers.iter().map(|(name, peer)| (*name, peer.take().len()));
        let got: BTreeMap<_, _> = taken.filter(|(_, count)| *count > 0).collect();
        assert!(got.values().all(|count| *count == 1), "{step:?} once: {got:?}");
        if blocked {
            assert!(got.is_empty(), "{step:?}");
            return;
        }
        for (name, way) in &expected {
            match way {
                Way::Plain => assert!(got.contains_key(name), "{step:?} {name}"),
                Way::Lossy => assert_eq!(got.contains_key(name), !is_full(name), "{step:?} {name}"),
                Way::Groups(_) => assert!(!(got.contains_key(name) && is_full(name)), "{step:?} {name}"),
            }
        }
        for (group, members) in &groups {
            let reached = members.iter().any(|(name, _)| got.contains_key(name));
            let can = members.iter().any(|(name, _)| !is_full(name));
            assert!(reached || !can, "{step:?} group {group}");
        }
        let is_member = |name: &str| groups.values().flatten().any(|(member, _)| *member == name);
        assert!(got.keys().filter(|name| is_member(name)).count() <= groups.len(), "{step:?} {got:?}");
        assert!(got.keys().all(|name| expected.iter().any(|(other, _)| other == name)), "{step:?} {got:?}");
    }

    /// One frame after the other: each to everybody it is for, until one of these holds the sender.
    fn mixed(&mut self, who: &'static str, frames: &[(Op, String)]) {
        let Some(sender) = self.peers.get(who) else { return };
        let source = sender.name.clone();
        // which member of a group gets a frame is not determined
        let is_shared = |topic: &str| {
            self.model.values().any(|wants| matches!(Self::way(wants, topic), Some(Way::Groups(_))))
        };
        let frames: Vec<_> =
            frames.iter().filter(|(op, target)| *op != Op::Publish || !is_shared(target)).cloned().collect();
        if frames.is_empty() {
            return;
        }
        // nor what a client over its limit gets of what is redirected to it
        self.interception.set_may_redirect(self.full.is_empty() && !is_shared(NEW_TOPIC));
        let payloads: Vec<_> = (0..frames.len()).map(|number| number.to_string().into_bytes()).collect();
        let (mut codes, mut expected) = (vec![], BTreeMap::<&str, Vec<_>>::new());
        let mut routed: Vec<_> = (frames.iter().zip(&payloads))
            .map(|((op, target), payload)| (*op, target.clone(), payload.clone()))
            .collect();
        let mut room: BTreeMap<_, _> =
            self.peers.iter().map(|(name, peer)| (*name, *peer.record.room.lock().unwrap())).collect();
        for (number, (op, target)) in frames.iter().enumerate() {
            let step = |target: &str| match op {
                Op::Publish => Step::Publish(0, target.to_owned()),
                _ => Step::Send(0, target.to_owned()),
            };
            let mut recipients = self.expected(&step(target));
            if recipients.iter().any(|(name, way)| *way == Way::Plain && self.full.contains(name)) {
                break;
            }
            match self.interception.verdict(*op, target, &payloads[number]) {
                Verdict::Continue => {}
                Verdict::Reject(code) => {
                    codes.push(code as u8);
                    continue;
                }
                Verdict::Consume => {
                    codes.push(Code::Ok as u8);
                    continue;
                }
                Verdict::Replace(replacement) => {
                    let (_, target, payload) = &mut routed[number];
                    if let Some(new) = replacement.target {
                        recipients = self.expected(&step(&new));
                        *target = new;
                    }
                    *payload = replacement.payload.unwrap_or_else(|| payload.clone());
                }
            }
            let (mut taken, mut refused) = (0, false);
            for (name, way) in &recipients {
                if self.full.contains(name) {
                    continue; // it misses the frame
                }
                match room.get_mut(name) {
                    Some(Some(0)) => {
                        refused |= *way == Way::Plain;
                        continue;
                    }
                    Some(Some(left)) => *left -= 1,
                    _ => {}
                }
                taken += 1;
                expected.entry(name).or_default().push(number);
            }
            codes.push(match op {
                Op::Message if recipients.is_empty() => Code::NotRegistered as u8,
                _ if refused && taken == 0 => Code::NotDelivered as u8,
                _ => Code::Ok as u8,
            });
        }
        let sent: Vec<_> = (frames.iter().zip(&payloads))
            .map(|((op, target), payload)| (*op, target.as_str(), payload.as_slice()))
            .collect();
        let Some(sender) = self.peers.get_mut(who) else { return };
        assert_eq!(sender.mixed(&sent), codes, "{frames:?}");
        let mut times = vec![];
        for (name, peer) in &self.peers {
            let numbers = expected.remove(name).unwrap_or_default();
            let got = peer.take();
            let plain = numbers.iter().map(|number| {
                let (op, target, payload) = &routed[*number];
                let is_publication = *op == Op::Publish;
                let kind = if is_publication { FrameKind::Publish } else { FrameKind::Message };
                let topic = if is_publication { target.clone() } else { String::new() };
                (kind, source.clone(), topic, payload.clone())
            });
            assert_eq!(got, plain.collect::<Vec<_>>(), "{name} {frames:?}");
            assert_eq!(peer.record.pauses.load(Ordering::SeqCst), 0, "{name}");
            times.extend(numbers.into_iter().zip(std::mem::take(&mut *peer.record.times.lock().unwrap())));
        }
        // nobody can react to a frame before all earlier ones are queued
        for (number, (queued, _)) in &times {
            for (later, (_, sent)) in times.iter().filter(|(later, _)| later > number) {
                assert!(sent.is_some_and(|sent| sent >= *queued), "{number} {later} {frames:?}");
            }
        }
    }
}
