//! Subscriptions with options: which client gets a publication, and what becomes of those that it cannot
//! take.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod departed;
mod groups;
mod newest;
mod policies;
mod precedence;
mod reported;
mod spelling;
#[path = "../support/mod.rs"]
mod support;

use elbus_broker::Broker;
use elbus_plugin_api::{Call, Code, DeliveryStatus, Op, Qos};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use support::Peer;

const FULL: DeliveryStatus = DeliveryStatus::FULL;

/// Publishes and returns the code.
fn publish_code(sender: &mut Peer, topic: &str) -> Code {
    sender.dispatch(Op::Publish, Qos::PROCESSED, topic, "", &[b"x"]).code()
}

/// Publishes a run.
fn publish_all(sender: &mut Peer, topic: &str, payloads: &[&[u8]]) -> u32 {
    sender.dispatch(Op::Publish, Qos::NO, topic, "", payloads).reached()
}

fn numbers(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|number| number.to_string().into_bytes()).collect()
}

/// Fills the queue of a client: it is over its limit until it is drained.
fn fill(sender: &mut Peer, client: &Peer) {
    client.answer(FULL);
    assert_eq!(sender.send(&client.name, b"fill"), Code::Ok);
    client.answer(DeliveryStatus::TAKEN);
    assert_eq!(client.take().len(), 1);
}

fn wait_for<T>(mut get: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = get() {
            return found;
        }
        assert!(Instant::now() < until, "waited too long");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn members(broker: &Broker, count: usize, filter: &str) -> Vec<Peer> {
    let mut members: Vec<_> = (0..count).map(|number| Peer::new(broker, &format!("m.{number}"))).collect();
    members.iter_mut().for_each(|member| member.subscribe(&[filter]));
    members
}

fn counts(members: &[Peer]) -> Vec<usize> {
    members.iter().map(|member| member.take().len()).collect()
}

#[derive(Deserialize, Debug, PartialEq, Eq)]
struct Missed {
    filter: String,
    topic: String,
    count: u64,
}

/// Returns the reports that a client has got.
fn reports(client: &Peer) -> Vec<Missed> {
    let got = client
        .take()
        .into_iter()
        .filter(|(_, sender, topic, _)| sender == ".broker" && topic == ".broker/missed");
    got.map(|(.., payload)| rmp_serde::from_slice(&payload).unwrap()).collect()
}

#[derive(Deserialize)]
struct Health {
    queued_bytes: u64,
}

fn health(broker: &Broker) -> Health {
    rmp_serde::from_slice(&broker.host().call(&Call::by_broker("health", &[])).unwrap()).unwrap()
}

#[derive(Deserialize, Clone)]
struct Options {
    filter: String,
    missed: u64,
    replaced: u64,
    pending: u64,
}

#[derive(Deserialize)]
struct Info {
    options: Vec<Options>,
}

/// Returns the subscriptions with options of a client.
fn client_options(broker: &Broker, name: &str) -> Vec<Options> {
    let params = rmp_serde::to_vec_named(&BTreeMap::from([("name", name)])).unwrap();
    let info: Info =
        rmp_serde::from_slice(&broker.host().call(&Call::by_broker("client.info", &params)).unwrap())
            .unwrap();
    assert!(info.options.iter().all(|one| one.filter.is_empty() || one.filter.starts_with('$')));
    info.options
}

/// Returns the only subscription with options of a client.
fn options_of(broker: &Broker, name: &str) -> Options {
    let options = client_options(broker, name);
    assert_eq!(options.len(), 1);
    options[0].clone()
}
