//! The targets of a sender of mixed runs: the clients it reaches, as numbers, by name and by route. Only the
//! client itself knows whether it is still registered.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use super::{
    Hashing, cache_memory::CacheMemory, index::text_table::TextTable, recipients::Recipients,
    registered_client::RegisteredClient,
};

/// Memory of a cached client, in bytes. Its registration stays in memory while it is cached.
const RECEIVER_BYTES: usize = size_of::<Receiver>() * 2 + 48 + size_of::<RegisteredClient>();
/// Memory of a route beside its receivers, in bytes.
const ROUTE_BYTES: usize = 64;
/// Receivers that are kept to determine whether a sender has several.
const RECENT_RECEIVERS: usize = 16;
/// Departed clients are searched for when this many clients are cached, then each time their number has
/// doubled.
const FIRST_PRUNING: usize = 256;
/// The fewest mixed runs between two times that everything is removed for lack of memory.
const RUNS_BETWEEN_CLEARINGS: u32 = 1024;

/// Stands for a route that is not cached, in place of its index.
pub(super) const UNCACHED: u32 = u32::MAX;

/// A client that a sender reaches.
pub(super) struct Receiver {
    pub(super) client: Weak<RegisteredClient>,
    /// The number of the last mixed run that it was a recipient of, see [`MixedTargets::begin`].
    pub(super) run: u32,
    /// Its place among the recipients of that run.
    pub(super) place: u32,
}

/// The receivers of a route.
#[derive(Clone, Default)]
enum RouteReceivers {
    #[default]
    Unknown,
    One(u32),
    Several(Box<[u32]>),
}

/// The targets of a sender.
#[derive(Default)]
pub(super) struct MixedTargets {
    receivers: Vec<Receiver>,
    /// Numbers of receivers, by the address of the client.
    by_address: HashMap<usize, u32, Hashing>,
    /// Numbers of receivers.
    names: TextTable,
    /// The receivers of the routes to topics, by the index of the route.
    routes: Vec<RouteReceivers>,
    /// The generation of the route cache that these indices belong to.
    generation: u64,
    /// The receivers of the last route that is not cached.
    uncached: Vec<u32>,
    run: u32,
    /// Memory in bytes, and the part of it that `routes` takes.
    bytes: usize,
    route_bytes: usize,
    is_short: bool,
    /// Runs since everything was last removed for lack of memory.
    runs_since_clearing: u32,
    /// The number of receivers at which departed ones are searched for next.
    prune_at: usize,
    /// Some of the most recent receivers, and the index of the one that is replaced next.
    recent: Vec<Weak<RegisteredClient>>,
    oldest_recent: usize,
}

impl MixedTargets {
    /// Begins a mixed run and returns its number. `generation` is that of the routes.
    pub(super) fn begin(&mut self, generation: u64, memory: &mut CacheMemory) -> u32 {
        if self.receivers.len() >= self.prune_at.max(FIRST_PRUNING) {
            self.prune(memory);
        }
        self.set_generation(generation, memory);
        self.run = self.run.wrapping_add(1);
        if self.run == 0 {
            self.receivers.iter_mut().for_each(|receiver| receiver.run = 0);
            self.run = 1;
        }
        self.run
    }

    /// Removes everything if half of the receivers have left.
    #[cold]
    fn prune(&mut self, memory: &mut CacheMemory) {
        let departed = |receiver: &&Receiver| receiver.client.upgrade().is_none_or(|client| client.is_gone());
        if self.receivers.iter().filter(departed).count() * 2 >= self.receivers.len() {
            self.clear(memory);
        }
        self.prune_at = self.receivers.len() * 2;
    }

    /// Returns whether there was no memory for a receiver since everything was last removed.
    #[inline]
    pub(super) fn is_short(&self) -> bool {
        self.is_short
    }

    /// Returns whether all caches of the sender may be cleared for lack of memory: at most once in
    /// [`RUNS_BETWEEN_CLEARINGS`].
    #[cold]
    pub(super) fn may_clear(&mut self) -> bool {
        self.runs_since_clearing += 1;
        let may_clear = self.runs_since_clearing >= RUNS_BETWEEN_CLEARINGS;
        if may_clear {
            self.runs_since_clearing = 0;
        }
        may_clear
    }

    /// Sets the generation of the routes. If it has changed, their receivers are removed.
    pub(super) fn set_generation(&mut self, generation: u64, memory: &mut CacheMemory) {
        if self.generation != generation {
            self.generation = generation;
            self.routes.clear();
            let bytes = std::mem::take(&mut self.route_bytes);
            self.give_back(bytes, memory);
        }
    }

    /// Returns the number of the client that last had this name.
    #[inline]
    pub(super) fn by_name(&self, name: &[u8]) -> Option<u32> {
        self.names.get(name)
    }

    /// Returns the number of the client of a name, and caches it if there is memory for the name. `None` if
    /// there is no memory for the client.
    #[cold]
    pub(super) fn set_name(
        &mut self,
        name: &[u8],
        client: &Arc<RegisteredClient>,
        memory: &mut CacheMemory,
    ) -> Option<u32> {
        let number = self.number_of(&Arc::downgrade(client), memory)?;
        let bytes = TextTable::bytes_of(name.len());
        if self.take(bytes, memory) && !self.names.set(name, number) {
            self.give_back(bytes, memory);
        }
        Some(number)
    }

