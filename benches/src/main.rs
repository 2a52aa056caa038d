//! `elbus-load`: loads a running broker with raw batching clients and says what came through.
//!
//! Each pair has a writer thread, which sends batches and stays at most a window ahead, and reader threads, which
//! check that every message arrives and in order. It measures the broker from outside and knows nothing of it but
//! its address and, for CPU time, its process id.

mod connection;

use clap::{Parser, ValueEnum};
use connection::Connection;
use elbus_protocol::{Op, Qos, request::encode_request};
use std::{
    sync::{
        Arc, Barrier,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Loads a running broker
#[derive(Parser)]
struct Arguments {
    /// A UNIX socket or host:port
    address: String,
    /// What to measure
    #[arg(long, value_enum, default_value_t = Scenario::Pairs)]
    scenario: Scenario,
    /// Pairs of clients
    #[arg(long, default_value_t = 1)]
    pairs: usize,
    /// Subscribers of each publisher
    #[arg(long, default_value_t = 8)]
    subscribers: usize,
    /// Messages of each writer
    #[arg(long, default_value_t = 2_000_000)]
    messages: u64,
    /// Bytes of a payload, at least 8
    #[arg(long, default_value_t = 100)]
    bytes: usize,
    /// Messages of one write
    #[arg(long, default_value_t = 128)]
    batch: u64,
    /// Messages that may be under way
    #[arg(long, default_value_t = 4096)]
    window: u64,
    /// The process id of the broker, to tell its CPU time
    #[arg(long)]
    pid: Option<u32>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// Messages from one client to another
    Pairs,
    /// Publications from one client to several
    Topic,
    /// A message there and one back, one at a time
    Echo,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let arguments = Arc::new(Arguments::parse());
    if arguments.bytes < 8 || arguments.batch == 0 || arguments.window < arguments.batch {
        return Err("--bytes must be at least 8, --batch at least 1 and --window at least --batch".into());
    }
    let cpu_before = cpu_time(arguments.pid);
    let begin = Instant::now();
    let delivered = match arguments.scenario {
        Scenario::Echo => return echo(&arguments),
        _ => stream(&arguments)?,
    };
    let elapsed = begin.elapsed();
    let rate = delivered as f64 / elapsed.as_secs_f64();
    print!("{rate:.0} deliveries/s");
    if let (Some(before), Some(after)) = (cpu_before, cpu_time(arguments.pid)) {
        let nanos = (after - before).as_nanos() as f64 / delivered as f64;
        print!(", broker cpu {nanos:.0} ns a delivery");
    }
    println!();
    Ok(())
}

/// All writers and readers at full speed; returns how many messages were delivered, each of them checked.
fn stream(arguments: &Arc<Arguments>) -> Result<u64, Failure> {
    let readers = if arguments.scenario == Scenario::Topic { arguments.subscribers } else { 1 };
    let threads = arguments.pairs * (1 + readers);
    let (ready, mut running) = (Arc::new(Barrier::new(threads)), Vec::new());
    for pair in 0..arguments.pairs {
        let progress: Arc<Vec<AtomicU64>> = Arc::new((0..readers).map(|_| AtomicU64::new(0)).collect());
        for reader in 0..readers {
            let (arguments, ready, progress) = (arguments.clone(), ready.clone(), progress.clone());
            running.push(std::thread::spawn(move || read(&arguments, pair, reader, &ready, &progress)));
        }
        let (arguments, ready) = (arguments.clone(), ready.clone());
        running.push(std::thread::spawn(move || write(&arguments, pair, &ready, &progress)));
    }
    let mut delivered = 0;
    for thread in running {
        delivered += thread.join().map_err(|_| "a thread of the load generator panicked")??;
    }
    Ok(delivered)
}

fn read(
    arguments: &Arguments,
    pair: usize,
    reader: usize,
    ready: &Barrier,
    progress: &[AtomicU64],
) -> Result<u64, Failure> {
    let mut connection = Connection::open(&arguments.address, &own(&format!("r{pair}.{reader}")))?;
    if arguments.scenario == Scenario::Topic {
        connection.subscribe(&own(&format!("t{pair}")))?;
    }
    ready.wait();
    let mut expected = 0u64;
    while expected < arguments.messages {
        connection.receive(|payload| {
            let number = payload.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
            if number != Some(expected) {
                return Err(format!("message {number:?} came where {expected} was due").into());
            }
            expected += 1;
            Ok(())
        })?;
        progress[reader].store(expected, Ordering::Release);
    }
    Ok(expected)
}

fn write(
    arguments: &Arguments,
    pair: usize,
    ready: &Barrier,
    progress: &[AtomicU64],
) -> Result<u64, Failure> {
    let mut connection = Connection::open(&arguments.address, &own(&format!("w{pair}")))?;
    let (op, target) = match arguments.scenario {
        Scenario::Topic => (Op::Publish, own(&format!("t{pair}"))),
        _ => (Op::Message, own(&format!("r{pair}.0"))),
    };
    let mut payload = vec![0; arguments.bytes];
    let mut batch = Vec::new();
    ready.wait();
    let mut sent = 0;
    while sent < arguments.messages {
        let slowest = || progress.iter().map(|p| p.load(Ordering::Acquire)).min().unwrap_or(0);
        while sent + arguments.batch > slowest() + arguments.window {
            std::thread::yield_now();
        }
        batch.clear();
        let end = (sent + arguments.batch).min(arguments.messages);
        for number in sent..end {
            payload[..8].copy_from_slice(&number.to_le_bytes());
            encode_request(&mut batch, 0, op, Qos::NO, &target, "", &payload)?;
        }
        sent = end;
        connection.send(&batch)?;
    }
    Ok(0)
}

/// One message there and one back; prints the distribution of round trips.
fn echo(arguments: &Arguments) -> Result<(), Failure> {
    let rounds = arguments.messages.min(200_000);
    let mut client = Connection::open(&arguments.address, &own("asks"))?;
    let mut server = Connection::open(&arguments.address, &own("answers"))?;
    let bytes = arguments.bytes;
    let message = move |target: &str| {
        let mut out = Vec::new();
        encode_request(&mut out, 0, Op::Message, Qos::NO, target, "", &vec![0; bytes]).map(|()| out)
    };
    let (there, back) = (message(&own("answers"))?, message(&own("asks"))?);
    let answering = std::thread::spawn(move || -> Result<(), Failure> {
        let mut answered = 0;
        while answered < rounds {
            let mut asked = 0;
            server.receive(|_| {
                asked += 1;
                Ok(())
            })?;
            for _ in 0..asked {
                server.send(&back)?;
                answered += 1;
            }
        }
        Ok(())
    });
    let mut times = Vec::new();
    for _ in 0..rounds {
        let begin = Instant::now();
        client.send(&there)?;
        let mut came = false;
        while !came {
            client.receive(|_| {
                came = true;
                Ok(())
            })?;
        }
        times.push(begin.elapsed());
    }
    answering.join().map_err(|_| "the answering thread panicked")??;
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6;
    println!("round trip p50 {:.1} us, p99 {:.1} us, p99.9 {:.1} us", at(0.5), at(0.99), at(0.999));
    Ok(())
}

/// A name or topic of this process, so that several can load one broker.
fn own(name: &str) -> String {
    format!("load.{}.{name}", std::process::id())
}

/// User and system time of a process so far.
fn cpu_time(pid: Option<u32>) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid?)).ok()?;
    let fields: Vec<_> = stat.rsplit(')').next()?.split_whitespace().collect();
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    // the kernel counts these in hundredths of a second on all machines we know
    Some(Duration::from_millis(ticks * 10))
}
