//! Serving calls and notifications. Owns their order and how many run at once; what they do is the handler's.

use bytes::Bytes;
use elbus_protocol::rpc::{self, RpcFrame, decode_rpc};
use serde::de::DeserializeOwned;
use std::{
    future::poll_fn,
    sync::{Arc, Weak},
    task::Poll,
    time::Duration,
};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinHandle,
};

use crate::{
    Client, Error, Frame, RpcError, catch_panic::caught, connection::Shared, receive::inbox::Receiver,
};

/// Calls of one client that are served at once; further ones wait in the queue.
const CONCURRENT_CALLS: usize = 1024;
/// Notifications that wait for the handler before calls behind them wait as well.
const WAITING_NOTIFICATIONS: usize = 1024;

/// Serves what other clients call. [`Router`](crate::Router) is one whose methods are functions.
pub trait RpcHandler: Send + Sync + 'static {
    /// Answers a call. Calls begin in the order they arrive, each as soon as the one before it waits for something; up to
    /// 1024 run at the same time. What comes back is sent to the caller, unless that wants no reply. A panic is answered as
    /// an internal error.
    fn call(&self, call: Call) -> impl Future<Output = Result<Bytes, RpcError>> + Send;

    /// Takes a notification. One at a time, in order, independently of calls.
    fn notification(&self, notification: Notification) -> impl Future<Output = ()> + Send {
        drop(notification);
        async {}
    }
}

/// A call of one of this client's methods.
#[derive(Debug, Clone)]
pub struct Call {
    frame: Frame,
    id: u32,
    method: Box<str>,
    params: Bytes,
}

impl Call {
    /// The full name of the caller.
    pub fn sender(&self) -> &str {
        self.frame.sender()
    }

    /// The method.
    pub fn method(&self) -> &str {
        &self.method
    }

    /// The parameters, by convention msgpack; empty where there are none.
    pub fn params(&self) -> &Bytes {
        &self.params
    }

    /// Whether it was sent as real-time; the reply will be, too.
    pub fn is_realtime(&self) -> bool {
        self.frame.is_realtime()
    }

    /// Whether the caller wants a reply.
    pub fn wants_reply(&self) -> bool {
        self.id != rpc::NO_REPLY
    }

    /// The parameters, converted from msgpack; none are `()`.
    ///
    /// # Errors
    /// [`RpcError::invalid_params`] with a sentence why, to be handed to the caller.
    pub fn parse<P: DeserializeOwned>(&self) -> Result<P, RpcError> {
        let params = if self.params.is_empty() { &[0xC0] } else { &self.params[..] };
        rmp_serde::from_slice(params).map_err(|error| RpcError::invalid_params(error.to_string()))
    }
}

/// A notification for this client.
#[derive(Debug, Clone)]
pub struct Notification {
    frame: Frame,
    payload: Bytes,
}

impl Notification {
    /// The full name of the sender.
    pub fn sender(&self) -> &str {
        self.frame.sender()
    }

    /// The payload.
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }
}

/// Calls are being served; from [`Client::serve`]. Dropping it lets that go on until the client ends.
#[derive(Debug)]
pub struct Serving {
    shared: Weak<Shared>,
    task: JoinHandle<()>,
}

impl Serving {
    /// Takes no more calls: those that come from now on are ordinary frames. Those that have arrived are answered in the
    /// background, within the client's timeout; then methods that still run are ended.
    pub fn stop(self) {
        if let Some(shared) = self.shared.upgrade() {
            let runtime = shared.runtime.clone();
            shared.switchboard.serve_no_more();
            runtime.spawn(finish(self.task, shared.settings().timeout));
        } else {
            self.task.abort();
        }
    }

    /// As [`stop`](Serving::stop), and returns when everything that has arrived is answered. In-process, the client leaves the
    /// bus first as far as receiving is concerned, so that no call is acknowledged that is not answered: what a plugin does
    /// before it stops. Other clients get as frames what comes meanwhile.
    pub async fn drain(self) {
        let Some(shared) = self.shared.upgrade() else { return };
        #[cfg(feature = "in-process")]
        if tokio::time::timeout(shared.settings().timeout, shared.local.drain()).await.is_err() {
            tracing::debug!("what had arrived was not taken in time");
        }
        shared.switchboard.serve_no_more();
        finish(self.task, shared.settings().timeout).await;
    }
}

/// Waits for the end of a task, and ends it after the limit.
async fn finish(mut task: JoinHandle<()>, limit: Duration) {
    if tokio::time::timeout(limit, &mut task).await.is_err() {
        tracing::debug!(?limit, "methods that were still running are ended");
        task.abort();
    }
}

