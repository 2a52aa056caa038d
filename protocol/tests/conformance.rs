//! Runs the cases of `conformance/`: whole, split at every byte, and one byte at a time.

mod support;

use elbus_protocol::delivery::{Delivery, decode_delivery};
use elbus_protocol::handshake::{HandshakeError, Progress, ServerHandshake};
use elbus_protocol::request::{REQUEST_HEADER_BYTES, RunBuffer, RunHead, Step, filters, next_run};
use elbus_protocol::rpc::{RpcDecodeError, RpcFrame, decode_rpc};
use elbus_protocol::subscription::{DeliveryMode, Sharing, Subscription, SubscriptionError};
use elbus_protocol::{FrameError, Limits, Op};
use support::{Case, Event, Outcome, cases};

/// Splits each case into pieces in every relevant way and compares the outcomes.
fn run(file: &str, feed: impl Fn(&[&[u8]], &Limits) -> Outcome) {
    let cases = cases(file);
    assert!(cases.len() > 15);
    for Case { title, limit, input, expected } in cases {
        let limits = Limits { max_frame_bytes: limit };
        assert_eq!(feed(&[&input], &limits), expected, "{title}: whole");
        let step = input.len() / 4096 + 1;
        for cut in (0..=input.len()).step_by(step) {
            let (left, right) = input.split_at(cut);
            assert_eq!(feed(&[left, right], &limits), expected, "{title}: cut at {cut}");
        }
        let single: Vec<&[u8]> = input.chunks(step).collect();
        assert_eq!(feed(&single, &limits), expected, "{title}: {step} bytes at a time");
    }
}

#[test]
fn handshake() {
    run(include_str!("../conformance/handshake.txt"), |pieces, _| {
        let (mut out, mut rest, mut server) = (Outcome::default(), vec![], ServerHandshake::new());
        let mut over = false;
        out.end = "more".to_owned();
        for piece in pieces {
            rest.extend_from_slice(piece);
            while !over {
                let used = match server.advance(&rest) {
                    Ok(Progress::NeedMore) => break,
                    Ok(Progress::Greeted { consumed } | Progress::RingsAsked { consumed, .. }) => {
                        out.events.push(Event::new("greeted", &[]));
                        consumed
                    }
                    Ok(Progress::Name { consumed, name }) => {
                        over = true;
                        out.events.push(Event::new("name", &[("name", name.as_bytes())]));
                        consumed
                    }
                    Err(error) => {
                        let kind = match error {
                            HandshakeError::BadGreeting { .. } => "bad-greeting",
                            HandshakeError::NameNotUtf8 => "name-not-utf8",
                            _ => "other",
                        };
                        out.end = format!("error {kind} {:02x}", error.reply() as u8);
                        return out;
                    }
                };
                rest.drain(..used);
            }
        }
        if over {
            out.end = format!("rest {}", rest.len());
        }
        out
    });
}

#[test]
fn requests() {
    run(include_str!("../conformance/requests.txt"), |pieces, limits| {
        let (mut out, mut rest, mut wanted) = (Outcome::default(), vec![], REQUEST_HEADER_BYTES);
        for piece in pieces {
            rest.extend_from_slice(piece);
            let mut pos = 0;
            let mut buffer = RunBuffer::<&[u8]>::new();
            loop {
                match next_run(&rest, &mut pos, limits, &mut buffer) {
                    Ok(Step::Run(head)) => {
                        let frames = buffer.op_ids.iter().zip(&buffer.payloads).take(head.len);
                        out.events.extend(frames.map(|(op_id, payload)| request(&head, *op_id, payload)));
                    }
                    Ok(Step::Incomplete { needed }) => {
                        assert!(needed > rest.len() - pos);
                        wanted = needed;
                        break;
                    }
                    Err(error) => {
                        out.end = frame_error(&error);
                        return out;
                    }
                }
            }
            rest.drain(..pos);
        }
        let end = rest.is_empty() && (!out.events.is_empty() || pieces.iter().any(|piece| !piece.is_empty()));
        out.end = if end { "end".to_owned() } else { format!("more {wanted}") };
        out
    });
}

fn request(head: &RunHead<'_>, op_id: u32, payload: &[u8]) -> Event {
    let kind = match head.op {
        Op::Publish => "publish",
        Op::Subscribe => "subscribe",
        Op::Unsubscribe => "unsubscribe",
        Op::Exclude => "exclude",
        Op::Unexclude => "unexclude",
        Op::PublishFor => "publish-for",
        Op::Message => "message",
        Op::Broadcast => "broadcast",
    };
    let (op_id, qos) = (op_id.to_le_bytes(), [head.qos.bits()]);
    let mut fields: Vec<(&str, &[u8])> = vec![("op_id", &op_id), ("qos", &qos)];
    if head.op.is_topic_op() {
        assert_eq!(head.target.as_bytes(), payload);
        fields.extend(filters(head.target).map(|filter| ("filter", filter.as_bytes())));
    } else {
        fields.push(("target", head.target.as_bytes()));
        if head.op == Op::PublishFor {
            fields.push(("receiver", head.receiver.as_bytes()));
        }
        fields.push(("payload", payload));
    }
    Event::new(kind, &fields)
}

