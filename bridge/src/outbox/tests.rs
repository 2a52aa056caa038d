//! Chunks, windows, results, and the order of long messages.

use super::*;
use crate::wire::{Record, next_record};
use bytes::Bytes;

const HEAD: usize = 10;

fn limits() -> Limits {
    Limits {
        batch_bytes: 400,
        piece_bytes: 500,
        receiver_window: 2000,
        publication_window: 2000,
        ..Limits::default()
    }
}

/// Returns an outbox with a client `pump`, which is proxy 1.
fn outbox() -> Outbox<u32> {
    let outbox = Outbox::new(&limits(), HEAD);
    outbox.open(ProxyId(1), "pump".into());
    outbox.open(ProxyId(2), "valve".into());
    outbox
}

fn run<'a>(sender: &'a str, qos: Qos, to: To<'a>) -> OutgoingRun<'a> {
    let op = if matches!(to, To::Topic(_)) { Op::Publish } else { Op::Message };
    OutgoingRun { op, qos, sender, to }
}

fn push(outbox: &Outbox<u32>, sender: &str, to: To<'_>, payloads: &[&[u8]]) -> Pushed {
    outbox.push(&run(sender, Qos::NO, to), payloads.iter().copied(), || panic!("nobody waits"))
}

fn push_acknowledged(outbox: &Outbox<u32>, payload: &[u8], completion: u32) -> Pushed {
    let run = run("a", Qos::PROCESSED, To::Client(ProxyId(1)));
    outbox.push(&run, [payload].into_iter(), || Some(completion))
}

/// Returns sender, target, reference and messages of each run of a chunk; pieces have their bytes.
fn runs(chunk: &Chunk) -> Vec<(String, String, u64, Vec<Vec<u8>>)> {
    let mut rest = &chunk.bytes[HEAD..];
    let mut found = Vec::new();
    while !rest.is_empty() {
        match next_record(&mut rest).unwrap() {
            Record::Run { head, count, payloads } => {
                let payloads =
                    crate::Payloads::decode(Bytes::copy_from_slice(payloads), count).expect("well-formed");
                let payloads = payloads.iter().map(<[u8]>::to_vec).collect();
                found.push((head.sender.to_owned(), head.target.to_owned(), head.reference, payloads));
            }
            Record::FirstPiece { head, piece, .. } => {
                let payloads = vec![piece.to_vec()];
                found.push((head.sender.to_owned(), head.target.to_owned(), head.reference, payloads));
            }
            Record::NextPiece { piece, .. } => {
                found.push((String::new(), String::new(), 0, vec![piece.to_vec()]));
            }
            record => panic!("{record:?}"),
        }
    }
    found
}

fn take_all(outbox: &Outbox<u32>) -> Vec<Chunk> {
    std::iter::from_fn(|| outbox.take_chunk()).collect()
}

#[test]
fn consecutive_messages_of_one_sender_to_one_receiver_are_one_run() {
    let outbox = outbox();
    let pump = To::Client(ProxyId(1));
    assert_eq!(push(&outbox, "a", pump, &[b"1", b"2"]), Pushed::Taken { is_full: false, wakes: true });
    assert_eq!(push(&outbox, "a", pump, &[b"3"]), Pushed::Taken { is_full: false, wakes: false });
    push(&outbox, "b", pump, &[b"4"]);
    push(&outbox, "b", To::Topic("t"), &[b"5"]);
    push(&outbox, "b", To::Topic("u"), &[b"6"]);
    let chunks = take_all(&outbox);
    assert_eq!(chunks.len(), 1);
    let text = |text: &str| text.to_owned();
    let expected = [
        (text("a"), text("pump"), 0, vec![b"1".to_vec(), b"2".to_vec(), b"3".to_vec()]),
        (text("b"), text("pump"), 0, vec![b"4".to_vec()]),
        (text("b"), text("t"), 0, vec![b"5".to_vec()]),
        (text("b"), text("u"), 0, vec![b"6".to_vec()]),
    ];
    assert_eq!(runs(&chunks[0]), expected);
    // what the receiver returns is what was counted
    let bytes: usize = chunks[0].entries.iter().map(|entry| entry.bytes).sum();
    assert_eq!(bytes, chunks[0].bytes.len() - HEAD);
    assert_eq!(outbox.outstanding(Some(ProxyId(1))) + outbox.outstanding(None), bytes);
}

#[test]
fn a_run_has_at_most_256_messages_and_a_chunk_its_length() {
    let outbox = Outbox::<u32>::new(&Limits::default(), HEAD);
    outbox.open(ProxyId(1), "pump".into());
    let payloads = vec![&b""[..]; 600];
    push(&outbox, "a", To::Client(ProxyId(1)), &payloads);
    let chunks = take_all(&outbox);
    let counts: Vec<usize> = runs(&chunks[0]).iter().map(|run| run.3.len()).collect();
    assert_eq!(counts, [256, 256, 88]);
    let outbox = self::outbox();
    push(&outbox, "a", To::Client(ProxyId(1)), &[&[7; 100][..]; 10]);
    let chunks = take_all(&outbox);
    assert!(chunks.len() >= 3 && chunks.iter().all(|chunk| chunk.bytes.len() <= 400));
    assert_eq!(chunks.iter().flat_map(runs).map(|run| run.3.len()).sum::<usize>(), 10);
}

