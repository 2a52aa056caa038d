//! One connection of a client, over a socket or in process: connecting, restoring subscriptions, detaching.
//! Never reads frames.

use elbus_protocol::Op;

use super::{
    ack_table::PendingAck,
    endpoint::Endpoint,
    handshake::{Registered, register},
    inner::Inner,
    request::operation_text,
    send_queue::QueueError,
};
use crate::{error::Error, events::Status, subscription_state::frame_chunks};

/// A registered connection.
pub(super) enum ActiveLink {
    Socket(Registered),
    #[cfg(feature = "in-process")]
    InProcess,
}

impl Inner {
    /// Connects and registers.
    pub(super) async fn connect(&self) -> Result<ActiveLink, Error> {
        match &self.endpoint {
            Endpoint::Socket(address) => {
                register(address, &self.name, &self.settings).await.map(ActiveLink::Socket)
            }
            #[cfg(feature = "in-process")]
            Endpoint::InProcess(host) => {
                self.in_process.connect(host, &self.name).map(|()| ActiveLink::InProcess)
            }
        }
    }

    /// Makes operations use a connection, after it has restored subscriptions and exclusions.
    pub(super) fn attach(&self, link: &ActiveLink) {
        let subscriptions = self.subscriptions.lock();
        match link {
            ActiveLink::Socket(registered) => {
                self.send_queue.attach(registered.socket.clone());
                for (op, filters) in subscriptions.operations() {
                    frame_chunks(&filters).for_each(|filters| self.restore_filters(op, filters));
                }
            }
            #[cfg(feature = "in-process")]
            ActiveLink::InProcess => self.in_process.restore(&subscriptions),
        }
        drop(subscriptions);
        self.events.set(Status::Connected);
    }

    /// Stops using the connection; operations in flight fail.
    pub(super) fn detach(&self, reason: &Error) {
        self.send_queue.detach(reason);
        #[cfg(feature = "in-process")]
        self.in_process.detach(reason);
        self.demux.calls.fail_all(reason);
    }

    /// Requests filters again that an earlier connection had.
    fn restore_filters(&self, op: Op, filters: &[&str]) {
        let owned = filters.iter().map(|filter| (*filter).to_owned()).collect();
        let ack = PendingAck::Restore { op, filters: owned };
        let error = match self.send_queue.change_filters(op, filters, ack) {
            Ok(_) => return,
            Err(QueueError::Full) => "the filters exceed queue_bytes".to_owned(),
            Err(QueueError::Failed(error)) => error.to_string(),
        };
        let (operation, filter, count) = (operation_text(op), filters.first(), filters.len());
        tracing::warn!(operation, filter, count, error, "cannot restore topic filters");
    }

    /// Requests each half of filters that were refused together, because one refused filter affects all
    /// others of its frame. Filters that are no longer in use are left out.
    pub(super) fn restore_in_halves(&self, op: Op, filters: &[String]) {
        let subscriptions = self.subscriptions.lock();
        let (first, second) = filters.split_at(filters.len() / 2);
        for half in [first, second] {
            let in_use = half.iter().map(String::as_str).filter(|filter| subscriptions.includes(op, filter));
            let in_use: Vec<_> = in_use.collect();
            if !in_use.is_empty() {
                self.restore_filters(op, &in_use);
            }
        }
    }
}
