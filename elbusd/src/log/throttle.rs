//! A rate limit for messages that clients can cause. Owns how many of them are written, for each place in the code and
//! for each client at that place; what is suppressed is counted. Never limits debug and trace messages.

use parking_lot::Mutex;
use std::{
    collections::{HashMap, hash_map::RandomState},
    fmt::Debug,
    hash::{BuildHasher, Hash},
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
/// Places whose rates are known; those beyond share one.
const MAX_PLACES: usize = 1024;
/// Clients at places whose rates are known. Beyond that they are forgotten, and the rate of the place remains.
const MAX_CLIENTS: usize = 4096;
/// Fields that name the client a message is about.
const CLIENT_FIELDS: [&str; 3] = ["client", "caller", "source"];

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
    fn take(&mut self, rate: Rate, now: Instant) -> bool {
        let seconds = now.saturating_duration_since(self.since).as_secs_f64();
        self.left = rate.burst.min(self.left + rate.per_second * seconds);
        self.since = now;
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
}

impl Throttle {
    pub(crate) fn new(log: Log) -> Self {
        Throttle { log, hashing: RandomState::new(), buckets: Mutex::default() }
    }

    /// Whether a message is written.
    fn admits(&self, place: impl Hash + Copy, client: Option<&str>, now: Instant) -> bool {
        let mut buckets = self.buckets.lock();
        let Buckets { places, clients } = &mut *buckets;
        let new = |rate: Rate| Bucket { left: rate.burst, since: now };
        if let Some(client) = client {
            if clients.len() >= MAX_CLIENTS {
                *clients = HashMap::new();
            }
            let key = self.hashing.hash_one((place, client));
            // what is suppressed for one client costs the others at the same place nothing
            if !clients.entry(key).or_insert_with(|| new(PER_CLIENT)).take(PER_CLIENT, now) {
                return false;
            }
        }
        let key = self.hashing.hash_one(place);
        let key = if places.len() < MAX_PLACES || places.contains_key(&key) { key } else { 0 };
        places.entry(key).or_insert_with(|| new(PER_PLACE)).take(PER_PLACE, now)
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
        let admitted = self.admits((&metadata.callsite(), target), about.client.as_deref(), Instant::now());
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
    target: Option<String>,
}

impl Visit for About {
    fn record_str(&mut self, field: &Field, value: &str) {
        if CLIENT_FIELDS.contains(&field.name()) {
            self.client.get_or_insert_with(|| value.to_owned());
        } else if field.name() == "log.target" {
            self.target = Some(value.to_owned());
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if CLIENT_FIELDS.contains(&field.name()) {
            self.client.get_or_insert_with(|| format!("{value:?}"));
        } else if field.name() == "message" && self.client.is_none() {
            self.client = client_in(&format!("{value:?}"));
        }
    }
}

/// The value of the first of [`CLIENT_FIELDS`] in the text of a forwarded message, quotes included.
fn client_in(text: &str) -> Option<String> {
    let field = |name: &&str| {
        let start = text.find(&format!(" {name}=\""))? + name.len() + 3;
        let end = text.get(start..)?.find('"')?;
        text.get(start..start + end).map(str::to_owned)
    };
    CLIENT_FIELDS.iter().find_map(field)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn one_client_is_limited_and_hides_no_other() {
        let (throttle, now) = (Throttle::new(Log::default()), Instant::now());
        let count = |client: Option<&str>, now| (0..1000).filter(|_| throttle.admits(1, client, now)).count();
        assert_eq!(count(Some("noisy"), now), 10);
        assert_eq!(count(Some("other"), now), 10);
        assert_eq!(count(Some("noisy"), now + Duration::from_secs(60)), 10);
        assert!(throttle.admits(2, Some("noisy"), now), "another place");
        assert_eq!(count(None, now + Duration::from_secs(3600)), 200);
    }

    #[test]
    fn many_names_are_limited_together_and_remembered_within_bounds() {
        let (throttle, now) = (Throttle::new(Log::default()), Instant::now());
        let admitted = (0..100_000).filter(|n| throttle.admits(1, Some(&n.to_string()), now)).count();
        assert_eq!(admitted, 200);
        assert!(throttle.buckets.lock().clients.len() <= MAX_CLIENTS);
        let places = (0..100_000).filter(|place| throttle.admits(*place, None, now)).count();
        assert!(places < 2 * MAX_PLACES && throttle.buckets.lock().places.len() <= MAX_PLACES + 1);
    }

    #[test]
    fn the_client_of_a_forwarded_message_is_found() {
        for (text, client) in [
            ("connection ended: left client=\"a.b\" source=\"1.2.3.4:5\"", Some("a.b")),
            ("refused source=\"1.2.3.4:5\"", Some("1.2.3.4:5")),
            ("nobody client=None", None),
            ("", None),
        ] {
            assert_eq!(client_in(text).as_deref(), client, "{text}");
        }
    }
}
