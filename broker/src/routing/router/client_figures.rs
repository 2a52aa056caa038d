//! What one visit to all clients finds: sums for each instance, the receivers that hold senders longest, and
//! the clients that were asked for. Changes nothing.

use elbus_plugin_api::{Op, hooks::HookScope};
use elbus_protocol::name::is_secondary;
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    sync::Arc,
    time::{Duration, Instant},
};

use super::Router;
use crate::{routing::registered_client::RegisteredClient, statistics::Totals};

/// What [`Router::client_figures`] returns.
#[derive(Default)]
pub(crate) struct ClientFigures {
    /// By the name of the instance.
    pub(crate) instances: BTreeMap<Arc<str>, InstanceFigures>,
    /// The receivers that have held senders longest, the longest first.
    pub(crate) holding: Vec<(Arc<RegisteredClient>, Duration)>,
    /// The clients that were asked for, in order of names.
    pub(crate) selected: Vec<Arc<RegisteredClient>>,
    /// How many more there are.
    pub(crate) omitted: usize,
}

/// The clients of one instance that are registered now.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct InstanceFigures {
    pub(crate) primaries: u64,
    pub(crate) secondaries: u64,
    pub(crate) totals: Totals,
    pub(crate) queued_frames: u64,
    pub(crate) queued_bytes: u64,
}

impl Router {
    /// Visits all clients once, without a lock: returns sums, the `most_holding` receivers that have held
    /// senders longest, and at most `most_selected` clients whose names are in `selected`.
    pub(crate) fn client_figures(
        &self,
        most_holding: usize,
        selected: Option<&HookScope>,
        most_selected: usize,
    ) -> ClientFigures {
        // copied: the sinks are asked after the lock is released
        let members: Vec<Arc<RegisteredClient>> = self.registry.read().all().cloned().collect();
        let (mut found, now) = (ClientFigures::default(), Instant::now());
        let mut holding = BinaryHeap::new();
        for (number, member) in members.iter().enumerate() {
            if let Some(statistics) = &member.statistics {
                let queued = member.queued();
                let of = match found.instances.get_mut(&statistics.name) {
                    Some(of) => of,
                    None => found.instances.entry(statistics.name.clone()).or_default(),
                };
                *(if is_secondary(&member.name) { &mut of.secondaries } else { &mut of.primaries }) += 1;
                of.totals += member.counts.totals();
                of.queued_frames += queued.frames;
                of.queued_bytes += queued.bytes;
            }
            let held = member.held_senders(now);
            if !held.is_zero() && most_holding > 0 {
                holding.push(Reverse((held, Reverse(number))));
                if holding.len() > most_holding {
                    holding.pop();
                }
            }
            if selected.is_some_and(|scope| scope.applies_to(Op::Message, &member.name)) {
                if found.selected.len() < most_selected {
                    found.selected.push(member.clone());
                } else {
                    found.omitted += 1;
                }
            }
        }
        let sorted = holding.into_sorted_vec().into_iter();
        found.holding = sorted
            .filter_map(|Reverse((held, Reverse(at)))| Some((members.get(at)?.clone(), held)))
            .collect();
        found
    }
}
