//! Turns samples of the broker into rows with rates. Pure; does no I/O.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use super::text;

/// Characters kept of names, sources and ports.
const MAX_CHARACTERS: usize = 256;
/// Minimum time between two samples in the computation of rates, which keeps them finite.
const MIN_ELAPSED: Duration = Duration::from_millis(1);

/// Traffic counters in both directions, as the broker counts them: `r` from clients, `w` to clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counters {
    pub(super) r_frames: u64,
    pub(super) r_bytes: u64,
    pub(super) w_frames: u64,
    pub(super) w_bytes: u64,
}

impl Counters {
    /// Returns the difference since `earlier`. If a counter went down, all were reset in between and count
    /// from zero.
    fn since(self, earlier: Option<Self>) -> Self {
        let minus = |earlier: Self| {
            Some(Self {
                r_frames: self.r_frames.checked_sub(earlier.r_frames)?,
                r_bytes: self.r_bytes.checked_sub(earlier.r_bytes)?,
                w_frames: self.w_frames.checked_sub(earlier.w_frames)?,
                w_bytes: self.w_bytes.checked_sub(earlier.w_bytes)?,
            })
        };
        earlier.and_then(minus).unwrap_or(self)
    }
}

/// The same per second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rates {
    pub(super) r_frames: f64,
    pub(super) r_bytes: f64,
    pub(super) w_frames: f64,
    pub(super) w_bytes: f64,
}

impl Rates {
    fn over(passed: Counters, elapsed: Duration) -> Self {
        let per_second = |passed: u64| passed as f64 / elapsed.max(MIN_ELAPSED).as_secs_f64();
        Self {
            r_frames: per_second(passed.r_frames),
            r_bytes: per_second(passed.r_bytes),
            w_frames: per_second(passed.w_frames),
            w_bytes: per_second(passed.w_bytes),
        }
    }
}

/// A client as the broker reports it.
#[derive(Clone, Debug, Default)]
pub(super) struct ClientSample {
    pub(super) name: String,
    pub(super) kind: String,
    pub(super) source: Option<String>,
    pub(super) port: Option<String>,
    pub(super) counters: Counters,
    pub(super) queue: u64,
    pub(super) instances: u64,
    /// The process id, if the broker reports it.
    pub(super) pid: Option<u32>,
    pub(super) has_rings: bool,
}

/// The broker as it reports itself. Values that a broker does not report are `None`.
#[derive(Clone, Debug, Default)]
pub(super) struct BrokerSample {
    pub(super) author: String,
    pub(super) version: String,
    pub(super) name: Option<String>,
    pub(super) uptime: Option<u64>,
    pub(super) counters: Option<Counters>,
    pub(super) refused_frames: Option<u64>,
}

/// A sample of the broker and all its clients.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) at: Instant,
    pub(super) broker: BrokerSample,
    pub(super) clients: Vec<ClientSample>,
}

/// A row of the table.
#[derive(Clone, Debug, Default)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) kind: String,
    pub(super) source: String,
    pub(super) port: String,
    pub(super) counters: Counters,
    /// `None` until there are two samples.
    pub(super) rates: Option<Rates>,
    pub(super) queue: u64,
    pub(super) instances: u64,
    pub(super) pid: Option<u32>,
    pub(super) has_rings: bool,
}

/// The totals of the broker.
#[derive(Clone, Debug, Default)]
pub(super) struct Totals {
    pub(super) broker: BrokerSample,
    pub(super) rates: Option<Rates>,
    pub(super) clients: usize,
    pub(super) queued: u64,
}

/// The contents of the screen for one sample.
#[derive(Clone, Debug, Default)]
pub(super) struct Snapshot {
    pub(super) totals: Totals,
    pub(super) rows: Vec<Row>,
}

/// Computes rates, for which it keeps the counters of the previous sample.
#[derive(Debug, Default)]
pub(super) struct Model {
    previous: Option<Previous>,
}

#[derive(Debug)]
struct Previous {
    at: Instant,
    totals: Option<Counters>,
    clients: HashMap<String, Counters>,
}

impl Model {
    /// Returns the rows of this sample, with the rates since the previous one.
    pub(super) fn accept(&mut self, sample: Sample) -> Snapshot {
        let previous = self.previous.take();
        let elapsed = previous.as_ref().map(|previous| sample.at.saturating_duration_since(previous.at));
        let total_rates = elapsed.zip(sample.broker.counters).map(|(elapsed, now)| {
            Rates::over(now.since(previous.as_ref().and_then(|previous| previous.totals)), elapsed)
        });
        let mut seen = HashMap::with_capacity(sample.clients.len());
        let (mut rows, mut queued) = (Vec::with_capacity(sample.clients.len()), 0_u64);
        for client in sample.clients {
            let before = previous.as_ref().and_then(|previous| previous.clients.get(&client.name)).copied();
            queued = queued.saturating_add(client.queue);
            let rates = elapsed.map(|elapsed| Rates::over(client.counters.since(before), elapsed));
            rows.push(row(&client, rates));
            seen.insert(client.name, client.counters);
        }
        self.previous = Some(Previous { at: sample.at, totals: sample.broker.counters, clients: seen });
        let broker = BrokerSample {
            author: text::sanitize(&sample.broker.author, MAX_CHARACTERS),
            version: text::sanitize(&sample.broker.version, MAX_CHARACTERS),
            name: sample.broker.name.map(|name| text::sanitize(&name, MAX_CHARACTERS)),
            ..sample.broker
        };
        Snapshot { totals: Totals { broker, rates: total_rates, clients: rows.len(), queued }, rows }
    }

