//! Where rules stand in the configuration: file and line, as log lines about what they deny name them. Finding a line means parsing
//! the file, so what was found is remembered until the configuration changes.

use std::{collections::HashMap, sync::OnceLock};

use crate::sync::Mutex;

/// Places that are remembered; with more, all are forgotten.
const MAX_KNOWN: usize = 4096;

/// Tells where a key of an instance's table stands.
type Find = Box<dyn Fn(&str, &str) -> Option<String> + Send + Sync>;

/// Where the keys of instances stand.
#[derive(Default)]
pub(crate) struct Places {
    find: OnceLock<Find>,
    /// By instance and key. A leaf: not held while a place is looked for.
    known: Mutex<HashMap<(String, String), String>>,
}

impl Places {
    /// Sets who knows; once.
    pub(crate) fn found_by(&self, find: impl Fn(&str, &str) -> Option<String> + Send + Sync + 'static) {
        _ = self.find.set(Box::new(find));
    }

    /// Where a key of an instance's table stands, `broker.toml:42`; if that comes from no file, the key and the instance.
    pub(crate) fn of(&self, instance: &str, key: &str) -> String {
        let asked = (instance.to_owned(), key.to_owned());
        if let Some(known) = self.known.lock().get(&asked) {
            return known.clone();
        }
        let found = self.find.get().and_then(|find| find(instance, key));
        let place = found.unwrap_or_else(|| format!("{key} of plugin {instance}"));
        let mut known = self.known.lock();
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert(asked, place.clone());
        place
    }

    /// The configuration has changed.
    pub(crate) fn forget(&self) {
        self.known.lock().clear();
    }
}
