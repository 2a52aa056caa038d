//! Pauses of sending: nothing is sent while the frames of a mixed run are delivered to its recipients. Owns
//! how many pauses can overlap; [`Connection::write`] observes them.

use std::sync::Arc;

use super::{Connection, SendState};

/// Pauses that can overlap before sending goes on.
const MAX_JOINED_PAUSES: u32 = 16;

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
    }
}
