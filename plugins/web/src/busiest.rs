//! The clients that matter most, and why. Owns the comparison of two measurements and the order of reasons;
//! asks nobody.

use elbus_protocol::name::primary_of;
use serde::Serialize;
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::figures::ClientFigures;

/// Clients in a result.
const MAX_CLIENTS: usize = 5;
/// Clients for each of the first reasons, so that the others show as well.
const MAX_HOLDING: usize = 3;
const MAX_REFUSED: usize = 2;
const MAX_QUEUES: usize = 2;
/// Bytes from which a queue is worth mentioning.
const LONG_QUEUE_BYTES: u64 = 64 * 1024;

/// What a client does, with its secondaries: per second, except for what is queued.
#[derive(Debug, Clone, Default, PartialEq)]
struct Activity {
    messages_in: f64,
    messages_out: f64,
    refused: f64,
    held_seconds: f64,
    queued_frames: u64,
    queued_bytes: u64,
}

/// The last measurement, and what the clients have done since the one before.
#[derive(Default)]
pub(crate) struct Busiest {
    measured: Option<Instant>,
    figures: HashMap<String, ClientFigures>,
    clients: HashMap<String, Activity>,
}

/// An entry of the result of `web.top`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Entry {
    name: String,
    reason: &'static str,
    detail: String,
    value: f64,
}

impl Busiest {
    /// Returns when the clients were last measured.
    pub(crate) fn measured(&self) -> Option<Instant> {
        self.measured
    }

    /// Compares a measurement with the last one.
    pub(crate) fn measure(&mut self, figures: Vec<ClientFigures>, now: Instant) {
        let passed = self.measured.replace(now).map(|then| now.saturating_duration_since(then));
        let seconds = passed.unwrap_or(Duration::MAX).as_secs_f64().max(0.001);
        self.clients.clear();
        let mut current = HashMap::with_capacity(figures.len());
        // parts of the broker
        for figures in figures.into_iter().filter(|figures| !figures.name.starts_with('.')) {
            let unknown = ClientFigures::default();
            let last = match (self.figures.get(&figures.name), passed) {
                (Some(last), _) if last.messages_in <= figures.messages_in => last,
                // it has registered since
                (_, Some(_)) => &unknown,
                // nothing was measured before
                (_, None) => &figures,
            };
            let rate = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds;
            let activity = self.clients.entry(primary_of(&figures.name).to_owned()).or_default();
            activity.messages_in += rate(figures.messages_in, last.messages_in);
            activity.messages_out += rate(figures.messages_out, last.messages_out);
            activity.refused += rate(figures.refused, last.refused);
            activity.held_seconds += (figures.held_seconds - last.held_seconds).max(0.0) / seconds;
            activity.queued_frames += figures.queued_frames;
            activity.queued_bytes += figures.queued_bytes;
            current.insert(figures.name.clone(), figures);
        }
        self.figures = current;
    }

    /// Forgets everything: nobody asks any more.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Returns the clients that matter most among those that may be seen, the most urgent reason first.
    pub(crate) fn answer(&self, is_visible: impl Fn(&str) -> bool) -> Vec<Entry> {
        let visible: Vec<_> = self.clients.iter().filter(|(name, _)| is_visible(name)).collect();
        let mut entries: Vec<Entry> = Vec::new();
        let mut add = |reason, most: usize, least: f64, value: fn(&Activity) -> f64, text: Describe| {
            let mut all: Vec<_> =
                visible.iter().map(|(name, it)| (value(it), *name, *it)).filter(|it| it.0 >= least).collect();
            all.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(b.1)));
            let mut taken = 0;
            for (value, name, activity) in all {
                if taken >= most || entries.len() >= MAX_CLIENTS {
                    break;
                }
                if !entries.iter().any(|entry| entry.name == *name) {
                    entries.push(Entry { name: name.clone(), reason, detail: text(activity), value });
                    taken += 1;
                }
            }
        };
        add(
            "holds_senders",
            MAX_HOLDING,
            0.001,
            |it| it.held_seconds,
            |it| {
                let queue = queue_text(it);
                format!("senders were held for {:.2} s per second, {queue}", it.held_seconds)
            },
        );
        add(
            "refused",
            MAX_REFUSED,
            0.001,
            |it| it.refused,
            |it| format!("{:.0} messages per second were dropped, {}", it.refused, queue_text(it)),
        );
        add("queue", MAX_QUEUES, LONG_QUEUE_BYTES as f64, |it| it.queued_bytes as f64, queue_text);
        let sends: Describe = |it| format!("sends {:.0} messages per second", it.messages_in);
        let receives: Describe = |it| format!("receives {:.0} messages per second", it.messages_out);
        for _ in 0..MAX_CLIENTS {
            add("sends", 1, 1.0, |it| it.messages_in, sends);
            add("receives", 1, 1.0, |it| it.messages_out, receives);
        }
        entries
    }
}

