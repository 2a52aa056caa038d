//! A plugin to start from: remembers the last value of every topic it is told to watch, and answers for it.
//!
//! Built with `cargo build --release`, the library goes into a folder of `plugin_dirs`; in broker.toml:
//!
//! ```toml
//! [[plugin]]
//! name = "last"
//! library = "last_value"
//! [plugin.config]
//! filters = ["sensors/#"]
//! max_topics = 10000
//! ```
//!
//! Any client then calls `last.get` at `.broker` with the topic as parameter, and gets the last payload.

use elbus_plugin_api::{
    Call, CallError, Client, ClientInfo, Code, Config, Delivery, Host, Locality, Method, Op, Plugin,
    PluginError, Qos, Queued, Request, Run, Sink, Status, Wake,
};
use serde::Deserialize;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// The table of an instance. Keys that are no fields are reported as unknown, with file and line.
#[derive(Deserialize)]
struct Settings {
    filters: Vec<String>,
    #[serde(default = "default_max_topics")]
    max_topics: usize,
    #[serde(default = "default_max_bytes")]
    max_bytes: usize,
}

fn default_max_topics() -> usize {
    10_000
}

fn default_max_bytes() -> usize {
    64 << 20
}

/// What is remembered; shared by the plugin, its sink and its control method.
struct Values {
    kept: Mutex<Kept>,
    max_topics: usize,
    max_bytes: usize,
}

#[derive(Default)]
struct Kept {
    by_topic: HashMap<String, Vec<u8>>,
    /// Of topics and values. Clients choose both, so their number alone limits no memory.
    bytes: usize,
}

impl Values {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers a value; a topic whose new value does not fit is forgotten, since the old one is wrong.
    fn set(&self, topic: &str, value: &[u8]) -> bool {
        let mut kept = self.lock();
        if let Some(old) = kept.by_topic.remove(topic) {
            kept.bytes -= topic.len() + old.len();
        }
        let bytes = kept.bytes + topic.len() + value.len();
        let fits = kept.by_topic.len() < self.max_topics && bytes <= self.max_bytes;
        if fits {
            kept.by_topic.insert(topic.to_owned(), value.to_vec());
            kept.bytes = bytes;
        }
        fits
    }
}

/// The plugin. One library serves as many instances as broker.toml declares.
pub struct LastValue {
    host: Host,
    filters: Vec<String>,
    values: Arc<Values>,
    client: Mutex<Option<Client>>,
}

impl Plugin for LastValue {
    const ABOUT: &'static str = "remembers the last value of topics";

    /// Reads and checks the configuration, touches nothing outside.
    fn create(host: Host, config: &Config) -> Result<Self, PluginError> {
        let Settings { filters, max_topics, max_bytes } = config.read()?;
        if filters.is_empty() {
            return Err(PluginError::of_key("filters", "must name at least one topic filter"));
        }
        let values = Arc::new(Values { kept: Mutex::default(), max_topics, max_bytes });
        Ok(LastValue { host, filters, values, client: Mutex::default() })
    }

    /// Registers as a client of the bus, subscribes, and adds a control method.
    fn start(&self) -> Result<(), PluginError> {
        let name = format!("plugin.{}", self.host.instance());
        let (kind, locality) = ("internal".into(), Locality::InProcess);
        let info = ClientInfo { kind, locality, ..Default::default() };
        let registered = self.host.register(&name, &info, ValueSink(self.values.clone()));
        let mut client = registered.map_err(|code| PluginError::new(format!("client {name}: {code}")))?;
        let filters = self.filters.join("\0");
        let subscribed = client.dispatch(&Request::new(Op::Subscribe, Qos::NO, &filters, &[]));
        if subscribed.code() != Code::Ok {
            return Err(PluginError::of_key("filters", subscribed.code().text()));
        }
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = Some(client);

        let values = self.values.clone();
        let name = format!("{}.get", self.host.instance());
        let method =
            Method { name: &name, params: "a topic", about: "its last payload", ..Default::default() };
        self.host.add_method(&method, move |call: &Call<'_>| {
            let topic = std::str::from_utf8(call.params).map_err(|_| CallError::new(-32602, "not UTF-8"))?;
            let found = values.lock().by_topic.get(topic).cloned();
            found.ok_or_else(|| CallError::new(-32001, format!("nothing was published to {topic:?} yet")))
        })
    }

    /// Leaves the bus; what else the instance has added, the broker takes back itself.
    fn stop(&self, _: Duration) {
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn status(&self) -> Status {
        Status { detail: format!("{} topics", self.values.lock().by_topic.len()), ..Default::default() }
    }
}