    /// Drops the previous sample. Called when the connection was lost: the counters after it may be another
    /// broker's.
    pub(super) fn reset(&mut self) {
        self.previous = None;
    }
}

fn row(client: &ClientSample, rates: Option<Rates>) -> Row {
    let clean = |text: &str| text::sanitize(text, MAX_CHARACTERS);
    Row {
        name: clean(&client.name),
        kind: clean(&client.kind),
        source: client.source.as_deref().map(clean).unwrap_or_default(),
        port: client.port.as_deref().map(clean).unwrap_or_default(),
        counters: client.counters,
        rates,
        queue: client.queue,
        instances: client.instances,
        pid: client.pid,
        has_rings: client.has_rings,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(factor: u64) -> Counters {
        Counters { r_frames: factor, r_bytes: 10 * factor, w_frames: 2 * factor, w_bytes: 20 * factor }
    }

    fn client(name: &str, factor: u64) -> ClientSample {
        ClientSample { name: name.into(), counters: counters(factor), queue: 3, ..ClientSample::default() }
    }

    fn sample(at: Instant, factor: u64, clients: Vec<ClientSample>) -> Sample {
        let broker = BrokerSample { counters: Some(counters(factor)), ..BrokerSample::default() };
        Sample { at, broker, clients }
    }

    #[test]
    fn rates_are_differences_over_elapsed_time() {
        let (mut model, start) = (Model::default(), Instant::now());
        let first = model.accept(sample(start, 100, vec![client("a", 100)]));
        assert_eq!((first.rows[0].rates, first.totals.rates), (None, None), "one sample has no rate");
        let second =
            model.accept(sample(start + Duration::from_secs(2), 300, vec![client("a", 110), client("b", 0)]));
        let expected = Rates { r_frames: 5.0, r_bytes: 50.0, w_frames: 10.0, w_bytes: 100.0 };
        assert_eq!(second.rows[0].rates, Some(expected));
        assert_eq!(second.totals.rates.map(|rates| rates.r_frames), Some(100.0));
        assert_eq!((second.totals.clients, second.totals.queued), (2, 6));
    }

    #[test]
    fn new_and_reconnected_clients_count_from_zero() {
        let (mut model, start) = (Model::default(), Instant::now());
        model.accept(sample(start, 0, vec![client("back", 1000)]));
        let next = sample(start + Duration::from_secs(1), 0, vec![client("back", 7), client("new", 5)]);
        let rates: Vec<f64> =
            model.accept(next).rows.iter().filter_map(|row| row.rates).map(|rates| rates.r_frames).collect();
        assert_eq!(rates, [7.0, 5.0]);
    }

    #[test]
    fn one_counter_that_went_down_means_a_reset_of_all() {
        let mut before = counters(10);
        before.w_bytes = 1_000_000;
        assert_eq!(counters(20).since(Some(before)), counters(20));
        assert_eq!(counters(20).since(Some(counters(5))), counters(15));
    }

    #[test]
    fn rates_do_not_span_a_lost_connection() {
        let (mut model, start) = (Model::default(), Instant::now());
        model.accept(sample(start, 0, vec![client("a", 0)]));
        model.reset();
        let after = model.accept(sample(start + Duration::from_secs(60), 9, vec![client("a", 9)]));
        assert_eq!((after.rows[0].rates, after.totals.rates), (None, None));
    }

    #[test]
    fn two_samples_at_one_instant_give_a_finite_rate() {
        let (mut model, at) = (Model::default(), Instant::now());
        model.accept(sample(at, 0, vec![client("a", 0)]));
        let row = &model.accept(sample(at, 0, vec![client("a", 1)])).rows[0];
        assert!(row.rates.is_some_and(|rates| rates.r_frames.is_finite()));
    }

    #[test]
    fn clients_are_distinguished_by_raw_names_and_shown_with_escaped_names() {
        let (mut model, start) = (Model::default(), Instant::now());
        model.accept(sample(start, 0, vec![client("x\x1b", 50), client("x\x07", 0)]));
        let next = sample(start + Duration::from_secs(1), 0, vec![client("x\x1b", 51), client("x\x07", 2)]);
        let rows = model.accept(next).rows;
        assert_eq!(rows[0].name, "x\\x1b");
        let rates: Vec<f64> = rows.iter().filter_map(|row| row.rates).map(|rates| rates.r_frames).collect();
        assert_eq!(rates, [1.0, 2.0]);
    }

    #[test]
    fn a_broker_without_stats_still_has_rows() {
        let (mut model, start) = (Model::default(), Instant::now());
        for step in 0..2 {
            let at = start + Duration::from_secs(step);
            let snapshot = model.accept(Sample {
                at,
                broker: BrokerSample::default(),
                clients: vec![client("a", step)],
            });
            assert_eq!((snapshot.totals.rates, snapshot.rows.len()), (None, 1));
        }
    }
}