#[test]
fn deliveries() {
    run(include_str!("../conformance/deliveries.txt"), |pieces, limits| {
        let (mut out, mut rest) = (Outcome::default(), vec![]);
        for piece in pieces {
            rest.extend_from_slice(piece);
            let mut pos = 0;
            loop {
                match decode_delivery(&rest[pos..], limits) {
                    Ok(Some((delivery, used))) => {
                        pos += used;
                        out.events.push(event(&delivery));
                    }
                    Ok(None) => break,
                    Err(error) => {
                        out.end = frame_error(&error);
                        return out;
                    }
                }
            }
            rest.drain(..pos);
        }
        let end = rest.is_empty() && !out.events.is_empty();
        out.end = if end { "end" } else { "more" }.to_owned();
        out
    });
}

fn event(delivery: &Delivery<'_>) -> Event {
    match *delivery {
        Delivery::Nop => Event::new("nop", &[]),
        Delivery::Ack { op_id, code } => {
            Event::new("ack", &[("op_id", &op_id.to_le_bytes()), ("code", &[code])])
        }
        Delivery::Message { sender, payload, realtime }
        | Delivery::Broadcast { sender, payload, realtime } => {
            let broadcast = matches!(delivery, Delivery::Broadcast { .. });
            let kind = if broadcast { "broadcast" } else { "message" };
            let realtime = [u8::from(realtime)];
            Event::new(kind, &[("sender", sender.as_bytes()), ("payload", payload), ("realtime", &realtime)])
        }
        Delivery::Publish { sender, topic, payload, realtime } => {
            let texts = [("sender", sender.as_bytes()), ("topic", topic.as_bytes())];
            let rest = [("payload", payload), ("realtime", &[u8::from(realtime)][..])];
            Event::new("publish", &[texts, rest].concat())
        }
    }
}

fn frame_error(error: &FrameError) -> String {
    match error {
        FrameError::UnknownOp { .. } => "error unknown-op".to_owned(),
        FrameError::UnknownKind { .. } => "error unknown-kind".to_owned(),
        FrameError::TooLong { .. } => "error too-long".to_owned(),
        FrameError::MissingNul { field } => format!("error missing-nul {field}"),
        FrameError::NotUtf8 { field } => format!("error not-utf8 {field}"),
        _ => format!("error {error}"),
    }
}

#[test]
fn rpc() {
    run(include_str!("../conformance/rpc.txt"), |pieces, _| {
        let payload = pieces.concat();
        let frame = match decode_rpc(&payload) {
            Ok(frame) => frame,
            Err(error) => {
                let kind = match error {
                    RpcDecodeError::Empty => "empty",
                    RpcDecodeError::UnknownKind { .. } => "unknown-kind",
                    RpcDecodeError::Truncated { .. } => "truncated",
                    RpcDecodeError::MissingNul => "missing-nul",
                    _ => "other",
                };
                return Outcome { events: vec![], end: format!("error {kind}") };
            }
        };
        let event = match frame {
            RpcFrame::Notification { payload } => Event::new("notification", &[("payload", payload)]),
            RpcFrame::Request { call_id, method, params } => {
                let id = call_id.to_le_bytes();
                Event::new("request", &[("call_id", &id), ("method", method), ("params", params)])
            }
            RpcFrame::Reply { call_id, result } => {
                Event::new("reply", &[("call_id", &call_id.to_le_bytes()), ("result", result)])
            }
            RpcFrame::Error { call_id, code, data } => {
                let (id, code) = (call_id.to_le_bytes(), code.to_le_bytes());
                Event::new("error", &[("call_id", &id), ("code", &code), ("data", data)])
            }
        };
        Outcome { events: vec![event], end: "end".to_owned() }
    });
}

#[test]
fn subscriptions() {
    run(include_str!("../conformance/subscriptions.txt"), |pieces, _| {
        let text = String::from_utf8(pieces.concat()).unwrap();
        let parsed = match Subscription::parse(&text) {
            Ok(parsed) => parsed,
            Err(error) => {
                let kind = match error {
                    SubscriptionError::Group => "group",
                    SubscriptionError::Levels => "levels",
                    SubscriptionError::Interval => "interval",
                    SubscriptionError::Order => "order",
                    SubscriptionError::NoFilter => "no-filter",
                    _ => "other",
                };
                return Outcome { events: vec![], end: format!("error {kind}") };
            }
        };
        assert_eq!(parsed.to_string(), text, "one spelling");
        assert_eq!(text.get(parsed.options_len()..), Some(parsed.filter));
        let (mut fields, number): (Vec<(&str, &[u8])>, _) = (
            vec![],
            match parsed.mode {
                DeliveryMode::Every { millis } => millis.to_le_bytes(),
                _ => [0; 4],
            },
        );
        let count = match parsed.sharing {
            Sharing::Key { levels, .. } => [levels],
            _ => [0],
        };
        match parsed.sharing {
            Sharing::None => {}
            Sharing::Share { group } => fields.push(("share", group.as_bytes())),
            Sharing::Key { group, .. } => fields.extend([("key", group.as_bytes()), ("levels", &count)]),
        }
        match parsed.mode {
            DeliveryMode::Queued => {}
            DeliveryMode::Lossy => fields.push(("mode", b"lossy")),
            DeliveryMode::Latest => fields.push(("mode", b"latest")),
            DeliveryMode::Every { .. } => fields.extend([("mode", &b"every"[..]), ("millis", &number)]),
        }
        fields.push(("filter", parsed.filter.as_bytes()));
        Outcome { events: vec![Event::new("subscription", &fields)], end: "end".to_owned() }
    });
}
