//! Retained values: how long a new subscriber waits for many, and a broker for those on disk.

use elbus_protocol::{
    Op, Qos,
    request::{encode_filters, encode_request},
};
use std::time::{Duration, Instant};

use super::{
    Run, Settings,
    broker::{Broker, Table},
    client::{PAYLOAD_BYTES, connect},
};
use crate::BoxError;

const SUBSCRIBED: usize = 100_000;
const ON_DISK: usize = 1_000_000;
const MEMORY: Table = Table {
    name: "retain",
    code: "retain",
    config: "[[plugin.config.topic]]\nfilter = \"plant/#\"\nmax_topics = 2_000_000",
};
const DISK: Table = Table {
    name: "retain",
    code: "retain",
    config: "path = \"retained\"\n[[plugin.config.topic]]\nfilter = \"plant/#\"\nstore = \"disk\"\n\
             max_topics = 2_000_000\nmax_bytes = 1_000_000_000",
};

/// Publishes one value to each of `topics` topics, and returns once the broker has taken the last one.
fn publish(broker: &Broker, topics: usize) -> Result<(), BoxError> {
    let mut client = connect(&broker.address(), "publisher", "")?;
    let mut bytes = Vec::new();
    for index in 0..topics {
        let topic = format!("plant/line{:03}/value{index:07}", index % 1000);
        let is_last = index + 1 == topics;
        let qos = if is_last { Qos::PROCESSED } else { Qos::NO };
        encode_request(&mut bytes, 0, Op::Publish, qos, &topic, "", &[b'x'; PAYLOAD_BYTES])?;
        if bytes.len() > 100_000 || is_last {
            client.sender.send(&bytes, u64::from(is_last))?;
            bytes.clear();
        }
    }
    client.sender.wait_for_acks(0)
}

/// Subscribes, and measures the time until the last value, in milliseconds.
fn time_to_subscribe(broker: &Broker, values: usize) -> Result<Duration, BoxError> {
    let mut client = connect(&broker.address(), "subscriber", "")?;
    let mut request = Vec::new();
    encode_filters(&mut request, 1, Op::Subscribe, Qos::NO, ["plant/#"])?;
    let (begin, mut count) = (Instant::now(), 0);
    client.sender.send(&request, 0)?;
    while count < values {
        client.receive(|_| {
            count += 1;
            Ok(())
        })?;
    }
    Ok(begin.elapsed())
}

pub(super) fn subscribe(settings: &Settings) -> Result<Run, BoxError> {
    let broker = Broker::start(settings, &[MEMORY])?;
    publish(&broker, SUBSCRIBED)?;
    Ok(Run::new(time_to_subscribe(&broker, SUBSCRIBED)?.as_secs_f64() * 1e3))
}

pub(super) fn start(settings: &Settings) -> Result<Run, BoxError> {
    let broker = Broker::start(settings, &[DISK])?;
    publish(&broker, ON_DISK)?;
    let (broker, elapsed) = broker.restart(settings)?;
    // all of them are there
    let subscribed = time_to_subscribe(&broker, ON_DISK)?;
    let run = Run::new(elapsed.as_secs_f64() * 1e3);
    Ok(run.with("ms until a subscriber has all of them", subscribed.as_secs_f64() * 1e3))
}
