//! The decoder of frames: what it refuses, and that it loses and adds nothing however frames are cut.

use elbus_testing::websocket::frame;
use proptest::prelude::*;

use super::*;

/// The code of a close frame, if there was one.
type End = Result<Option<CloseCode>, Violation>;

/// Decodes everything in pieces of this length; returns data and pings, and how it ended.
fn decode(wire: &[u8], piece: usize) -> (Vec<u8>, Vec<Vec<u8>>, End) {
    let mut decoder = FrameDecoder::new(Instant::now());
    let (mut data, mut pings) = (vec![], vec![]);
    for chunk in wire.chunks(piece) {
        let mut input = chunk.to_vec();
        let mut at = 0;
        while at < input.len() {
            let count = match decoder.step(&mut input[at..]) {
                Ok(Step::Skip(count)) => count,
                Ok(Step::Data(count)) => {
                    data.extend_from_slice(&input[at..at + count]);
                    count
                }
                Ok(Step::Ping(count)) => {
                    pings.push(decoder.control().to_vec());
                    count
                }
                Ok(Step::Close(code)) => return (data, pings, Ok(Some(code))),
                Err(violation) => return (data, pings, Err(violation)),
            };
            assert!(count > 0, "every step uses input");
            at += count;
        }
    }
    (data, pings, Ok(None))
}

/// The end of a stream of frames.
fn end(wire: &[u8]) -> End {
    let end = decode(wire, wire.len().max(1)).2;
    assert_eq!(decode(wire, 1).2, end, "a byte at a time");
    end
}

#[test]
fn every_violation_is_found_at_its_header() {
    let mut reserved_bit = frame(0x82, b"x");
    reserved_bit[0] |= 0x40;
    let stray = frame(0x80, b"x");
    let interrupted = [frame(0x02, b"x"), frame(0x82, b"y")].concat();
    // 1 byte announced in two, and in eight
    let long_two = [0x82, 0xFE, 0, 1, 0, 0, 0, 0];
    let long_eight = [0x82, 0xFF, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0];
    let huge = [0x82, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    for (wire, violation) in [
        (&frame(0x81, b"text")[..], Violation::Text),
        (&[0x81, 4], Violation::Text),
        (&[0x82, 1, b'x'], Violation::Unmasked),
        (&reserved_bit, Violation::ReservedBit),
        (&frame(0x83, b""), Violation::UnknownOperation),
        (&frame(0x8B, b""), Violation::UnknownOperation),
        (&long_two, Violation::BadLength),
        (&long_eight, Violation::BadLength),
        (&huge, Violation::BadLength),
        (&frame(0x09, b"ping"), Violation::BadControl),
        (&frame(0x89, &[0; 126]), Violation::BadControl),
        (&stray, Violation::StrayContinuation),
        (&interrupted, Violation::Interrupted),
        (&frame(0x88, b"x"), Violation::BadClose),
        (&frame(0x88, &[0x03, 0xED]), Violation::BadClose), // 1005
        (&frame(0x88, &[0x03, 0xE8, 0xFF]), Violation::BadClose),
    ] {
        assert_eq!(end(wire), Err(violation), "{wire:?}");
    }
}

#[test]
fn close_frames_have_their_code() {
    assert_eq!(end(&frame(0x88, b"")), Ok(Some(CloseCode::Normal)));
    assert_eq!(end(&frame(0x88, &[0x03, 0xE9, b'b', b'y', b'e'])), Ok(Some(CloseCode::Away)));
    assert_eq!(end(&frame(0x88, &4000u16.to_be_bytes())), Ok(Some(CloseCode::from(4000))));
    assert_eq!(end(&frame(0x82, b"x")), Ok(None));
}

#[test]
fn frames_without_data_are_limited_unless_data_is_between() {
    let many = EMPTY_FRAMES_AT_ONCE as usize + 200;
    for empty in [frame(0x89, b"ping"), frame(0x8A, b""), frame(0x82, b"")] {
        assert_eq!(end(&empty.repeat(many)), Err(Violation::EmptyFrames), "{empty:?}");
        assert_eq!(end(&empty.repeat(many / 2)), Ok(None), "{empty:?}");
        let with_data = [empty, frame(0x82, b"x")].concat();
        assert_eq!(end(&with_data.repeat(many)), Ok(None));
    }
    // fragments of an empty message
    let fragments = [frame(0x02, b""), frame(0x00, b"").repeat(many)].concat();
    assert_eq!(end(&fragments), Err(Violation::EmptyFrames));
}

#[test]
fn a_declared_length_of_exabytes_is_a_stream_like_any_other() {
    let header = [&[0x82, 0xFF][..], &i64::MAX.to_be_bytes(), &[0; 4]].concat();
    let (data, _, end) = decode(&[&header[..], &[7; 100_000]].concat(), 1000);
    assert_eq!((data, end), (vec![7; 100_000], Ok(None)));
}

#[derive(Debug, Clone)]
enum Part {
    Message(Vec<Vec<u8>>),
    Ping(Vec<u8>),
    Pong,
}

fn part() -> impl Strategy<Value = Part> {
    let fragment = prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..140),
        1 => prop::collection::vec(any::<u8>(), 65_530..65_540),
    ];
    prop_oneof![
        4 => prop::collection::vec(fragment, 1..4).prop_map(Part::Message),
        1 => prop::collection::vec(any::<u8>(), 0..126).prop_map(Part::Ping),
        1 => Just(Part::Pong),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn data_and_pings_arrive_however_they_are_cut(
        parts in prop::collection::vec(part(), 0..12),
        piece in 1usize..5000,
    ) {
        let (mut wire, mut expected, mut expected_pings) = (vec![], vec![], vec![]);
        for part in &parts {
            match part {
                Part::Message(fragments) => {
                    for (index, bytes) in fragments.iter().enumerate() {
                        let first = if index == 0 { 2 } else { 0 };
                        let last = if index + 1 == fragments.len() { 0x80 } else { 0 };
                        wire.extend(frame(first | last, bytes));
                        // a control frame can stand between fragments
                        wire.extend(frame(0x8A, b"pong"));
                        expected.extend_from_slice(bytes);
                    }
                }
                Part::Ping(payload) => {
                    wire.extend(frame(0x89, payload));
                    expected_pings.push(payload.clone());
                }
                Part::Pong => wire.extend(frame(0x8A, b"")),
            }
        }
        let (data, pings, end) = decode(&wire, piece);
        prop_assert!(data == expected);
        prop_assert_eq!(pings, expected_pings);
        prop_assert_eq!(end, Ok(None));
    }

    #[test]
    fn arbitrary_bytes_never_panic_and_give_the_same_result_in_pieces(
        wire in prop::collection::vec(prop_oneof![
            any::<u8>(), Just(0x82u8), Just(0x02), Just(0x80), Just(0x89), Just(0x88), Just(0xFE), Just(0x81),
        ], 0..300),
        piece in 1usize..40,
    ) {
        prop_assert_eq!(decode(&wire, wire.len().max(1)), decode(&wire, piece));
    }
}
