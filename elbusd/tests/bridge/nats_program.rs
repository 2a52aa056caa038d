//! Programs that know NATS and not ELBUS, and what a node counts of the topics that it shares with them.

use async_nats::HeaderMap;
use futures_util::StreamExt;
use tokio::{runtime::Builder, time::timeout};

use crate::{
    network::NatsServer,
    support::{PATIENCE, daemon::Daemon, field, wait_until, wire::Wire},
};

/// Lines of the table of a node that mirrors `sensors/#`.
pub(crate) const MIRRORING: &str = "export = { names = ['*'], topics = ['#'] }\n\
                                    import = { names = ['*'], topics = ['#'] }\nmirror = ['sensors/#']\n";

/// What a node logs when its mirrored topics are connected.
pub(crate) const MIRRORS: &str = "connected to NATS for mirrored topics";

/// A program that knows NATS and not ELBUS.
pub(crate) struct Program {
    runtime: tokio::runtime::Runtime,
    client: async_nats::Client,
    subscriber: async_nats::Subscriber,
}

impl Program {
    pub(crate) fn connect(server: &NatsServer, subject: &str) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (client, subscriber) = runtime.block_on(async {
            let client = async_nats::connect(server.url()).await.unwrap();
            let subscriber = client.subscribe(subject.to_owned()).await.unwrap();
            // what the server has handled once it returns a message that was published behind it
            let inbox = client.new_inbox();
            let mut returned = client.subscribe(inbox.clone()).await.unwrap();
            client.publish(inbox, "".into()).await.unwrap();
            returned.next().await.unwrap();
            (client, subscriber)
        });
        Program { runtime, client, subscriber }
    }

    pub(crate) fn publish(&self, subject: &str, payload: &'static str) {
        self.runtime.block_on(async {
            self.client.publish(subject.to_owned(), payload.into()).await.unwrap();
            self.client.flush().await.unwrap();
        });
    }

    /// Publishes messages of `bytes` bytes that begin with their number.
    pub(crate) fn publish_numbered(&self, subject: &str, count: u32, bytes: usize) {
        self.runtime.block_on(async {
            for number in 0..count {
                let mut payload = vec![0; bytes];
                payload[..4].copy_from_slice(&number.to_le_bytes());
                self.client.publish(subject.to_owned(), payload.into()).await.unwrap();
            }
            self.client.flush().await.unwrap();
        });
    }

    pub(crate) fn publish_as_bridge(&self, subject: &str, bus: &str, payload: &'static str) {
        let mut headers = HeaderMap::new();
        headers.insert("Elbus-Bus", bus);
        self.runtime.block_on(async {
            self.client.publish_with_headers(subject.to_owned(), headers, payload.into()).await.unwrap();
        });
    }

    /// Returns the number that the next message begins with.
    pub(crate) fn next_number(&mut self) -> u32 {
        u32::from_le_bytes(self.next_message().payload[..4].try_into().unwrap())
    }

    /// Returns subject and text of the next message.
    pub(crate) fn next(&mut self) -> (String, String) {
        let message = self.next_message();
        (message.subject.to_string(), String::from_utf8(message.payload.to_vec()).unwrap())
    }

    pub(crate) fn next_message(&mut self) -> async_nats::Message {
        let subscriber = &mut self.subscriber;
        let next = async { timeout(PATIENCE, subscriber.next()).await };
        self.runtime.block_on(next).unwrap().unwrap()
    }
}

/// Returns how many mirrored publications have gone this way: `to_nats`, `from_nats` or `dropped`.
pub(crate) fn mirrored(client: &mut Wire, way: &str) -> u64 {
    figure(client, "mirrored", way)
}

/// Returns a figure of the plugin.
pub(crate) fn figure(client: &mut Wire, name: &str, of: &str) -> u64 {
    let metrics = client.control("metrics", &[]).unwrap();
    let instances = field(&metrics, "instances").as_array().unwrap();
    let bridge = instances.iter().find(|instance| field(instance, "name").as_str() == Some("bridge"));
    let figures = field(bridge.unwrap(), "figures").as_array().unwrap();
    let is_wanted = |figure: &&rmpv::Value| {
        field(figure, "name").as_str() == Some(name) && field(figure, "of").as_str() == Some(of)
    };
    field(figures.iter().find(is_wanted).unwrap(), "value").as_f64().unwrap() as u64
}

pub(crate) fn wait_for_drops(daemon: &Daemon, reason: &str) {
    wait_until(reason, || {
        let log = daemon.log();
        log.lines().any(|line| line.contains("mirrored publications were dropped") && line.contains(reason))
    });
}
