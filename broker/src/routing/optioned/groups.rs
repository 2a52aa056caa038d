//! The members of a group for a topic: which of them gets a publication. Owns the order of members and which
//! of them are over their limit; never delivers.
//!
//! A member is chosen in constant time: of two neighbours in rotation, the one with less in its queue.
//! Members over their limit are out of rotation; each choice looks at one of them again. With `$key`, the
//! member with the greatest hash of key and name is chosen, so that a member that joins or leaves moves only
//! its own keys.

use elbus_protocol::subscription::DeliveryMode;
use std::{
    collections::VecDeque,
    sync::{Arc, Weak},
};

use super::{
    group::{Group, key_of, weight},
    subscriber::Subscriber,
};
use crate::{routing::registered_client::RegisteredClient, sync::Mutex};

/// Members whose queues are compared to find the one that a publisher waits for.
const COMPARED: usize = 16;

/// The members of a group whose filters match a topic.
pub(in crate::routing) struct GroupRoute {
    pub(in crate::routing) group: Arc<Group>,
    pub(in crate::routing) members: Vec<Weak<Subscriber>>,
    /// Taken for a moment; nothing is called while it is held.
    rotation: Mutex<Rotation>,
}

/// Members by their index.
struct Rotation {
    /// Those that can be chosen.
    ready: Vec<u32>,
    /// Those that were over their limit.
    full: VecDeque<u32>,
}

/// The member that gets a publication.
pub(in crate::routing) enum Choice {
    Member(Arc<Subscriber>),
    /// All members are over their limit. This one has the least queued of some of them.
    Full(Arc<Subscriber>),
    /// There is no member any more.
    Nobody,
}

fn is_full(subscriber: &Subscriber) -> bool {
    subscriber.client.is_full()
}

impl GroupRoute {
    pub(in crate::routing) fn new(group: Arc<Group>, members: Vec<Weak<Subscriber>>) -> Self {
        let ready = (0..members.len() as u32).collect();
        GroupRoute { group, members, rotation: Mutex::new(Rotation { ready, full: VecDeque::new() }) }
    }

    fn member(&self, index: u32) -> Option<Arc<Subscriber>> {
        self.members.get(index as usize)?.upgrade().filter(|member| !member.client.is_gone())
    }

    fn registered(&self) -> impl Iterator<Item = Arc<Subscriber>> {
        self.members.iter().filter_map(Weak::upgrade).filter(|member| !member.client.is_gone())
    }

    /// Chooses the member that gets a publication to the topic.
    pub(in crate::routing) fn choose(&self, topic: &str) -> Choice {
        match self.group.levels {
            Some(levels) => self.choose_by_key(key_of(topic, levels)),
            None => self.choose_in_rotation(self.group.take_turn()),
        }
    }

    /// Returns the choice for a publication to the topic, without taking turns.
    pub(in crate::routing) fn peek(&self, topic: &str) -> Choice {
        match self.group.levels {
            Some(levels) => self.choose_by_key(key_of(topic, levels)),
            None => self.choose_in_rotation(self.group.turn()),
        }
    }

    /// Returns the members in scope. Takes as long as there are members.
    pub(in crate::routing) fn among(&self, in_scope: impl Fn(&RegisteredClient) -> bool) -> GroupRoute {
        let members = self.registered().filter(|member| in_scope(&member.client));
        GroupRoute::new(self.group.clone(), members.map(|member| Arc::downgrade(&member)).collect())
    }

    fn choose_by_key(&self, key: &str) -> Choice {
        let key = self.group.hash(key.as_bytes());
        let of = |member: &Arc<Subscriber>| weight(key, self.group.hash(member.client.name.as_bytes()));
        match self.registered().max_by_key(of) {
            Some(member) if is_full(&member) => Choice::Full(member),
            Some(member) => Choice::Member(member),
            None => Choice::Nobody,
        }
    }

    fn choose_in_rotation(&self, turn: usize) -> Choice {
        let (first, second) = {
            let mut rotation = self.rotation.lock();
            self.look_again(&mut rotation);
            let mut pair = self.next_pair(&mut rotation, turn);
            if pair.0.is_none() {
                // a choice looks at one that was full, so another one may have drained long ago
                for _ in 0..rotation.full.len() {
                    self.look_again(&mut rotation);
                }
                pair = self.next_pair(&mut rotation, turn);
            }
            pair
        };
        match (first, second) {
            (Some(first), Some(second)) => {
                let is_less = second.client.queued().bytes < first.client.queued().bytes;
                Choice::Member(if is_less { second } else { first })
            }
            (Some(only), None) | (None, Some(only)) => Choice::Member(only),
            (None, None) => self.choose_full(turn),
        }
    }

    /// All members are over their limit, or there are none.
    fn choose_full(&self, turn: usize) -> Choice {
        let full: Vec<_> = self.registered().collect();
        let begins = turn % full.len().max(1);
        let in_turn = full.iter().cycle().skip(begins).take(full.len());
        // one that holds nobody, if there is any
        if let Some(member) = in_turn.clone().find(|member| member.mode() != DeliveryMode::Queued) {
            return Choice::Member(member.clone());
        }
        let compared = in_turn.take(COMPARED);
        match compared.min_by_key(|member| member.client.queued().bytes) {
            Some(member) => Choice::Full(member.clone()),
            None => Choice::Nobody,
        }
    }

    /// Looks at the member that has been out of rotation longest.
    fn look_again(&self, rotation: &mut Rotation) {
        let Some(index) = rotation.full.pop_front() else { return };
        match self.member(index) {
            Some(member) if is_full(&member) => rotation.full.push_back(index),
            Some(_) => rotation.ready.push(index),
            None => {}
        }
    }

    /// Returns the member whose turn it is and, if it is below its limit, the one after it.
    fn next_pair(
        &self,
        rotation: &mut Rotation,
        turn: usize,
    ) -> (Option<Arc<Subscriber>>, Option<Arc<Subscriber>>) {
        while !rotation.ready.is_empty() {
            let at = turn % rotation.ready.len();
            let Some(index) = rotation.ready.get(at).copied() else { break };
            match self.member(index) {
                Some(member) if !is_full(&member) => {
                    let other = rotation.ready.get((at + 1) % rotation.ready.len()).copied();
                    let other = other.filter(|other| *other != index).and_then(|other| self.member(other));
                    return (Some(member), other.filter(|other| !is_full(other)));
                }
                found => {
                    rotation.ready.swap_remove(at);
                    if found.is_some() {
                        rotation.full.push_back(index);
                    }
                }
            }
        }
        (None, None)
    }
}
