//! The locations of rules in the configuration, file and line, for log messages about denied operations.
//! Finding a line means parsing the file, so results are cached until the configuration changes.

use std::{collections::HashMap, sync::OnceLock};

use crate::sync::Mutex;

/// Number of cached locations; at the limit, all are dropped.
const MAX_REMEMBERED: usize = 4096;

/// Finds the location of a key in an instance's table.
type Find = Box<dyn Fn(&str, &str) -> Option<String> + Send + Sync>;

/// The locations of keys of instances.
#[derive(Default)]
pub(crate) struct RuleLocations {
    find: OnceLock<Find>,
    /// By instance and key. A leaf lock: not held while a location is searched.
    remembered: Mutex<HashMap<(String, String), String>>,
}

impl RuleLocations {
    /// Sets the function that finds locations; once.
    pub(crate) fn set_finder(&self, find: impl Fn(&str, &str) -> Option<String> + Send + Sync + 'static) {
        _ = self.find.set(Box::new(find));
    }

    /// Returns the location of a key in an instance's table, such as `broker.toml:42`; without a file, the
    /// key and the instance.
    pub(crate) fn locate(&self, instance: &str, key: &str) -> String {
        let key_of_instance = (instance.to_owned(), key.to_owned());
        if let Some(remembered) = self.remembered.lock().get(&key_of_instance) {
            return remembered.clone();
        }
        let found = self.find.get().and_then(|find| find(instance, key));
        let location = found.unwrap_or_else(|| format!("{key} of plugin {instance}"));
        let mut remembered = self.remembered.lock();
        if remembered.len() >= MAX_REMEMBERED {
            remembered.clear();
        }
        remembered.insert(key_of_instance, location.clone());
        location
    }

    /// Drops the cached locations: the configuration has changed.
    pub(crate) fn forget(&self) {
        self.remembered.lock().clear();
    }
}
