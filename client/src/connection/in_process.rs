//! The connection of a client to a broker in the same program. Owns the conversion between the two interfaces; never
//! queues anything.

use bytes::Bytes;
use elbus_plugin_api::{
    Host,
    inproc::{InprocClient, Message},
};
use elbus_protocol::{Code, Op};
use parking_lot::Mutex;
use std::{
    future::poll_fn,
    pin::pin,
    sync::Arc,
    task::{Context, Poll},
};
use tokio::sync::Notify;

use crate::{
    Error, Frame,
    connection::{send_queue::Request, subscription_state::Wishes},
};

/// The most frames that are taken at once.
const TAKE_FRAMES: usize = 256;

#[derive(Default)]
pub(crate) struct Local {
    /// A leaf: cloned out before it is used.
    state: Mutex<State>,
    /// The reader is to say when it has handed over everything it was given.
    drain_wanted: Notify,
    /// It has.
    drained: Notify,
}

#[derive(Default)]
struct State {
    client: Option<Arc<InprocClient>>,
    gone: Option<Error>,
}

impl Local {
    pub(crate) fn connect(&self, host: &Host, name: &str) -> Result<(), Error> {
        let client = host.connect(name).map_err(|code| match code {
            Code::Busy => Error::NameTaken { name: name.to_owned() },
            Code::BadData => Error::NameRefused { name: name.to_owned(), code },
            Code::NotRegistered => Error::NoPrimary { name: name.to_owned() },
            code => {
                Error::Refused { what: "an in-process client (plugin inproc)".to_owned(), code: code as u8 }
            }
        })?;
        self.state.lock().client = Some(Arc::new(client));
        Ok(())
    }

    /// Subscribes and excludes as before.
    pub(crate) fn begin(&self, wishes: &Wishes) {
        let changes = [
            (Op::Exclude, wishes.excluded().collect::<Vec<_>>()),
            (Op::Subscribe, wishes.subscribed().collect()),
            (Op::Unsubscribe, wishes.declined().into_iter().collect()),
        ];
        // each by itself: one that is refused takes no other along
        for (op, filter) in
            changes.into_iter().flat_map(|(op, all)| all.into_iter().map(move |one| (op, one)))
        {
            if let Err(error) = self.change(op, &[filter]) {
                tracing::warn!(%error, "after a lost connection");
            }
        }
    }

    /// Is reached by nobody any more, and may still answer. Returns when the reader has handed over what had arrived.
    pub(crate) async fn drain(&self) {
        let Ok(client) = self.client() else { return };
        client.drain();
        self.drain_wanted.notify_one();
        self.drained.notified().await;
    }

    pub(crate) fn detach(&self, reason: &Error) {
        let mut state = self.state.lock();
        state.gone = Some(reason.clone());
        let client = state.client.take();
        drop(state);
        // an operation under way may hold it for a while yet, and the name is free from now on
        if let Some(client) = client {
            client.close();
        }
    }

    fn client(&self) -> Result<Arc<InprocClient>, Error> {
        let state = self.state.lock();
        state.client.clone().ok_or_else(|| state.gone.clone().unwrap_or(Error::Closed))
    }

    /// Whether there is a connection.
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.client().map(drop)
    }

    pub(crate) async fn carry(&self, request: &Request<'_>) -> Result<(), Error> {
        let Request { op, qos, target, receiver, head, payload } = request;
        let payload = if head.is_empty() { payload.clone() } else { Bytes::from([*head, payload].concat()) };
        let client = self.client()?;
        let sent = match op {
            Op::Message => client.send(target, payload, *qos).await,
            Op::Broadcast => client.broadcast(target, payload, *qos).await,
            Op::Publish => client.publish(target, payload, *qos).await,
            _ => client.publish_for(target, receiver, payload, *qos).await,
        };
        // whether a frame without acknowledgement has arrived is told by no transport
        match sent {
            Err(Code::NotRegistered | Code::NotDelivered) if !qos.wants_ack() => Ok(()),
            sent => sent.map_err(|code| {
                Error::from_code(code as u8, crate::connection::operations::name_of(*op), target)
            }),
        }
    }

    pub(crate) fn change(&self, op: Op, filters: &[&str]) -> Result<(), Error> {
        let client = self.client()?;
        for filter in filters {
            let changed = match op {
                Op::Subscribe => client.subscribe(filter),
                Op::Unsubscribe => client.unsubscribe(filter),
                Op::Exclude => client.exclude(filter),
                _ => client.unexclude(filter),
            };
            changed.map_err(|code| {
                Error::from_code(code as u8, crate::connection::operations::name_of(op), filter)
            })?;
        }
        Ok(())
    }

    /// Waits for frames and takes some; `false` once the client is closed.
    pub(crate) async fn receive(&self, frames: &mut Vec<Frame>) -> bool {
        let Ok(client) = self.client() else { return false };
        let message = {
            let mut receiving = pin!(client.receive());
            let mut drain_wanted = pin!(self.drain_wanted.notified());
            let next = |context: &mut Context<'_>| match receiving.as_mut().poll(context) {
                Poll::Ready(message) => Poll::Ready(Some(message)),
                // nothing is left of what had arrived before
                Poll::Pending => drain_wanted.as_mut().poll(context).map(|()| None),
            };
            poll_fn(next).await
        };
        let Some(message) = message else {
            self.drained.notify_one();
            return true;
        };
        let Some(message) = message else { return false };
        frames.push(frame(message));
        let mut more = Vec::new();
        client.try_receive_many(&mut more, TAKE_FRAMES.saturating_sub(frames.len()));
        frames.extend(more.into_iter().map(frame));
        true
    }
}

fn frame(message: Message) -> Frame {
    let (kind, realtime) = (message.kind(), message.is_realtime());
    match message.into_body() {
        Ok((body, sender_len, payload_at)) => Frame::from_wire(kind, realtime, body, sender_len, payload_at),
        Err(message) => {
            let (sender, topic) = (message.sender().into(), message.topic().into());
            Frame::from_parts(kind, realtime, sender, topic, message.into_payload())
        }
    }
}
