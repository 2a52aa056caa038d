//! Per-thread memory for reading: a buffer and the vectors of a run. Owns their reuse, so that a batch
//! allocates nothing.

use elbus_plugin_api::{Frame, Op, Payload, Qos};
use elbus_protocol::request::RunBuffer;
use elbus_socket::READ_BYTES;
use std::cell::Cell;

use crate::session::reader::mixed::MixedBuffer;

thread_local! {
    static SCRATCH: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
}

/// The read buffer, and the vectors of runs found in it.
pub(crate) struct Scratch {
    pub(crate) buffer: Box<[u8]>,
    pub(crate) vectors: RunVectors,
}

impl Scratch {
    /// Takes that of this thread, or a new one if it is in use further up the stack.
    #[inline]
    pub(crate) fn take() -> Box<Self> {
        SCRATCH.try_with(Cell::take).ok().flatten().unwrap_or_else(|| {
            Box::new(Scratch {
                buffer: vec![0; READ_BYTES].into_boxed_slice(),
                vectors: RunVectors::default(),
            })
        })
    }

    /// Returns it to this thread.
    #[inline]
    pub(crate) fn give_back(self: Box<Self>) {
        let _ = SCRATCH.try_with(|place| place.set(Some(self)));
    }
}

/// The memory of a [`RunBuffer`] and of a [`MixedBuffer`] between their uses.
#[derive(Default)]
pub(crate) struct RunVectors {
    op_ids: Vec<u32>,
    payloads: Vec<Payload<'static>>,
    mixed_op_ids: Vec<u32>,
    frames: Vec<Frame<'static>>,
    codes: Vec<u8>,
}

impl RunVectors {
    /// Returns vectors for a run that borrows from a buffer; to be [returned](Self::put).
    #[inline]
    pub(crate) fn run<'a>(&mut self) -> RunBuffer<Payload<'a>> {
        RunBuffer { op_ids: std::mem::take(&mut self.op_ids), payloads: std::mem::take(&mut self.payloads) }
    }

    /// Keeps the vectors of a run.
    #[inline]
    pub(crate) fn put(&mut self, run: RunBuffer<Payload<'_>>) {
        self.op_ids = run.op_ids;
        let mut payloads = run.payloads;
        payloads.clear();
        // collects in place: the same memory, without anything that could borrow
        self.payloads = payloads.into_iter().map(|_| Payload::from(&[][..])).collect();
    }

    /// Returns vectors for mixed runs, as [`run`](Self::run); to be [returned](Self::put_mixed).
    #[inline]
    pub(crate) fn mixed<'a>(&mut self) -> MixedBuffer<'a> {
        MixedBuffer {
            op_ids: std::mem::take(&mut self.mixed_op_ids),
            frames: std::mem::take(&mut self.frames),
            codes: std::mem::take(&mut self.codes),
        }
    }

    /// Keeps the vectors of mixed runs.
    #[inline]
    pub(crate) fn put_mixed(&mut self, mixed: MixedBuffer<'_>) {
        self.mixed_op_ids = mixed.op_ids;
        self.codes = mixed.codes;
        let mut frames = mixed.frames;
        frames.clear();
        self.frames = frames.into_iter().map(|_| Frame::new(Op::Message, Qos::NO, &[], 0)).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_a_run_is_kept() {
        let mut scratch = Scratch::take();
        let text = vec![7; 10];
        let mut run = scratch.vectors.run();
        run.payloads.resize(256, Payload::from(&text[..]));
        let address = run.payloads.as_ptr().addr();
        scratch.vectors.put(run);
        drop(text);
        scratch.give_back();
        let mut scratch = Scratch::take();
        let mut mixed = scratch.vectors.mixed();
        mixed.frames.resize(256, Frame::new(Op::Message, Qos::NO, &[], 0));
        let frames = mixed.frames.as_ptr().addr();
        scratch.vectors.put_mixed(mixed);
        assert_eq!(scratch.vectors.mixed().frames.as_ptr().addr(), frames);
        let run = scratch.vectors.run();
        assert!(run.payloads.is_empty());
        assert_eq!((run.payloads.as_ptr().addr(), run.payloads.capacity()), (address, 256));
    }
}
