//! Polls the broker at each interval and reports connection events. Knows which control methods a broker may
//! lack; never decides what is shown.

use elbus_client::{Client, ConnectionEvent, ConnectionEvents, Error};
use elbus_protocol::{BROKER_NAME, rpc::METHOD_NOT_FOUND};
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

/// Maximum calls of `client.info` per poll. Further clients are queried in the next polls.
const MAX_INFO_CALLS: usize = 32;

/// The result of a poll, or a change of the connection.
#[derive(Debug)]
pub(super) enum Update {
    Sample(Sample),
    Connection(Connection),
    /// The connection is permanently closed; no update follows.
    Ended,
}

#[derive(Deserialize)]
struct ClientList {
    clients: Vec<ClientEntry>,
}

#[derive(Deserialize)]
struct ClientEntry {
    name: String,
    #[serde(default)]
    kind: String,
    source: Option<String>,
    port: Option<String>,
    #[serde(flatten)]
    counters: CounterFields,
    #[serde(default)]
    queue: u64,
    #[serde(default)]
    instances: u64,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(default)]
struct CounterFields {
    r_frames: u64,
    r_bytes: u64,
    w_frames: u64,
    w_bytes: u64,
}

impl From<CounterFields> for Counters {
    fn from(passed: CounterFields) -> Self {
        let CounterFields { r_frames, r_bytes, w_frames, w_bytes } = passed;
        Self { r_frames, r_bytes, w_frames, w_bytes }
    }
}

#[derive(Deserialize)]
struct Stats {
    uptime: u64,
    #[serde(flatten)]
    counters: CounterFields,
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

/// What `client.info` says and `client.list` does not.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(default)]
struct Details {
    pid: Option<u32>,
    rings: bool,
}

/// A client's details, with the frame counter at that time: a lower one belongs to another connection.
struct KnownDetails {
    details: Details,
    r_frames: u64,
}

/// Polls one broker.
pub(super) struct Poller {
    client: Client,
    events: ConnectionEvents,
    info: Option<Info>,
    has_health: bool,
    has_details: bool,
    details: HashMap<String, KnownDetails>,
}

impl Poller {
    pub(super) fn new(client: Client) -> Self {
        let events = client.events();
        let details = HashMap::new();
        Self { client, events, info: None, has_health: true, has_details: true, details }
    }

    /// Polls until the connection is permanently closed or the receiver of updates is dropped.
    pub(super) async fn run(mut self, interval: Duration, updates: mpsc::Sender<Update>) {
        let mut ticks = tokio::time::interval(interval);
        // after a late poll, the next one is a full interval later
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let update = tokio::select! {
                // events of the connection are reported before the polls that failed because of them
                biased;
                event = self.events.next() => {
                    let connection = match event {
                        Some(ConnectionEvent::Connected) => {
                            // it may be another broker
                            self.reset();
                            ticks.reset_immediately();
                            Connection::Waiting
                        }
                        Some(ConnectionEvent::Disconnected { reason, .. }) => {
                            Connection::Lost { reason, retry: None }
                        }
                        Some(ConnectionEvent::Retrying { attempt, after, reason, .. }) => {
                            Connection::Lost { reason, retry: Some((attempt, after)) }
                        }
                        Some(ConnectionEvent::Closed) | None => {
                            // fails if the receiver is gone
                            let _ = updates.send(Update::Ended).await;
                            return;
                        }
                        Some(_) => continue,
                    };
                    Update::Connection(connection)
                }
                _ = ticks.tick(), if self.client.is_connected() => match self.sample().await {
                    Ok(sample) => Update::Sample(sample),
                    // the events report it
                    Err(Error::Disconnected { .. } | Error::Closed) => continue,
                    Err(error) => Update::Connection(Connection::Failing(error.to_string())),
                },
            };
            if updates.send(update).await.is_err() {
                return;
            }
        }
    }

    fn reset(&mut self) {
        self.info = None;
        (self.has_health, self.has_details) = (true, true);
        self.details.clear();
    }

    async fn sample(&mut self) -> Result<Sample, Error> {
        let list: ClientList = self.client.call_as(BROKER_NAME, "client.list", &()).await?;
        let at = Instant::now();
        let stats: Option<Stats> = self.call_if_offered("stats").await?;
        if self.info.is_none() {
            self.info = self.call_if_offered("info").await?;
        }
        let health: Option<Health> =
            if self.has_health { self.call_if_offered("health").await? } else { None };
        self.has_health = health.is_some();
        let mut clients: Vec<ClientSample> = list.clients.into_iter().map(client_sample).collect();
        self.add_details(&mut clients).await?;
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

    /// Calls a method without parameters. Returns `None` if the broker does not have it.
    async fn call_if_offered<R: DeserializeOwned>(&self, method: &str) -> Result<Option<R>, Error> {
        match self.client.call_as(BROKER_NAME, method, &()).await {
            Ok(result) => Ok(Some(result)),
            Err(Error::Rpc(_) | Error::Conversion { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Adds the details of local clients. They do not change while a client is connected, so each is queried
    /// once.
    async fn add_details(&mut self, clients: &mut [ClientSample]) -> Result<(), Error> {
        let mut known = std::mem::take(&mut self.details);
        let mut remaining_calls = MAX_INFO_CALLS;
        for client in clients {
            let r_frames = client.counters.r_frames;
            let same = known.remove(&client.name).filter(|known| known.r_frames <= r_frames);
            let details = match same {
                Some(known) => known.details,
                None if client.kind == "local_ipc" && self.has_details && remaining_calls > 0 => {
                    remaining_calls -= 1;
                    self.query_details(&client.name).await?
                }
                None => continue,
            };
            (client.pid, client.has_rings) = (details.pid, details.rings);
            self.details.insert(client.name.clone(), KnownDetails { details, r_frames });
        }
        Ok(())
    }

    async fn query_details(&mut self, name: &str) -> Result<Details, Error> {
        let params = HashMap::from([("name", name)]);
        match self.client.call_as(BROKER_NAME, "client.info", &params).await {
            Ok(details) => Ok(details),
            Err(Error::Rpc(error)) => {
                self.has_details &= error.code != METHOD_NOT_FOUND;
                Ok(Details::default())
            }
            Err(Error::Conversion { .. }) => Ok(Details::default()),
            Err(error) => Err(error),
        }
    }
}

fn client_sample(listed: ClientEntry) -> ClientSample {
    ClientSample {
        name: listed.name,
        kind: listed.kind,
        source: listed.source,
        port: listed.port,
        counters: listed.counters.into(),
        queue: listed.queue,
        instances: listed.instances,
        pid: None,
        has_rings: false,
    }
}
