//! A node that has the key and means no good.

use super::*;
use crate::wire::{List, ListPart, RunHead, append_list, append_payload, begin_run, end_run};

/// Returns the number of the next batch from `mill` to `press`.
pub(super) fn next(mill: &mut Node, now: Duration) -> u64 {
    let outbox = mill.outbox("press");
    outbox.append_list(List::Interest, 0, &[], true);
    mill.poll(now);
    mill.published.iter().map(|(_, bytes)| number(bytes, "press")).max().unwrap()
}

/// Has `press` receive records as the next batch of `mill`.
pub(super) fn inject(mill: &mut Node, press: &mut Node, records: &[u8], now: Duration) {
    let sequence = next(mill, now);
    press.bridge.received(&here(), forge(mill, "press", sequence, records), now);
    press.poll(now);
}

pub(super) fn head<'a>(sender: &'a str, target: &'a str) -> RunHead<'a> {
    let (op, qos) = (Op::Message, Qos::PROCESSED);
    RunHead { op, qos, window: 1, reference: 5, sender, target }
}

pub(super) fn run(head: &RunHead<'_>) -> Vec<u8> {
    let mut records = Vec::new();
    let at = begin_run(&mut records, head);
    append_payload(&mut records, b"x");
    end_run(&mut records, at, 1);
    records
}

#[test]
fn strangers_and_other_versions_are_counted() {
    let (mut mill, mut press, now) = pair();
    mill.send("io.a", ("press", "io.b"), b"x", 1);
    mill.poll(now);
    let (_, batch) = mill.published.pop().unwrap();
    let mut changed = batch.to_vec();
    changed[60] ^= 1;
    press.bridge.received(&here(), changed.into(), now);
    press.bridge.received(&Destination::All, batch.clone(), now);
    press.bridge.received(&here(), Bytes::from_static(b""), now);
    press.bridge.received(&here(), vec![0xEB; 5 << 20].into(), now);
    let mut version = batch.to_vec();
    version[2] = 9;
    press.bridge.received(&here(), version.into(), now);
    assert_eq!((press.count(ReportKind::Stranger), press.count(ReportKind::Version)), (4, 1));
    press.poll(now);
    let reports = press.take(|output| if let Output::Report(report) = output { Some(report) } else { None });
    assert!(reports.iter().any(|report| report.kind == ReportKind::Stranger && report.count >= 1));
    press.bridge.received(&here(), batch, now);
    press.poll(now);
    assert_eq!(press.dispatches().len(), 1, "the batch itself is good");
}

#[test]
fn a_hundred_thousand_names_are_cut_off() {
    let (mut mill, mut press, now) = pair();
    press.outputs.clear();
    for part in 0..100_u64 {
        let names: Vec<String> = (0..1000).map(|name| format!("n{part}.{name}")).collect();
        let mut records = Vec::new();
        let kind = match part {
            0 => ListPart::First,
            99 => ListPart::Last,
            _ => ListPart::Next,
        };
        append_list(&mut records, List::Names, 900, kind, names.iter().map(|name| (true, &**name)));
        inject(&mut mill, &mut press, &records, now);
    }
    let registered = press.take(|output| matches!(output, Output::RegisterProxy { .. }).then_some(()));
    assert_eq!(registered.len(), 20_000);
    assert_eq!(press.count(ReportKind::NamesOverLimit), 80_000);
    assert!(press.is_up("mill"));
}

