//! Properties of all inputs: decoding an encoded frame returns it, splitting input changes nothing, gathering
//! runs equals decoding frame by frame, and no bytes cause a panic.

use elbus_protocol::delivery::{
    Delivery, DeliveryHead, RUN_SLACK, decode_delivery, encode_ack, encode_head, encode_run,
};
use elbus_protocol::handshake::{Progress, ServerHandshake, encode_client_greeting, encode_client_name};
use elbus_protocol::request::{
    MAX_RUN, REQUEST_HEADER_BYTES, RunBuffer, Step, encode_filters, encode_ping, encode_request, filters,
    next_run,
};
use elbus_protocol::rpc::{self, RpcFrame, decode_rpc};
use elbus_protocol::{Field, FrameError, FrameKind, Limits, Op, Qos};
use proptest::collection::vec;
use proptest::prelude::*;

const LIMITS: Limits = Limits { max_frame_bytes: 4096 };

/// A single frame, as a client would describe it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Frame {
    Ping,
    Send { op_id: u32, op: Op, qos: u8, target: String, receiver: String, payload: Vec<u8> },
    Topics { op_id: u32, op: Op, qos: u8, filters: Vec<String> },
}

fn encode(frames: &[Frame]) -> Vec<u8> {
    let mut out = vec![];
    for frame in frames {
        match frame {
            Frame::Ping => encode_ping(&mut out),
            Frame::Send { op_id, op, qos, target, receiver, payload } => {
                encode_request(&mut out, *op_id, *op, Qos::from_bits(*qos), target, receiver, payload)
                    .expect("no NUL");
            }
            Frame::Topics { op_id, op, qos, filters } => {
                let filters = filters.iter().map(String::as_str);
                encode_filters(&mut out, *op_id, *op, Qos::from_bits(*qos), filters).expect("no NUL");
            }
        }
    }
    out
}

/// Returns everything that `next_run` finds, one frame at a time, and how it ends.
type Found = (Vec<Frame>, Result<usize, FrameError>);

fn gather(pieces: &[&[u8]], limits: &Limits) -> Found {
    let (mut frames, mut rest, mut end) = (vec![], vec![], Ok(REQUEST_HEADER_BYTES));
    for piece in pieces {
        rest.extend_from_slice(piece);
        let (mut pos, mut buffer) = (0, RunBuffer::<&[u8]>::new());
        loop {
            match next_run(&rest, &mut pos, limits, &mut buffer) {
                Ok(Step::Run(head)) => {
                    assert!((1..=MAX_RUN).contains(&head.len));
                    let (op, qos) = (head.op, head.qos.bits());
                    for (op_id, payload) in buffer.op_ids.iter().zip(&buffer.payloads).take(head.len) {
                        frames.push(if op.is_topic_op() {
                            let filters = filters(head.target).map(str::to_owned).collect();
                            Frame::Topics { op_id: *op_id, op, qos, filters }
                        } else {
                            let (target, receiver) = (head.target.to_owned(), head.receiver.to_owned());
                            Frame::Send {
                                op_id: *op_id,
                                op,
                                qos,
                                target,
                                receiver,
                                payload: payload.to_vec(),
                            }
                        });
                    }
                }
                Ok(Step::Incomplete { needed }) => {
                    end = Ok(needed);
                    break;
                }
                Err(error) => return (frames, Err(error)),
            }
        }
        rest.drain(..pos);
    }
    (frames, end)
}

/// Implements the specification without optimisations: one frame at a time, byte by byte.
fn naive(mut input: &[u8], limits: &Limits) -> Found {
    let mut frames = vec![];
    loop {
        if input.len() < 9 {
            return (frames, Ok(9));
        }
        let flags = input[4];
        if flags == 0 {
            input = &input[9..];
            continue;
        }
        let Some(op) = Op::from_wire(flags & 63) else {
            return (frames, Err(FrameError::UnknownOp { op: flags & 63 }));
        };
        let declared = u32::from_le_bytes(input[5..9].try_into().expect("four bytes"));
        let len = declared as usize;
        if len > limits.max_frame_bytes {
            return (frames, Err(FrameError::TooLong { len: declared, limit: limits.max_frame_bytes }));
        }
        if input.len() < 9 + len {
            return (frames, Ok(9 + len));
        }
        let op_id = u32::from_le_bytes(input[..4].try_into().expect("four bytes"));
        match naive_body(op_id, op, flags >> 6, &input[9..9 + len]) {
            Ok(frame) => frames.push(frame),
            Err(error) => return (frames, Err(error)),
        }
        input = &input[9 + len..];
    }
}

