//! Performs topic operations and keeps the subscription state consistent with the broker. Never the public
//! interface.

use elbus_protocol::Op;
use parking_lot::Mutex;

#[cfg(feature = "in-process")]
use super::endpoint::Endpoint;
use super::{
    ack_table::PendingAck,
    inner::Inner,
    request::{PROBE_FILTER, operation_text},
    send_queue::QueueError,
};
use crate::{
    error::Error,
    subscription_state::{FilterUser, SubscriptionState},
};

/// Limit of filters that an error lists.
const LISTED_FILTERS: usize = 5;

impl Inner {
    pub(crate) async fn subscribe(&self, filters: &[&str], user: FilterUser) -> Result<(), Error> {
        let add = |state: &mut SubscriptionState, filter: &str| state.subscribe(filter, user);
        let remove = |state: &mut SubscriptionState, filter: &str| _ = state.unsubscribe(filter, user);
        self.change_or_revert(Op::Subscribe, filters, add, remove).await?;
        self.subscriptions.lock().acknowledge(filters);
        self.demux.filters_changed();
        Ok(())
    }

    pub(crate) async fn unsubscribe(&self, filters: &[&str], user: FilterUser) -> Result<(), Error> {
        let mut unused: Vec<_> = {
            let mut state = self.subscriptions.lock();
            filters.iter().copied().filter(|filter| state.unsubscribe(filter, user)).collect()
        };
        self.demux.filters_changed();
        let changed = self
            .queue_change(Op::Unsubscribe, |state| {
                // another part of the client can have subscribed to a filter again meanwhile
                unused.retain(|filter| !state.is_subscribed(filter));
                (unused.clone(), |_: &mut SubscriptionState| ())
            })
            .await;
        self.allow_disconnected(changed)
    }

    pub(crate) async fn exclude(&self, filters: &[&str]) -> Result<(), Error> {
        let (add, remove) = (SubscriptionState::exclude, SubscriptionState::unexclude);
        self.change_or_revert(Op::Exclude, filters, add, remove).await
    }

    pub(crate) async fn unexclude(&self, filters: &[&str]) -> Result<(), Error> {
        let remove =
            |state: &mut SubscriptionState| filters.iter().for_each(|filter| state.unexclude(filter));
        self.change(Op::Unexclude, filters, remove).await
    }

    /// Performs an operation that changes nothing and is acknowledged.
    pub(crate) async fn probe(&self) -> Result<(), Error> {
        self.queue_change(Op::Unexclude, |_| (vec![PROBE_FILTER], |_: &mut SubscriptionState| ())).await
    }

    /// As [`change`](Self::change). A refusal reverts only what this call has added. So does a timeout, or
    /// the end of the future, after which the broker can have performed it, or will: it gets the opposite
    /// operation.
    async fn change_or_revert(
        &self,
        op: Op,
        filters: &[&str],
        add: impl Fn(&mut SubscriptionState, &str) -> bool,
        remove: impl Fn(&mut SubscriptionState, &str),
    ) -> Result<(), Error> {
        let added = Addition { inner: self, op, filters: Mutex::default(), remove };
        let add_all = |state: &mut SubscriptionState| {
            let new = filters.iter().copied().filter(|filter| add(state, filter));
            *added.filters.lock() = new.collect();
        };
        let changed = self.change(op, filters, add_all).await;
        match &changed {
            Ok(()) => added.keep(),
            Err(error) if !error.is_timeout() => drop(added.revert()),
            Err(_) => {}
        }
        changed
    }

    /// Changes the subscription state, and the broker's now or with the next connection.
    async fn change(
        &self,
        op: Op,
        filters: &[&str],
        update: impl Fn(&mut SubscriptionState),
    ) -> Result<(), Error> {
        let changed = self.queue_change(op, |_| (filters.to_vec(), &update)).await;
        self.allow_disconnected(changed)
    }

    /// Without a connection a change succeeds if the client reconnects: it is then restored.
    fn allow_disconnected(&self, changed: Result<(), Error>) -> Result<(), Error> {
        match changed {
            Err(Error::Disconnected { .. }) if self.reconnects() => Ok(()),
            changed => changed,
        }
    }

    /// Calls `prepare` for the filters and the update of the subscription state, queues the operation and
    /// applies the update. All of it happens under the lock of the state, so that the state cannot differ
    /// from what the broker receives.
    async fn queue_change<'f, U: FnOnce(&mut SubscriptionState)>(
        &self,
        op: Op,
        mut prepare: impl FnMut(&SubscriptionState) -> (Vec<&'f str>, U),
    ) -> Result<(), Error> {
        let mut listed = String::new();
        let queue = || {
            let mut state = self.subscriptions.lock();
            let (filters, update) = prepare(&state);
            if filters.is_empty() {
                return Ok(None); // on the wire that would be the empty filter
            }
            listed = list(&filters);
            let queued = self.send_change(op, &filters);
            if !matches!(queued, Err(QueueError::Full)) {
                update(&mut state);
            }
            queued
        };
        let op_id = self.queue(queue).await?;
        match op_id {
            Some(op_id) => self.acknowledged(op_id, operation_text(op), &listed).await,
            None => Ok(()),
        }
    }

    /// Returns the operation id if an acknowledgement follows.
    fn send_change(&self, op: Op, filters: &[&str]) -> Result<Option<u32>, QueueError> {
        #[cfg(feature = "in-process")]
        if let Endpoint::InProcess(_) = self.endpoint {
            return self.in_process.change_filters(op, filters).map(|()| None).map_err(QueueError::Failed);
        }
        self.send_queue.change_filters(op, filters, PendingAck::Awaited(None)).map(Some)
    }
}

/// What an operation has added to the subscription state. When it is dropped, it is reverted, and the broker
/// gets the opposite operation.
struct Addition<'a, 'f, R: Fn(&mut SubscriptionState, &str)> {
    inner: &'a Inner,
    op: Op,
    /// A leaf lock, taken under that of the state.
    filters: Mutex<Vec<&'f str>>,
    remove: R,
}

impl<'f, R: Fn(&mut SubscriptionState, &str)> Addition<'_, 'f, R> {
    /// The broker has performed the operation.
    fn keep(&self) {
        self.filters.lock().clear();
    }

    /// Reverts the addition. Returns the filters that nothing uses any more.
    fn revert(&self) -> Vec<&'f str> {
        let added = std::mem::take(&mut *self.filters.lock());
        let mut state = self.inner.subscriptions.lock();
        added.iter().for_each(|filter| (self.remove)(&mut state, filter));
        added.into_iter().filter(|filter| !state.includes(self.op, filter)).collect()
    }
}

impl<R: Fn(&mut SubscriptionState, &str)> Drop for Addition<'_, '_, R> {
    fn drop(&mut self) {
        let unused = self.revert();
        if !unused.is_empty() {
            let opposite = if self.op == Op::Subscribe { Op::Unsubscribe } else { Op::Unexclude };
            // it fails if the queue is full or the connection is lost, and nothing else could be done
            let _ = self.inner.send_queue.change_filters(opposite, &unused, PendingAck::Abandoned);
        }
    }
}

/// Lists the filters of an operation for an error: the broker does not report which of them it refuses.
fn list(filters: &[&str]) -> String {
    let listed = filters.iter().take(LISTED_FILTERS).copied().collect::<Vec<_>>().join(", ");
    match filters.len().saturating_sub(LISTED_FILTERS) {
        0 => listed,
        more => format!("{listed} and {more} more filters"),
    }
}