#[test]
fn invalid_names_are_counted_and_not_registered() {
    let (mut mill, mut press, now) = pair();
    press.outputs.clear();
    let long = "x".repeat(2000);
    let mut records = Vec::new();
    let names = ["@evil.a", "", "a\0b", ".broker", "a.*", &long, "io.good"];
    append_list(&mut records, List::Names, 900, ListPart::Only, names.map(|name| (true, name)).into_iter());
    inject(&mut mill, &mut press, &records, now);
    let registered = press.take(|output| match output {
        Output::RegisterProxy { name, .. } => Some(name.to_string()),
        _ => None,
    });
    assert_eq!(registered, ["@mill.io.good"]);
    assert_eq!(press.count(ReportKind::NamesInvalid), 6);
    let mut results = Vec::new();
    for (sender, target) in
        [("@x.y", "io.b"), ("", "io.b"), ("a\0", "io.b"), (long.as_str(), "io.b"), ("a", "io.b\0")]
    {
        inject(&mut mill, &mut press, &run(&head(sender, target)), now);
        results.push(press.dispatches().len());
    }
    assert_eq!(results, [0; 5]);
    for target in ["", "@mill.a", ".broker", "secret"] {
        inject(&mut mill, &mut press, &run(&head("a", target)), now);
        assert!(press.dispatches().is_empty(), "{target:?}");
    }
    let mut broadcast = head("a", "io.*");
    broadcast.op = Op::Broadcast;
    inject(&mut mill, &mut press, &run(&broadcast), now);
    assert!(press.dispatches().is_empty(), "masks are resolved by the sender");
}

#[test]
fn senders_that_are_not_listed_are_bounded() {
    let (mut mill, mut press, now) = pair();
    press.outputs.clear();
    let mut left = 0;
    for sender in 0..1500 {
        inject(&mut mill, &mut press, &run(&head(&format!("s{sender}"), "io.b")), now);
        left += press.take(|output| matches!(output, Output::RemoveProxy { .. }).then_some(())).len();
    }
    assert_eq!(left, 1500 - 1024);
    assert_eq!(press.bridge.peers["mill"].link.as_ref().unwrap().proxies.len(), 1024 + 1);
}

#[test]
fn malformed_contents_end_the_link_for_a_while() {
    let bad: [&[u8]; 4] = [
        b"\x99\0\0\0\0",
        b"\x10\xFF\xFF\xFF\xFF",
        // a beacon, and the acknowledgement of a batch that was never sent
        b"\x01\x11\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        b"\x21\x08\0\0\0\0\0\0\x01\0\0\0\0",
    ];
    for records in bad {
        let (mut mill, mut press, now) = pair();
        inject(&mut mill, &mut press, records, now);
        assert!(!press.is_up("mill"), "{records:?}");
        assert_eq!(press.count(ReportKind::Malformed), 1);
        let now = pass(&mut [&mut mill, &mut press], now, 8.0);
        assert!(!press.is_up("mill"));
        pass(&mut [&mut mill, &mut press], now, 5.0);
        assert!(press.is_up("mill") && mill.is_up("press"), "{records:?}");
    }
}

#[test]
fn lost_ranges_that_overlap_or_descend_end_the_link() {
    let range = |first: u64, count: u64| [first.to_le_bytes(), count.to_le_bytes()].concat();
    for ranges in [
        [range(1, 1), range(1, 1)].concat(),
        [range(2, 1), range(1, 1)].concat(),
        range(1, 0),
        vec![range(1, 1); 100_000].concat(),
    ] {
        let (mut mill, mut press, now) = pair();
        for completion in 0..4 {
            press.send("io.b", ("mill", "io.a"), b"x", completion);
            press.poll(now);
        }
        let upto = press.published.iter().map(|(_, bytes)| number(bytes, "mill")).max().unwrap();
        press.published.clear();
        let body = [&upto.to_le_bytes()[..], &ranges].concat();
        let records = [&[0x21][..], &(body.len() as u32).to_le_bytes(), &body].concat();
        inject(&mut mill, &mut press, &records, now);
        // ranges of batches that were acknowledged before are of no consequence
        assert!(press.completions().len() <= 4);
    }
}

#[test]
fn pieces_that_are_never_completed_are_bounded() {
    let (mut mill, mut press, now) = pair();
    let mut records = Vec::new();
    for transfer in 0..500 {
        let piece = &[7; 1000][..];
        let first = Record::FirstPiece { transfer, total: 1 << 20, head: head("a", "io.b"), piece };
        append_record(&mut records, &first);
    }
    // pieces of unknown messages, at wrong places, and of too long ones
    append_record(&mut records, &Record::NextPiece { transfer: 9999, offset: 5, piece: b"x" });
    append_record(&mut records, &Record::NextPiece { transfer: 1, offset: 5, piece: b"x" });
    let total = u32::MAX;
    append_record(
        &mut records,
        &Record::FirstPiece { transfer: 600, total, head: head("a", "io.b"), piece: b"x" },
    );
    inject(&mut mill, &mut press, &records, now);
    assert_eq!(press.bridge.nodes(now)[0].incomplete, 63);
    assert_eq!(press.count(ReportKind::WindowExceeded), 500 - 64 + 1);
    assert_eq!(press.count(ReportKind::Incomplete), 2);
    assert!(press.is_up("mill") && press.dispatches().is_empty());
}