    /// Returns whether the receivers of a route are cached.
    #[inline]
    pub(super) fn knows_route(&self, route: u32) -> bool {
        !matches!(self.routes.get(route as usize), None | Some(RouteReceivers::Unknown))
    }

    /// Returns the numbers of the receivers of a route, and all receivers.
    #[inline]
    pub(super) fn of_route(&mut self, route: u32) -> (&[u32], &mut [Receiver]) {
        let numbers = match self.routes.get(route as usize) {
            _ if route == UNCACHED => &self.uncached,
            Some(RouteReceivers::One(number)) => std::slice::from_ref(number),
            Some(RouteReceivers::Several(numbers)) => numbers,
            Some(RouteReceivers::Unknown) | None => &[],
        };
        (numbers, &mut self.receivers)
    }

    /// Returns all receivers.
    #[inline]
    pub(super) fn receivers(&mut self) -> &mut [Receiver] {
        &mut self.receivers
    }

    /// Caches the receivers of a route. Returns `false` if there is no memory.
    #[cold]
    pub(super) fn set_route(
        &mut self,
        route: u32,
        recipients: &Recipients,
        memory: &mut CacheMemory,
    ) -> bool {
        if self.knows_route(route) {
            // cached by another topic with the same recipients
            return true;
        }
        let bytes = ROUTE_BYTES + size_of_val(recipients.members()) / 2;
        if !self.take(bytes, memory) {
            return false;
        }
        let numbers: Option<Vec<u32>> =
            recipients.members().iter().map(|client| self.number_of(client, memory)).collect();
        let Some(numbers) = numbers else {
            self.give_back(bytes, memory);
            return false;
        };
        self.route_bytes += bytes;
        if self.routes.len() <= route as usize {
            self.routes.resize(route as usize + 1, RouteReceivers::Unknown);
        }
        if let Some(place) = self.routes.get_mut(route as usize) {
            *place = match numbers[..] {
                [number] => RouteReceivers::One(number),
                _ => RouteReceivers::Several(numbers.into()),
            };
        }
        true
    }

    /// Sets the receivers of a route that is not cached. Returns `false` if there is no memory.
    #[cold]
    pub(super) fn set_uncached(&mut self, recipients: &Recipients, memory: &mut CacheMemory) -> bool {
        let mut numbers = std::mem::take(&mut self.uncached);
        numbers.clear();
        let known = recipients.members().iter().map_while(|client| self.number_of(client, memory));
        numbers.extend(known);
        self.uncached = numbers;
        self.uncached.len() == recipients.members().len()
    }

    fn number_of(&mut self, client: &Weak<RegisteredClient>, memory: &mut CacheMemory) -> Option<u32> {
        let address = client.as_ptr().addr();
        if let Some(number) = self.by_address.get(&address) {
            return Some(*number);
        }
        if !self.take(RECEIVER_BYTES, memory) {
            self.is_short = true;
            return None;
        }
        let number = u32::try_from(self.receivers.len()).ok()?;
        self.receivers.push(Receiver { client: client.clone(), run: 0, place: 0 });
        self.by_address.insert(address, number);
        Some(number)
    }

    /// Keeps some of the recipients of a mixed run. Those of earlier runs stay while there is room.
    #[inline]
    pub(super) fn set_recent<'c>(&mut self, clients: impl Iterator<Item = &'c Arc<RegisteredClient>>) {
        for client in clients.take(RECENT_RECEIVERS) {
            let is_same =
                |recent: &Weak<RegisteredClient>| std::ptr::eq(recent.as_ptr(), Arc::as_ptr(client));
            if self.recent.iter().any(is_same) {
                continue;
            }
            if self.recent.len() < RECENT_RECEIVERS {
                self.recent.push(Arc::downgrade(client));
            } else {
                // in turn: replaces the oldest
                self.oldest_recent = (self.oldest_recent + 1) % RECENT_RECEIVERS;
                if let Some(oldest) = self.recent.get_mut(self.oldest_recent) {
                    *oldest = Arc::downgrade(client);
                }
            }
        }
    }

    /// Returns some of the receivers of recent mixed runs.
    pub(super) fn recent(&self) -> impl Iterator<Item = &Weak<RegisteredClient>> {
        self.recent.iter()
    }

    fn take(&mut self, bytes: usize, memory: &mut CacheMemory) -> bool {
        let taken = memory.try_take(bytes);
        if taken {
            self.bytes += bytes;
        }
        taken
    }

    fn give_back(&mut self, bytes: usize, memory: &mut CacheMemory) {
        self.bytes -= bytes;
        memory.give_back(bytes);
    }

    /// Removes everything except the most recent receivers.
    #[cold]
    pub(super) fn clear(&mut self, memory: &mut CacheMemory) {
        memory.give_back(self.bytes);
        let recent = std::mem::take(&mut self.recent);
        *self = MixedTargets { generation: self.generation, recent, ..MixedTargets::default() };
    }
}

#[cfg(test)]
mod tests;
