//! Limits the rate of messages that clients can cause: per callsite and, at each callsite, per client and per
//! identity. Suppressed messages are counted. Never limits debug and trace messages.

use elbus_plugin_api::rate::TokenBucket;
use parking_lot::Mutex;
use std::{
    collections::{HashMap, hash_map::RandomState},
    fmt::Debug,
    hash::{BuildHasher, Hash},
    net::{IpAddr, SocketAddr},
    time::Instant,
};
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{Layer, layer::Context};

use super::Log;

/// Messages of one callsite.
const PER_CALLSITE: Rate = Rate { burst: 200.0, per_second: 10.0 };
/// Messages of one callsite about one client.
const PER_CLIENT: Rate = Rate { burst: 10.0, per_second: 1.0 / 6.0 };
/// Messages of one callsite about all clients of one user or address.
const PER_IDENTITY: Rate = Rate { burst: 40.0, per_second: 0.5 };
/// If a callsite has at most this many messages left, only the first message about an identity is written.
/// Noisy identities therefore do not hide quiet ones, up to this number.
const RESERVED: f64 = 100.0;
/// Callsites with a rate of their own; the others share one.
const MAX_CALLSITES: usize = 1024;
/// Clients with a rate of their own, and as many identities. Beyond that all are forgotten, and only the
/// callsite's rate applies.
const MAX_CLIENTS: usize = 4096;
/// Fields that name the client a message is about.
const CLIENT_FIELDS: [&str; 3] = ["client", "caller", "source"];
/// Fields that tell the client's identity.
const IDENTITY_FIELDS: [&str; 2] = ["source", "uid"];

#[derive(Clone, Copy)]
struct Rate {
    burst: f64,
    per_second: f64,
}

impl Rate {
    fn full_bucket(self, now: Instant) -> TokenBucket {
        TokenBucket::with_burst(self.per_second, self.burst, now)
    }
}

/// The layer that suppresses messages beyond the rates.
pub(crate) struct Throttle {
    log: Log,
    hashing: RandomState,
    /// A leaf lock.
    buckets: Mutex<Buckets>,
}

#[derive(Default)]
struct Buckets {
    callsites: HashMap<u64, TokenBucket>,
    clients: HashMap<u64, TokenBucket>,
    identities: HashMap<u64, TokenBucket>,
}

/// Returns the bucket of `key`, which is full if it is new.
fn bucket_of(
    buckets: &mut HashMap<u64, TokenBucket>,
    key: u64,
    rate: Rate,
    now: Instant,
) -> &mut TokenBucket {
    if buckets.len() >= MAX_CLIENTS && !buckets.contains_key(&key) {
        *buckets = HashMap::new();
    }
    buckets.entry(key).or_insert_with(|| rate.full_bucket(now))
}

impl Throttle {
    pub(crate) fn new(log: Log) -> Self {
        Throttle { log, hashing: RandomState::new(), buckets: Mutex::default() }
    }

    /// Returns whether to write a message.
    fn admits(&self, callsite: impl Hash + Copy, subject: &Subject, now: Instant) -> bool {
        let mut buckets = self.buckets.lock();
        let Buckets { callsites, clients, identities } = &mut *buckets;
        // a message suppressed for one client or identity takes no token of its callsite
        if let Some(client) = &subject.client {
            // with the identity, as the name may have had another owner
            let key = self.hashing.hash_one((callsite, &subject.identity, client));
            if !bucket_of(clients, key, PER_CLIENT, now).try_take(now) {
                return false;
            }
        }
        // a client of unknown identity can use any number of names
        let mut is_quiet = subject.client.is_none();
        if let Some(identity) = &subject.identity {
            let key = self.hashing.hash_one((callsite, identity));
            let bucket = bucket_of(identities, key, PER_IDENTITY, now);
            if !bucket.try_take(now) {
                return false;
            }
            is_quiet = bucket.left(now) >= PER_IDENTITY.burst - 1.0;
        }
        let key = self.hashing.hash_one(callsite);
        let has_bucket = callsites.len() < MAX_CALLSITES || callsites.contains_key(&key);
        let key = if has_bucket { key } else { 0 };
        let bucket = callsites.entry(key).or_insert_with(|| PER_CALLSITE.full_bucket(now));
        (is_quiet || bucket.left(now) > RESERVED) && bucket.try_take(now)
    }
}

impl<S: Subscriber> Layer<S> for Throttle {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        if *metadata.level() > Level::INFO {
            return true;
        }
        let mut subject = Subject::default();
        event.record(&mut subject);
        // events of loaded plugins share one callsite here, and differ by their target
        let target = subject.target.as_deref().unwrap_or(metadata.target());
        let admitted = self.admits((&metadata.callsite(), target), &subject, Instant::now());
        if !admitted {
            self.log.suppress(target);
        }
        admitted
    }
}

/// The client and identity that a message is about, and the target of a message forwarded by a plugin.
#[derive(Default)]
struct Subject {
    client: Option<String>,
    /// See [`identity_of`].
    identity: Option<String>,
    target: Option<String>,
}

