//! Deliveries decoded in pieces equal those decoded at once, and encode to the same bytes.
#![no_main]

use elbus_protocol::delivery::{
    Delivery, DeliveryHead, NOP, RUN_SLACK, decode_delivery, encode_ack, encode_run,
};
use elbus_protocol::rpc::decode_rpc;
use elbus_protocol::{FrameError, FrameKind, Limits};
use libfuzzer_sys::fuzz_target;

const LIMITS: Limits = Limits { max_frame_bytes: 4096 };

/// Encodes a delivery again.
fn encode(delivery: &Delivery<'_>) -> Vec<u8> {
    let (kind, realtime, sender, topic, payload) = match *delivery {
        Delivery::Nop => return NOP.to_vec(),
        Delivery::Ack { op_id, code } => return encode_ack(op_id, code).to_vec(),
        Delivery::Message { sender, payload, realtime } => {
            (FrameKind::Message, realtime, sender, "", payload)
        }
        Delivery::Broadcast { sender, payload, realtime } => {
            (FrameKind::Broadcast, realtime, sender, "", payload)
        }
        Delivery::Publish { sender, topic, payload, realtime } => {
            (FrameKind::Publish, realtime, sender, topic, payload)
        }
    };
    let _ = decode_rpc(payload);
    let head = DeliveryHead { kind, realtime, sender, topic };
    let len = head.encoded_len(payload.len(), 1);
    let mut out = vec![0xAA; len + RUN_SLACK];
    assert_eq!(encode_run(&mut out, &head, [payload]), len);
    out.truncate(len);
    out
}

fn feed<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Vec<u8>>, Option<FrameError>) {
    let (mut frames, mut rest) = (vec![], vec![]);
    for piece in pieces {
        rest.extend_from_slice(piece);
        let mut pos = 0;
        loop {
            match decode_delivery(&rest[pos..], &LIMITS) {
                Ok(Some((delivery, used))) => {
                    let again = encode(&delivery);
                    let mut wire = rest[pos..pos + used].to_vec();
                    // ignored by clients: the rest of a NOP, and values of the real-time byte beyond 0 and 1
                    match delivery {
                        Delivery::Nop => wire.copy_from_slice(&NOP),
                        Delivery::Ack { .. } => {}
                        _ => wire[5] = u8::from(wire[5] != 0),
                    }
                    assert_eq!(again, wire);
                    frames.push(again);
                    pos += used;
                }
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
        rest.drain(..pos);
    }
    (frames, None)
}

fuzz_target!(|data: &[u8]| {
    let Some((size, wire)) = data.split_first() else { return };
    let whole = feed([wire].into_iter());
    assert_eq!(feed(wire.chunks(usize::from(*size).max(1))), whole);
});
