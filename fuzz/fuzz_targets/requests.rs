//! Requests parsed in pieces, or in mixed runs, equal those parsed at once, frame by frame.
#![no_main]

use elbus_protocol::request::{MAX_RUN, MixedEnd, RunBuffer, Step, filters, next_mixed_run, next_run};
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

/// Frames of mixed runs, and of the run behind each.
fn feed_mixed(wire: &[u8], max_body: usize) -> (Vec<Frame>, Option<FrameError>) {
    let (mut frames, mut pos, mut run): (Vec<Frame>, _, _) = (vec![], 0, RunBuffer::<&[u8]>::new());
    loop {
        let (before, first) = (pos, frames.len());
        let end = next_mixed_run(wire, &mut pos, &LIMITS, max_body, |frame| {
            let (target, payload) = frame.body.split_at(frame.target_len as usize);
            let target = std::str::from_utf8(target).unwrap().to_owned();
            assert!(frame.body.len() <= max_body && !frame.qos.is_realtime() && !target.starts_with('.'));
            let is_same = |last: &Frame| (last.0, last.1, &last.2) == (frame.op, frame.qos, &target);
            assert_eq!(frame.repeats, frames[first..].last().is_some_and(is_same));
            frames.push((frame.op, frame.qos, target, String::new(), frame.op_id, payload[1..].to_vec()));
        });
        assert!(pos >= before && pos <= wire.len() && frames.len() - first <= MAX_RUN);
        assert!((end == MixedEnd::Limit) == (frames.len() - first == MAX_RUN));
        match next_run(wire, &mut pos, &LIMITS, &mut run) {
            Ok(Step::Run(head)) => {
                for (op_id, payload) in run.op_ids.iter().zip(&run.payloads).take(head.len) {
                    let texts = (head.target.to_owned(), head.receiver.to_owned());
                    frames.push((head.op, head.qos, texts.0, texts.1, *op_id, payload.to_vec()));
                }
            }
            Ok(Step::Incomplete { .. }) => return (frames, None),
            Err(error) => return (frames, Some(error)),
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((size, wire)) = data.split_first() else { return };
    let whole = feed([wire].into_iter());
    assert_eq!(feed(wire.chunks(usize::from(*size).max(1))), whole);
    assert_eq!(feed(wire.chunks(1)), whole);
    for max_body in [usize::from(*size), 1000] {
        assert_eq!(feed_mixed(wire, max_body), whole);
    }
});
