//! Groups: which member gets a publication, and how many groups there can be.

use elbus_plugin_api::{ClientInfo, Code, Op};
use std::time::Instant;

use crate::{
    counts, fill, members, numbers, publish_all,
    support::{Peer, broker},
};

#[test]
fn a_group_takes_publications_in_turn() {
    let broker = broker();
    let members = members(&broker, 4, "$share/g/t/#");
    let mut sender = Peer::new(&broker, "sender");
    for number in 0..40 {
        assert_eq!(sender.publish(&format!("t/{number}"), b"x"), 1);
    }
    assert_eq!(counts(&members), [10; 4]);
    // the frames of one run as well, each of them to one member
    let payloads = numbers(256);
    let payloads: Vec<_> = payloads.iter().map(Vec::as_slice).collect();
    assert_eq!(publish_all(&mut sender, "t/run", &payloads), 1);
    let got: Vec<_> = members.iter().map(Peer::payloads).collect();
    assert_eq!(got.iter().map(Vec::len).collect::<Vec<_>>(), [64; 4]);
    for own in &got {
        assert!(own.is_sorted_by_key(|number| number.parse::<u32>().unwrap()), "in order");
    }
    let mut all: Vec<usize> = got.concat().iter().map(|number| number.parse().unwrap()).collect();
    all.sort_unstable();
    assert_eq!(all, (0..256).collect::<Vec<_>>());
    for (run, most) in [(3, 1), (10, 3), (5, 2), (1, 1)] {
        publish_all(&mut sender, "t/short", &payloads[..run]);
        assert!(counts(&members).iter().all(|count| *count <= most), "{run}");
    }
}

#[test]
fn groups_are_apart_and_a_client_can_be_in_several() {
    let broker = broker();
    let mut sender = Peer::new(&broker, "sender");
    let (mut a, mut b, mut c) = (Peer::new(&broker, "a"), Peer::new(&broker, "b"), Peer::new(&broker, "c"));
    a.subscribe(&["$share/g/t", "$share/h/t"]);
    b.subscribe(&["$share/g/t"]);
    c.subscribe(&["$share/h/#"]);
    let (mut total, mut together) = (0, 0);
    for _ in 0..40 {
        let reached = sender.publish("t", b"x");
        let got = [a.take().len(), b.take().len(), c.take().len()];
        assert!(got.iter().all(|count| *count <= 1), "each once: {got:?}");
        assert_eq!(got.iter().sum::<usize>(), reached as usize);
        match got {
            // chosen for both groups
            [1, 0, 0] => together += 1,
            [1, 1, 0] | [1, 0, 1] | [0, 1, 1] => {}
            _ => panic!("a group got nothing: {got:?}"),
        }
        total += reached;
    }
    assert!(total >= 40 && together <= 40);
}

#[test]
fn the_member_with_less_in_its_queue_is_chosen_and_full_ones_are_left_out() {
    let broker = broker();
    let members = members(&broker, 3, "$share/g/t");
    let mut sender = Peer::new(&broker, "sender");
    members[1].set_queued(1000);
    (0..30).for_each(|_| _ = sender.publish("t", b"x"));
    let got = counts(&members);
    assert!(got[1] == 0 && got[0] + got[2] == 30, "{got:?}");
    members[1].set_queued(0);
    fill(&mut sender, &members[0]);
    fill(&mut sender, &members[1]);
    (0..30).for_each(|_| assert!(!sender.blocking(Op::Publish, "t", "").is_blocked()));
    assert_eq!(counts(&members), [0, 0, 30]);
    fill(&mut sender, &members[2]);
    assert!(sender.blocking(Op::Publish, "t", "").is_blocked(), "all are over their limit");
    assert_eq!(counts(&members), [0, 0, 0]);
    members[1].drain();
    (0..10).for_each(|_| assert!(!sender.blocking(Op::Publish, "t", "").is_blocked()));
    assert_eq!(counts(&members), [0, 10, 0]);
    members[0].drain();
    members[2].drain();
    (0..30).for_each(|_| _ = sender.blocking(Op::Publish, "t", ""));
    let got = counts(&members);
    assert!(got.iter().all(|count| (8..=12).contains(count)), "{got:?}");
}

#[test]
fn another_full_receiver_does_not_change_the_turns() {
    let broker = broker();
    let members = members(&broker, 2, "$share/g/t");
    let (mut sender, other) = (Peer::new(&broker, "sender"), Peer::new(&broker, "other"));
    fill(&mut sender, &other);
    (0..20).for_each(|_| assert!(!sender.blocking(Op::Publish, "t", "").is_blocked()));
    assert_eq!(counts(&members), [10, 10]);
    // nor do runs that cannot be split evenly
    (0..10).for_each(|_| _ = publish_all(&mut sender, "t", &[b"1", b"2", b"3"]));
    assert_eq!(counts(&members), [15, 15]);
}

