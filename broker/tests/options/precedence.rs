//! Which of several filters of a client decides about a publication.

use elbus_plugin_api::{Code, Op};

use crate::{
    fill,
    support::{Peer, broker},
    wait_for,
};

/// What a client with these filters gets of a publication to `t` while it is full, and while it is not: the
/// filter that decides is the one of the third column.
const DECIDING: &[(&[&str], &str)] = &[
    (&["t", "$lossy/t"], "plain"),
    (&["$latest/t", "#"], "plain"),
    (&["$share/g/t", "t"], "plain"),
    (&["$key/g/1/#", "+"], "plain"),
    (&["$latest/t", "$lossy/#"], "lossy"),
    (&["$every/5/t", "$lossy/t"], "lossy"),
    (&["$share/g/t", "$lossy/t"], "lossy"),
    (&["$every/86400000/t", "$latest/+"], "latest"),
    (&["$share/g/t", "$latest/t"], "latest"),
    (&["$share/g/$lossy/t", "$share/g/t"], "plain"),
    (&["$share/g/$latest/t", "$share/g/$lossy/#"], "lossy"),
    (&["$share/g/$latest/t", "$share/h/t"], "plain"),
    (&["$share/g/$latest/t", "$key/h/1/$lossy/t"], "lossy"),
    (&["$share/g/t", "$share/h/t", "$key/g/1/t", "$key/g/2/t"], "plain"),
];

#[test]
fn a_client_gets_a_publication_once_and_the_filter_that_keeps_most_decides() {
    for (filters, deciding) in DECIDING {
        let mut orders = vec![filters.to_vec(), filters.iter().rev().copied().collect()];
        for filters in &mut orders {
            let broker = broker();
            let (mut a, mut sender) = (Peer::new(&broker, "a"), Peer::new(&broker, "sender"));
            a.subscribe(filters);
            assert_eq!(sender.publish("t", b"1"), 1, "{filters:?}");
            assert_eq!(a.payloads(), ["1"], "{filters:?}");
            fill(&mut sender, &a);
            let result = sender.blocking(Op::Publish, "t", "");
            assert_eq!(result.is_blocked(), *deciding == "plain", "{filters:?}");
            assert!(a.take().is_empty(), "{filters:?}");
            a.drain();
            let later = if *deciding == "latest" { 1 } else { 0 };
            assert_eq!(a.take().len(), later, "{filters:?}");
        }
    }
}

#[test]
fn shorter_intervals_decide() {
    let broker = broker();
    let (mut a, mut sender) = (Peer::new(&broker, "a"), Peer::new(&broker, "sender"));
    a.subscribe(&["$every/86400000/t", "$every/1/#"]);
    for number in 0..3 {
        sender.publish("t", number.to_string().as_bytes());
        wait_for(|| (a.payloads() == [number.to_string()]).then_some(()));
    }
}

#[test]
fn exclusions_and_publications_for_one_primary_concern_options_too() {
    let broker = broker();
    let (mut a, mut b) = (Peer::new(&broker, "a"), Peer::new(&broker, "b"));
    let mut second = Peer::new(&broker, "b%%2");
    let mut sender = Peer::new(&broker, "sender");
    a.subscribe(&["$lossy/#"]);
    b.subscribe(&["$share/g/#"]);
    second.subscribe(&["$share/g/#"]);
    assert_eq!(a.filters(Op::Exclude, &["x/#"]), Code::Ok);
    assert_eq!((sender.publish("x/1", b"1"), a.take().len()), (1, 0));
    assert_eq!((sender.publish("y", b"2"), a.take().len()), (2, 1));
    assert_eq!(sender.publish_for("y", "a", b"3"), 1);
    assert_eq!(a.payloads(), ["3"]);
    b.take();
    second.take();
    for _ in 0..4 {
        assert_eq!(sender.publish_for("y", "b", b"4"), 1, "one member of the group");
    }
    assert_eq!((b.take().len(), second.take().len()), (2, 2), "a secondary is a member of its own");
    assert_eq!(sender.publish_for("y", "b%%2", b"5"), 0);
    assert_eq!(b.filters(Op::Exclude, &["y"]), Code::Ok);
    (0..3).for_each(|_| assert_eq!(sender.publish("y", b"6"), 2));
    assert_eq!((b.take().len(), second.take().len()), (0, 3));
}