impl Subject {
    fn record(&mut self, field: &str, value: &str) {
        if CLIENT_FIELDS.contains(&field) {
            self.client.get_or_insert_with(|| value.to_owned());
        }
        if IDENTITY_FIELDS.contains(&field) {
            self.identity.get_or_insert_with(|| identity_of(value));
        }
    }

    /// Records the fields in the text of a forwarded message.
    fn record_forwarded(&mut self, text: &str) {
        for field in CLIENT_FIELDS.iter().chain(&IDENTITY_FIELDS) {
            if let Some(value) = field_in(text, field) {
                self.record(field, value);
            }
        }
    }
}

impl Visit for Subject {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "log.target" {
            self.target = Some(value.to_owned());
        } else {
            self.record(field.name(), value);
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if IDENTITY_FIELDS.contains(&field.name()) {
            self.record(field.name(), &value.to_string());
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            self.record_forwarded(&format!("{value:?}"));
        } else if CLIENT_FIELDS.contains(&field.name()) || IDENTITY_FIELDS.contains(&field.name()) {
            self.record(field.name(), &format!("{value:?}"));
        }
    }
}

/// Returns the identity behind `ip:port`: the address, for IPv6 its first half. Other text is returned
/// unchanged.
fn identity_of(source: &str) -> String {
    match source.parse::<SocketAddr>().map(|address| address.ip().to_canonical()) {
        Ok(IpAddr::V6(ip)) => format!("{:x?}", ip.segments().first_chunk::<4>()),
        Ok(ip) => ip.to_string(),
        Err(_) => source.to_owned(),
    }
}

/// Returns the value of a field in the text of a forwarded message, without quotes. Quotes within a value are
/// escaped, so they do not match.
fn field_in<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let start = text.find(&format!(" {name}=\""))? + name.len() + 3;
    let value = text.get(start..)?;
    value.get(..value.find('"')?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn subject(client: Option<&str>, identity: Option<&str>) -> Subject {
        let [client, identity] = [client, identity].map(|text| text.map(str::to_owned));
        Subject { client, identity, target: None }
    }

    #[test]
    fn a_noisy_client_hides_no_other_client() {
        let (throttle, now) = (Throttle::new(Log::default()), Instant::now());
        let count = |client: Option<&str>, now| {
            (0..1000).filter(|_| throttle.admits(1, &subject(client, None), now)).count()
        };
        assert_eq!(count(Some("noisy"), now), 10);
        assert_eq!(count(Some("other"), now), 10);
        assert_eq!(count(Some("noisy"), now + Duration::from_secs(60)), 10);
        assert!(throttle.admits(2, &subject(Some("noisy"), None), now), "another callsite");
        assert_eq!(count(None, now + Duration::from_secs(3600)), 200);
    }

    #[test]
    fn a_noisy_identity_hides_no_other_identity() {
        let (throttle, now) = (Throttle::new(Log::default()), Instant::now());
        let admits = |name: usize, identity: &str| {
            throttle.admits(1, &subject(Some(&name.to_string()), Some(identity)), now)
        };
        assert_eq!((0..1000).filter(|name| admits(*name, "noisy")).count(), 40);
        for identity in 0..20 {
            (0..100).for_each(|name| _ = admits(name, &identity.to_string()));
        }
        let quiet = (0..20).filter(|number| admits(0, &format!("quiet.{number}"))).count();
        assert_eq!(quiet, 20, "although the others have used up all but the reserve");
        assert!((0..1000).filter(|number| admits(0, &format!("more.{number}"))).count() < 100);
    }

    #[test]
    fn many_names_share_the_rate_of_the_callsite_and_use_bounded_memory() {
        let (throttle, now) = (Throttle::new(Log::default()), Instant::now());
        let admits = |n: usize, callsite| {
            let text = n.to_string();
            throttle.admits(callsite, &subject(Some(&text), Some(&text)), now)
        };
        assert_eq!((0..100_000).filter(|n| admits(*n, 1)).count(), 200);
        {
            let buckets = throttle.buckets.lock();
            assert!(buckets.clients.len() <= MAX_CLIENTS && buckets.identities.len() <= MAX_CLIENTS);
        }
        let admitted =
            (0..100_000).filter(|callsite| throttle.admits(*callsite, &subject(None, None), now)).count();
        let known = throttle.buckets.lock().callsites.len();
        assert!(admitted < 2 * MAX_CALLSITES && known <= MAX_CALLSITES + 1, "{admitted}, {known}");
    }

    #[test]
    fn the_client_of_a_forwarded_message_is_found() {
        for (text, client, identity) in [
            ("connection ended client=\"a.b\" source=\"1.2.3.4:5\"", Some("a.b"), Some("1.2.3.4")),
            ("refused source=\"1.2.3.4:5\"", Some("1.2.3.4:5"), Some("1.2.3.4")),
            ("refused client=\"a source=\\\"x\\\"\"", Some("a source=\\"), None),
            ("nobody client=None", None, None),
            ("", None, None),
        ] {
            let mut subject = Subject::default();
            subject.record_forwarded(text);
            assert_eq!(
                (subject.client.as_deref(), subject.identity.as_deref()),
                (client, identity),
                "{text}"
            );
        }
        assert_eq!(identity_of("[2001:db8::1]:5"), identity_of("[2001:db8::2]:6"));
    }
}