fn naive_body(op_id: u32, op: Op, qos: u8, body: &[u8]) -> Result<Frame, FrameError> {
    let utf8 =
        |bytes: &[u8], field| String::from_utf8(bytes.to_vec()).map_err(|_| FrameError::NotUtf8 { field });
    let field = match op {
        Op::Message => Field::Target,
        Op::Broadcast => Field::Mask,
        Op::Publish | Op::PublishFor => Field::Topic,
        _ => {
            let filters: Result<_, _> =
                body.split(|byte| *byte == 0).map(|filter| utf8(filter, Field::Filters)).collect();
            return Ok(Frame::Topics { op_id, op, qos, filters: filters? });
        }
    };
    let texts = if op == Op::PublishFor { 2 } else { 1 };
    let parts: Vec<&[u8]> = body.splitn(texts + 1, |byte| *byte == 0).collect();
    if parts.len() <= texts {
        let field = if parts.len() == 2 { Field::Receiver } else { field };
        return Err(FrameError::MissingNul { field });
    }
    let receiver = if texts == 2 { utf8(parts[1], Field::Receiver) } else { Ok(String::new()) };
    let target = utf8(parts[0], field);
    // If two texts are invalid, either may be named; the receiver is named first here.
    let (receiver, target) = (receiver?, target?);
    Ok(Frame::Send { op_id, op, qos, target, receiver, payload: parts[texts].to_vec() })
}

/// A few different texts, so that runs occur; some share a prefix, some are as long as one or two chunks.
fn text() -> impl Strategy<Value = String> {
    let usual = ["a", "a", "a", "ab", "", "b.c", "ünï", "exactly16bytes..", "a-text-of-17-bytes"];
    prop_oneof![
        8 => prop::sample::select(usual.to_vec()).prop_map(str::to_owned),
        2 => (14usize..36).prop_map(|len| "x".repeat(len)),
        1 => "[^\0]{0,40}",
    ]
}

fn frame() -> impl Strategy<Value = Frame> {
    let ops = vec![Op::Message, Op::Message, Op::Broadcast, Op::Publish, Op::PublishFor];
    let send = (prop::sample::select(ops), 0u8..4, any::<u32>(), text(), text(), vec(any::<u8>(), 0..30))
        .prop_map(|(op, qos, op_id, target, receiver, payload)| {
            let receiver = if op == Op::PublishFor { receiver } else { String::new() };
            Frame::Send { op_id, op, qos, target, receiver, payload }
        });
    let ops = vec![Op::Subscribe, Op::Unsubscribe, Op::Exclude, Op::Unexclude];
    let topics = (prop::sample::select(ops), 0u8..4, any::<u32>(), vec(text(), 1..4))
        .prop_map(|(op, qos, op_id, filters)| Frame::Topics { op_id, op, qos, filters });
    prop_oneof![12 => send, 2 => topics, 1 => Just(Frame::Ping)]
}

/// Repeated frames, so that runs occur, some longer than `MAX_RUN`.
fn frames() -> impl Strategy<Value = Vec<Frame>> {
    let times = prop_oneof![6 => 1usize..4, 2 => 4usize..20, 1 => 255usize..260];
    vec((frame(), times), 0..8).prop_map(|groups| {
        groups.into_iter().flat_map(|(frame, times)| std::iter::repeat_n(frame, times)).collect()
    })
}

