//! What filters cost: memory of each, the longest time one takes to be added, looking up topics, removing and adding in random
//! order. Each row of the table is a process of its own, so that none finds the memory of another.
#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark that cannot go on should not")]

use elbus_broker::{Broker, BrokerSettings, release_unused_memory};
use elbus_plugin_api::{Client, ClientInfo, Code, Op, Qos, Request, testing::NullSink};
use rustix::time::{ClockId, clock_gettime};
use std::{
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

const SIZES: [usize; 2] = [1000, 1_000_000];
/// Topics looked up, and filters removed and added again.
const SAMPLES: usize = 100_000;
/// Removed before the first of them is added again.
const GONE_AT_ONCE: usize = 500;

/// A name, how many clients have each filter, and the filter and a topic for it by number.
struct Kind {
    name: &'static str,
    clients: usize,
    filter: fn(usize) -> String,
    topic: fn(usize) -> String,
}

const KINDS: [Kind; 5] = [
    Kind { name: "exact, 25 bytes", clients: 1, filter: exact, topic: exact },
    Kind { name: "exact, six levels that branch", clients: 1, filter: deep, topic: deep },
    Kind { name: "a fifth with + or #", clients: 1, filter: mixed, topic: exact },
    Kind { name: "all with + or #", clients: 1, filter: wild, topic: exact },
    Kind { name: "exact, of 8 clients each", clients: 8, filter: exact, topic: exact },
];

fn exact(n: usize) -> String {
    format!("plant/line{:02}/s{n:06}/temp", n % 100)
}

fn deep(n: usize) -> String {
    let digit = |place: usize| n / place % 10;
    format!("plant{}/line{}/cell{}/m{}/s{}/t", digit(1), digit(10), digit(100), digit(1000), n / 10_000)
}

fn mixed(n: usize) -> String {
    match n % 10 {
        0 => format!("plant/line{:02}/s{n:06}/#", n % 100),
        1 => format!("plant/+/s{n:06}/temp"),
        _ => exact(n),
    }
}

fn wild(n: usize) -> String {
    match n % 4 {
        0 => format!("plant/line{:02}/s{n:06}/#", n % 100),
        1 => format!("plant/+/s{n:06}/temp"),
        2 => format!("+/line{:02}/s{n:06}/temp", n % 100),
        _ => format!("plant/line{:02}/s{n:06}/+", n % 100),
    }
}

fn resident_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// On-CPU time of this thread: what a busy machine takes away does not count.
fn busy() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

fn change(client: &mut Client, op: Op, filter: &str) -> Duration {
    let request = Request::new(op, Qos::NO, filter, &[]);
    timed(|| assert_eq!(client.dispatch(&request).code(), Code::Ok))
}

/// What half of the times and what 99 of 100 are below, in nanoseconds.
fn half_and_most(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let below = |hundredths: usize| times[times.len() * hundredths / 100].as_nanos();
    format!("{}/{}", below(50), below(99))
}

/// Filters in no order that memory would know, none twice in a row of them.
fn shuffled(size: usize) -> impl Iterator<Item = usize> {
    // a prime, so every number below `size` comes once
    (0..).map(move |n: usize| n.wrapping_mul(611_953) % size)
}

fn row(kind: &Kind, subscriptions: usize) {
    let mut settings = BrokerSettings::default();
    (settings.max_filters, settings.filter_memory_bytes) = (usize::MAX, usize::MAX);
    let broker = Broker::builder().settings(settings).start().unwrap();
    let info = ClientInfo { kind: "bench".into(), ..Default::default() };
    let register = |n: usize| broker.host().register(&format!("c{n}"), &info, NullSink).unwrap();
    let mut clients: Vec<_> = (0..kind.clients).map(register).collect();
    let filters = subscriptions / kind.clients;
    let before = resident_kib();

    let mut longest = Duration::ZERO;
    for n in 0..filters {
        let filter = (kind.filter)(n);
        for client in &mut clients {
            let start = busy();
            change(client, Op::Subscribe, &filter);
            longest = longest.max(busy().saturating_sub(start));
        }
    }
    let bytes = (resident_kib() - before) as f64 * 1024.0 / subscriptions as f64;

    let topics: Vec<_> = shuffled(filters).take(SAMPLES).map(kind.topic).collect();
    let look_up = |topic: &String| timed(|| assert_eq!(broker.subscriber_count(topic), kind.clients));
    let look_ups: Vec<_> = topics.iter().map(look_up).collect();

    let (mut removed, mut added) = (vec![], vec![]);
    let numbers: Vec<_> = shuffled(filters).take(SAMPLES).collect();
    for some in numbers.chunks(GONE_AT_ONCE.min(filters)) {
        let some: Vec<_> = some.iter().map(|n| (kind.filter)(*n)).collect();
        removed.extend(some.iter().map(|filter| change(&mut clients[0], Op::Unsubscribe, filter)));
        added.extend(some.iter().map(|filter| change(&mut clients[0], Op::Subscribe, filter)));
    }

    for n in shuffled(filters).take(filters) {
        let filter = (kind.filter)(n);
        for client in &mut clients {
            change(client, Op::Unsubscribe, &filter);
        }
    }
    let [look_up, removed, added] = [look_ups, removed, added].map(half_and_most);
    drop((topics, numbers));
    release_unused_memory();
    let left = resident_kib().saturating_sub(before);
    println!(
        "{:<30} {subscriptions:>9} {bytes:>7.0} B {longest:>9.1?} {look_up:>13} {removed:>13} {added:>13} {left:>6} KiB",
        kind.name
    );
}

/// `filters`: the table. `filters ROW`: one row of it, which the table is made of.
fn main() -> ExitCode {
    let rows: Vec<_> = KINDS.iter().flat_map(|kind| SIZES.map(|size| (kind, size))).collect();
    // cargo gives options of its own
    if let Some(at) = std::env::args().nth(1).and_then(|argument| argument.parse::<usize>().ok()) {
        let Some((kind, size)) = rows.get(at) else { return ExitCode::FAILURE };
        row(kind, *size);
        return ExitCode::SUCCESS;
    }
    println!("times are p50/p99 in ns");
    println!(
        "{:<30} {:>9} {:>9} {:>9} {:>13} {:>13} {:>13} {:>10}",
        "filters", "number", "each", "longest", "look-up", "unsubscribe", "subscribe", "left over"
    );
    let program = std::env::current_exe().unwrap();
    let good =
        |at: usize| Command::new(&program).arg(at.to_string()).status().is_ok_and(|status| status.success());
    if (0..rows.len()).all(good) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