#[test]
fn runs_beyond_the_window_of_the_node_are_refused() {
    let start = seconds(10.0);
    let mut configured = settings("press");
    configured.limits = Limits { node_window: 10_000, max_message_bytes: 5_000, ..Limits::default() };
    let mut press = Node::with(configured, "press", 22, start);
    press.bridge.local_registered("io.b");
    let mut mill = Node::new("mill", 11, start);
    let now = pass(&mut [&mut mill, &mut press], start, 3.0);
    press.outputs.clear();
    // nothing is dispatched
    for _ in 0..200 {
        inject(&mut mill, &mut press, &run(&head("a", "io.b")), now);
    }
    assert!(press.dispatches().len() <= 100);
    assert!(press.count(ReportKind::WindowExceeded) >= 100);
}

#[test]
fn results_and_windows_that_belong_to_nothing_are_counted() {
    let (mut mill, mut press, now) = pair();
    let mut records = b"\x20\x09\0\0\0\x63\0\0\0\0\0\0\0\x01".to_vec();
    records.extend_from_slice(b"\x22\x0C\0\0\0\x63\0\0\0\0\0\0\0\xFF\xFF\xFF\xFF");
    inject(&mut mill, &mut press, &records, now);
    assert_eq!(press.count(ReportKind::UnknownResult), 1);
    assert_eq!(press.count(ReportKind::UnknownWindow), 1);
    assert!(press.is_up("mill"));
}

#[test]
fn a_gap_of_billions_and_the_last_numbers_are_harmless() {
    let (mut mill, mut press, now) = pair();
    press.bridge.received(&here(), forge(&mill, "press", 1 << 40, b""), now);
    press.poll(now);
    assert!(press.is_up("mill") && press.count(ReportKind::BatchesLost) > 1 << 39);
    press.bridge.received(&here(), forge(&mill, "press", u64::MAX, b""), now);
    press.poll(now);
    assert!(!press.is_up("mill"));
    mill.poll(now);
}

#[test]
fn nodes_beyond_the_limit_are_not_known() {
    let (mut mill, mut press, now) = pair();
    for node in 0..200 {
        let name = format!("node{node}");
        let header = Header {
            kind: BatchKind::Hello,
            from_epoch: 5,
            to_epoch: 0,
            from_session: 1,
            to_session: 0,
            sequence: 0,
            node: &name,
        };
        let mut bytes = Vec::new();
        header.seal(&mut bytes, &BatchKey::new(&settings("press"), Some("press")));
        press.bridge.received(&here(), bytes.into(), now);
    }
    assert_eq!(press.bridge.nodes(now).len(), 64);
    assert_eq!(press.count(ReportKind::NodesOverLimit), 200 - 63);
    let now = pass(&mut [&mut mill, &mut press], now, 40.0);
    assert_eq!(press.bridge.nodes(now).len(), 1, "they are forgotten");
}

#[test]
fn a_peer_that_acknowledges_nothing_is_lost() {
    let (mut mill, mut press, mut now) = pair();
    mill.send("io.a", ("press", "io.b"), b"x", 1);
    mill.poll(now);
    mill.published.clear();
    let end = now + seconds(4.0);
    while now < end {
        // press goes on talking, and hears nothing
        now += Duration::from_millis(100);
        for node in [&mut mill, &mut press] {
            node.bridge.tick(now);
            node.poll(now);
        }
        mill.published.clear();
        for (_, bytes) in std::mem::take(&mut press.published) {
            mill.bridge.received(&here(), bytes, now);
        }
    }
    assert!(!mill.is_up("press") && !press.is_up("mill"));
    assert!(mill.completions().contains(&(1, Code::Timeout)));
}