/// Frames with a few changed bytes: mostly valid up to there.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let change = (any::<prop::sample::Index>(), prop_oneof![Just(0u8), Just(0xFF), any::<u8>()]);
    (frames(), vec(change, 0..4), any::<prop::sample::Index>(), any::<bool>()).prop_map(
        |(frames, changes, end, cut)| {
            let mut wire = encode(&frames);
            for (place, value) in changes {
                if !wire.is_empty() {
                    let place = place.index(wire.len());
                    wire[place] = value;
                }
            }
            if cut {
                wire.truncate(end.index(wire.len() + 1));
            }
            wire
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn requests_decode_to_what_was_encoded(frames in frames()) {
        let wire = encode(&frames);
        let frames: Vec<_> = frames.into_iter().filter(|frame| *frame != Frame::Ping).collect();
        prop_assert_eq!(gather(&[&wire], &LIMITS), (frames, Ok(REQUEST_HEADER_BYTES)));
    }

    #[test]
    fn runs_equal_frame_by_frame(wire in damaged()) {
        prop_assert_eq!(gather(&[&wire], &LIMITS), naive(&wire, &LIMITS));
    }

    #[test]
    fn random_bytes_equal_frame_by_frame(wire in vec(any::<u8>(), 0..200)) {
        prop_assert_eq!(gather(&[&wire], &LIMITS), naive(&wire, &LIMITS));
    }

    #[test]
    fn splitting_requests_changes_nothing(wire in damaged(), at in vec(any::<prop::sample::Index>(), 1..5)) {
        let mut at: Vec<usize> = at.iter().map(|index| index.index(wire.len() + 1)).collect();
        at.extend([0, wire.len()]);
        at.sort_unstable();
        let pieces: Vec<&[u8]> = at.windows(2).map(|ends| &wire[ends[0]..ends[1]]).collect();
        prop_assert_eq!(gather(&pieces, &LIMITS), gather(&[&wire], &LIMITS));
    }

    #[test]
    fn bodies_are_counted(frames in frames()) {
        let wire = encode(&frames);
        let (mut pos, mut buffer, mut count, mut bytes) = (0, RunBuffer::<&[u8]>::new(), 0, 0);
        while let Ok(Step::Run(head)) = next_run(&wire, &mut pos, &LIMITS, &mut buffer) {
            count += head.len;
            bytes += head.body_bytes;
        }
        let pings = frames.len() - count;
        prop_assert_eq!(bytes + (count + pings) * REQUEST_HEADER_BYTES, wire.len());
    }

    #[test]
    fn deliveries_decode_to_what_was_encoded(
        kind in prop::sample::select(vec![FrameKind::Message, FrameKind::Broadcast, FrameKind::Publish]),
        sender in prop_oneof![text(), "[^\0]{50,120}"],
        topic in text(),
        realtime: bool,
        payloads in vec(vec(any::<u8>(), 0..100), 1..10),
        slack in prop_oneof![Just(0), Just(RUN_SLACK), 0..2 * RUN_SLACK],
    ) {
        let head = DeliveryHead { kind, realtime, sender: &sender, topic: &topic };
        let len = head.encoded_len(payloads.iter().map(Vec::len).sum(), payloads.len());
        let mut wire = vec![0xAA; len + slack];
        prop_assert_eq!(encode_run(&mut wire, &head, payloads.iter().map(Vec::as_slice)), len);
        let mut plain = vec![];
        let (mut rest, sender, topic) = (&wire[..len], &*sender, &*topic);
        for payload in &payloads {
            encode_head(&mut plain, &head, payload.len()).expect("short");
            plain.extend_from_slice(payload);
            let payload = &payload[..];
            let expected = match kind {
                FrameKind::Publish => Delivery::Publish { sender, topic, payload, realtime },
                FrameKind::Broadcast => Delivery::Broadcast { sender, payload, realtime },
                _ => Delivery::Message { sender, payload, realtime },
            };
            let (delivery, used) = decode_delivery(rest, &LIMITS).expect("good").expect("whole");
            prop_assert_eq!(delivery, expected);
            for cut in 0..used {
                prop_assert_eq!(decode_delivery(&rest[..cut], &LIMITS), Ok(None));
            }
            rest = &rest[used..];
        }
        prop_assert_eq!(&plain[..], &wire[..len]);
        prop_assert!(rest.is_empty());
    }

    #[test]
    fn acknowledgements_decode_to_what_was_encoded(op_id: u32, code: u8) {
        let ack = Delivery::Ack { op_id, code };
        let wire = encode_ack(op_id, code);
        prop_assert_eq!(decode_delivery(&wire, &LIMITS), Ok(Some((ack, 6))));
    }

    #[test]
    fn a_handshake_yields_the_name(name in "\\PC{0,30}", behind in vec(any::<u8>(), 0..9)) {
        let mut wire = encode_client_greeting().to_vec();
        wire.extend(encode_client_name(&name).expect("short"));
        let used = wire.len() - 3;
        wire.extend(behind);
        let mut server = ServerHandshake::new();
        prop_assert_eq!(server.advance(&wire), Ok(Progress::Greeted { consumed: 3 }));
        prop_assert_eq!(server.advance(&wire[3..]), Ok(Progress::Name { consumed: used, name: &name }));
    }

    #[test]
    fn rpc_decodes_to_what_was_encoded(
        call_id: u32,
        code: i16,
        method in "[^\0]{0,20}",
        data in vec(any::<u8>(), 0..40),
    ) {
        let bytes = &data[..];
        let request = rpc::encode_request(call_id, &method, bytes).expect("no NUL");
        let method = method.as_bytes();
        for (wire, frame) in [
            (rpc::encode_notification(bytes), RpcFrame::Notification { payload: bytes }),
            (request, RpcFrame::Request { call_id, method, params: bytes }),
            (rpc::encode_reply(call_id, bytes), RpcFrame::Reply { call_id, result: bytes }),
            (rpc::encode_error(call_id, code, bytes), RpcFrame::Error { call_id, code, data: bytes }),
        ] {
            prop_assert_eq!(decode_rpc(&wire), Ok(frame));
        }
    }

    #[test]
    fn no_bytes_panic(bytes in vec(any::<u8>(), 0..300), pos: usize) {
        let mut server = ServerHandshake::new();
        let _ = (server.advance(&bytes), server.advance(&bytes), server.advance(&bytes));
        let _ = (decode_rpc(&bytes), decode_delivery(&bytes, &LIMITS));
        let mut pos = pos;
        let _ = next_run(&bytes, &mut pos, &LIMITS, &mut RunBuffer::<&[u8]>::new());
    }
}
