//! Where rules stand in the configuration: file and line, as log lines about what they deny name them.
//! Finding a line means parsing the file, so what was found is remembered until the configuration changes.

use std::{collections::HashMap, sync::OnceLock};

use crate::sync::Mutex;

/// Locations that are remembered; beyond that, all are forgotten.
const MAX_REMEMBERED: usize = 4096;

/// Tells where a key of an instance's table stands.
type Find = Box<dyn Fn(&str, &str) -> Option<String> + Send + Sync>;

/// Where the keys of instances stand.
#[derive(Default)]
pub(crate) struct RuleLocations {
    find: OnceLock<Find>,
    /// By instance and key. A leaf: not held while a location is searched.
    remembered: Mutex<HashMap<(String, String), String>>,
}

impl RuleLocations {
    /// Sets who knows; once.
    pub(crate) fn set_finder(&self, find: impl Fn(&str, &str) -> Option<String> + Send + Sync + 'static) {
        _ = self.find.set(Box::new(find));
    }

    /// Where a key of an instance's table stands, `broker.toml:42`; if that comes from no file, the key and
    /// the instance.
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

    /// The configuration has changed.
    pub(crate) fn forget(&self) {
        self.remembered.lock().clear();
    }
}
