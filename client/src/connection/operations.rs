//! How operations are carried out: queued, waited for, remembered. Owns what an outcome means for its caller; never the
//! public interface.

use elbus_protocol::Op;
use parking_lot::Mutex;
use tokio::time::timeout;

#[cfg(feature = "in-process")]
use crate::connection::Place;
use crate::{
    Error,
    connection::Shared,
    connection::send_queue::{Ack, Refusal, Request},
    connection::subscription_state::{Whose, Wishes},
};

/// Filters that an error names.
const SHOWN_FILTERS: usize = 5;

impl Shared {
    /// Queues a frame, and waits for its acknowledgement where it asks for one.
    pub(crate) async fn carry(&self, request: &Request<'_>) -> Result<(), Error> {
        #[cfg(feature = "in-process")]
        if let Place::InProcess(_) = self.place {
            return self.local.carry(request).await;
        }
        let wants_ack = request.qos.wants_ack();
        let op_id =
            self.queue(|| self.outgoing.send(request, wants_ack.then_some(Ack::Awaited(None)))).await?;
        if !wants_ack {
            // a loop of sends must let others run, and leave in batches of some size
            tokio::task::coop::consume_budget().await;
            return Ok(());
        }
        self.acknowledged(op_id, name_of(request.op), request.target).await
    }

    /// Queues as soon as there is room.
    pub(crate) async fn queue<T>(&self, mut queue: impl FnMut() -> Result<T, Refusal>) -> Result<T, Error> {
        loop {
            match queue() {
                Ok(queued) => return Ok(queued),
                Err(Refusal::Failed(error)) => return Err(error),
                Err(Refusal::Full) => {
                    let after = self.settings().timeout;
                    if timeout(after, self.outgoing.room()).await.is_err() {
                        let what = format!("waiting until the broker at {} reads", self.place);
                        return Err(Error::Timeout { what, after });
                    }
                }
            }
        }
    }

    async fn acknowledged(&self, op_id: u32, what: &str, target: &str) -> Result<(), Error> {
        let after = self.settings().timeout;
        match timeout(after, self.outgoing.acknowledgement(op_id)).await {
            Ok(Ok(code)) if code == elbus_protocol::Code::Ok as u8 => Ok(()),
            Ok(Ok(code)) => Err(Error::from_code(code, what, target)),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(Error::Timeout { what: format!("{what} {target:?}"), after }),
        }
    }

    pub(crate) async fn subscribe_as(&self, filters: &[&str], whose: Whose) -> Result<(), Error> {
        let add = |wishes: &mut Wishes, filter: &str| wishes.subscribe(filter, whose);
        let remove = |wishes: &mut Wishes, filter: &str| _ = wishes.unsubscribe(filter, whose);
        self.change_or_restore(Op::Subscribe, filters, add, remove).await
    }

    pub(crate) async fn exclude(&self, filters: &[&str]) -> Result<(), Error> {
        self.change_or_restore(Op::Exclude, filters, Wishes::exclude, Wishes::unexclude).await
    }

    /// As [`change`](Self::change). A refusal takes back what this call has added, and nothing that was there before.
    async fn change_or_restore(
        &self,
        op: Op,
        filters: &[&str],
        add: impl Fn(&mut Wishes, &str) -> bool,
        remove: impl Fn(&mut Wishes, &str),
    ) -> Result<(), Error> {
        let added = Mutex::new(Vec::new());
        let wish = |wishes: &mut Wishes| {
            let new = filters.iter().copied().filter(|filter| add(wishes, filter));
            *added.lock() = new.collect();
        };
        let changed = self.change(op, filters, wish).await;
        if changed.is_err() {
            let mut wishes = self.wishes.lock();
            added.into_inner().into_iter().for_each(|filter| remove(&mut wishes, filter));
        }
        changed
    }

    pub(crate) async fn unsubscribe_as(&self, filters: &[&str], whose: Whose) -> Result<(), Error> {
        let mut unwanted: Vec<_> = {
            let mut wishes = self.wishes.lock();
            filters.iter().copied().filter(|filter| wishes.unsubscribe(filter, whose)).collect()
        };
        let changed = self
            .queue_change(Op::Unsubscribe, |wishes| {
                // somebody may want it again by now, and has told the broker already
                unwanted.retain(|filter| !wishes.wants(filter));
                (unwanted.clone(), |_: &mut Wishes| ())
            })
            .await;
        self.now_or_later(changed)
    }

    /// Notes a wish and tells the broker of it, now or with the next connection.
    pub(crate) async fn change(
        &self,
        op: Op,
        filters: &[&str],
        wish: impl Fn(&mut Wishes),
    ) -> Result<(), Error> {
        let changed = self.queue_change(op, |_| (filters.to_vec(), &wish)).await;
        self.now_or_later(changed)
    }

    /// What there is no connection for is done with the next one.
    fn now_or_later(&self, changed: Result<(), Error>) -> Result<(), Error> {
        match changed {
            Err(Error::Disconnected { .. }) if self.reconnects() => Ok(()),
            changed => changed,
        }
    }

    /// Asks `prepare` for the filters, queues the operation, and notes the wish that comes with them: all of it under the lock
    /// of the wishes, so that what the broker is told and what is wished cannot come to differ.
    pub(crate) async fn queue_change<'f, W: FnOnce(&mut Wishes)>(
        &self,
        op: Op,
        mut prepare: impl FnMut(&Wishes) -> (Vec<&'f str>, W),
    ) -> Result<(), Error> {
        let mut about = String::new();
        let mut queue = || {
            let mut wishes = self.wishes.lock();
            let (filters, wish) = prepare(&wishes);
            if filters.is_empty() {
                return Ok(None); // on the wire that would be the empty filter
            }
            about = enumerate(&filters);
            let queued = self.tell(op, &filters);
            if !matches!(queued, Err(Refusal::Full)) {
                wish(&mut wishes);
            }
            queued
        };
        let op_id = self.queue(&mut queue).await?;
        match op_id {
            Some(op_id) => self.acknowledged(op_id, name_of(op), &about).await,
            None => Ok(()),
        }
    }

    /// The number that comes back is that of the acknowledgement, where there will be one.
    fn tell(&self, op: Op, filters: &[&str]) -> Result<Option<u32>, Refusal> {
        #[cfg(feature = "in-process")]
        if let Place::InProcess(_) = self.place {
            return self.local.change(op, filters).map(|()| None).map_err(Refusal::Failed);
        }
        self.outgoing.change_filters(op, filters, Ack::Awaited(None)).map(Some)
    }
}

/// The filters of an operation, for an error: the broker does not say which of them it refuses.
fn enumerate(filters: &[&str]) -> String {
    let shown = filters.iter().take(SHOWN_FILTERS).copied().collect::<Vec<_>>().join(", ");
    match filters.len().saturating_sub(SHOWN_FILTERS) {
        0 => shown,
        more => format!("{shown} and {more} more filters"),
    }
}

pub(crate) fn name_of(op: Op) -> &'static str {
    match op {
        Op::Message => "send to",
        Op::Broadcast => "broadcast to",
        Op::Publish | Op::PublishFor => "publish to",
        Op::Subscribe => "subscribe to",
        Op::Unsubscribe => "unsubscribe from",
        Op::Exclude => "exclude",
        Op::Unexclude => "unexclude",
    }
}
