//! Presence: names, duplicate nodes, aliases, names that are taken.

use super::*;

fn registered(output: Output<u32>) -> Option<String> {
    if let Output::RegisterProxy { name, .. } = output { Some(name.to_string()) } else { None }
}

fn removed(output: Output<u32>) -> Option<RemoveReason> {
    if let Output::RemoveProxy { reason, .. } = output { Some(reason) } else { None }
}

#[test]
fn exported_names_become_proxies_and_leave_with_their_node() {
    let (mut mill, mut press, now) = pair();
    assert_eq!(mill.take(registered), ["@press.io.b"], "hidden is not exported");
    press.bridge.local_registered("io.b%%1");
    exchange(&mut [&mut mill, &mut press], now);
    assert_eq!(mill.take(registered), ["@press.io.b%%1"]);
    press.bridge.local_left("io.b%%1");
    exchange(&mut [&mut mill, &mut press], now);
    assert_eq!(mill.take(removed), [RemoveReason::Left]);
    // press falls silent
    let now = pass(&mut [&mut mill], now, 2.5);
    assert!(mill.is_up("press"));
    pass(&mut [&mut mill], now, 0.7);
    assert_eq!(mill.take(removed), [RemoveReason::NodeLost(LostReason::Silent)]);
    assert!(!mill.is_up("press"));
}

#[test]
fn a_node_that_stops_is_lost_at_once() {
    let (mut mill, mut press, now) = pair();
    mill.outputs.clear();
    press.bridge.stop(now);
    exchange(&mut [&mut mill, &mut press], now);
    assert_eq!(mill.take(removed), [RemoveReason::NodeLost(LostReason::Stopped)]);
}

#[test]
fn a_lost_change_is_followed_by_a_snapshot() {
    let (mut mill, mut press, now) = pair();
    press.bridge.local_registered("io.c");
    press.poll(now);
    press.published.clear();
    press.bridge.local_registered("io.d");
    mill.outputs.clear();
    pass(&mut [&mut mill, &mut press], now, 0.5);
    let mut names = mill.take(registered);
    names.sort_unstable();
    assert_eq!(names, ["@press.io.c", "@press.io.d"]);
    assert!(mill.count(ReportKind::BatchesLost) >= 1);
}

#[test]
fn the_first_of_two_nodes_with_one_name_keeps_it() {
    let (mut mill, mut press, now) = pair();
    let mut second = Node::new("press", 5, now);
    let now = pass(&mut [&mut mill, &mut press, &mut second], now, 5.0);
    let state = |node: &mut Node| {
        node.take(|output| if let Output::OwnName(state) = output { Some(state) } else { None })
    };
    assert_eq!(state(&mut second), [OwnName::Listening, OwnName::Taken]);
    assert!(mill.is_up("press") && press.is_up("mill") && !second.is_up("mill"));
    assert_eq!(mill.bridge.peers["press"].link.as_ref().unwrap().peer_epoch, 22);
    // the name becomes free
    press.bridge.stop(now);
    exchange(&mut [&mut mill, &mut press, &mut second], now);
    pass(&mut [&mut mill, &mut second], now, 5.0);
    assert_eq!(state(&mut second), [OwnName::Claimed]);
    assert!(mill.is_up("press") && second.is_up("mill"));
}

#[test]
fn two_nodes_that_start_together_agree_on_one() {
    let now = seconds(1.0);
    for epochs in [(1, 2), (2, 1)] {
        let (mut one, mut other) = (Node::new("mill", epochs.0, now), Node::new("mill", epochs.1, now));
        pass(&mut [&mut one, &mut other], now, 5.0);
        let has_name = [one.bridge.claim.has_name(), other.bridge.claim.has_name()];
        assert_eq!(has_name, [epochs.0 < epochs.1, epochs.1 < epochs.0]);
    }
}

