//! Serving calls and notifications. Owns their order and the limit of concurrent calls; what they do is the
//! handler's.

use bytes::Bytes;
use elbus_protocol::{
    Code, Qos,
    rpc::{self, RpcFrame, decode_rpc},
};
use serde::de::DeserializeOwned;
use std::{
    future::poll_fn,
    sync::{Arc, Weak},
    task::Poll,
    time::Duration,
};
use tokio::{
    sync::{Semaphore, mpsc},
    task::{JoinHandle, JoinSet},
};

use super::msgpack::decode_params;
use crate::{
    api::client::Client,
    catch_panic::catch_panic,
    connection::{inner::Inner, request::Request},
    error::{Error, rpc_error::RpcError},
    frame::Frame,
    receive::inbox::Receiver,
};

/// Limit of concurrent calls of one client; further ones stay queued.
const MAX_CONCURRENT_CALLS: usize = 1024;
/// Notifications queued for the handler before the calls behind them wait as well.
const QUEUED_NOTIFICATIONS: usize = 1024;

/// Answers the calls of other clients; for [`Client::serve`]. [`Router`](crate::Router) implements it with
/// functions.
///
/// ```no_run
/// use elbus_client::{Bytes, Call, RpcError, RpcHandler};
///
/// struct Echo;
///
/// impl RpcHandler for Echo {
///     async fn call(&self, call: Call) -> Result<Bytes, RpcError> {
///         match call.method() {
///             "echo" => Ok(call.params().clone()),
///             _ => Err(RpcError::method_not_found()),
///         }
///     }
/// }
///
/// # async fn example(client: elbus_client::Client) -> Result<(), elbus_client::Error> {
/// let server = client.serve(Echo)?;
/// # Ok(()) }
/// ```
pub trait RpcHandler: Send + Sync + 'static {
    /// Answers a call. The result is sent to the caller, unless it wants no reply. A panic is answered as an
    /// internal error.
    ///
    /// Calls start in the order of their arrival, each when the one before it waits for the first time. Up to
    /// 1024 run concurrently.
    fn call(&self, call: Call) -> impl Future<Output = Result<Bytes, RpcError>> + Send;

    /// Processes a notification. One at a time, in order, independently of calls.
    fn notification(&self, notification: Notification) -> impl Future<Output = ()> + Send {
        drop(notification);
        async {}
    }
}

/// A call of a method of this client.
///
/// ```no_run
/// use elbus_client::{Bytes, Call, Router};
/// let router = Router::new().raw("whoami", |call: Call| async move {
///     Ok(Bytes::from(call.sender().to_owned()))
/// });
/// ```
#[derive(Debug, Clone)]
pub struct Call {
    frame: Frame,
    id: u32,
    method: Box<str>,
    params: Bytes,
}

impl Call {
    /// Returns the full name of the caller.
    pub fn sender(&self) -> &str {
        self.frame.sender()
    }

    /// Returns the method.
    pub fn method(&self) -> &str {
        &self.method
    }

    /// Returns the parameters, by convention msgpack; empty if there are none.
    pub fn params(&self) -> &Bytes {
        &self.params
    }

    /// Returns whether the call was sent as real-time. The reply is then, too.
    pub fn is_realtime(&self) -> bool {
        self.frame.is_realtime()
    }

    /// Returns whether the caller wants a reply.
    pub fn wants_reply(&self) -> bool {
        self.id != rpc::NO_REPLY
    }

    /// Converts the parameters from msgpack. `()` stands for no parameters.
    ///
    /// # Errors
    /// [`RpcError::invalid_params`] with the reason, to be returned to the caller.
    pub fn parse<P: DeserializeOwned>(&self) -> Result<P, RpcError> {
        decode_params(&self.params)
    }
}

/// An RPC notification to this client.
///
/// ```no_run
/// use elbus_client::{Notification, Router};
/// let router = Router::new().notification(|notification: Notification| async move {
///     println!("{} sent {:?}", notification.sender(), notification.payload());
/// });
/// ```
#[derive(Debug, Clone)]
pub struct Notification {
    frame: Frame,
    payload: Bytes,
}

impl Notification {
    /// Returns the full name of the sender.
    pub fn sender(&self) -> &str {
        self.frame.sender()
    }

    /// Returns the payload.
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }
}

/// Handle of a server of calls; from [`Client::serve`]. Dropping it does not stop the server, which ends with
/// the client.
///
/// ```no_run
/// # use elbus_client::{Client, Error, Router};
/// # async fn example(client: Client, router: Router) -> Result<(), Error> {
/// let server = client.serve(router)?;
/// server.drain().await; // every call that has arrived is answered
/// client.close().await;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct ServeHandle {
    inner: Weak<Inner>,
    task: JoinHandle<()>,
}

impl ServeHandle {
    /// Stops accepting calls: further ones are delivered as ordinary frames. Calls that have arrived are
    /// answered in the background within the client's timeout; methods that are still running after it are
    /// cancelled.
    pub fn stop(self) {
        if let Some(inner) = self.inner.upgrade() {
            let runtime = inner.runtime.clone();
            inner.demux.stop_serving();
            runtime.spawn(finish(self.task, inner.settings.timeout));
        } else {
            self.task.abort();
        }
    }