#[test]
fn a_result_completes_a_run_once_all_its_parts_have_one() {
    let outbox = outbox();
    push_acknowledged(&outbox, b"x", 1);
    let run = run("a", Qos::PROCESSED, To::Client(ProxyId(1)));
    let payloads = vec![&[7; 200][..]; 5];
    outbox.push(&run, payloads.into_iter(), || Some(2));
    let references: Vec<u64> = take_all(&outbox)
        .iter()
        .flat_map(|chunk| chunk.entries.clone())
        .map(|entry| entry.reference)
        .collect();
    assert_eq!(references[0], 1);
    assert!(references.len() > 2 && references[1..].iter().all(|reference| *reference == 2));
    let mut completed = Vec::new();
    assert_eq!(outbox.results([(1, Code::Ok), (1, Code::Ok), (0, Code::Ok)].into_iter(), &mut completed), 2);
    assert_eq!(completed, [(1, Code::Ok)]);
    completed.clear();
    let parts = references.len() - 1;
    let codes = (0..parts).map(|part| (2, if part == 1 { Code::AccessDenied } else { Code::Ok }));
    outbox.results(codes, &mut completed);
    assert_eq!(completed, [(2, Code::Timeout)], "some of it was delivered");
}

#[test]
fn an_acknowledged_run_that_fits_a_piece_is_not_split() {
    let outbox = outbox();
    push_acknowledged(&outbox, b"x", 1);
    let run = run("a", Qos::PROCESSED, To::Client(ProxyId(1)));
    outbox.push(&run, vec![&[7; 100][..]; 4].into_iter(), || Some(2));
    outbox.push(&run, vec![&[7; 10][..]; 2].into_iter(), || Some(3));
    let chunks = take_all(&outbox);
    let counts: Vec<Vec<usize>> =
        chunks.iter().map(|chunk| runs(chunk).iter().map(|run| run.3.len()).collect()).collect();
    assert_eq!(counts, [vec![1], vec![4], vec![2]]);
    let mut completed = Vec::new();
    outbox.results([(2, Code::NotDelivered)].into_iter(), &mut completed);
    assert_eq!(completed, [(2, Code::NotDelivered)]);
}

#[test]
fn a_window_holds_senders_then_refuses_and_drains() {
    let outbox = outbox();
    let pump = To::Client(ProxyId(1));
    let mut taken = 0;
    while push(&outbox, "a", pump, &[&[0; 300]]) == (Pushed::Taken { is_full: false, wakes: taken == 0 }) {
        taken += 1;
    }
    assert!(outbox.is_full(Some(ProxyId(1))) && (4..8).contains(&taken));
    assert!(!outbox.is_full(Some(ProxyId(2))), "other receivers are not affected");
    while push(&outbox, "a", pump, &[&[0; 300]]) != Pushed::Refused {
        taken += 1;
    }
    assert!(taken < 16);
    assert!(outbox.take_drained().is_empty());
    let mut returned = 0;
    for chunk in take_all(&outbox) {
        let bytes = chunk.bytes.len() - HEAD;
        let batch = Acknowledged { bytes, in_flight: bytes, time: std::time::Duration::ZERO };
        outbox.arrived(batch, &chunk.entries);
        for entry in &chunk.entries {
            assert!(outbox.returned(entry.window, entry.bytes));
            returned += entry.bytes;
        }
    }
    assert!(returned > 4000);
    assert_eq!(outbox.take_drained(), [1]);
    assert!(!outbox.is_full(Some(ProxyId(1))) && outbox.outstanding(Some(ProxyId(1))) == 0);
    assert!(!outbox.returned(1, 1), "nothing is outstanding");
    assert_eq!(outbox.loads(), (0, 0));
}

#[test]
fn long_messages_alternate_with_others_and_keep_the_order_of_their_sender() {
    let outbox = outbox();
    let (pump, valve) = (To::Client(ProxyId(1)), To::Client(ProxyId(2)));
    push(&outbox, "a", pump, &[b"before"]);
    let long: Vec<u8> = (0..1200_u32).map(|byte| byte as u8).collect();
    push(&outbox, "a", pump, &[&long, b"behind"]);
    push(&outbox, "a", pump, &[b"after"]);
    push(&outbox, "a", valve, &[b"other receiver"]);
    push(&outbox, "b", pump, &[b"other sender"]);
    push(&outbox, "a", To::Topic("t"), &[b"publication"]);
    let found: Vec<_> = take_all(&outbox).iter().flat_map(runs).collect();
    let at = |payload: &[u8]| found.iter().position(|run| run.3.iter().any(|p| p == payload)).unwrap();
    let pieces: Vec<u8> =
        found.iter().filter(|run| run.3[0].len() > 100).flat_map(|run| run.3[0].clone()).collect();
    assert_eq!(pieces, long);
    let last_piece = found.iter().rposition(|run| run.3[0].len() > 100).unwrap();
    assert!(at(b"before") < at(&long[..500]));
    assert!(at(b"other receiver") < last_piece && at(b"other sender") < last_piece);
    assert!(last_piece < at(b"behind") && at(b"behind") <= at(b"after") && at(b"after") < at(b"publication"));
    assert_eq!(outbox.loads().0, 0);
}

