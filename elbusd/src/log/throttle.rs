//! A rate limit for messages that clients can cause. Owns how many of them are written, for each place in the code and,
//! at that place, for each client and for each identity; what is suppressed is counted. Never limits debug and trace messages.

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

/// Messages of one place in the code.
const PER_PLACE: Rate = Rate { burst: 200.0, per_second: 10.0 };
/// Messages of one place in the code about one client.
const PER_CLIENT: Rate = Rate { burst: 10.0, per_second: 1.0 / 6.0 };
/// Messages of one place in the code about clients of one user or address, whatever they are called.
const PER_IDENTITY: Rate = Rate { burst: 40.0, per_second: 0.5 };
/// While no more than this is left of the messages of a place, those appear that are the first about an identity. So noisy
/// identities, however many they are, hide no quiet one before there are as many.
const RESERVED: f64 = 100.0;
/// Places whose rates are known; those beyond share one.
const MAX_PLACES: usize = 1024;
/// Clients at places whose rates are known, and identities as many. Beyond that they are forgotten, and the rate of the place
/// remains.
const MAX_CLIENTS: usize = 4096;
/// Fields that name the client a message is about.
const CLIENT_FIELDS: [&str; 3] = ["client", "caller", "source"];
/// Fields that tell who is behind it.
const IDENTITY_FIELDS: [&str; 2] = ["source", "uid"];

#[derive(Clone, Copy)]
struct Rate {
    burst: f64,
    per_second: f64,
}

#[derive(Clone, Copy)]
struct Bucket {
    left: f64,
    since: Instant,
}

impl Bucket {
    fn refill(&mut self, rate: Rate, now: Instant) {
        let seconds = now.saturating_duration_since(self.since).as_secs_f64();
        self.left = rate.burst.min(self.left + rate.per_second * seconds);
        self.since = now;
    }

    fn take(&mut self, rate: Rate, now: Instant) -> bool {
        self.refill(rate, now);
        let enough = self.left >= 1.0;
        if enough {
            self.left -= 1.0;
        }
        enough
    }
}

/// The layer that suppresses messages beyond the rates.
pub(crate) struct Throttle {
    log: Log,
    hashing: RandomState,
    /// A leaf.
    buckets: Mutex<Buckets>,
}

#[derive(Default)]
struct Buckets {
    places: HashMap<u64, Bucket>,
    clients: HashMap<u64, Bucket>,
    identities: HashMap<u64, Bucket>,
}

/// A full bucket for who has none.
fn bucket_of(buckets: &mut HashMap<u64, Bucket>, key: u64, rate: Rate, now: Instant) -> &mut Bucket {
    if buckets.len() >= MAX_CLIENTS && !buckets.contains_key(&key) {
        *buckets = HashMap::new();
    }
    buckets.entry(key).or_insert(Bucket { left: rate.burst, since: now })
}

impl Throttle {
    pub(crate) fn new(log: Log) -> Self {
        Throttle { log, hashing: RandomState::new(), buckets: Mutex::default() }
    }

    /// Whether a message is written.
    fn admits(&self, place: impl Hash + Copy, about: &About, now: Instant) -> bool {
        let mut buckets = self.buckets.lock();
        let Buckets { places, clients, identities } = &mut *buckets;
        // what is suppressed for one client or identity costs the others at the same place nothing
        if let Some(client) = &about.client {
            // somebody else may have had the name before
            let key = self.hashing.hash_one((place, &about.identity, client));
            if !bucket_of(clients, key, PER_CLIENT, now).take(PER_CLIENT, now) {
                return false;
            }
        }
        // a client of unknown identity may have any number of names
        let mut is_quiet = about.client.is_none();
        if let Some(identity) = &about.identity {
            let key = self.hashing.hash_one((place, identity));
            let bucket = bucket_of(identities, key, PER_IDENTITY, now);
            if !bucket.take(PER_IDENTITY, now) {
                return false;
            }
            is_quiet = bucket.left >= PER_IDENTITY.burst - 1.0;
        }
        let key = self.hashing.hash_one(place);
        let key = if places.len() < MAX_PLACES || places.contains_key(&key) { key } else { 0 };
        let new = Bucket { left: PER_PLACE.burst, since: now };
        let place = places.entry(key).or_insert(new);
        place.refill(PER_PLACE, now);
        (is_quiet || place.left > RESERVED) && place.take(PER_PLACE, now)
    }
}

impl<S: Subscriber> Layer<S> for Throttle {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        if *metadata.level() > Level::INFO {
            return true;
        }
        let mut about = About::default();
        event.record(&mut about);
        // events of loaded plugins share one place here, and differ by their target
        let target = about.target.as_deref().unwrap_or(metadata.target());
        let admitted = self.admits((&metadata.callsite(), target), &about, Instant::now());
        if !admitted {
            self.log.suppress(target);
        }
        admitted
    }
}

/// Whom a message is about, and the target of one that a plugin has forwarded.
#[derive(Default)]
struct About {
    client: Option<String>,
    /// See [`identity_of`].
    identity: Option<String>,
    target: Option<String>,
}

