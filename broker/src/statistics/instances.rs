//! What is counted for each instance of a plugin: by its name, so that a restart does not begin at zero.

use elbus_plugin_api::Departure;
use parking_lot::RwLock;
use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicU64},
};

use super::{CountsBy, Durations, traffic::Counts};

/// The number of names that are counted separately. Those beyond it, which only a program that declares
/// thousands of instances has, share [`BEYOND`].
const MAX_NAMES: usize = 4096;
const BEYOND: &str = "(others)";

/// Counters of one instance.
#[derive(Default)]
pub(crate) struct InstanceStatistics {
    pub(crate) name: Arc<str>,
    /// Clients that it has registered.
    pub(crate) registered: AtomicU64,
    /// Clients that have left, by the reason.
    pub(crate) departures: CountsBy<Departure>,
    /// What its departed clients have sent and received.
    pub(crate) departed: Counts,
    /// Calls of its interceptors.
    pub(crate) intercept: Durations,
    /// Calls of its name resolvers.
    pub(crate) resolve: Durations,
    /// Calls of its subscription listener.
    pub(crate) on_change: Durations,
    /// Messages that its observers have missed, those that have ended.
    pub(crate) missed: AtomicU64,
}

/// The counters of all instances. Leaf locks, held briefly.
#[derive(Default)]
pub(crate) struct Instances {
    /// By the owner numbers of current instances.
    owners: RwLock<BTreeMap<u32, Arc<InstanceStatistics>>>,
    names: RwLock<BTreeMap<Arc<str>, Arc<InstanceStatistics>>>,
}

impl Instances {
    /// Returns the counters of an instance by its owner number; `name` is called if that is new.
    pub(crate) fn of(&self, owner: u32, name: impl FnOnce() -> String) -> Arc<InstanceStatistics> {
        if let Some(known) = self.owners.read().get(&owner) {
            return known.clone();
        }
        let statistics = self.named(name().into());
        self.owners.write().entry(owner).or_insert(statistics).clone()
    }

    fn named(&self, name: Arc<str>) -> Arc<InstanceStatistics> {
        let mut names = self.names.write();
        let is_beyond = names.len() >= MAX_NAMES && !names.contains_key(&name);
        let name = if is_beyond { BEYOND.into() } else { name };
        let new = || Arc::new(InstanceStatistics { name: name.clone(), ..InstanceStatistics::default() });
        names.entry(name.clone()).or_insert_with(new).clone()
    }

    /// Forgets the owner number of an instance that has ended. Its counters stay.
    pub(crate) fn forget(&self, owner: u32) {
        self.owners.write().remove(&owner);
    }

    /// Returns the counters of all instances, by name.
    pub(crate) fn all(&self) -> Vec<Arc<InstanceStatistics>> {
        self.names.read().values().cloned().collect()
    }
}

#[cfg(all(test, not(elbus_model)))]
mod tests {
    use super::*;

    #[test]
    fn a_restarted_instance_goes_on_counting() {
        let instances = Instances::default();
        let first = instances.of(7, || "a".to_owned());
        assert!(Arc::ptr_eq(&first, &instances.of(7, || unreachable!("it is known"))));
        instances.forget(7);
        assert!(Arc::ptr_eq(&first, &instances.of(8, || "a".to_owned())));
        instances.of(9, || "b".to_owned());
        assert_eq!(instances.all().iter().map(|one| &*one.name).collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn the_number_of_names_is_limited() {
        let instances = Instances::default();
        for number in 0..MAX_NAMES as u32 + 10 {
            instances.of(number, || number.to_string());
        }
        assert_eq!(instances.all().len(), MAX_NAMES + 1);
        assert_eq!(&*instances.of(MAX_NAMES as u32 + 5, || unreachable!()).name, BEYOND);
    }
}