/// Describes an activity.
type Describe = fn(&Activity) -> String;

fn queue_text(it: &Activity) -> String {
    format!("{} messages ({} bytes) are queued", it.queued_frames, it.queued_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(name: &str, messages_in: u64, messages_out: u64) -> ClientFigures {
        ClientFigures { name: name.to_owned(), messages_in, messages_out, ..ClientFigures::default() }
    }

    /// What clients do in two seconds.
    fn after_two_seconds(first: Vec<ClientFigures>, second: Vec<ClientFigures>) -> Busiest {
        let (mut busiest, now) = (Busiest::default(), Instant::now());
        busiest.measure(first, now);
        busiest.measure(second, now + Duration::from_secs(2));
        busiest
    }

    fn reasons(busiest: &Busiest) -> Vec<(String, &'static str, f64)> {
        busiest.answer(|_| true).into_iter().map(|it| (it.name, it.reason, it.value)).collect()
    }

    #[test]
    fn each_client_is_named_once_with_its_most_urgent_reason() {
        let holding = |held_seconds, messages_in| ClientFigures {
            held_seconds,
            queued_bytes: 1 << 20,
            ..client("slow", messages_in, 10)
        };
        let refused = |refused| ClientFigures { refused, ..client("lossy", 0, 0) };
        let queue = ClientFigures { queued_bytes: 100_000, queued_frames: 5, ..client("queue", 0, 0) };
        let first =
            vec![holding(5.0, 0), refused(3), queue.clone(), client("sender", 100, 0), client("x", 0, 0)];
        let second =
            vec![holding(6.0, 50_000), refused(13), queue, client("sender", 300, 0), client("x", 0, 60)];
        let busiest = after_two_seconds(first, second);
        let expected = [
            ("slow", "holds_senders", 0.5),
            ("lossy", "refused", 5.0),
            ("queue", "queue", 100_000.0),
            ("sender", "sends", 100.0),
            ("x", "receives", 30.0),
        ];
        let found = reasons(&busiest);
        let found: Vec<_> = found.iter().map(|(name, reason, value)| (&**name, *reason, *value)).collect();
        assert_eq!(found, expected);
        let detail = &busiest.answer(|name| name == "queue")[0].detail;
        assert_eq!(detail, "5 messages (100000 bytes) are queued");
        assert!(busiest.answer(|_| false).is_empty());
    }

    #[test]
    fn rates_need_two_measurements_and_secondaries_count_with_their_primary() {
        let mut busiest = Busiest::default();
        busiest.measure(vec![client("a", 1_000_000, 0)], Instant::now());
        assert!(busiest.answer(|_| true).is_empty(), "it may have taken a year");
        let first = vec![client("a", 0, 0), client("a%%1", 10, 0), client(".broker", 0, 0)];
        // one has restarted: its counters have begun again
        let second =
            vec![client("a", 100, 0), client("a%%1", 4, 0), client("a%%2", 6, 0), client(".x", 1 << 20, 0)];
        assert_eq!(reasons(&after_two_seconds(first, second)), [("a".to_owned(), "sends", 55.0)]);
    }

    #[test]
    fn five_clients_are_named_however_many_there_are() {
        let all = |messages: u64| -> Vec<_> {
            (0..1000)
                .map(|number| client(&format!("c{number}"), messages * number, messages * (999 - number)))
                .collect()
        };
        let found = reasons(&after_two_seconds(all(0), all(10)));
        let found: Vec<_> = found.iter().map(|(name, reason, _)| (&**name, *reason)).collect();
        let expected =
            [("c999", "sends"), ("c0", "receives"), ("c998", "sends"), ("c1", "receives"), ("c997", "sends")];
        assert_eq!(found, expected);
    }
}
