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
    subscription_state::{FilterUser, SubscriptionState},
};
use crate::error::Error;

/// Limit of filters that an error lists.
const LISTED_FILTERS: usize = 5;

impl Inner {
    pub(crate) async fn subscribe(&self, filters: &[&str], user: FilterUser) -> Result<(), Error> {
        let add = |state: &mut SubscriptionState, filter: &str| state.subscribe(filter, user);
        let remove = |state: &mut SubscriptionState, filter: &str| _ = state.unsubscribe(filter, user);
        self.change_or_revert(Op::Subscribe, filters, add, remove).await
    }

    pub(crate) async fn unsubscribe(&self, filters: &[&str], user: FilterUser) -> Result<(), Error> {
        let mut unused: Vec<_> = {
            let mut state = self.subscriptions.lock();
            filters.iter().copied().filter(|filter| state.unsubscribe(filter, user)).collect()
        };
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

    /// As [`change`](Self::change). A refusal reverts only what this call has added.
    async fn change_or_revert(
        &self,
        op: Op,
        filters: &[&str],
        add: impl Fn(&mut SubscriptionState, &str) -> bool,
        remove: impl Fn(&mut SubscriptionState, &str),
    ) -> Result<(), Error> {
        let added = Mutex::new(Vec::new());
        let add_all = |state: &mut SubscriptionState| {
            let new = filters.iter().copied().filter(|filter| add(state, filter));
            *added.lock() = new.collect();
        };
        let changed = self.change(op, filters, add_all).await;
        if changed.is_err() {
            let mut state = self.subscriptions.lock();
            added.into_inner().into_iter().for_each(|filter| remove(&mut state, filter));
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

/// Lists the filters of an operation for an error: the broker does not report which of them it refuses.
fn list(filters: &[&str]) -> String {
    let listed = filters.iter().take(LISTED_FILTERS).copied().collect::<Vec<_>>().join(", ");
    match filters.len().saturating_sub(LISTED_FILTERS) {
        0 => listed,
        more => format!("{listed} and {more} more filters"),
    }
}
