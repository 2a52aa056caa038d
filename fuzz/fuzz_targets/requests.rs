//! Requests parsed in pieces equal those parsed at once, frame by frame.
#![no_main]

use elbus_protocol::request::{RunBuffer, Step, filters, next_run};
use elbus_protocol::{FrameError, Limits, Op, Qos};
use libfuzzer_sys::fuzz_target;

const LIMITS: Limits = Limits { max_frame_bytes: 4096 };

type Frame = (Op, Qos, String, String, u32, Vec<u8>);

fn feed<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Frame>, Option<FrameError>) {
    let (mut frames, mut rest, mut wanted) = (vec![], vec![], 0);
    for piece in pieces {
        rest.extend_from_slice(piece);
        let (mut pos, mut buffer) = (0, RunBuffer::<&[u8]>::new());
        loop {
            let before = pos;
            match next_run(&rest, &mut pos, &LIMITS, &mut buffer) {
                Ok(Step::Run(head)) => {
                    assert!(rest.len() >= wanted);
                    wanted = 0;
                    assert!(pos > before && head.len > 0);
                    let (target, receiver) = (head.target, head.receiver);
                    assert!(head.op.is_topic_op() || !target.contains('\0'));
                    assert!(!receiver.contains('\0'));
                    assert!(filters(target).count() > 0);
                    for (op_id, payload) in buffer.op_ids.iter().zip(&buffer.payloads).take(head.len) {
                        let texts = (target.to_owned(), receiver.to_owned());
                        frames.push((head.op, head.qos, texts.0, texts.1, *op_id, payload.to_vec()));
                    }
                }
                Ok(Step::Incomplete { needed }) => {
                    assert!(needed > rest.len() - pos);
                    wanted = if needed > 9 { needed } else { 0 };
                    break;
                }
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
    assert_eq!(feed(wire.chunks(1)), whole);
});