#[test]
fn a_restarted_node_replaces_its_former_start() {
    let (mut mill, press, now) = pair();
    drop(press);
    let mut press = Node::new("press", 33, now);
    press.bridge.local_registered("io.new");
    mill.outputs.clear();
    pass(&mut [&mut mill, &mut press], now, 3.6);
    assert_eq!(mill.take(registered), ["@press.io.new"]);
    assert_eq!(mill.bridge.peers["press"].link.as_ref().unwrap().peer_epoch, 33);
}

#[test]
fn repeated_batches_of_earlier_starts_begin_nothing_and_claim_nothing() {
    let start = seconds(10.0);
    let (mut mill, mut press) = (Node::new("mill", 11, start), Node::new("press", 22, start));
    let mut recorded = Vec::new();
    let mut now = start;
    for _ in 0..400 {
        now += Duration::from_millis(10);
        for node in [&mut mill, &mut press] {
            node.bridge.tick(now);
            node.poll(now);
        }
        recorded.extend(press.published.iter().cloned());
        exchange(&mut [&mut mill, &mut press], now);
    }
    assert!(mill.is_up("press"));
    let mut mill = Node::new("mill", 12, now);
    let mut other = Node::new("press", 44, now);
    let end = now + seconds(8.0);
    while now < end {
        now += Duration::from_millis(100);
        for (to, bytes) in &recorded {
            mill.bridge.received(to, bytes.clone(), now);
            other.bridge.received(to, bytes.clone(), now);
        }
        for node in [&mut mill, &mut other] {
            node.bridge.tick(now);
            node.poll(now);
            node.published.clear();
        }
    }
    assert!(!mill.is_up("press"), "no link with what is repeated");
    assert!(other.bridge.claim.has_name(), "and the name is free");
    assert!(mill.count(ReportKind::Replay) > 0);
}

#[test]
fn a_name_that_is_taken_is_registered_once_it_is_free() {
    let start = seconds(10.0);
    let mut configured = settings("mill");
    configured.imports = Imports::new(&["@press.io.b as pump"], &[]).unwrap();
    let mut mill = Node::with(configured, "mill", 11, start);
    let mut press = Node::new("press", 22, start);
    press.bridge.local_registered("io.b");
    press.bridge.local_registered("io.c");
    let now = pass(&mut [&mut mill, &mut press], start, 3.0);
    let id = mill.proxy("press", "io.b");
    assert_eq!(mill.take(registered), ["pump"]);
    mill.bridge.proxy_refused(id);
    mill.bridge.local_left("pump");
    exchange(&mut [&mut mill, &mut press], now);
    assert_eq!(mill.take(registered), ["pump"]);
    assert_eq!(mill.count(ReportKind::NamesTaken), 1);
}

#[test]
fn a_name_that_a_lost_node_had_is_registered_for_the_node_that_waits_for_it() {
    let start = seconds(10.0);
    let mut configured = settings("mill");
    configured.imports = Imports::new(&["@press.io.b as pump", "@saw.io.b as pump"], &[]).unwrap();
    let mut mill = Node::with(configured, "mill", 11, start);
    let (mut press, mut saw) = (Node::new("press", 22, start), Node::new("saw", 33, start));
    press.bridge.local_registered("io.b");
    saw.bridge.local_registered("io.b");
    let now = pass(&mut [&mut mill, &mut press, &mut saw], start, 3.0);
    assert_eq!(mill.take(registered), ["pump", "pump"]);
    // the broker has registered the one of press only
    let waiting = mill.proxy("saw", "io.b");
    mill.bridge.proxy_refused(waiting);
    press.bridge.stop(now);
    exchange(&mut [&mut mill, &mut press, &mut saw], now);
    let outputs = mill.take(|output| match output {
        Output::RemoveProxy { .. } => Some("removed".to_owned()),
        output => registered(output),
    });
    assert_eq!(outputs, ["removed", "pump"]);
}

