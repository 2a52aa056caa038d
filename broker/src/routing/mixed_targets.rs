//! The targets of a sender of mixed runs: the clients it reaches, as numbers, by name and by route. Whether a
//! client is still registered, only the client itself says.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use super::{
    Hashing, cache_memory::CacheMemory, index::text_table::TextTable, recipients::Recipients,
    registered_client::RegisteredClient,
};

/// Memory of a client that is known, in bytes.
const RECEIVER_BYTES: usize = size_of::<Receiver>() * 2 + 48;
/// Memory of a route beside its receivers, in bytes.
const ROUTE_BYTES: usize = 64;
/// Receivers that are visited to find out whether a sender has several.
const RECENT_RECEIVERS: usize = 16;

/// Stands for a route that is not cached, in place of its index.
pub(super) const UNCACHED: u32 = u32::MAX;

/// A client that a sender reaches.
pub(super) struct Receiver {
    pub(super) client: Weak<RegisteredClient>,
    /// The last mixed run that it was a recipient of, see [`MixedTargets::begin`].
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
    /// The generation of the cache that has these routes.
    generation: u64,
    /// The receivers of the last route that is not cached.
    uncached: Vec<u32>,
    run: u32,
    /// Memory, in bytes.
    bytes: usize,
    is_short: bool,
}

impl MixedTargets {
    /// Begins a mixed run; returns its number. `generation` is that of the routes.
    pub(super) fn begin(&mut self, generation: u64) -> u32 {
        self.set_generation(generation);
        self.run = self.run.wrapping_add(1);
        if self.run == 0 {
            self.receivers.iter_mut().for_each(|receiver| receiver.run = 0);
            self.run = 1;
        }
        self.run
    }

    /// Returns whether there was no memory for something since everything was last forgotten.
    pub(super) fn is_short(&self) -> bool {
        self.is_short
    }

    /// Sets the generation of the routes. Another one than before removes their receivers.
    pub(super) fn set_generation(&mut self, generation: u64) {
        if self.generation != generation {
            self.generation = generation;
            self.routes.clear();
        }
    }

    /// Returns the client that was last known by a name.
    #[inline]
    pub(super) fn by_name(&self, name: &[u8]) -> Option<u32> {
        self.names.get(name)
    }

    /// Remembers the client of a name; `None` if there is no memory.
    #[cold]
    pub(super) fn set_name(
        &mut self,
        name: &[u8],
        client: &Arc<RegisteredClient>,
        memory: &mut CacheMemory,
    ) -> Option<u32> {
        let number = self.number_of(&Arc::downgrade(client), memory)?;
        let bytes = TextTable::bytes_of(name.len());
        if !self.take(bytes, memory) {
            return None;
        }
        if !self.names.set(name, number) {
            self.give_back(bytes, memory);
        }
        Some(number)
    }

    /// Returns whether the receivers of a route are known.
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

    /// Remembers the receivers of a route; `false` if there is no memory.
    #[cold]
    pub(super) fn set_route(
        &mut self,
        route: u32,
        recipients: &Recipients,
        memory: &mut CacheMemory,
    ) -> bool {
        let bytes = ROUTE_BYTES + size_of_val(recipients.members()) / 2;
        if !self.take(bytes, memory) {
            return false;
        }
        let numbers: Option<Vec<u32>> =
            recipients.members().iter().map(|client| self.number_of(client, memory)).collect();
        let Some(numbers) = numbers else { return false };
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

    /// Sets the receivers of a route that is not cached; `false` if there is no memory.
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
            return None;
        }
        let number = u32::try_from(self.receivers.len()).ok()?;
        self.receivers.push(Receiver { client: client.clone(), run: 0, place: 0 });
        self.by_address.insert(address, number);
        Some(number)
    }

    /// Returns some of the receivers of the last mixed run.
    pub(super) fn recent(&self) -> impl Iterator<Item = &Weak<RegisteredClient>> {
        let last = self.receivers.iter().rev().filter(|receiver| receiver.run == self.run);
        last.take(RECENT_RECEIVERS).map(|receiver| &receiver.client)
    }

    fn take(&mut self, bytes: usize, memory: &mut CacheMemory) -> bool {
        let taken = memory.try_take(bytes);
        if taken {
            self.bytes += bytes;
        } else {
            self.is_short = true;
        }
        taken
    }

    fn give_back(&mut self, bytes: usize, memory: &mut CacheMemory) {
        self.bytes -= bytes;
        memory.give_back(bytes);
    }

    /// Forgets everything.
    #[cold]
    pub(super) fn clear(&mut self, memory: &mut CacheMemory) {
        memory.give_back(self.bytes);
        *self = MixedTargets { generation: self.generation, ..MixedTargets::default() };
    }
}
