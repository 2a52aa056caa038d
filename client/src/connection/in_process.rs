//! The connection to a broker in the same program. Owns the conversion between the client's and the plugin
//! API's types; never queues anything.

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

use super::request::{Request, operation_text};
use crate::{error::Error, frame::Frame, subscription_state::SubscriptionState};

/// Limit of frames that are received at once.
const RECEIVE_FRAMES: usize = 256;

#[derive(Default)]
pub(crate) struct InProcessLink {
    /// A leaf lock: the client is cloned before it is used.
    state: Mutex<State>,
    /// Requests that the reader reports when it has delivered everything that had arrived.
    drain_requested: Notify,
    drained: Notify,
}

#[derive(Default)]
struct State {
    client: Option<Arc<InprocClient>>,
    disconnect_reason: Option<Error>,
}

impl InProcessLink {
    pub(crate) fn connect(&self, host: &Host, name: &str) -> Result<(), Error> {
        let client = host.connect(name).map_err(|code| match code {
            Code::Busy => Error::NameTaken { name: name.to_owned() },
            Code::BadData => Error::NameRefused { name: name.to_owned(), code },
            Code::NotRegistered => Error::NoPrimary { name: name.to_owned() },
            code => Error::Refused { operation: "connect in process (plugin inproc)".to_owned(), code },
        })?;
        self.state.lock().client = Some(Arc::new(client));
        Ok(())
    }

    /// Restores subscriptions and exclusions.
    pub(crate) fn restore(&self, subscriptions: &SubscriptionState) {
        for (op, filters) in subscriptions.operations() {
            // one by one: a refused filter affects no other
            for filter in filters {
                if let Err(error) = self.change_filters(op, &[filter]) {
                    let operation = operation_text(op);
                    tracing::warn!(operation, filter, count = 1, %error, "cannot restore topic filters");
                }
            }
        }
    }

    /// Stops receiving; the client can still send. Returns when the reader has delivered everything that had
    /// arrived.
    pub(crate) async fn drain(&self) {
        let Ok(client) = self.client() else { return };
        client.drain();
        self.drain_requested.notify_one();
        self.drained.notified().await;
    }

    pub(crate) fn detach(&self, reason: &Error) {
        let mut state = self.state.lock();
        state.disconnect_reason = Some(reason.clone());
        let client = state.client.take();
        drop(state);
        // an operation in flight can still hold a reference; the name must be free now
        if let Some(client) = client {
            client.close();
        }
    }

    fn client(&self) -> Result<Arc<InprocClient>, Error> {
        let state = self.state.lock();
        state.client.clone().ok_or_else(|| state.disconnect_reason.clone().unwrap_or(Error::Closed))
    }

    /// Fails if there is no connection.
    pub(crate) fn check_connected(&self) -> Result<(), Error> {
        self.client().map(drop)
    }

    pub(crate) async fn send(&self, request: &Request<'_>) -> Result<(), Error> {
        let Request { op, qos, target, receiver, head, payload } = request;
        let payload = if head.is_empty() { payload.clone() } else { Bytes::from([*head, payload].concat()) };
        let client = self.client()?;
        let sent = match op {
            Op::Message => client.send(target, payload, *qos).await,
            Op::Broadcast => client.broadcast(target, payload, *qos).await,
            Op::Publish => client.publish(target, payload, *qos).await,
            _ => client.publish_for(target, receiver, payload, *qos).await,
        };
        // as with all transports, a frame without acknowledgement does not report whether it was delivered
        match sent {
            Err(Code::NotRegistered | Code::NotDelivered) if !qos.wants_ack() => Ok(()),
            sent => sent.map_err(|code| Error::from_code(code as u8, operation_text(*op), target)),
        }
    }

    pub(crate) fn change_filters(&self, op: Op, filters: &[&str]) -> Result<(), Error> {
        let client = self.client()?;
        for filter in filters {
            let changed = match op {
                Op::Subscribe => client.subscribe(filter),
                Op::Unsubscribe => client.unsubscribe(filter),
                Op::Exclude => client.exclude(filter),
                _ => client.unexclude(filter),
            };
            changed.map_err(|code| Error::from_code(code as u8, operation_text(op), filter))?;
        }
        Ok(())
    }

    /// Waits for frames and receives some; returns `false` once the client is closed.
    pub(crate) async fn receive(&self, frames: &mut Vec<Frame>) -> bool {
        let Ok(client) = self.client() else { return false };
        let message = {
            let mut receiving = pin!(client.receive());
            let mut drain_requested = pin!(self.drain_requested.notified());
            let next = |context: &mut Context<'_>| match receiving.as_mut().poll(context) {
                Poll::Ready(message) => Poll::Ready(Some(message)),
                // everything that had arrived before the request has been received
                Poll::Pending => drain_requested.as_mut().poll(context).map(|()| None),
            };
            poll_fn(next).await
        };
        let Some(message) = message else {
            self.drained.notify_one();
            return true;
        };
        let Some(message) = message else { return false };
        frames.push(to_frame(message));
        let mut more = Vec::new();
        client.try_receive_many(&mut more, RECEIVE_FRAMES.saturating_sub(frames.len()));
        frames.extend(more.into_iter().map(to_frame));
        true
    }
}

fn to_frame(message: Message) -> Frame {
    let (kind, realtime) = (message.kind(), message.is_realtime());
    match message.into_body() {
        Ok((body, sender_len, payload_at)) => Frame::from_wire(kind, realtime, body, sender_len, payload_at),
        Err(message) => {
            let payload = message.to_payload();
            Frame::from_parts(kind, realtime, message.sender(), message.topic(), payload)
        }
    }
}