impl About {
    fn note(&mut self, field: &str, value: &str) {
        if CLIENT_FIELDS.contains(&field) {
            self.client.get_or_insert_with(|| value.to_owned());
        }
        if IDENTITY_FIELDS.contains(&field) {
            self.identity.get_or_insert_with(|| identity_of(value));
        }
    }

    /// Notes the fields in the text of a forwarded message.
    fn note_forwarded(&mut self, text: &str) {
        for field in CLIENT_FIELDS.iter().chain(&IDENTITY_FIELDS) {
            if let Some(value) = field_in(text, field) {
                self.note(field, value);
            }
        }
    }
}

impl Visit for About {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "log.target" {
            self.target = Some(value.to_owned());
        } else {
            self.note(field.name(), value);
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if IDENTITY_FIELDS.contains(&field.name()) {
            self.note(field.name(), &value.to_string());
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            self.note_forwarded(&format!("{value:?}"));
        } else if CLIENT_FIELDS.contains(&field.name()) || IDENTITY_FIELDS.contains(&field.name()) {
            self.note(field.name(), &format!("{value:?}"));
        }
    }
}

/// Who is behind `ip:port`: the address, of IPv6 the first half. Anything else stands for itself.
fn identity_of(source: &str) -> String {
    match source.parse::<SocketAddr>().map(|address| address.ip().to_canonical()) {
        Ok(IpAddr::V6(ip)) => format!("{:x?}", ip.segments().first_chunk::<4>()),
        Ok(ip) => ip.to_string(),
        Err(_) => source.to_owned(),
    }
}

/// The value of a field in the text of a forwarded message, quotes left out. A quote within a value is escaped, so none is
/// found there.
fn field_in<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let start = text.find(&format!(" {name}=\""))? + name.len() + 3;
    let value = text.get(start..)?;
    value.get(..value.find('"')?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn about(client: Option<&str>, identity: Option<&str>) -> About {
        let [client, identity] = [client, identity].map(|text| text.map(str::to_owned));
        About { client, identity, target: None }
    }

    #[test]
    fn one_client_is_limited_and_hides_no_other() {
        let (throttle, now) = (Throttle::new(Log::default()), Instant::now());
        let count = |client: Option<&str>, now| {
            (0..1000).filter(|_| throttle.admits(1, &about(client, None), now)).count()
        };
        assert_eq!(count(Some("noisy"), now), 10);
        assert_eq!(count(Some("other"), now), 10);
        assert_eq!(count(Some("noisy"), now + Duration::from_secs(60)), 10);
        assert!(throttle.admits(2, &about(Some("noisy"), None), now), "another place");
        assert_eq!(count(None, now + Duration::from_secs(3600)), 200);
    }

    #[test]
    fn an_identity_with_many_names_hides_no_other() {
        let (throttle, now) = (Throttle::new(Log::default()), Instant::now());
        let admits = |name: usize, identity: &str| {
            throttle.admits(1, &about(Some(&name.to_string()), Some(identity)), now)
        };
        assert_eq!((0..1000).filter(|name| admits(*name, "noisy")).count(), 40);
        for identity in 0..20 {
            (0..100).for_each(|name| _ = admits(name, &identity.to_string()));
        }
        let quiet = (0..20).filter(|number| admits(0, &format!("quiet.{number}"))).count();
        assert_eq!(quiet, 20, "although all the others would have used up what the place may write");
        assert!((0..1000).filter(|number| admits(0, &format!("more.{number}"))).count() < 100);
    }

    #[test]
    fn many_names_are_limited_together_and_remembered_within_bounds() {
        let (throttle, now) = (Throttle::new(Log::default()), Instant::now());
        let admits = |n: usize, place| {
            let text = n.to_string();
            throttle.admits(place, &about(Some(&text), Some(&text)), now)
        };
        assert_eq!((0..100_000).filter(|n| admits(*n, 1)).count(), 200);
        {
            let buckets = throttle.buckets.lock();
            assert!(buckets.clients.len() <= MAX_CLIENTS && buckets.identities.len() <= MAX_CLIENTS);
        }
        let places = (0..100_000).filter(|place| throttle.admits(*place, &about(None, None), now)).count();
        assert!(places < 2 * MAX_PLACES && throttle.buckets.lock().places.len() <= MAX_PLACES + 1);
    }

    #[test]
    fn the_client_of_a_forwarded_message_is_found() {
        for (text, client, identity) in [
            ("connection ended: left client=\"a.b\" source=\"1.2.3.4:5\"", Some("a.b"), Some("1.2.3.4")),
            ("refused source=\"1.2.3.4:5\"", Some("1.2.3.4:5"), Some("1.2.3.4")),
            ("refused client=\"a source=\\\"x\\\"\"", Some("a source=\\"), None),
            ("nobody client=None", None, None),
            ("", None, None),
        ] {
            let mut about = About::default();
            about.note_forwarded(text);
            assert_eq!((about.client.as_deref(), about.identity.as_deref()), (client, identity), "{text}");
        }
        assert_eq!(identity_of("[2001:db8::1]:5"), identity_of("[2001:db8::2]:6"));
    }
}
