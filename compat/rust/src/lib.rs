//! What the tests share: the addresses of the running broker, clients with names that no other test uses, waiting with
//! a deadline. It adds no protocol of its own: every byte on the wire comes from the published crate.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use busrt::client::AsyncClient;
use busrt::ipc::{Client, Config};
use busrt::{Error, ErrorKind, EventChannel, Frame, OpConfirm, QoS};

/// After this time something that should have happened counts as failed.
pub const DEADLINE: Duration = Duration::from_secs(10);

const TIMEOUT: Duration = Duration::from_secs(5);

static COUNTER: AtomicU64 = AtomicU64::new(0);

/// One address of the broker, with a prefix for names and topics.
pub struct Bus {
    address: String,
    pub prefix: String,
}

impl Bus {
    /// The broker's two addresses, from `ELBUS_UNIX` and `ELBUS_TCP`; a test runs over one after the other.
    pub fn each() -> impl Iterator<Item = Self> {
        ["ELBUS_UNIX", "ELBUS_TCP"].into_iter().map(|variable| {
            let address = std::env::var(variable)
                .unwrap_or_else(|_| panic!("{variable} must hold an address of a running broker"));
            println!("over {address}");
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos();
            let number = COUNTER.fetch_add(1, Ordering::Relaxed);
            let prefix = format!("rs-{:x}-{now:x}-{number}", std::process::id());
            Self { address, prefix }
        })
    }

    /// `prefix.label`, to be used as a client's name.
    pub fn name(&self, label: &str) -> String {
        format!("{}.{label}", self.prefix)
    }

    /// `prefix/label`, to be used as a topic.
    pub fn topic(&self, label: &str) -> String {
        format!("{}/{label}", self.prefix)
    }

    /// Connects a client of any name, with the timeout that the CLI uses.
    pub async fn connect(&self, name: &str) -> Result<Client, Error> {
        Client::connect(&Config::new(&self.address, name).timeout(TIMEOUT)).await
    }

    /// Connects a client named `prefix.label`.
    pub async fn peer(&self, label: &str) -> Peer {
        let name = self.name(label);
        let client = self.connect(&name).await;
        Peer::new(client.unwrap_or_else(|error| panic!("{name}: {error}")))
    }

    /// The error with which the broker refuses a name.
    pub async fn refusal(&self, name: &str) -> ErrorKind {
        match self.connect(name).await {
            Ok(_) => panic!("{name:?} was accepted"),
            Err(error) => error.kind(),
        }
    }
}

/// A client and what it receives.
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
        confirmed(self.client.send(target, payload.into(), QoS::Processed).await).await
    }

    pub async fn broadcast(&mut self, mask: &str, payload: &[u8]) {
        confirmed(self.client.send_broadcast(mask, payload.into(), QoS::Processed).await).await.unwrap();
    }

    pub async fn publish(&mut self, topic: &str, payload: &[u8]) {
        confirmed(self.client.publish(topic, payload.into(), QoS::Processed).await).await.unwrap();
    }

    pub async fn subscribe(&mut self, filters: &[&str]) {
        confirmed(self.client.subscribe_bulk(filters, QoS::Processed).await).await.unwrap();
    }

    /// What `sender` has sent here so far: order makes a marker message the last of it.
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
    pub async fn sees_leave(&mut self, name: &str) {
        within("the name is unregistered", async {
            while self.send(name, b"").await != Err(ErrorKind::NotRegistered) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }

    /// Waits until the client has noticed that the broker closed its connection.
    pub async fn sees_closed(&self) {
        within("the connection is closed", async {
            while self.client.is_connected() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }
}

/// The acknowledgement of an operation; an operation without one succeeds.
pub async fn confirmed(operation: Result<OpConfirm, Error>) -> Result<(), ErrorKind> {
    match operation.map_err(|error| error.kind())? {
        None => Ok(()),
        Some(receiver) => {
            let result = within("an acknowledgement", receiver).await.expect("the client is alive");
            result.map_err(|error| error.kind())
        }
    }
}

/// The outcome of `future`; fails at the deadline.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let outcome = tokio::time::timeout(DEADLINE, future).await;
    outcome.unwrap_or_else(|_| panic!("{what}: not within {DEADLINE:?}"))
}

/// A payload of this size in which no part equals another.
pub fn pattern(size: usize) -> Vec<u8> {
    (0..size).map(|position| (position ^ position >> 8 ^ position >> 16) as u8).collect()
}