#[test]
fn refused_clients_are_tried_again_unless_they_have_left_or_a_local_client_has_their_name() {
    let (mut mill, mut press, now) = pair();
    for name in ["io.c", "io.d"] {
        press.bridge.local_registered(name);
    }
    exchange(&mut [&mut mill, &mut press], now);
    mill.outputs.clear();
    for name in ["io.b", "io.c", "io.d"] {
        let refused = mill.proxy("press", name);
        mill.bridge.proxy_refused(refused);
    }
    assert_eq!(mill.bridge.refused_clients(), 3);
    press.bridge.local_left("io.c");
    exchange(&mut [&mut mill, &mut press], now);
    assert_eq!(mill.bridge.refused_clients(), 2);
    mill.bridge.retry_refused(|name| name != "@press.io.d");
    mill.poll(now);
    assert_eq!(mill.take(registered), ["@press.io.b"]);
    assert_eq!(mill.bridge.refused_clients(), 1);
    press.bridge.stop(now);
    exchange(&mut [&mut mill, &mut press], now);
    assert_eq!(mill.bridge.refused_clients(), 0);
}

#[test]
fn a_snapshot_of_which_a_part_was_lost_removes_nothing() {
    let (mut mill, mut press, now) = pair();
    for name in 0..3000 {
        press.bridge.local_registered(&format!("io.{name}"));
    }
    let now = pass(&mut [&mut mill, &mut press], now, 0.2);
    assert_eq!(mill.bridge.nodes(now)[0].names, 3001);
    mill.outputs.clear();
    press.bridge.peers.get_mut("mill").unwrap().link.as_mut().unwrap().sending.names_due = Some(now);
    press.bridge.tick(now);
    press.poll(now);
    assert!(press.published.len() >= 3, "the list has several batches");
    press.published.remove(1);
    let now = pass(&mut [&mut mill, &mut press], now, 1.0);
    assert!(mill.take(removed).is_empty());
    assert_eq!((mill.bridge.nodes(now)[0].names, mill.count(ReportKind::BatchesLost)), (3001, 1));
    // what was lost was sent again, and later changes are understood
    press.bridge.local_left("io.7");
    exchange(&mut [&mut mill, &mut press], now);
    assert_eq!(mill.take(removed), [RemoveReason::Left]);
}

#[test]
fn a_batch_without_names_that_is_lost_within_a_snapshot_is_followed_by_another_one() {
    let (mut mill, mut press, now) = pair();
    for name in 0..3000 {
        press.bridge.local_registered(&format!("io.{name}"));
    }
    // so that more may be in flight
    for number in 0..4 {
        press.send("io.b", ("mill", "io.a"), &[7; 200_000], number);
    }
    let now = pass(&mut [&mut mill, &mut press], now, 0.2);
    press.send("io.b", ("mill", "io.a"), &[7; 200_000], 5);
    press.bridge.local_left("io.8");
    press.poll(now);
    press.published.clear();
    press.bridge.peers.get_mut("mill").unwrap().link.as_mut().unwrap().sending.names_due = Some(now);
    press.send("io.b", ("mill", "io.a"), &[7; 200_000], 6);
    press.bridge.tick(now);
    press.poll(now);
    // pieces of the message are between the parts of the list
    let is_piece = |at: &usize| press.published[*at].1.len() > 60_000;
    let between = (1..press.published.len() - 1).find(is_piece).unwrap();
    press.published.remove(between);
    let now = pass(&mut [&mut mill, &mut press], now, 1.5);
    assert_eq!(mill.bridge.nodes(now)[0].names, 3000);
}

