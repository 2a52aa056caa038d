//! Pauses of sending: nothing is sent while the frames of a mixed run are delivered to its recipients. Owns
//! how many pauses can overlap and how long they can last; [`Connection::write`] observes them.

use std::sync::Arc;

use super::{Connection, Deferred, SendState};

/// Pauses that can overlap before sending goes on.
const MAX_JOINED_PAUSES: u16 = 16;
/// Ticks of housekeeping after which pauses end by themselves: a timeout.
const MAX_PAUSE_TICKS: u16 = 16;
/// Ticks between two keep-alives.
pub(crate) const NOP_TICKS: u16 = 8;

impl Connection {
    /// Ends a pause of sending, and sends what was to be sent meanwhile.
    pub(crate) fn resume_sending(self: &Arc<Self>) {
        let mut out = self.lock();
        out.pauses = out.pauses.saturating_sub(1);
        if out.pauses > 0 || !std::mem::take(&mut out.is_write_due) {
            return;
        }
        let after = self.write(&mut out);
        drop(out);
        self.finish(after);
    }

    /// Housekeeping has found a pause, `ticks` after it has last looked. Pauses to which none was added for a
    /// timeout end: a sink of another plugin does not return. Frames that are sent then can arrive before
    /// earlier ones of their sender at that sink.
    pub(crate) fn check_pauses(self: &Arc<Self>, out: &mut SendState, ticks: u16) -> Deferred {
        out.paused_ticks = out.paused_ticks.saturating_add(ticks);
        if out.paused_ticks < MAX_PAUSE_TICKS {
            return Deferred::default();
        }
        let (client, pauses) = (self.name(), out.pauses);
        tracing::warn!(client, pauses, "sending resumed: a sender has paused it for too long");
        (out.pauses, out.is_write_due) = (0, false);
        self.write(out)
    }
}

impl SendState {
    /// Returns whether sending can be paused. Pauses of several senders overlap; after [`MAX_JOINED_PAUSES`]
    /// none joins, so that sending resumes.
    #[inline]
    pub(crate) fn may_pause(&self) -> bool {
        self.pauses == 0 || self.joined_pauses < MAX_JOINED_PAUSES
    }

    /// Pauses sending until [`Connection::resume_sending`].
    #[inline]
    pub(crate) fn pause(&mut self) {
        self.joined_pauses = if self.pauses == 0 { 1 } else { self.joined_pauses + 1 };
        self.pauses += 1;
        self.paused_ticks = 0;
    }
}
