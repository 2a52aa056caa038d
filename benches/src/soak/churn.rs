//! The disturbances of a soak test: clients that come and go, connections that are cut off in the middle of a
//! handshake or a frame, clients that never read, and reloads of the configuration.

use elbus_client::{Client, Error, Qos};
use elbus_protocol::handshake::{encode_client_greeting, encode_client_name};
use fastrand::Rng;
use std::{
    fmt, fs,
    io::Write,
    net::TcpStream,
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::task::JoinHandle;

use super::{Plan, StopFlag, TIMEOUT, fixture::BrokerFixture};
use crate::BoxError;

/// Tasks with clients that come and go.
const TASKS: u64 = 4;

#[derive(Debug, Default)]
pub(super) struct ChurnCounts {
    came_and_went: AtomicU64,
    cut_off: AtomicU64,
    never_read: AtomicU64,
    reloads: AtomicU64,
    /// Whether the broker has the method config.reload.
    has_reload: bool,
}

impl fmt::Display for ChurnCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} clients came and went, {} connections were cut off, {} clients never read, ",
            self.came_and_went.load(Relaxed),
            self.cut_off.load(Relaxed),
            self.never_read.load(Relaxed)
        )?;
        match self.has_reload {
            true => write!(f, "{} reloads of the configuration", self.reloads.load(Relaxed)),
            false => f.write_str("no reloads: the broker has no method config.reload"),
        }
    }
}

pub(super) struct Churn {
    tasks: Vec<JoinHandle<Result<(), BoxError>>>,
    counts: Arc<ChurnCounts>,
}

impl Churn {
    pub(super) async fn start(
        plan: &Plan,
        fixture: &BrokerFixture,
        stop: &StopFlag,
    ) -> Result<Self, BoxError> {
        let (client, _frames) = Client::connect(&*fixture.address(0), "soak.churn").await?;
        let methods = client.call(".broker", "method.list", "").await?;
        // strings are verbatim in msgpack
        let method = b"config.reload";
        let has_reload = methods.windows(method.len()).any(|bytes| bytes == method);
        let counts = Arc::new(ChurnCounts { has_reload, ..ChurnCounts::default() });
        let mut tasks = vec![];
        let mut rng = Rng::with_seed(plan.seed);
        for index in 0..TASKS {
            let addresses = [fixture.address(0), fixture.address(1)];
            let task = ChurnTask { index, addresses, rng: rng.fork(), counts: counts.clone() };
            tasks.push(tokio::spawn(task.run(stop.clone())));
        }
        if has_reload && !plan.reload_interval.is_zero() {
            let reloads = Reloads {
                client,
                file: fixture.folder().join("broker.toml"),
                contents: [fixture.config(true), fixture.config(false)],
                interval: plan.reload_interval,
                counts: counts.clone(),
            };
            tasks.push(tokio::spawn(reloads.run(stop.clone())));
        }
        Ok(Churn { tasks, counts })
    }

    /// An error if a task has ended early. The task has printed the cause.
    pub(super) fn error(&self) -> Option<BoxError> {
        let ended = self.tasks.iter().any(JoinHandle::is_finished);
        ended.then(|| "a task that disturbs the broker has ended early".into())
    }

    pub(super) async fn finish(self) -> Result<Arc<ChurnCounts>, BoxError> {
        for task in self.tasks {
            task.await??;
        }
        Ok(self.counts)
    }
}

/// One task whose clients disturb the broker, one after the other.
struct ChurnTask {
    index: u64,
    addresses: [String; 2],
    rng: Rng,
    counts: Arc<ChurnCounts>,
}

impl ChurnTask {
    async fn run(mut self, stop: StopFlag) -> Result<(), BoxError> {
        let mut number = 0u64;
        while !stop.is_set() {
            number += 1;
            // names are used again, at once or later
            let name = format!("churn.{}.{}", self.index, number % 7);
            let address = self.addresses[self.rng.usize(..2)].clone();
            let result = match self.rng.u32(..20) {
                0 => self.never_read(&name, &address).await,
                1..=6 => self.cut_off(&name, &address),
                _ => self.come_and_go(&name, &address).await,
            };
            if let Err(error) = result {
                eprintln!("elbus-soak: {name}: {error}");
                return Err(error);
            }
            tokio::time::sleep(Duration::from_millis(self.rng.u64(..20))).await;
        }
        Ok(())
    }

