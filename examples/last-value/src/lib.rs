//! A plugin to start from: an interceptor that remembers the last value of every topic it is configured for,
//! and a control method. Topics of the broker (`.broker/...`) are not intercepted. The plugin `retain` does
//! more: it also delivers the values to new subscribers.
//!
//! Copy the folder and set the dependency in its Cargo.toml. `cargo build --release` makes
//! `liblast_value.so`; copy it to a folder of `plugin_dirs`. In broker.toml:
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
//! Any client then calls the method `last.get` of `.broker`:
//!
//! ```text
//! $ elbus publish sensors/boiler 71.5
//! $ elbus rpc call .broker last.get topic=sensors/boiler
//! {"topic":"sensors/boiler","payload":"71.5"}
//! ```

use elbus_plugin_api::{
    Call, CallError, Config, Host, Method, Plugin, PluginError, Status,
    hooks::{Hook, HookScope, InterceptedFrame, OnFailure, Verdict},
};
use serde::{Deserialize, Serialize, Serializer};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// The configuration of an instance. Other keys are reported as unknown, with file and line.
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

/// The parameters of `last.get`.
#[derive(Deserialize)]
struct Query {
    topic: String,
}

/// The result of `last.get`. Parameters and results are msgpack maps, which every client can read.
#[derive(Serialize)]
struct Answer {
    topic: String,
    #[serde(serialize_with = "text_or_binary")]
    payload: Vec<u8>,
}

/// Serializes a payload as msgpack text if it is UTF-8, else as msgpack binary.
fn text_or_binary<S: Serializer>(payload: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    match std::str::from_utf8(payload) {
        Ok(text) => serializer.serialize_str(text),
        Err(_) => serializer.serialize_bytes(payload),
    }
}

/// The values, shared by the plugin, its interceptor and its control method.
struct Values {
    cache: Mutex<Cache>,
    max_topics: usize,
    max_bytes: usize,
}

#[derive(Default)]
struct Cache {
    by_topic: HashMap<String, Vec<u8>>,
    /// Bytes of topics and values. Clients choose both, so a limit of topics alone would not limit memory.
    bytes: usize,
}

impl Values {
    /// Answers a call of `last.get`.
    fn get(&self, call: &Call<'_>) -> Result<Vec<u8>, CallError> {
        let Query { topic } = rmp_serde::from_slice(call.params)
            .map_err(|error| CallError::invalid_params(format!("expected {{topic: str}}: {error}")))?;
        let Some(payload) = self.lock().by_topic.get(&topic).cloned() else {
            return Err(CallError::not_found(format!("no value of topic {topic:?}")));
        };
        rmp_serde::to_vec_named(&Answer { topic, payload })
            .map_err(|error| CallError::internal(error.to_string()))
    }

    /// Remembers a value. If it does not fit, the topic is removed, since its previous value is out of date.
    fn set(&self, topic: &str, value: &[u8]) -> bool {
        let mut cache = self.lock();
        if let Some(previous) = cache.by_topic.remove(topic) {
            cache.bytes -= topic.len() + previous.len();
        }
        let bytes = cache.bytes + topic.len() + value.len();
        let fits = cache.by_topic.len() < self.max_topics && bytes <= self.max_bytes;
        if fits {
            cache.by_topic.insert(topic.to_owned(), value.to_vec());
            cache.bytes = bytes;
        }
        fits
    }

    /// Remembers a publication, and lets it pass. Called by the threads of senders, so it must not block.
    fn remember(&self, frame: &InterceptedFrame<'_>) -> Verdict {
        // a publication for one client only is no value of its topic
        if frame.receiver().is_empty() && !self.set(frame.target(), frame.payload()) {
            let Values { max_topics, max_bytes, .. } = *self;
            tracing::debug!(topic = frame.target(), max_topics, max_bytes, "value not remembered");
        }
        Verdict::Continue
    }