#[test]
fn a_member_that_loses_publications_by_choice_holds_nobody() {
    let broker = broker();
    let (mut a, mut b) = (Peer::new(&broker, "a"), Peer::new(&broker, "b"));
    let mut sender = Peer::new(&broker, "sender");
    a.subscribe(&["$share/g/t"]);
    b.subscribe(&["$share/g/$lossy/t"]);
    fill(&mut sender, &a);
    fill(&mut sender, &b);
    let result = sender.blocking(Op::Publish, "t", "");
    assert!(!result.is_blocked() && result.code() == Code::Ok);
    assert!(a.take().is_empty() && b.take().is_empty());
}

#[test]
fn a_key_goes_to_one_member_until_the_membership_changes() {
    let broker = broker();
    let mut members = members(&broker, 5, "$key/g/2/plant/+/#");
    let mut sender = Peer::new(&broker, "sender");
    let owners = |sender: &mut Peer, members: &[Peer]| -> Vec<usize> {
        let mut owners = vec![];
        for device in 0..200 {
            for topic in ["state", "load/1"] {
                sender.publish(&format!("plant/{device}/{topic}"), b"x");
            }
            let got = counts(members);
            assert_eq!(got.iter().sum::<usize>(), 2);
            owners.push(got.iter().position(|count| *count == 2).expect("both at one member"));
        }
        owners
    };
    let before = owners(&mut sender, &members);
    assert_eq!(owners(&mut sender, &members), before);
    assert!((0..5).all(|member| before.contains(&member)));
    members.pop();
    let after = owners(&mut sender, &members);
    let moved = before.iter().zip(&after).filter(|(before, after)| before != after).count();
    assert_eq!(moved, before.iter().filter(|owner| **owner == 4).count(), "only those of the one that left");
    fill(&mut sender, &members[after[0]]);
    assert!(sender.blocking(Op::Publish, "plant/0/state", "").is_blocked(), "order is kept");
}

fn share(member: &mut Peer, groups: std::ops::Range<usize>, filter: &str) -> Code {
    let filters: Vec<_> = groups.map(|group| format!("$share/{group}/{filter}")).collect();
    member.filters(Op::Subscribe, &filters.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn the_groups_of_a_client_are_limited_and_are_forgotten_with_it() {
    const MOST: usize = 1024;
    let broker = broker();
    let mut sender = Peer::new(&broker, "sender");
    let mut a = Peer::new(&broker, "a");
    assert_eq!(share(&mut a, 0..MOST - 1, "t"), Code::Ok);
    assert_eq!(share(&mut a, MOST - 2..MOST + 1, "t"), Code::Other, "all of a request or nothing");
    assert_eq!(share(&mut a, 0..MOST, "t"), Code::Ok, "those that it has do not count again");
    assert_eq!(share(&mut a, MOST..MOST + 1, "t"), Code::Other);
    assert_eq!(a.filters(Op::Subscribe, &["$key/other/2/t"]), Code::Other, "both sorts of groups count");
    a.subscribe(&["$latest/other", "plain"]);
    // a million of them
    for request in 1..1000 {
        assert_eq!(share(&mut a, request * 1000 + MOST..request * 1000 + MOST + 1000, "t"), Code::Other);
    }
    assert_eq!(sender.publish("t", b"x"), 1, "one client gets it once");
    assert_eq!(a.take().len(), 1);
    assert_eq!(a.filters(Op::Unsubscribe, &["$share/0/t"]), Code::Ok);
    assert_eq!(share(&mut a, MOST..MOST + 1, "t"), Code::Ok, "there is room for one again");
    drop(a);
    assert_eq!(sender.publish("t", b"x"), 0);
    let mut again = Peer::of(&broker, "a", ClientInfo::default()).unwrap();
    again.subscribe(&["$share/0.0/t"]);
    assert_eq!(sender.publish("t", b"x"), 1);
}

/// The time to find the recipients of a topic grows with the number of groups, not with its square.
#[test]
fn clients_in_thousands_of_groups_do_not_delay_publications_to_new_topics() {
    const PUBLISHED: usize = 30;
    let time = |clients: usize| {
        let broker = broker();
        let mut sender = Peer::new(&broker, "sender");
        let members: Vec<_> = (0..clients)
            .map(|number| {
                let mut member = Peer::new(&broker, &format!("member.{number}"));
                assert_eq!(share(&mut member, number * 1000..(number + 1) * 1000, "#"), Code::Ok);
                member
            })
            .collect();
        let publish = |topic: usize| {
            let start = Instant::now();
            assert_eq!(sender.publish(&format!("new/{topic}"), b"x"), clients as u32);
            start.elapsed()
        };
        // one of them is not interrupted
        let fastest = (0..PUBLISHED).map(publish).min().unwrap();
        members.iter().for_each(|member| assert_eq!(member.take().len(), PUBLISHED));
        fastest
    };
    let (few, many) = (time(2), time(16));
    // 8 times as long, where the square would be 64
    assert!(many < few * 24, "{few:?} for 2,000 groups, {many:?} for 16,000");
}