#[test]
fn a_lost_piece_ends_its_message() {
    let outbox = outbox();
    let run = run("a", Qos::PROCESSED, To::Client(ProxyId(1)));
    outbox.push(&run, [&[1; 2000][..]].into_iter(), || Some(5));
    let first = outbox.take_chunk().unwrap();
    let mut completed = Vec::new();
    let lost = outbox.lost(first.bytes.len() - HEAD, &first.entries, &mut completed);
    assert_eq!((lost, completed), ((1, vec![1]), vec![(5, Code::Timeout)]));
    assert!(outbox.take_chunk().is_none(), "the rest is dropped");
    assert_eq!((outbox.loads(), outbox.outstanding(Some(ProxyId(1)))), ((0, 0), 0));
}

#[test]
fn what_was_never_published_is_not_registered_the_rest_timed_out() {
    let outbox = outbox();
    push_acknowledged(&outbox, b"published", 1);
    outbox.take_chunk().unwrap();
    push_acknowledged(&outbox, b"queued", 2);
    push_acknowledged(&outbox, &[0; 600], 3);
    let mut left = outbox.end();
    left.completed.sort_unstable_by_key(|(completion, _)| *completion);
    let expected = [(1, Code::Timeout), (2, Code::NotRegistered), (3, Code::NotRegistered)];
    assert_eq!((left.completed.as_slice(), left.messages), (&expected[..], 2));
    assert_eq!(push_acknowledged(&outbox, b"later", 4), Pushed::Closed);
}

#[test]
fn what_cannot_travel_is_invalid() {
    let outbox = outbox();
    let pump = To::Client(ProxyId(1));
    let long_name = "x".repeat(1025);
    for sender in ["", "@mill.a", &long_name] {
        assert_eq!(push(&outbox, sender, pump, &[b"x"]), Pushed::Invalid, "{sender:?}");
    }
    for topic in [".broker/warn", "a\0b", &"x".repeat(65_536)] {
        assert_eq!(push(&outbox, "a", To::Topic(topic), &[b"x"]), Pushed::Invalid);
    }
    assert_eq!(push(&outbox, "a", pump, &[]), Pushed::Invalid);
    assert_eq!(push(&outbox, "a", To::Client(ProxyId(9)), &[b"x"]), Pushed::Closed);
    outbox.close(ProxyId(1));
    assert_eq!(push(&outbox, "a", pump, &[b"x"]), Pushed::Closed);
}

#[test]
fn calls_without_a_reply_are_known_and_bounded() {
    let limits = Limits { max_calls: 8, ..limits() };
    let outbox = Outbox::<u32>::new(&limits, HEAD);
    outbox.open(ProxyId(1), "pump".into());
    let pump = To::Client(ProxyId(1));
    let call = |id: u32| rpc::encode_request(id, "m", b"").unwrap();
    push(&outbox, "a", pump, &[&call(1), &call(2), b"\x00notification", &call(0)]);
    assert!(outbox.has_sent("a") && !outbox.has_sent("b"));
    outbox.replied(ProxyId(1), "a", [&rpc::encode_reply(1, b"")[..]].into_iter());
    for id in 100..200 {
        push(&outbox, "b", pump, &[&call(id)]);
        take_all(&outbox);
        outbox.returned(1, 1000);
    }
    assert!(outbox.take_calls_dropped() >= 80);
    let calls = outbox.end().calls;
    assert!(calls.len() <= 8 && calls.iter().all(|call| call.window == 1 && call.call_id >= 100));
}

#[test]
fn references_time_out_below_a_limit() {
    let outbox = outbox();
    push_acknowledged(&outbox, b"x", 1);
    let upto = outbox.next_reference();
    push_acknowledged(&outbox, b"x", 2);
    let mut completed = Vec::new();
    outbox.time_out(upto, &mut completed);
    assert_eq!(completed, [(1, Code::Timeout)]);
}

#[test]
fn the_longest_batch_is_not_longer_than_the_engine_must_carry() {
    let limits = Limits::default();
    let outbox = Outbox::<u32>::new(&limits, HEAD);
    let (sender, topic) = ("s".repeat(limits.max_name_bytes), "t/".repeat(32_767));
    push(&outbox, &sender, To::Topic(&topic), &[&vec![7; limits.piece_bytes]]);
    push(&outbox, &sender, To::Topic(&topic), &[&vec![7; limits.piece_bytes + 1]]);
    let mut longest = 0;
    while let Some(chunk) = outbox.take_chunk() {
        longest = longest.max(chunk.bytes.len());
    }
    // acknowledgements and the MAC follow
    assert!(longest > 128 << 10 && longest + (64 << 10) + 16 <= limits.longest_batch(), "{longest}");
}
