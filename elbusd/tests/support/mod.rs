//! What the whole-broker tests share: an `elbusd` of their own and clients that speak the bare wire format.
#![allow(dead_code, reason = "each test file uses some of it")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should not")]

pub(crate) mod daemon;
pub(crate) mod level;
pub(crate) mod load;
pub(crate) mod wire;

use std::time::{Duration, Instant};

/// How long anything that must happen may take before a test fails; generous, since nothing waits for it that goes
/// well.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How many rounds an adversary goes through: few for CI, many where `ELBUS_CAMPAIGN=long` is set.
pub(crate) fn rounds(few: usize, many: usize) -> usize {
    if std::env::var("ELBUS_CAMPAIGN").is_ok_and(|size| size == "long") { many } else { few }
}

/// A key of a msgpack map.
pub(crate) fn field<'a>(map: &'a rmpv::Value, key: &str) -> &'a rmpv::Value {
    let found = map.as_map().unwrap().iter().find(|(k, _)| k.as_str() == Some(key));
    &found.unwrap_or_else(|| panic!("no {key} in {map}")).1
}

/// What `plugin.list` says of an instance; `None` where it is not there.
pub(crate) fn plugin(client: &mut wire::Wire, name: &str) -> Option<rmpv::Value> {
    let list = client.control("plugin.list", &[]).unwrap();
    let plugins = field(&list, "plugins").as_array().unwrap().clone();
    plugins.into_iter().find(|plugin| field(plugin, "name").as_str() == Some(name))
}

/// Waits until `ready` says so.
pub(crate) fn wait_until(what: &str, mut ready: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !ready() {
        assert!(Instant::now() < until, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