#[test]
fn changes_that_a_slow_node_does_not_take_become_one_snapshot() {
    let (mut mill, mut press, now) = pair();
    for _ in 0..40_000 {
        press.bridge.local_registered("io.comes and goes");
        press.bridge.local_left("io.comes and goes");
        press.bridge.interest_changed([], ["t/1"]);
        press.bridge.interest_changed(["t/1"], []);
    }
    press.bridge.local_registered("io.new");
    press.bridge.interest_changed([], ["t/2"]);
    let queued = press.bridge.nodes(now)[0].queued_bytes;
    assert!(queued < (1 << 20) + 1000, "{queued} bytes wait");
    // nor do snapshots pile up
    for time in 0..1000_u32 {
        let link = press.bridge.peers.get_mut("mill").unwrap().link.as_mut().unwrap();
        link.sending.names_due = Some(now);
        link.sending.interest_due = Some(now);
        link.alive_at = now;
        press.bridge.tick(now + Duration::from_micros(time.into()));
    }
    let queued = press.bridge.nodes(now)[0].queued_bytes;
    assert!(queued < (1 << 20) + 2000, "{queued} bytes wait");
    let now = pass(&mut [&mut mill, &mut press], now + Duration::from_millis(1), 1.0);
    assert_eq!((mill.bridge.nodes(now)[0].names, mill.bridge.nodes(now)[0].filters), (2, 1));
}

#[test]
fn interest_is_what_is_imported_there_and_exported_here() {
    let (mut mill, mut press, now) = pair();
    mill.outputs.clear();
    press.bridge.interest_changed([], ["#"]);
    press.bridge.interest_changed([], ["other/x"]);
    press.bridge.interest_changed([], ["t/1"]);
    exchange(&mut [&mut mill, &mut press], now);
    let interest = |output| match output {
        Output::Interest { added, removed, .. } => Some((added, removed)),
        _ => None,
    };
    let changes: Vec<_> = mill.take(interest);
    let added: Vec<String> = changes.iter().flat_map(|(added, _)| added.clone()).collect();
    assert_eq!(added, ["t/#", "t/1"]);
    press.bridge.interest_changed(["#"], []);
    exchange(&mut [&mut mill, &mut press], now);
    assert_eq!(mill.take(interest), [(vec![], vec!["t/#".to_owned()])]);
}

/// Filters that end, filters that begin, and how many the other node begins and ends.
type Step<'f> = (&'f [&'f str], &'f [&'f str], (usize, usize));

#[test]
fn a_list_of_filters_that_changes_as_a_whole_arrives_as_a_whole() {
    let (mut mill, mut press, now) = pair();
    let texts: Vec<String> = (0..5000).map(|number| format!("t/{number:05}")).collect();
    let filters: Vec<&str> = texts.iter().map(String::as_str).collect();
    let interest = |output| match output {
        Output::Interest { added, removed, .. } => Some((added.len(), removed.len())),
        _ => None,
    };
    let steps: [Step<'_>; 4] = [
        (&[], &filters[..4000], (4000, 0)),
        // beyond the limit: the imports stand for all of them
        (&[], &filters[4000..], (1, 4000)),
        // and few enough again
        (&filters[3000..], &[], (3000, 1)),
        // other ones
        (&filters[..3000], &filters[3000..], (2000, 3000)),
    ];
    let mut now = now;
    for (removed, added, expected) in steps {
        mill.outputs.clear();
        press.bridge.interest_changed(removed.iter().copied(), added.iter().copied());
        now = pass(&mut [&mut mill, &mut press], now, 1.0);
        // in one step: nothing is missed, and nothing that was known is replayed
        assert_eq!(mill.take(interest), [expected]);
    }
    assert_eq!(mill.bridge.nodes(now)[0].filters, 2000);
}

#[test]
fn interest_that_one_client_ends_and_another_one_begins_has_no_gap() {
    let (mut mill, mut press, now) = pair();
    press.bridge.interest_changed([], ["t/1", "t/2"]);
    exchange(&mut [&mut mill, &mut press], now);
    mill.outputs.clear();
    press.bridge.interest_changed(["t/1", "t/2"], ["t/3", "t/1"]);
    exchange(&mut [&mut mill, &mut press], now);
    let changes = mill.take(|output| match output {
        Output::Interest { added, removed, .. } => Some((added, removed)),
        _ => None,
    });
    assert_eq!(changes, [(vec!["t/3".to_owned()], vec!["t/2".to_owned()])]);
}
