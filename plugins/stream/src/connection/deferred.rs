//! Work that must not be done under the lock of a connection: calling notifiers, waking the reader, and
//! starting a writer.

use std::{sync::Arc, task::Waker};

use crate::{
    connection::{Connection, acknowledgement_list::PendingAcknowledgements, waiter::Waiter, writer},
    sync,
};

/// Work to do once the lock is released.
#[must_use]
#[derive(Default)]
pub(crate) struct Deferred {
    pub(crate) notifiers: Vec<Waiter>,
    pub(super) reader: Option<Waker>,
    pub(super) write: bool,
    /// To be dropped, which can run code of other plugins.
    pub(super) acknowledgements: Option<Box<PendingAcknowledgements>>,
}

impl Deferred {
    pub(crate) fn merge(&mut self, other: Deferred) {
        self.notifiers.extend(other.notifiers);
        self.reader = self.reader.take().or(other.reader);
        self.write |= other.write;
        self.acknowledgements = self.acknowledgements.take().or(other.acknowledgements);
    }
}

impl Connection {
    /// Does what must not be done under the lock.
    #[inline]
    pub(crate) fn finish(self: &Arc<Self>, after: Deferred) {
        for waiter in after.notifiers {
            waiter.notifier.notify();
        }
        if let Some(reader) = after.reader {
            reader.wake();
        }
        if after.write {
            let writing = self.server.host.attribute(writer::write_until_empty(self.clone()));
            sync::spawn(&self.server.runtime, writing);
        }
    }
}
