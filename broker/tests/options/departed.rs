//! What a member that leaves has not got goes to the other members.

use elbus_plugin_api::{Call, DeliveryStatus};
use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
};

use crate::{
    counts, fill, members, publish_all,
    support::{Peer, broker},
};

#[test]
fn what_a_departed_member_has_not_got_goes_to_the_others() {
    let broker = broker();
    let mut sender = Peer::new(&broker, "sender");
    let (mut a, mut b) = (Peer::new(&broker, "a"), Peer::new(&broker, "b"));
    let mut other = Peer::new(&broker, "other");
    a.subscribe(&["$share/g/t/#", "$share/g/u", "plain/#", "$lossy/loss"]);
    for topic in ["t/1", "t/2", "u", "plain/1", "loss"] {
        sender.publish(topic, topic.as_bytes());
    }
    sender.send("a", b"message");
    b.subscribe(&["$share/g/t/#"]);
    other.subscribe(&["$share/h/#"]);
    drop(a);
    assert_eq!(b.payloads(), ["t/1", "t/2"], "what it has got as a member, from its sender");
    assert!(other.take().is_empty(), "members of another group have nothing to do with it");
    // also to members over their limit, and if it is evicted
    let mut c = Peer::new(&broker, "c");
    c.subscribe(&["$share/g/t/#"]);
    b.set_queued(9);
    sender.publish("t/3", b"t/3");
    b.set_queued(0);
    fill(&mut sender, &b);
    let params = rmp_serde::to_vec_named(&BTreeMap::from([("name", "c")])).unwrap();
    broker.host().call(&Call::by_broker("client.kick", &params)).unwrap();
    assert_eq!((c.closed().len(), b.payloads()), (1, vec!["t/3".to_owned()]));
    // the last member has nobody
    b.drain();
    sender.publish("t/4", b"t/4");
    drop(b);
    assert_eq!(sender.publish("t/5", b"t/5"), 1, "to the other group only");
}

#[test]
fn a_plain_filter_keeps_what_a_departed_client_has_not_got_from_others() {
    let broker = broker();
    let mut sender = Peer::new(&broker, "sender");
    let (mut a, mut b) = (Peer::new(&broker, "a"), Peer::new(&broker, "b"));
    a.subscribe(&["$share/g/#", "t"]);
    b.subscribe(&["$share/g/#"]);
    assert_eq!(sender.publish("t", b"1"), 2);
    assert_eq!(b.payloads(), ["1"]);
    drop(a);
    assert!(b.take().is_empty(), "b has got it, and a would have got it in any case");
}

#[test]
fn a_member_whose_connection_has_closed_takes_nothing_from_the_others() {
    let broker = broker();
    let mut members = members(&broker, 3, "$share/g/t");
    let mut sender = Peer::new(&broker, "sender");
    // it has the least in its queue, and is still registered
    members[0].answer(DeliveryStatus::CLOSED);
    members[1].set_queued(1000);
    members[2].set_queued(1000);
    (0..20).for_each(|_| assert_eq!(sender.publish("t", b"x"), 1));
    let got = counts(&members);
    assert_eq!((got[0], got[1] + got[2]), (0, 20));
    // also for clients in several groups
    members.iter_mut().for_each(|member| member.subscribe(&["$share/h/t"]));
    for _ in 0..20 {
        let reached = sender.publish("t", b"x") as usize;
        let got = counts(&members);
        assert!(got[0] == 0 && reached == got[1] + got[2] && (1..=2).contains(&reached), "{got:?}");
    }
}

#[test]
fn members_come_and_go_ten_thousand_times_and_nothing_is_lost() {
    const ROUNDS: usize = 10_000;
    let broker = broker();
    let ended = AtomicBool::new(false);
    let mut last = Peer::new(&broker, "last");
    last.subscribe(&["$share/g/t/#"]);
    let mut got: Vec<u64> = vec![];
    let read = |client: &Peer, got: &mut Vec<u64>| {
        got.extend(client.payloads().iter().map(|number| number.parse::<u64>().unwrap()));
    };
    let published = std::thread::scope(|scope| {
        let publishing = scope.spawn(|| {
            let mut sender = Peer::new(&broker, "sender");
            let mut number = 0u64;
            while !ended.load(Ordering::SeqCst) {
                let run: Vec<_> = (0..number % 40 + 1).map(|at| (number + at).to_string()).collect();
                let payloads: Vec<_> = run.iter().map(String::as_bytes).collect();
                publish_all(&mut sender, &format!("t/{}", number % 3), &payloads);
                number += run.len() as u64;
                std::thread::yield_now();
            }
            number
        });
        for round in 0..ROUNDS {
            let mut members: Vec<_> =
                (0..round % 3 + 1).map(|at| Peer::new(&broker, &format!("m.{round}.{at}"))).collect();
            members.iter_mut().for_each(|member| member.subscribe(&["$share/g/#"]));
            if round % 2 == 0 {
                std::thread::yield_now();
            }
            // one of them reads what it has, the others leave with it
            read(&members[0], &mut got);
            drop(members);
            if round % 100 == 0 {
                read(&last, &mut got);
            }
        }
        ended.store(true, Ordering::SeqCst);
        publishing.join().unwrap()
    });
    read(&last, &mut got);
    got.sort_unstable();
    assert_eq!(got.len() as u64, published);
    assert!(got.iter().zip(0..).all(|(got, number)| *got == number), "each once");
}