    /// Registers, subscribes, sends to itself, and disconnects with or without closing.
    async fn come_and_go(&mut self, name: &str, address: &str) -> Result<(), BoxError> {
        let (client, mut frames) = loop {
            match Client::builder(name).timeout(TIMEOUT).connect(address).await {
                // the previous client of this name is not unregistered yet
                Err(Error::NameTaken { .. }) => tokio::time::sleep(Duration::from_millis(1)).await,
                result => break result?,
            }
        };
        let filters: Vec<_> = (0..self.rng.u32(..30)).map(|n| format!("churn/{name}/{n}/#")).collect();
        if !filters.is_empty() {
            client.add_filters(filters).await?;
        }
        let bytes = self.rng.usize(..5000);
        client.send(name, vec![7; bytes], Qos::PROCESSED).await?;
        let arrived = async {
            while let Some(frame) = frames.next().await {
                if frame.sender() == name {
                    return frame.payload().len() == bytes;
                }
            }
            false
        };
        if !tokio::time::timeout(TIMEOUT, arrived).await? {
            return Err("a message to itself did not arrive".into());
        }
        if self.rng.bool() {
            client.close().await;
        }
        self.counts.came_and_went.fetch_add(1, Relaxed);
        Ok(())
    }

    /// Disconnects in the middle of the handshake or of a frame.
    fn cut_off(&mut self, name: &str, address: &str) -> Result<(), BoxError> {
        let mut bytes = handshake(name)?;
        // a message of 5000 bytes to itself, 4000 of which are sent
        bytes.extend([7, 0, 0, 0, 0x12, 0x88, 0x13, 0, 0]);
        bytes.extend(std::iter::repeat_n(b'x', 4000));
        // the write fails if the broker has disconnected it because the name is taken
        let _ = connect(address)?.write_all(&bytes[..self.rng.usize(..bytes.len())]);
        self.counts.cut_off.fetch_add(1, Relaxed);
        Ok(())
    }

    /// Gets more messages than its queue holds and reads none of them before it disconnects.
    async fn never_read(&mut self, name: &str, address: &str) -> Result<(), BoxError> {
        let mut stream = connect(address)?;
        stream.write_all(&handshake(name)?)?;
        let (client, _frames) =
            Client::builder(&format!("{name}.sender")).timeout(TIMEOUT).connect(address).await?;
        let target = name.to_owned();
        let sending = tokio::spawn(async move {
            for _ in 0..40 {
                // waits until the receiver is gone, and fails then
                let _ = client.send(&target, vec![7; 100_000], Qos::PROCESSED).await;
            }
        });
        tokio::time::sleep(Duration::from_millis(self.rng.u64(..2000))).await;
        drop(stream);
        sending.await?;
        self.counts.never_read.fetch_add(1, Relaxed);
        Ok(())
    }
}

/// A connection whose received bytes are never read.
fn connect(address: &str) -> std::io::Result<Box<dyn Write + Send>> {
    Ok(if address.starts_with('/') {
        Box::new(UnixStream::connect(address)?)
    } else {
        Box::new(TcpStream::connect(address)?)
    })
}

fn handshake(name: &str) -> Result<Vec<u8>, BoxError> {
    Ok([&encode_client_greeting()[..], &encode_client_name(name)?].concat())
}

/// Reloads of the configuration at an interval, alternating between two contents of broker.toml.
struct Reloads {
    client: Client,
    file: PathBuf,
    contents: [String; 2],
    interval: Duration,
    counts: Arc<ChurnCounts>,
}

impl Reloads {
    async fn run(self, stop: StopFlag) -> Result<(), BoxError> {
        for contents in self.contents.iter().cycle() {
            let mut waited = Duration::ZERO;
            while waited < self.interval && !stop.is_set() {
                let step = Duration::from_millis(100).min(self.interval);
                tokio::time::sleep(step).await;
                waited += step;
            }
            if stop.is_set() {
                break;
            }
            fs::write(&self.file, contents)?;
            if let Err(error) = self.client.call(".broker", "config.reload", "").await {
                eprintln!("elbus-soak: config.reload: {error}");
                return Err(error.into());
            }
            self.counts.reloads.fetch_add(1, Relaxed);
        }
        Ok(())
    }
}
