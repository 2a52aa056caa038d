//! The wire form of a mixed run: encoded in place for one recipient, copied or shared for several. Owns that
//! choice; never a lock, a limit or a connection.

use bytes::Bytes;
use elbus_plugin_api::MixedRun;
use elbus_protocol::{
    FrameKind,
    delivery::{RUN_SLACK, encode_mixed_run, mixed_run_len},
};
use elbus_socket::Queue;

use super::wire::PROTOCOL;

/// A mixed run in the form in which it is queued. Made outside the lock of a connection, queued within.
pub struct MixedWire<'r, 'a> {
    len: usize,
    form: Form<'r, 'a>,
    frames: usize,
}

enum Form<'r, 'a> {
    /// For one recipient: written where it is sent from.
    One(&'r MixedRun<'a>),
    /// For several recipients, and long enough to be shared.
    Shared(Bytes),
    /// For several recipients: written once, and copied.
    Copied(&'r [u8]),
}

impl<'r, 'a> MixedWire<'r, 'a> {
    /// Returns the wire form of a mixed run. That of several recipients is encoded by the first of them.
    #[inline]
    pub fn of(run: &'r mut MixedRun<'a>) -> Self {
        let frames = run.len();
        let len = mixed_run_len(run.sender(), run.tail_bytes(), frames);
        let (sender, kinds) = (run.sender(), tails(run));
        if run.encoding().is_none() {
            return MixedWire { len, form: Form::One(run), frames };
        }
        let Some(encoding) = run.encoding() else {
            return MixedWire { len: 0, form: Form::Copied(&[]), frames };
        };
        let encoded = encoding.get_or_make(
            PROTOCOL,
            || len.saturating_add(RUN_SLACK),
            |out| encode_mixed_run(out, sender, kinds),
        );
        let len = encoded.bytes().len();
        let form = match encoded.shared() {
            Some(shared) => Form::Shared(Bytes::from(shared.clone())),
            None => Form::Copied(encoded.bytes()),
        };
        MixedWire { len, form, frames }
    }

    /// Returns its length in bytes.
    #[inline]
    pub fn bytes(&self) -> usize {
        self.len
    }

    /// Appends it to a queue.
    #[inline]
    pub fn push(self, queue: &mut Queue) {
        match self.form {
            Form::One(run) => {
                let room = self.len.saturating_add(RUN_SLACK);
                queue.push_within(room, self.frames, |out| encode_mixed_run(out, run.sender(), tails(run)));
            }
            Form::Shared(bytes) => queue.push_shared(bytes, self.frames),
            Form::Copied(bytes) => queue.push(bytes, self.frames),
        }
    }
}

/// Kind and tail of each frame.
fn tails<'a>(run: &MixedRun<'a>) -> impl Iterator<Item = (FrameKind, &'a [u8])> + use<'a> {
    run.frames().map(|frame| (frame.kind(), frame.tail()))
}
