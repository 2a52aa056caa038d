//! Shared by the tests: the addresses of the running broker, clients with unique names, waiting with a
//! deadline. Adds nothing to the protocol: every byte on the wire comes from the published crate.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use busrt::client::AsyncClient;
use busrt::ipc::{Client, Config};
use busrt::{Error, ErrorKind, EventChannel, Frame, OpConfirm, QoS};

/// An event that has not happened within this time is a failure.
pub const DEADLINE: Duration = Duration::from_secs(10);

const TIMEOUT: Duration = Duration::from_secs(5);

static COUNTER: AtomicU64 = AtomicU64::new(0);

/// One address of the broker, with a unique prefix for names and topics.
pub struct Bus {
    address: String,
    pub prefix: String,
}

impl Bus {
    /// Returns the broker's addresses, from `ELBUS_UNIX`, `ELBUS_TCP` and `ELBUS_WS`. Each test runs over all of
    /// them; the last one can be missing.
    pub fn each() -> impl Iterator<Item = Self> {
        ["ELBUS_UNIX", "ELBUS_TCP", "ELBUS_WS"].into_iter().filter_map(|variable| {
            let address = match std::env::var(variable) {
                Ok(address) => address,
                Err(_) if variable == "ELBUS_WS" => return None,
                Err(_) => panic!("{variable} must hold an address of a running broker"),
            };
            println!("over {address}");
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos();
            let number = COUNTER.fetch_add(1, Ordering::Relaxed);
            let prefix = format!("rs-{:x}-{now:x}-{number}", std::process::id());
            Some(Self { address, prefix })
        })
    }

    /// Returns the longest payload that the crate can send. Over WebSocket, its own library refuses to write more
    /// at once than its buffer has room for, with every broker.
    pub fn max_sent_bytes(&self) -> usize {
        if self.address.starts_with("ws://") { 8 * 1024 } else { usize::MAX }
    }

    /// Returns the client name `prefix.label`.
    pub fn name(&self, label: &str) -> String {
        format!("{}.{label}", self.prefix)
    }

    /// Returns the topic `prefix/label`.
    pub fn topic(&self, label: &str) -> String {
        format!("{}/{label}", self.prefix)
    }

    /// Connects a client of any name, with the timeout of the published command line.
    pub async fn connect(&self, name: &str) -> Result<Client, Error> {
        Client::connect(&Config::new(&self.address, name).timeout(TIMEOUT)).await
    }

    /// Connects a client named `prefix.label`.
    pub async fn peer(&self, label: &str) -> Peer {
        let name = self.name(label);
        let client = self.connect(&name).await;
        Peer::new(client.unwrap_or_else(|error| panic!("{name}: {error}")))
    }

    /// Returns the error with which the broker refuses a name.
    pub async fn refusal(&self, name: &str) -> ErrorKind {
        match self.connect(name).await {
            Ok(_) => panic!("{name:?} was accepted"),
            Err(error) => error.kind(),
        }
    }
}

/// A client and the channel of its received frames.
pub struct Peer {
    pub client: Client,
    pub events: EventChannel,
    pub name: String,
}

impl Peer {
    pub fn new(mut client: Client) -> Self {
        let events = client.take_event_channel().expect("a new client has its event channel");
        let name = client.get_name().to_owned();
        Self { client, events, name }
    }

    pub async fn next(&self) -> Frame {
        within("a frame", self.events.recv()).await.expect("the connection is open")
    }

    pub async fn send(&mut self, target: &str, payload: &[u8]) -> Result<(), ErrorKind> {
        acknowledged(self.client.send(target, payload.into(), QoS::Processed).await).await
    }

    pub async fn broadcast(&mut self, mask: &str, payload: &[u8]) {
        acknowledged(self.client.send_broadcast(mask, payload.into(), QoS::Processed).await).await.unwrap();
    }

    pub async fn publish(&mut self, topic: &str, payload: &[u8]) {
        acknowledged(self.client.publish(topic, payload.into(), QoS::Processed).await).await.unwrap();
    }

    pub async fn subscribe(&mut self, filters: &[&str]) {
        acknowledged(self.client.subscribe_bulk(filters, QoS::Processed).await).await.unwrap();
    }

    /// Returns the frames received from `sender` so far. Frames keep their order, so a marker message ends
    /// them.
    pub async fn received_from(&self, sender: &mut Peer) -> Vec<Frame> {
        let marker = format!("marker {}", COUNTER.fetch_add(1, Ordering::Relaxed));
        sender.send(&self.name, marker.as_bytes()).await.unwrap();
        let mut frames = Vec::new();
        loop {
            let frame = self.next().await;
            if frame.payload() == marker.as_bytes() {
                return frames;
            }
            if frame.sender() == sender.name {
                frames.push(frame);
            }
        }
    }

    pub async fn payloads_from(&self, sender: &mut Peer) -> Vec<Vec<u8>> {
        let frames = self.received_from(sender).await;
        frames.iter().map(|frame| frame.payload().to_vec()).collect()
    }

    pub async fn topics_from(&self, sender: &mut Peer) -> Vec<String> {
        let frames = self.received_from(sender).await;
        frames.iter().filter_map(|frame| frame.topic().map(str::to_owned)).collect()
    }

    /// Waits until the broker has unregistered `name`.
    pub async fn wait_until_unregistered(&mut self, name: &str) {
        within("the name is unregistered", async {
            while self.send(name, b"").await != Err(ErrorKind::NotRegistered) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }

    /// Waits until the client has noticed that the broker disconnected it.
    pub async fn wait_until_disconnected(&self) {
        within("the client is disconnected", async {
            while self.client.is_connected() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }
}

/// Waits for the acknowledgement of an operation. An operation without one succeeds.
pub async fn acknowledged(operation: Result<OpConfirm, Error>) -> Result<(), ErrorKind> {
    match operation.map_err(|error| error.kind())? {
        None => Ok(()),
        Some(receiver) => {
            let result = within("an acknowledgement", receiver).await.expect("the client is alive");
            result.map_err(|error| error.kind())
        }
    }
}

/// Returns the output of `future`; panics at the deadline.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let outcome = tokio::time::timeout(DEADLINE, future).await;
    outcome.unwrap_or_else(|_| panic!("{what}: not within {DEADLINE:?}"))
}

/// Returns a payload of this size without repeated parts.
pub fn pattern(size: usize) -> Vec<u8> {
    (0..size).map(|position| (position ^ position >> 8 ^ position >> 16) as u8).collect()
}
