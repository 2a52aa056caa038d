//! The cost of filters: memory per subscription, the longest time to subscribe, the lookup of topics,
//! unsubscribing and subscribing in pseudo-random order. Each row of the table is measured in a process of
//! its own, because freed memory would be reused.
#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use elbus_broker::{Broker, BrokerSettings};
use elbus_plugin_api::{Client, ClientInfo, Code, Locality, NullSink, Op, Qos, Request};
use rustix::time::{ClockId, clock_gettime};
use std::{
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

const SIZES: [usize; 2] = [1000, 1_000_000];
/// Topics that are looked up, and filters that are removed and added again.
const SAMPLES: usize = 100_000;
/// Filters that are removed before the first of them is added again.
const REMOVED_AT_ONCE: usize = 500;

/// A kind of filters: its name, the number of clients that subscribe to each filter, and the filter and a
/// matching topic by number.
struct FilterKind {
    name: &'static str,
    clients: usize,
    filter: fn(usize) -> String,
    topic: fn(usize) -> String,
}

const KINDS: [FilterKind; 5] = [
    FilterKind { name: "exact, 25 bytes", clients: 1, filter: exact, topic: exact },
    FilterKind { name: "exact, six branching levels", clients: 1, filter: deep, topic: deep },
    FilterKind { name: "a fifth with wildcards", clients: 1, filter: mixed, topic: exact },
    FilterKind { name: "all with wildcards", clients: 1, filter: wild, topic: exact },
    FilterKind { name: "exact, 8 clients each", clients: 8, filter: exact, topic: exact },
];

fn exact(n: usize) -> String {
    format!("plant/line{:02}/s{n:06}/temp", n % 100)
}

fn deep(n: usize) -> String {
    let digit = |unit: usize| n / unit % 10;
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

/// On-CPU time of this thread, which does not include the time that other processes take.
fn thread_cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

fn timed_dispatch(client: &mut Client, op: Op, filter: &str) -> Duration {
    let request = Request::new(op, Qos::NO, filter, &[]);
    timed(|| assert_eq!(client.dispatch(&request).code(), Code::Ok))
}

/// The median and the 99th percentile in nanoseconds.
fn p50_and_p99(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let percentile = |percent: usize| times[times.len() * percent / 100].as_nanos();
    format!("{}/{}", percentile(50), percentile(99))
}

/// The numbers below `size` in pseudo-random order, each once before any is repeated.
fn shuffled(size: usize) -> impl Iterator<Item = usize> {
    // a prime that is no factor of `size`
    (0..).map(move |n: usize| n.wrapping_mul(611_953) % size)
}

fn row(kind: &FilterKind, subscriptions: usize) {
    let mut settings = BrokerSettings::default();
    (settings.max_filters, settings.filter_memory_bytes) = (usize::MAX, usize::MAX);
    let broker = Broker::builder().settings(settings).start().unwrap();
    let info = ClientInfo::new("bench", Locality::Remote);
    let register = |n: usize| broker.host().register(&format!("c{n}"), &info, NullSink).unwrap();
    let mut clients: Vec<_> = (0..kind.clients).map(register).collect();
    let filters = subscriptions / kind.clients;
    let before = resident_kib();

    let mut longest = Duration::ZERO;
    for n in 0..filters {
        let filter = (kind.filter)(n);
        for client in &mut clients {
            let start = thread_cpu_time();
            timed_dispatch(client, Op::Subscribe, &filter);
            longest = longest.max(thread_cpu_time().saturating_sub(start));
        }
    }
    let bytes = (resident_kib() - before) as f64 * 1024.0 / subscriptions as f64;

    let topics: Vec<_> = shuffled(filters).take(SAMPLES).map(kind.topic).collect();
    let lookup = |topic: &String| timed(|| assert_eq!(broker.subscriber_count(topic), kind.clients));
    let lookups: Vec<_> = topics.iter().map(lookup).collect();

    let (mut removed, mut added) = (vec![], vec![]);
    let numbers: Vec<_> = shuffled(filters).take(SAMPLES).collect();
    for chunk in numbers.chunks(REMOVED_AT_ONCE.min(filters)) {
        let chunk: Vec<_> = chunk.iter().map(|n| (kind.filter)(*n)).collect();
        removed.extend(chunk.iter().map(|filter| timed_dispatch(&mut clients[0], Op::Unsubscribe, filter)));
        added.extend(chunk.iter().map(|filter| timed_dispatch(&mut clients[0], Op::Subscribe, filter)));
    }

    for n in shuffled(filters).take(filters) {
        let filter = (kind.filter)(n);
        for client in &mut clients {
            timed_dispatch(client, Op::Unsubscribe, &filter);
        }
    }
    let [lookup, removed, added] = [lookups, removed, added].map(p50_and_p99);
    drop((topics, numbers));
    release_unused_memory();
    let remaining = resident_kib().saturating_sub(before);
    println!(
        "{:<30} {subscriptions:>9} {bytes:>7.0} B {longest:>9.1?} {lookup:>13} {removed:>13} {added:>13} \
         {remaining:>6} KiB",
        kind.name
    );
}

/// Returns memory that the allocator keeps to the system, so that what is left over is in use.
fn release_unused_memory() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: the signature is that of malloc.h; the function touches free memory only.
        unsafe extern "C" {
            safe fn malloc_trim(pad: usize) -> core::ffi::c_int;
        }
        _ = malloc_trim(0);
    }
}

/// `filters` prints the table. `filters ROW` measures and prints one row.
fn main() -> ExitCode {
    let rows: Vec<_> = KINDS.iter().flat_map(|kind| SIZES.map(|size| (kind, size))).collect();
    // cargo passes options of its own, which are no numbers
    if let Some(index) = std::env::args().nth(1).and_then(|argument| argument.parse::<usize>().ok()) {
        let Some((kind, size)) = rows.get(index) else { return ExitCode::FAILURE };
        row(kind, *size);
        return ExitCode::SUCCESS;
    }
    println!("times are p50/p99 in ns");
    println!(
        "{:<30} {:>9} {:>9} {:>9} {:>13} {:>13} {:>13} {:>10}",
        "filters", "number", "memory", "longest", "lookup", "unsubscribe", "subscribe", "remaining"
    );
    let program = std::env::current_exe().unwrap();
    let measure = |index: usize| {
        Command::new(&program).arg(index.to_string()).status().is_ok_and(|status| status.success())
    };
    if (0..rows.len()).all(measure) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
