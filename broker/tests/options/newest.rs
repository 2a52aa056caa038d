//! Values that wait for slow clients, and intervals between values.

use elbus_broker::Broker;
use elbus_plugin_api::{Code, Op};
use std::time::{Duration, Instant};

use crate::{
    health, options_of, publish_all,
    support::{Got, Peer, broker},
    wait_for,
};

#[test]
fn the_newest_value_of_each_topic_waits_for_a_slow_client() {
    let broker = broker();
    let (mut a, mut sender) = (Peer::new(&broker, "a"), Peer::new(&broker, "sender"));
    a.subscribe(&["$latest/t/#"]);
    assert_eq!(publish_all(&mut sender, "t/1", &[b"1", b"2", b"3"]), 1);
    assert_eq!(a.payloads(), ["3"], "of a run only the last one matters");
    a.set_queued(1);
    for round in 0..100 {
        for topic in ["t/1", "t/2"] {
            assert!(!sender.blocking(Op::Publish, topic, "").is_blocked());
            sender.publish(topic, format!("{topic} {round}").as_bytes());
        }
    }
    assert!(a.take().is_empty(), "nothing is encoded while the queue is not empty");
    a.set_queued(0);
    assert_eq!(a.payloads(), ["t/1 99", "t/2 99"]);
    sender.publish("t/1", b"live");
    let expected: Got =
        (elbus_plugin_api::FrameKind::Publish, "sender".into(), "t/1".into(), b"live".to_vec());
    assert_eq!(a.take(), [expected], "with its sender");
    // after the end of the subscription nothing comes
    a.set_queued(1);
    sender.publish("t/1", b"never");
    assert_eq!(a.filters(Op::Unsubscribe, &["$latest/t/#"]), Code::Ok);
    a.set_queued(0);
    assert!(a.take().is_empty());
}

#[test]
fn values_that_wait_are_limited_and_count_in_the_budget() {
    let broker = broker();
    let (mut a, mut sender) = (Peer::new(&broker, "a"), Peer::new(&broker, "sender"));
    a.subscribe(&["$latest/#", ".broker/missed"]);
    a.set_queued(1);
    for number in 0..10_003 {
        sender.publish(&format!("t/{number}"), b"x");
    }
    let queued = |broker: &Broker| health(broker).queued_bytes;
    assert!(queued(&broker) > 10_000 * 100);
    let info = options_of(&broker, "a");
    assert_eq!((info.pending, info.missed, info.replaced), (10_000, 3, 0));
    a.take();
    a.set_queued(0);
    let got = wait_for(|| {
        let mut got = a.record.got.lock().unwrap();
        got.retain(|(_, sender, ..)| sender == "sender");
        (got.len() == 10_000).then(|| got.clone())
    });
    assert_eq!(got[9999].2, "t/9999");
    assert_eq!(queued(&broker), 0);
    // more bytes than a queue may have
    a.set_queued(1);
    for number in 0..10 {
        sender.publish(&format!("large/{number}"), &vec![1; 1 << 20]);
    }
    assert_eq!(options_of(&broker, "a").missed, 3 + 3, "8 MiB, and a little for each topic");
    drop(a);
    wait_for(|| (queued(&broker) == 0).then_some(()));
}

#[test]
fn a_topic_comes_once_in_an_interval_and_its_last_value_arrives() {
    let broker = broker();
    let (mut a, mut sender) = (Peer::new(&broker, "a"), Peer::new(&broker, "sender"));
    a.subscribe(&["$every/100/t"]);
    let mut times = vec![];
    let began = Instant::now();
    let mut number = 0u32;
    while began.elapsed() < Duration::from_millis(450) {
        number += 1;
        sender.publish("t", number.to_string().as_bytes());
        a.take().iter().for_each(|_| times.push(Instant::now()));
        std::thread::sleep(Duration::from_millis(1));
    }
    // the one before can be on its way
    let last = number.to_string();
    wait_for(|| {
        let got = a.payloads();
        times.extend(got.iter().map(|_| Instant::now()));
        got.contains(&last).then_some(())
    });
    // it is stopped by nobody, so a pause of the machine can only make the intervals longer
    assert!((2..=7).contains(&times.len()), "{}", times.len());
}
