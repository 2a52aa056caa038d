//! A stranger without the key that repeats what nodes have published before.

use super::*;

/// Returns what an earlier start of a node has published outside of links.
fn recorded(kind: BatchKind, from: &'static str, epoch: u64, to: Option<&str>) -> (Destination, Bytes) {
    let mut bytes = vec![0; Header::len(from)];
    if kind == BatchKind::Beacon {
        append_record(&mut bytes, &Record::Beacon { has_name: true, count: 1000, contender: 0 });
    }
    let session = u64::from(kind == BatchKind::Hello);
    let header = Header {
        kind,
        from_epoch: epoch,
        to_epoch: 0,
        from_session: session,
        to_session: 0,
        sequence: 0,
        node: from,
    };
    header.seal(&mut bytes, &BatchKey::new(&settings(from), to));
    (to.map_or(Destination::All, |_| here()), bytes.into())
}

#[test]
fn hellos_of_earlier_starts_do_not_keep_a_link_from_beginning() {
    let start = seconds(10.0);
    for (interval, starts) in [(200, 1), (10, 7)] {
        let (mut mill, mut press) = (Node::new("mill", 11, start), Node::new("press", 22, start));
        let mut now = start;
        while now < start + seconds(8.0) {
            now += Duration::from_millis(interval);
            for earlier in 100..100 + starts {
                let (_, hello) = recorded(BatchKind::Hello, "mill", earlier, Some("press"));
                press.bridge.received(&here(), hello, now);
                let (_, hello) = recorded(BatchKind::Hello, "press", earlier, Some("mill"));
                mill.bridge.received(&here(), hello, now);
            }
            for node in [&mut mill, &mut press] {
                node.bridge.tick(now);
                node.poll(now);
                if now < start + seconds(3.0) {
                    // they have their names before they hear each other
                    node.published.clear();
                }
            }
            exchange(&mut [&mut mill, &mut press], now);
        }
        assert!(mill.is_up("press") && press.is_up("mill"), "{starts} starts each {interval} ms");
    }
}

#[test]
fn hellos_of_an_earlier_link_do_not_keep_the_next_one_from_beginning() {
    let (mut mill, mut press, mut now) = pair();
    // both fall silent for each other
    for _ in 0..40 {
        now += Duration::from_millis(100);
        for node in [&mut mill, &mut press] {
            node.bridge.tick(now);
            node.poll(now);
            node.published.clear();
        }
    }
    assert!(!mill.is_up("press") && !press.is_up("mill"));
    let end = now + seconds(4.0);
    while now < end {
        now += Duration::from_millis(100);
        let (_, hello) = recorded(BatchKind::Hello, "mill", 11, Some("press"));
        press.bridge.received(&here(), hello, now);
        let (_, hello) = recorded(BatchKind::Hello, "press", 22, Some("mill"));
        mill.bridge.received(&here(), hello, now);
        for node in [&mut mill, &mut press] {
            node.bridge.tick(now);
        }
        exchange(&mut [&mut mill, &mut press], now);
    }
    assert!(mill.is_up("press") && press.is_up("mill"));
    let link = |node: &Node, of: &str| {
        let link = node.bridge.peers[of].link.as_ref().unwrap();
        (link.session, link.peer_session)
    };
    let (own, other) = (link(&mill, "press"), link(&press, "mill"));
    assert_eq!(own, (other.1, other.0), "both agree on the sessions");
}

#[test]
fn beacons_of_earlier_starts_do_not_end_the_link_of_a_node_that_pauses() {
    let (mut mill, mut press, mut now) = pair();
    let end = now + seconds(2.7);
    while now < end {
        now += Duration::from_millis(100);
        let (to, beacon) = recorded(BatchKind::Beacon, "press", 21, None);
        mill.bridge.received(&to, beacon, now);
        mill.bridge.tick(now);
        mill.poll(now);
    }
    assert!(mill.is_up("press"), "a short interruption changes nothing");
    assert!(mill.bridge.next_deadline() > now, "nothing is due all the time");
    let now = pass(&mut [&mut mill, &mut press], now, 5.0);
    assert!(mill.is_up("press") && press.is_up("mill"));
    let lost = mill.take(|output| matches!(output, Output::NodeLost { .. }).then_some(()));
    assert!(lost.is_empty(), "lost {} times", lost.len());
    // it ends when the node stays silent
    pass(&mut [&mut mill], now, 3.5);
    assert!(!mill.is_up("press"));
}

#[test]
fn a_refusal_of_the_name_has_no_effect_once_the_name_is_free() {
    let (mut mill, mut press, mut now) = pair();
    let mut second = Node::new("press", 5, now);
    let mut refusals = Vec::new();
    let end = now + seconds(4.0);
    while now < end {
        now += Duration::from_millis(10);
        for node in [&mut mill, &mut press, &mut second] {
            node.bridge.tick(now);
        }
        second.poll(now);
        for (to, bytes) in std::mem::take(&mut second.published) {
            press.bridge.received(&to, bytes, now);
        }
        press.poll(now);
        let beacons = press.published.iter().filter(|(to, _)| *to == Destination::All);
        refusals.extend(beacons.cloned());
        exchange(&mut [&mut press, &mut mill, &mut second], now);
    }
    assert!(refusals.len() > 4);
    assert!(!second.bridge.claim.has_name());
    press.bridge.stop(now);
    exchange(&mut [&mut mill, &mut press, &mut second], now);
    drop(press);
    let mut now = pass(&mut [&mut mill, &mut second], now, 5.0);
    assert!(second.bridge.claim.has_name() && mill.is_up("press"));
    let end = now + seconds(4.0);
    while now < end {
        for (to, bytes) in &refusals {
            second.bridge.received(to, bytes.clone(), now);
        }
        now = pass(&mut [&mut mill, &mut second], now, 0.5);
        assert!(second.bridge.claim.has_name() && mill.is_up("press") && second.is_up("mill"));
    }
}

#[test]
fn beacons_of_earlier_starts_do_not_keep_a_second_node_of_the_name_from_being_refused() {
    let (mut mill, mut press, mut now) = pair();
    let mut second = Node::new("press", 5, now);
    let end = now + seconds(4.0);
    while now < end {
        now += Duration::from_millis(5);
        for earlier in 100..105 {
            let (to, beacon) = recorded(BatchKind::Beacon, "press", earlier, None);
            press.bridge.received(&to, beacon, now);
        }
        for node in [&mut mill, &mut press, &mut second] {
            node.bridge.tick(now);
        }
        exchange(&mut [&mut mill, &mut press, &mut second], now);
        assert!(!second.bridge.claim.has_name());
    }
    assert!(press.bridge.claim.has_name() && mill.is_up("press"));
    assert_eq!(mill.bridge.peers["press"].link.as_ref().unwrap().peer_epoch, 22);
}
