//! Measures what hooks, options of subscriptions and retained values cost. Each figure has a broker with the
//! feature, and most have one without: their runs take turns, and the ratio is that of each round.

mod broker;
mod client;
mod groups;
mod latest;
mod retained;

use std::{path::PathBuf, time::Duration};

use crate::{
    BoxError,
    load::{self, Outcome, Plan, Protocol, RunLength, Scenario},
};
use broker::{Broker, Table};

/// What to measure, and how long.
pub struct Settings {
    /// Rounds of each figure.
    pub rounds: usize,
    /// The duration of a run.
    pub time: Duration,
    /// The names of the figures; empty for all.
    pub only: Vec<String>,
    /// The folder of elbusd, elbus and the libraries of the plugins.
    pub programs: PathBuf,
}

/// What one run of a figure measures: the main value, and others with their names.
struct Run {
    value: f64,
    others: Vec<(&'static str, f64)>,
}

impl Run {
    fn new(value: f64) -> Self {
        Run { value, others: Vec::new() }
    }

    fn with(mut self, name: &'static str, value: f64) -> Self {
        self.others.push((name, value));
        self
    }
}

type Measure = fn(&Settings) -> Result<Run, BoxError>;

/// A figure: its name, what is measured in which unit, the run without the feature, if there is one, and the
/// run with it.
struct Figure {
    name: &'static str,
    about: &'static str,
    unit: &'static str,
    without: Option<Measure>,
    with: Measure,
}

const FIGURES: [Figure; 10] = [
    Figure {
        name: "interceptor",
        about: "one topic, with a loaded interceptor that lets everything pass",
        unit: "messages/s",
        without: Some(|settings| stream(settings, &[], topic(None))),
        with: |settings| stream(settings, &[INTERCEPTOR], topic(None)),
    },
    Figure {
        name: "interceptor-topics",
        about: "10,000 topics in turn, with a loaded interceptor that lets everything pass",
        unit: "messages/s",
        without: Some(|settings| stream(settings, &[], topic(Some(10_000)))),
        with: |settings| stream(settings, &[INTERCEPTOR], topic(Some(10_000))),
    },
    Figure {
        name: "retain-topics",
        about: "10,000 topics in turn, retained in memory",
        unit: "messages/s",
        without: Some(|settings| stream(settings, &[], topic(Some(10_000)))),
        with: |settings| stream(settings, &[RETAIN], topic(Some(10_000))),
    },
    Figure {
        name: "retain-disk-topics",
        about: "10,000 topics in turn, retained on disk",
        unit: "messages/s",
        without: Some(|settings| stream(settings, &[], topic(Some(10_000)))),
        with: |settings| stream(settings, &[RETAIN_DISK], topic(Some(10_000))),
    },
    Figure {
        name: "monitor",
        about: "one topic, while `elbus monitor` shows everything that it can",
        unit: "messages/s",
        without: Some(|settings| stream(settings, &[], topic(None))),
        with: |settings| monitored(settings, topic(None)),
    },
    Figure {
        name: "monitor-topics",
        about: "10,000 topics in turn, while `elbus monitor` shows everything that it can",
        unit: "messages/s",
        without: Some(|settings| stream(settings, &[], topic(Some(10_000)))),
        with: |settings| monitored(settings, topic(Some(10_000))),
    },
    Figure {
        name: "share-8",
        about: "8 senders to a topic shared by 8 workers, compared with 8 pairs",
        unit: "messages/s",
        without: Some(|settings| groups::run(settings, false)),
        with: |settings| groups::run(settings, true),
    },
    Figure {
        name: "latest",
        about: "a million messages/s to a fast reader, beside a $latest reader that wakes every 10 ms",
        unit: "messages/s",
        without: Some(|settings| latest::run(settings, false)),
        with: |settings| latest::run(settings, true),
    },
    Figure {
        name: "subscribe-100000",
        about: "time from subscribing until the last of 100,000 retained values",
        unit: "ms",
        without: None,
        with: retained::subscribe,
    },
    Figure {
        name: "start-million",
        about: "time from the start of a broker with a million values on disk until a client is connected",
        unit: "ms",
        without: None,
        with: retained::start,
    },
];

const INTERCEPTOR: Table = Table { name: "trivial", code: "bench_plugin", config: "intercept = true" };
const RETAIN: Table =
    Table { name: "retain", code: "retain", config: "[[plugin.config.topic]]\nfilter = \"plant/#\"" };
const RETAIN_DISK: Table = Table {
    name: "retain",
    code: "retain",
    config: "path = \"retained\"\n[[plugin.config.topic]]\nfilter = \"plant/#\"\nstore = \"disk\"",
};
const MONITOR: Table = Table { name: "monitor", code: "monitor", config: "" };

/// Measures the figures and prints a line for each.
///
/// # Errors
/// An unknown figure, a broker that does not start, a message that was lost or out of order.
pub fn run(settings: &Settings) -> Result<(), BoxError> {
    let unknown = settings.only.iter().find(|name| FIGURES.iter().all(|figure| figure.name != **name));
    if let Some(name) = unknown {
        let names: Vec<_> = FIGURES.iter().map(|figure| figure.name).collect();
        return Err(format!("unknown figure \"{name}\": expected one of {}", names.join(", ")).into());
    }
    for figure in &FIGURES {
        if settings.only.is_empty() || settings.only.iter().any(|name| name == figure.name) {
            println!("{}: {}", figure.name, figure.about);
            measure(settings, figure)?;
        }
    }
    Ok(())
}

fn measure(settings: &Settings, figure: &Figure) -> Result<(), BoxError> {
    let (mut pairs, mut alone) = (Vec::new(), Vec::new());
    for round in 0..settings.rounds {
        // the order changes with each round
        let baseline = |first: bool| match figure.without {
            Some(measure) if first == (round % 2 == 0) => measure(settings).map(Some),
            _ => Ok(None),
        };
        let before = baseline(true)?;
        let with = (figure.with)(settings)?;
        match before.or(baseline(false)?) {
            Some(without) => pairs.push((without, with)),
            None => alone.push(with),
        }
    }
    let (without, with): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
    if !without.is_empty() {
        print("  without: ", &without, figure.unit);
        let ratios = with.iter().zip(&without).map(|(with, without)| with.value / without.value);
        println!("  ratio: {}", Summary::of(ratios.collect()));
    }
    print("  with: ", if with.is_empty() { &alone } else { &with }, figure.unit);
    Ok(())
}

/// Prints what runs have measured.
fn print(head: &str, runs: &[Run], unit: &str) {
    println!("{head}{} {unit}", Summary::of(runs.iter().map(|run| run.value).collect()));
    let names = runs.first().map(|run| run.others.as_slice()).unwrap_or_default();
    for (index, (name, _)) in names.iter().enumerate() {
        let values = runs.iter().filter_map(|run| run.others.get(index)).map(|(_, value)| *value);
        println!("    {name}: {}", Summary::of(values.collect()));
    }
}

/// Median, minimum and maximum.
struct Summary([f64; 3]);

impl Summary {
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
        Summary([at(values.len() / 2), at(0), at(values.len().saturating_sub(1))])
    }
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [median, least, most] = self.0;
        let digits = if median < 10.0 { 2 } else { 0 };
        write!(f, "{median:.digits$} ({least:.digits$} to {most:.digits$})")
    }
}

