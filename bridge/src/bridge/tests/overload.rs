//! A node that has the key and sends more than it can ever need: memory and work stay bounded.

use super::{hostile::*, *};
use crate::wire::{List, ListPart, RunHead, append_list, append_payload, begin_run, end_run};

/// Returns `mill`, and `press` with these limits.
fn pair_with(limits: Limits) -> (Node, Node, Duration) {
    let start = seconds(10.0);
    let mut configured = settings("press");
    configured.limits = limits;
    let mut press = Node::with(configured, "press", 22, start);
    press.bridge.local_registered("io.b");
    let mut mill = Node::new("mill", 11, start);
    let now = pass(&mut [&mut mill, &mut press], start, 3.0);
    press.outputs.clear();
    (mill, press, now)
}

fn first_piece(transfer: u32, total: u32, piece: &[u8]) -> Vec<u8> {
    let mut records = Vec::new();
    append_record(&mut records, &Record::FirstPiece { transfer, total, head: head("a", "io.b"), piece });
    records
}

#[test]
fn messages_in_pieces_have_a_limit_in_bytes_while_they_grow() {
    let limits = Limits { node_window: 10_000, max_message_bytes: 5_000, ..Limits::default() };
    let (mut mill, mut press, now) = pair_with(limits);
    for transfer in 0..20 {
        inject(&mut mill, &mut press, &first_piece(transfer, 5_000, &[7; 100]), now);
    }
    assert_eq!(press.bridge.nodes(now)[0].incomplete, 20);
    for transfer in 0..20 {
        let mut records = Vec::new();
        append_record(&mut records, &Record::NextPiece { transfer, offset: 100, piece: &[7; 4_000] });
        inject(&mut mill, &mut press, &records, now);
    }
    let incomplete = press.bridge.nodes(now)[0].incomplete;
    assert!(incomplete * 4_100 <= 25_000, "{incomplete} messages with 4,100 bytes each");
    assert_eq!(press.count(ReportKind::WindowExceeded), 20 - incomplete as u64);
    assert!(press.is_up("mill"));
}

#[test]
fn refused_pieces_do_not_make_room_for_runs() {
    let (mut mill, mut press, now) = pair();
    for _ in 0..100 {
        inject(&mut mill, &mut press, &run(&head("a", "io.b")), now);
    }
    let parked = press.bridge.nodes(now)[0].parked_bytes;
    assert_eq!(parked, 100 * 256, "nothing was dispatched");
    for transfer in 0..200 {
        inject(&mut mill, &mut press, &first_piece(transfer, 2, b"x"), now);
    }
    assert_eq!(press.count(ReportKind::WindowExceeded), 200 - 64);
    assert_eq!(press.bridge.nodes(now)[0].parked_bytes, parked);
}

#[test]
fn names_that_come_and_go_faster_than_the_broker_follows_end_the_link() {
    let limits = Limits { max_names: 100, ..Limits::default() };
    let (mut mill, mut press, now) = pair_with(limits);
    let mut records = Vec::new();
    append_list(&mut records, List::Names, 900, ListPart::Only, [].into_iter());
    for change in 0..3000_u64 {
        let toggle = [(change % 2 == 0, "n")].into_iter();
        append_list(&mut records, List::Names, 901 + change, ListPart::Delta, toggle);
    }
    let mut batches = 0;
    while press.is_up("mill") && batches < 100 {
        let sequence = next(&mut mill, now);
        press.bridge.received(&here(), forge(&mill, "press", sequence, &records), now);
        batches += 1;
    }
    assert!(batches < 40, "{batches} batches of 3,000 changes");
    assert_eq!(press.count(ReportKind::Malformed), 1);
    press.poll(now);
    let outputs = press.outputs.len();
    assert!(outputs < 65_536 + 100 * 8 + 3000 + 500, "{outputs} outputs");
}

#[test]
fn results_that_a_node_does_not_acknowledge_end_the_link() {
    let (mut mill, mut press, now) = pair();
    let mut records = Vec::new();
    for window in 0..8192 {
        let head = RunHead { window, ..head("a", "secret") };
        let at = begin_run(&mut records, &head);
        append_payload(&mut records, b"x");
        end_run(&mut records, at, 1);
    }
    let mut batches = 0;
    while press.is_up("mill") && batches < 200 {
        let sequence = next(&mut mill, now);
        press.bridge.received(&here(), forge(&mill, "press", sequence, &records), now);
        if batches % 2 == 0 {
            press.poll(now);
        }
        batches += 1;
    }
    // a result and a window for each run
    assert!((60..=140).contains(&batches), "{batches} batches of 8,192 runs");
}

#[test]
fn runs_that_wait_do_not_keep_a_batch_that_is_much_longer() {
    let (mut mill, mut press, now) = pair();
    let mut records = run(&head("a", "io.b"));
    for _ in 0..10_000 {
        append_record(&mut records, &Record::Ping);
    }
    let sequence = next(&mut mill, now);
    let batch = forge(&mill, "press", sequence, &records);
    press.bridge.received(&here(), batch.clone(), now);
    press.poll(now);
    let mut waits = press.dispatches();
    assert_eq!(waits.len(), 1);
    assert!(batch.is_unique(), "the run was copied out of the batch");
    // of a batch that consists of runs, a run keeps it until it has to wait
    let records = [run(&head("a", "io.b")), run(&head("c", "io.b")), run(&head("d", "io.b"))].concat();
    let sequence = next(&mut mill, now);
    let batch = forge(&mill, "press", sequence, &records);
    press.bridge.received(&here(), batch.clone(), now);
    press.poll(now);
    let mut runs = press.dispatches();
    press.bridge.blocked(runs.remove(0));
    runs.clear();
    waits.clear();
    assert!(batch.is_unique(), "the run that waits was copied");
}

#[test]
fn lists_of_filters_that_are_replaced_take_time_in_proportion_to_their_length() {
    let limits = Limits { max_filters: 50_000, max_filters_bytes: 10 << 20, ..Limits::default() };
    let (mut mill, mut press, now) = pair_with(limits);
    let begin = std::time::Instant::now();
    for version in 0..2_u64 {
        let filters: Vec<String> = (0..50_000).map(|number| format!("t/{version}/{number}")).collect();
        let mut records = Vec::new();
        let filters = filters.iter().map(|filter| (true, &**filter));
        append_list(&mut records, List::Interest, 900 + version, ListPart::Only, filters);
        inject(&mut mill, &mut press, &records, now);
    }
    let changes = press.take(|output| match output {
        Output::Interest { added, removed, .. } => Some((added.len(), removed.len())),
        _ => None,
    });
    assert_eq!(changes, [(50_000, 0), (50_000, 50_000)]);
    assert!(begin.elapsed() < Duration::from_secs(30), "{:?}", begin.elapsed());
}