    /// Stops accepting calls and waits until all that have arrived are answered, within the client's timeout.
    ///
    /// An in-process client stops receiving first, so that no call is acknowledged and not answered: plugins
    /// use this before they stop. Over other transports, calls that arrive meanwhile are delivered as frames.
    pub async fn drain(self) {
        let Some(inner) = self.inner.upgrade() else { return };
        #[cfg(feature = "in-process")]
        if tokio::time::timeout(inner.settings.timeout, inner.in_process.drain()).await.is_err() {
            tracing::debug!(client = inner.name, "draining timed out");
        }
        inner.demux.stop_serving();
        finish(self.task, inner.settings.timeout).await;
    }
}

/// Waits for the end of a task, and cancels it after the timeout.
async fn finish(mut task: JoinHandle<()>, timeout: Duration) {
    if tokio::time::timeout(timeout, &mut task).await.is_err() {
        tracing::debug!(?timeout, "cancelling methods that are still running");
        task.abort();
    }
}

impl Client {
    /// Serves calls and notifications, which are then no longer delivered to the client's
    /// [`Frames`](crate::Frames).
    ///
    /// ```no_run
    /// # async fn example(client: elbus_client::Client) -> Result<(), elbus_client::Error> {
    /// use elbus_client::{Router, RpcError};
    /// #[derive(serde::Deserialize)]
    /// struct Add { a: i64, b: i64 }
    /// let add = |add: Add| async move { Ok::<_, RpcError>(add.a + add.b) };
    /// client.serve(Router::new().method("add", add))?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::AlreadyServing`].
    pub fn serve(&self, handler: impl RpcHandler) -> Result<ServeHandle, Error> {
        let inner = &self.inner;
        let receiver = inner.start_serving()?;
        let task = inner.runtime.spawn(serve(inner.clone(), Arc::new(handler), receiver));
        Ok(ServeHandle { inner: Arc::downgrade(inner), task })
    }
}

async fn serve(inner: Arc<Inner>, handler: Arc<impl RpcHandler>, mut receiver: Receiver) {
    let (sender, notifications) = mpsc::channel::<Notification>(QUEUED_NOTIFICATIONS);
    // joined to this task: both end together
    let notifications = process_notifications(handler.clone(), notifications);
    let mut calls = JoinSet::new();
    let permits = Arc::new(Semaphore::new(MAX_CONCURRENT_CALLS));
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
                            let error = RpcError::new(Code::BadData.rpc_code(), "");
                            reply(&inner, &frame, call_id, Err(error)).await;
                            continue;
                        }
                    };
                    // the semaphore is never closed
                    let Ok(permit) = permits.clone().acquire_owned().await else { return };
                    let call = Call { frame, id: call_id, method, params };
                    let (inner, handler) = (inner.clone(), handler.clone());
                    let mut job = Box::pin(async move {
                        answer(&inner, &*handler, call).await;
                        drop(permit);
                    });
                    // most methods never wait: those need no task
                    if poll_fn(|context| Poll::Ready(job.as_mut().poll(context))).await.is_pending() {
                        calls.spawn(job);
                    }
                }
                Ok(RpcFrame::Notification { payload: data }) => {
                    let notification = Notification { payload: payload.slice_ref(data), frame };
                    if sender.send(notification).await.is_err() {
                        return;
                    }
                }
                // the demux delivers nothing else here
                _ => {}
            }
        }
        // the last calls can still be answered if the client is connected
        drop(sender);
        while calls.join_next().await.is_some() {}
    };
    tokio::join!(dispatch, notifications);
}

async fn process_notifications(
    handler: Arc<impl RpcHandler>,
    mut notifications: mpsc::Receiver<Notification>,
) {
    while let Some(notification) = notifications.recv().await {
        let sender = notification.sender().to_owned();
        let handler = handler.clone();
        if catch_panic(async move { handler.notification(notification).await }).await.is_none() {
            tracing::error!(sender, "notification handler panicked");
        }
    }
}

async fn answer(inner: &Inner, handler: &impl RpcHandler, call: Call) {
    let (frame, id) = (call.frame.clone(), call.id);
    // called within the future: catches a panic before the first await as well
    let outcome = catch_panic(async move { handler.call(call).await }).await;
    let outcome = outcome.unwrap_or_else(|| Err(RpcError::internal("the method panicked")));
    reply(inner, &frame, id, outcome).await;
}

async fn reply(inner: &Inner, request: &Frame, id: u32, outcome: Result<Bytes, RpcError>) {
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
    let caller = request.sender();
    let qos = if request.is_realtime() { Qos::REALTIME } else { Qos::NO };
    if let Err(error) = inner.send(Request::message(caller, &head, data, qos)).await {
        tracing::debug!(caller, %error, "cannot send a reply");
    }
}