impl Client {
    /// Serves calls and notifications from now on. They then no longer arrive with the client's frames.
    ///
    /// ```no_run
    /// # async fn example(client: elbus_client::Client) -> Result<(), elbus_client::Error> {
    /// use elbus_client::{Router, RpcError};
    /// #[derive(serde::Deserialize)]
    /// struct Add { a: i64, b: i64 }
    /// client.serve(Router::new().method("add", |add: Add| async move { Ok::<_, RpcError>(add.a + add.b) }))?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::AlreadyServing`].
    pub fn serve(&self, handler: impl RpcHandler) -> Result<Serving, Error> {
        let shared = &self.shared;
        let queued = shared.queued_calls.lock().take();
        let receiver = match queued {
            Some(receiver) => receiver,
            None => {
                let inbox = shared.call_inbox();
                let receiver = Receiver::new(inbox.clone());
                if !shared.switchboard.serve(inbox) {
                    return Err(Error::AlreadyServing);
                }
                receiver
            }
        };
        let task = shared.runtime.spawn(serve(shared.clone(), Arc::new(handler), receiver));
        Ok(Serving { shared: Arc::downgrade(shared), task })
    }
}

async fn serve(shared: Arc<Shared>, handler: Arc<impl RpcHandler>, mut receiver: Receiver) {
    let (notify, mut notifications) = mpsc::channel::<Notification>(WAITING_NOTIFICATIONS);
    let notified = handler.clone();
    // joined to this task: both end together
    let notifications = async move {
        while let Some(notification) = notifications.recv().await {
            let sender = notification.sender().to_owned();
            let notified = notified.clone();
            if caught(async move { notified.notification(notification).await }).await.is_none() {
                tracing::error!(sender, "the handler of notifications panicked");
            }
        }
    };
    let mut calls = tokio::task::JoinSet::new();
    let places = Arc::new(Semaphore::new(CONCURRENT_CALLS));
    let dispatch = async {
        while let Some(frame) = poll_fn(|context| receiver.poll_next(context)).await {
            while calls.try_join_next().is_some() {}
            let payload = frame.to_payload();
            match decode_rpc(&payload) {
                Ok(RpcFrame::Request { call_id, method, params }) => {
                    let params = payload.slice_ref(params);
                    let method = match std::str::from_utf8(method) {
                        Ok(method) => method.into(),
                        Err(_) => {
                            let code = elbus_protocol::Code::BadData.rpc_code();
                            reply(&shared, &frame, call_id, Err(RpcError::new(code, ""))).await;
                            continue;
                        }
                    };
                    // never closed
                    let Ok(place) = places.clone().acquire_owned().await else { return };
                    let call = Call { frame, id: call_id, method, params };
                    let (shared, handler) = (shared.clone(), handler.clone());
                    let mut job = Box::pin(async move {
                        answer(&shared, &*handler, call).await;
                        drop(place);
                    });
                    // most methods never wait: those need no task
                    if poll_fn(|context| Poll::Ready(job.as_mut().poll(context))).await.is_pending() {
                        calls.spawn(job);
                    }
                }
                Ok(RpcFrame::Notification { payload: data }) => {
                    let notification = Notification { payload: payload.slice_ref(data), frame };
                    if notify.send(notification).await.is_err() {
                        return;
                    }
                }
                // the switchboard sends nothing else here
                _ => {}
            }
        }
        // the last calls may be answered still, if the connection is there
        drop(notify);
        while calls.join_next().await.is_some() {}
    };
    tokio::join!(dispatch, notifications);
}

async fn answer(shared: &Shared, handler: &impl RpcHandler, call: Call) {
    let (frame, id) = (call.frame.clone(), call.id);
    // within the future: so a panic before the first await is caught as well
    let outcome = caught(async move { handler.call(call).await }).await;
    let outcome = outcome.unwrap_or_else(|| Err(RpcError::internal("the method panicked")));
    reply(shared, &frame, id, outcome).await;
}

async fn reply(shared: &Shared, request: &Frame, id: u32, outcome: Result<Bytes, RpcError>) {
    if id == rpc::NO_REPLY {
        return;
    }
    let mut head = Vec::with_capacity(8);
    let data = match outcome {
        Ok(result) => {
            rpc::encode_reply_head(&mut head, id);
            result
        }
        Err(error) => {
            rpc::encode_error_head(&mut head, id, error.code);
            error.data
        }
    };
    if let Err(error) = shared.reply(request.sender(), &head, data, request.is_realtime()).await {
        tracing::debug!(caller = request.sender(), %error, "a reply was not sent");
    }
}
