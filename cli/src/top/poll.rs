//! Asks the broker at each interval, and tells how the connection is. Knows which methods every broker has and which
//! only some; never decides what is shown.

use elbus_client::{Client, ConnectionEvent, ConnectionEvents, Error};
use elbus_protocol::rpc::METHOD_NOT_FOUND;
use serde::{Deserialize, de::DeserializeOwned};
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};
use tokio::{sync::mpsc, time::MissedTickBehavior};

use super::{
    model::{BrokerSample, ClientSample, Counters, Sample},
    state::Connection,
};

const BROKER: &str = ".broker";
/// Of so many clients at most the process is asked for in one poll; the others get their turn in the next ones.
const PROCESSES_A_POLL: usize = 32;

/// What a poll or the connection has to tell.
#[derive(Debug)]
pub(super) enum Update {
    Sample(Sample),
    Connection(Connection),
    /// Nothing will follow.
    Ended,
}

#[derive(Deserialize)]
struct ClientList {
    clients: Vec<Listed>,
}

#[derive(Deserialize)]
struct Listed {
    name: String,
    #[serde(default)]
    kind: String,
    source: Option<String>,
    port: Option<String>,
    #[serde(flatten)]
    counters: Passed,
    #[serde(default)]
    queue: u64,
    #[serde(default)]
    instances: u64,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(default)]
struct Passed {
    r_frames: u64,
    r_bytes: u64,
    w_frames: u64,
    w_bytes: u64,
}

impl From<Passed> for Counters {
    fn from(passed: Passed) -> Self {
        let Passed { r_frames, r_bytes, w_frames, w_bytes } = passed;
        Self { r_frames, r_bytes, w_frames, w_bytes }
    }
}

#[derive(Deserialize)]
struct Stats {
    uptime: u64,
    #[serde(flatten)]
    counters: Passed,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Info {
    author: String,
    version: String,
}

#[derive(Deserialize)]
struct Health {
    name: String,
    refused_frames: u64,
}

#[derive(Deserialize)]
struct Process {
    pid: Option<u32>,
}

/// What is known of a client's process, and how far its counter was: one that fell is that of another connection.
struct Known {
    pid: Option<u32>,
    r_frames: u64,
}

/// Polls one broker.
pub(super) struct Poller {
    client: Client,
    events: ConnectionEvents,
    info: Option<Info>,
    has_health: bool,
    has_processes: bool,
    processes: HashMap<String, Known>,
}

impl Poller {
    pub(super) fn new(client: Client) -> Self {
        let events = client.events();
        let processes = HashMap::new();
        Self { client, events, info: None, has_health: true, has_processes: true, processes }
    }

    /// Polls until the connection has ended for good or nobody takes updates.
    pub(super) async fn run(mut self, interval: Duration, updates: mpsc::Sender<Update>) {
        let mut ticks = tokio::time::interval(interval);
        // a late poll moves those after it: none follows on its heels
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let update = tokio::select! {
                // what happened to the connection is told before the polls that failed by it
                biased;
                event = self.events.next() => {
                    let connection = match event {
                        Some(ConnectionEvent::Connected) => {
                            // perhaps to another broker
                            self.forget();
                            ticks.reset_immediately();
                            Connection::Waiting
                        }
                        Some(ConnectionEvent::Disconnected { reason, .. }) => Connection::Lost { reason, retry: None },
                        Some(ConnectionEvent::Retrying { attempt, after, reason, .. }) => {
                            Connection::Lost { reason, retry: Some((attempt, after)) }
                        }
                        Some(ConnectionEvent::Closed) | None => {
                            // fails when nobody takes it, which is just as well
                            let _ = updates.send(Update::Ended).await;
                            return;
                        }
                        Some(_) => continue,
                    };
                    Update::Connection(connection)
                }
                _ = ticks.tick(), if self.client.is_connected() => match self.sample().await {
                    Ok(sample) => Update::Sample(sample),
                    // the events tell
                    Err(Error::Disconnected { .. } | Error::Closed) => continue,
                    Err(error) => Update::Connection(Connection::Failing(error.to_string())),
                },
            };
            if updates.send(update).await.is_err() {
                return;
            }
        }
    }

    fn forget(&mut self) {
        self.info = None;
        (self.has_health, self.has_processes) = (true, true);
        self.processes.clear();
    }

    async fn sample(&mut self) -> Result<Sample, Error> {
        let list: ClientList = self.client.call_as(BROKER, "client.list", &()).await?;
        let at = Instant::now();
        let stats: Option<Stats> = self.offered("stats").await?;
        if self.info.is_none() {
            self.info = self.offered("info").await?;
        }
        let health: Option<Health> = if self.has_health { self.offered("health").await? } else { None };
        self.has_health = health.is_some();
        let mut clients: Vec<ClientSample> = list.clients.into_iter().map(client_sample).collect();
        self.add_processes(&mut clients).await?;
        let info = self.info.as_ref();
        let broker = BrokerSample {
            author: info.map(|info| info.author.clone()).unwrap_or_default(),
            version: info.map(|info| info.version.clone()).unwrap_or_default(),
            uptime: stats.as_ref().map(|stats| stats.uptime),
            counters: stats.map(|stats| stats.counters.into()),
            refused_frames: health.as_ref().map(|health| health.refused_frames),
            name: health.map(|health| health.name),
        };
        Ok(Sample { at, broker, clients })
    }

    /// The result of a method without parameters; None where the broker does not offer it.
    async fn offered<R: DeserializeOwned>(&self, method: &str) -> Result<Option<R>, Error> {
        match self.client.call_as(BROKER, method, &()).await {
            Ok(result) => Ok(Some(result)),
            Err(Error::Rpc(_) | Error::Conversion { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Process ids do not change while a client is there: each is asked for once.
    async fn add_processes(&mut self, clients: &mut [ClientSample]) -> Result<(), Error> {
        let mut known = std::mem::take(&mut self.processes);
        let mut questions = PROCESSES_A_POLL;
        for client in clients {
            let r_frames = client.counters.r_frames;
            let same = known.remove(&client.name).filter(|known| known.r_frames <= r_frames);
            let pid = match same {
                Some(known) => known.pid,
                None if client.kind == "local_ipc" && self.has_processes && questions > 0 => {
                    questions -= 1;
                    self.ask_process(&client.name).await?
                }
                None => continue,
            };
            client.pid = pid;
            self.processes.insert(client.name.clone(), Known { pid, r_frames });
        }
        Ok(())
    }

    async fn ask_process(&mut self, name: &str) -> Result<Option<u32>, Error> {
        let params = HashMap::from([("name", name)]);
        match self.client.call_as::<Process>(BROKER, "client.info", &params).await {
            Ok(process) => Ok(process.pid),
            Err(Error::Rpc(error)) => {
                self.has_processes &= error.code != METHOD_NOT_FOUND;
                Ok(None)
            }
            Err(Error::Conversion { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn client_sample(listed: Listed) -> ClientSample {
    ClientSample {
        name: listed.name,
        kind: listed.kind,
        source: listed.source,
        port: listed.port,
        counters: listed.counters.into(),
        queue: listed.queue,
        instances: listed.instances,
        pid: None,
    }
}