/// Where publications arrive: called by the threads of their senders, so it must be quick and never block for long.
struct ValueSink(Arc<Values>);

impl Sink for ValueSink {
    fn deliver(&self, run: &mut Run<'_>) -> Delivery {
        // of a run of values, only the last counts
        if let Some(payload) = run.payloads().last().filter(|_| !run.topic().is_empty())
            && !self.0.set(run.topic(), payload)
        {
            let Values { max_topics, max_bytes, .. } = *self.0;
            tracing::debug!(topic = run.topic(), max_topics, max_bytes, "value not remembered");
        }
        Delivery::TAKEN
    }

    fn flush(&self) {}

    fn when_drained(&self, wake: Wake) {
        wake.wake();
    }

    fn close(&self, _: &str) {}

    fn queued(&self) -> Queued {
        Queued::default()
    }
}

elbus_plugin_api::export_plugin!(LastValue);

#[cfg(test)]
mod tests {
    use super::*;
    use elbus_plugin_api::{FrameKind, fake::FakeHost};

    /// A plugin is tested alone, against a host that records what it does.
    #[test]
    fn remembers_the_last_value() {
        let fake = FakeHost::new();
        let instance = fake.create::<LastValue>("last", "filters = ['a/#', 'b']").unwrap();
        instance.start().unwrap();
        assert_eq!(fake.clients(), ["plugin.last"]);
        assert_eq!(fake.requests()[0].target, "a/#\0b");
        let host = fake.host("test");
        let get = |topic: &str| host.call(&Call::by_broker("last.get", topic.as_bytes()));
        assert_eq!(get("a/x").unwrap_err().code, -32001);
        fake.deliver("plugin.last", FrameKind::Publish, "sensor", "a/x", &[b"1", b"2"]);
        assert_eq!(get("a/x").unwrap(), b"2");
        assert_eq!(instance.status().detail, "1 topics");
        instance.stop(Duration::ZERO);
        assert!(fake.clients().is_empty());
    }

    #[test]
    fn topics_and_bytes_are_limited() {
        let fake = FakeHost::new();
        let config = "filters = ['#']\nmax_topics = 2\nmax_bytes = 10";
        let instance = fake.create::<LastValue>("last", config).unwrap();
        instance.start().unwrap();
        let host = fake.host("test");
        let set = |topic: &str, value: &[u8]| {
            fake.deliver("plugin.last", FrameKind::Publish, "sensor", topic, &[value]);
            host.call(&Call::by_broker("last.get", topic.as_bytes())).is_ok()
        };
        assert!(set("a", b"12345") && !set("b", b"12345") && set("b", b"123"), "bytes");
        assert!(!set("a", b"123456") && set("a", b"1") && !set("c", b""), "topics");
    }

    #[test]
    fn wrong_configuration_is_refused() {
        let error = |config| FakeHost::new().create::<LastValue>("last", config).err().unwrap().to_string();
        assert_eq!(error("filters = []"), "filters: must name at least one topic filter");
        assert_eq!(
            error("filters = ['a']\nmax = 5"),
            "max: unknown key; known are filters, max_bytes, max_topics"
        );
    }
}