/// The load of one sender and one subscriber, on one topic or on many in turn.
fn topic(topics: Option<usize>) -> Plan {
    Plan { subscribers: 1, topics, ..Plan::new(Protocol::Elbus, "", Scenario::Topic, 100) }
}

fn stream(settings: &Settings, plugins: &[Table], plan: Plan) -> Result<Run, BoxError> {
    let broker = Broker::start(settings, plugins)?;
    load_of(settings, &broker, plan)
}

fn load_of(settings: &Settings, broker: &Broker, plan: Plan) -> Result<Run, BoxError> {
    let (address, length) = (broker.address(), RunLength::Time(settings.time));
    let outcome = load::run(&Plan { address, length, broker_pid: Some(broker.pid()), ..plan })?;
    let Outcome::Traffic(traffic) = outcome else { return Err("the load has sent nothing".into()) };
    let nanos = traffic.broker_nanos().unwrap_or(f64::NAN);
    Ok(Run::new(traffic.messages_per_second()).with("broker CPU in ns per message", nanos))
}

fn monitored(settings: &Settings, plan: Plan) -> Result<Run, BoxError> {
    let broker = Broker::start(settings, &[MONITOR])?;
    let _monitor = broker.monitor(settings)?;
    load_of(settings, &broker, plan)
}
