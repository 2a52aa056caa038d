//! Shared by the whole-broker tests: `elbusd` processes, and clients that speak the wire format.
#![allow(dead_code, reason = "each test file uses some of it")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

pub(crate) mod daemon;
pub(crate) mod http;
pub(crate) mod level;
pub(crate) mod load;
pub(crate) mod web;
pub(crate) mod wire;

use std::time::{Duration, Instant};

/// The time after which a test gives up waiting. It is long, as a passing test never waits that long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Returns the number of rounds of a fault test: `few`, or `many` if `ELBUS_CAMPAIGN=long` is set.
pub(crate) fn rounds(few: usize, many: usize) -> usize {
    if std::env::var("ELBUS_CAMPAIGN").is_ok_and(|size| size == "long") { many } else { few }
}

/// Returns the value of a key of a msgpack map.
pub(crate) fn field<'a>(map: &'a rmpv::Value, key: &str) -> &'a rmpv::Value {
    let found = map.as_map().unwrap().iter().find(|(k, _)| k.as_str() == Some(key));
    &found.unwrap_or_else(|| panic!("no {key} in {map}")).1
}

/// Returns the entry of an instance in `plugin.list`, or `None` if it is not listed.
pub(crate) fn plugin(client: &mut wire::Wire, name: &str) -> Option<rmpv::Value> {
    let list = client.control("plugin.list", &[]).unwrap();
    let plugins = field(&list, "plugins").as_array().unwrap().clone();
    plugins.into_iter().find(|plugin| field(plugin, "name").as_str() == Some(name))
}

/// Returns whether an instance is listed as started.
pub(crate) fn is_started(client: &mut wire::Wire, name: &str) -> bool {
    plugin(client, name).is_some_and(|plugin| field(&plugin, "state").as_str() == Some("started"))
}

/// Returns the number of bytes that count against `max_queued_bytes`.
pub(crate) fn queued_bytes(client: &mut wire::Wire) -> u64 {
    field(&client.control("health", &[]).unwrap(), "queued_bytes").as_u64().unwrap()
}

/// Returns the list of names under a key of the reply of `config.reload`.
pub(crate) fn names(reply: &rmpv::Value, key: &str) -> Vec<String> {
    let names = field(reply, key).as_array().unwrap();
    names.iter().map(|name| name.as_str().unwrap().to_owned()).collect()
}

/// Returns the line of a `[[plugin]]` table that names a standard plugin, with `source` from
/// [`daemon::BOTH`].
pub(crate) fn plugin_source(source: &str, plugin: &str) -> String {
    match source {
        "library" => format!("library = \"elbus_{plugin}\""),
        _ => format!("builtin = \"{plugin}\""),
    }
}

/// Waits until `ready` returns true.
pub(crate) fn wait_until(what: &str, mut ready: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !ready() {
        assert!(Instant::now() < until, "timeout: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
