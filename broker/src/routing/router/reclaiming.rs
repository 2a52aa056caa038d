//! Publications that a departed member of a group has not got: the other members get them. Owns which these
//! are; the sink of the member returns them.

use elbus_plugin_api::{
    DeliveryStatus, Encoding, FrameKind, Payload, Qos, Run,
    inproc::{Message, RunBatch},
};
use std::{collections::HashMap, sync::Arc};

use super::Router;
use crate::{
    routing::{
        Hashing,
        optioned::{
            Subscriber,
            groups::{Choice, GroupRoute},
        },
        registered_client::RegisteredClient,
    },
    statistics::Refusal,
};

/// Members that are tried for a publication.
const MAX_TRIES: usize = 16;
/// Topics whose groups are remembered.
const MAX_TOPICS: usize = 1024;

/// Recipients that must be flushed or fed.
#[derive(Default)]
struct Touched {
    dirty: Vec<Arc<RegisteredClient>>,
    to_feed: Vec<Arc<Subscriber>>,
}

impl Router {
    /// Gives the publications that a departed client has not got to other members of its groups. Closes its
    /// sink. Does nothing if it was in no group, or this is done.
    pub(in crate::routing) fn reclaim(&self, member: &Arc<RegisteredClient>, reason: &str) {
        if !member.unmark_parked() {
            return;
        }
        let mut unsent = RunBatch::default();
        member.take_unsent(reason, &mut unsent);
        let mut routes: HashMap<String, Vec<GroupRoute>, Hashing> = HashMap::default();
        let mut touched = Touched::default();
        for message in unsent.into_messages().iter().filter(|message| message.kind() == FrameKind::Publish) {
            if routes.len() > MAX_TOPICS {
                routes.clear();
            }
            if !routes.contains_key(message.topic()) {
                let found = self.registry.read().groups_of_departed(member, message.topic());
                routes.insert(message.topic().to_owned(), found);
            }
            for route in routes.get(message.topic()).into_iter().flatten() {
                self.give(route, message, &mut touched);
            }
        }
        touched.dirty.iter().for_each(|client| client.flush());
        touched.to_feed.iter().for_each(|subscriber| subscriber.feed());
        self.registry.write().unpark(member);
        while self.registry.write().clear_departed() {}
    }

    /// Gives a publication to a member of a group. It is delivered even if all of them are over their limit.
    fn give(&self, route: &GroupRoute, message: &Message, touched: &mut Touched) {
        let payloads = [Payload::from(message.payload())];
        let qos = if message.is_realtime() { Qos::REALTIME } else { Qos::NO };
        let (sender, topic) = (message.sender(), message.topic());
        // its sender may have left, and its id is not known then
        let id = self.find(sender).map_or(u64::MAX, |sender| sender.id);
        let mut encoding = Encoding::new();
        let mut run = Run::new(FrameKind::Publish, qos, sender, topic, &payloads, None, &mut encoding)
            .with_sender_id(id);
        run.set_for_group(true);
        let (mut refused, mut tried) = (None, vec![]);
        for _ in 0..MAX_TRIES {
            let choice = match tried.is_empty() {
                true => route.choose(topic),
                false => route.among(|client| !tried.contains(&client.id)).choose(topic),
            };
            let subscriber = match choice {
                Choice::Member(subscriber) | Choice::Full(subscriber) => subscriber,
                Choice::Nobody => break,
            };
            if subscriber.keeps_values() {
                if subscriber.put(&run) {
                    touched.to_feed.push(subscriber);
                }
                return;
            }
            let client = &subscriber.client;
            let delivery = client.deliver(&mut run);
            if delivery.has(DeliveryStatus::FULL) {
                client.fill(&self.holds);
            }
            if delivery.has(DeliveryStatus::DIRTY) {
                touched.dirty.push(client.clone());
            }
            if delivery.is_taken() {
                return client.counts.sent(1, topic.len() + 1 + message.payload().len());
            }
            tried.push(client.id);
            if delivery.has(DeliveryStatus::REFUSED) {
                refused = Some(subscriber);
            }
        }
        if let Some(subscriber) = refused {
            self.count_refused(Refusal::QueueFull, 1);
            subscriber.miss(topic, 1);
        }
    }
}