    fn lock(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The plugin. One library serves as many instances as broker.toml declares.
pub struct LastValue {
    host: Host,
    scope: HookScope,
    values: Arc<Values>,
    hook: Mutex<Option<Hook>>,
}

impl Plugin for LastValue {
    const ABOUT: &'static str = "remembers the last value of topics";

    /// Reads and checks the configuration; has no effect outside.
    fn create(host: Host, config: &Config) -> Result<Self, PluginError> {
        let Settings { filters, max_topics, max_bytes } = config.read()?;
        if filters.is_empty() {
            return Err(PluginError::of_key("filters", "expected at least one topic filter"));
        }
        // last, so that it sees what other interceptors have let pass
        let scope = HookScope::new().publications(filters).after_others();
        scope.check()?;
        let values = Arc::new(Values { cache: Mutex::default(), max_topics, max_bytes });
        Ok(LastValue { host, scope, values, hook: Mutex::default() })
    }

    /// Adds the interceptor and a control method. A publication is remembered when it is acknowledged.
    fn start(&self) -> Result<(), PluginError> {
        let values = self.values.clone();
        let interceptor = move |frame: &InterceptedFrame<'_>| values.remember(frame);
        let hook = self.host.add_interceptor(&self.scope, OnFailure::Open, interceptor)?;
        *self.hook.lock().unwrap_or_else(PoisonError::into_inner) = Some(hook);

        let values = self.values.clone();
        let name = format!("{}.get", self.host.instance());
        let method = Method::new(&name).params("{topic: str}").about("the last payload of a topic").query();
        self.host.add_method(&method, move |call: &Call<'_>| values.get(call))
    }

    /// Ends the interceptor. The broker removes the control method itself.
    fn stop(&self, _: Duration) {
        *self.hook.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn status(&self) -> Status {
        Status::with_detail(format!("{} topics", self.values.lock().by_topic.len()))
    }
}

elbus_plugin_api::export_plugin!(LastValue);

#[cfg(test)]
mod tests {
    use super::*;
    use elbus_plugin_api::{Op, testing::FakeHost};
    use std::collections::BTreeMap;

    fn query(topic: &str) -> Vec<u8> {
        rmp_serde::to_vec_named(&BTreeMap::from([("topic", topic)])).unwrap()
    }

    /// A plugin is tested alone, with a host that records its calls.
    #[test]
    fn the_last_value_of_a_topic_is_returned() {
        let fake = FakeHost::new();
        let instance = fake.create::<LastValue>("last", "filters = ['a/#', 'b']").unwrap();
        instance.start().unwrap();
        let host = fake.host("test");
        let get = |topic: &str| host.call(&Call::by_broker("last.get", &query(topic)));
        assert_eq!(host.call(&Call::by_broker("last.get", b"a/x")).unwrap_err().code, -32602);
        assert_eq!(get("a/x").unwrap_err().code, -32001);
        let passed = fake.intercept("sensor", Op::Publish, "a/x", &[b"1", b"2"]);
        assert_eq!(passed, [Verdict::Continue, Verdict::Continue]);
        let answer: BTreeMap<String, String> = rmp_serde::from_slice(&get("a/x").unwrap()).unwrap();
        assert_eq!(
            answer,
            BTreeMap::from([("topic", "a/x"), ("payload", "2")].map(|(k, v)| (k.into(), v.into())))
        );
        fake.intercept("sensor", Op::Publish, "b", &[b"\xff"]);
        fake.intercept("sensor", Op::Publish, "c", &[b"not of its filters"]);
        assert!(get("b").unwrap().ends_with(b"\xc4\x01\xff"), "a payload that is not UTF-8 is binary");
        assert_eq!(instance.status().detail, "2 topics");
        instance.stop(Duration::ZERO);
        fake.intercept("sensor", Op::Publish, "a/y", &[b"too late"]);
        assert_eq!(instance.status().detail, "2 topics");
    }

    #[test]
    fn topics_and_bytes_are_limited() {
        let fake = FakeHost::new();
        let config = "filters = ['#']\nmax_topics = 2\nmax_bytes = 10";
        let instance = fake.create::<LastValue>("last", config).unwrap();
        instance.start().unwrap();
        let host = fake.host("test");
        let set = |topic: &str, value: &[u8]| {
            fake.intercept("sensor", Op::Publish, topic, &[value]);
            host.call(&Call::by_broker("last.get", &query(topic))).is_ok()
        };
        assert!(set("a", b"12345") && !set("b", b"12345") && set("b", b"123"), "bytes");
        assert!(!set("a", b"123456") && set("a", b"1") && !set("c", b""), "topics");
    }

    #[test]
    fn invalid_configuration_is_refused() {
        let error = |config| FakeHost::new().create::<LastValue>("last", config).err().unwrap().to_string();
        assert_eq!(error("filters = []"), "filters: expected at least one topic filter");
        assert_eq!(
            error("filters = ['a']\nmax = 5"),
            "max: unknown key; known are filters, max_bytes, max_topics"
        );
    }
}
