//! Remote calls that block, and methods that are plain functions. Owns the adapter between the two kinds of
//! handler; calls and their conversion are the async client's.

use bytes::Bytes;
use elbus_protocol::Qos;
use serde::{Serialize, de::DeserializeOwned};
use std::{
    future::{Future, ready},
    sync::Arc,
    time::Duration,
};

use super::{
    block_on::{block_on, run_blocking},
    client::Client,
};
use crate::{
    error::{Error, rpc_error::RpcError},
    rpc::{
        self,
        call::CallOptions,
        serve::{Call, Notification},
    },
};

/// Answers the calls of other clients with functions that can block; for [`Client::serve`]. [`Router`]
/// implements it.
///
/// ```no_run
/// use elbus_client::{Bytes, Call, RpcError, blocking::RpcHandler};
///
/// struct Echo;
///
/// impl RpcHandler for Echo {
///     fn call(&self, call: Call) -> Result<Bytes, RpcError> {
///         match call.method() {
///             "echo" => Ok(call.params().clone()),
///             _ => Err(RpcError::method_not_found()),
///         }
///     }
/// }
/// ```
pub trait RpcHandler: Send + Sync + 'static {
    /// Answers a call, on one of the library's threads; up to 512 run concurrently. The result is sent to the
    /// caller, unless it wants no reply. A panic is answered as an internal error.
    ///
    /// # Errors
    /// The error that is sent to the caller instead of a result.
    fn call(&self, call: Call) -> Result<Bytes, RpcError>;

    /// Processes a notification. One at a time, in order, independently of calls.
    fn notification(&self, notification: Notification) {
        drop(notification);
    }
}

/// Runs a blocking handler on the library's threads.
struct BlockingHandler<H>(Arc<H>);

impl<H: RpcHandler> rpc::serve::RpcHandler for BlockingHandler<H> {
    fn call(&self, call: Call) -> impl Future<Output = Result<Bytes, RpcError>> + Send {
        let handler = self.0.clone();
        run_blocking(move || handler.call(call))
    }

    fn notification(&self, notification: Notification) -> impl Future<Output = ()> + Send {
        let handler = self.0.clone();
        run_blocking(move || handler.notification(notification))
    }
}

/// An [`RpcHandler`] that maps method names to functions, as [`crate::Router`]. The functions can block.
///
/// ```no_run
/// # fn example(client: elbus_client::blocking::Client) -> Result<(), elbus_client::Error> {
/// use elbus_client::blocking::Router;
/// client.serve(Router::new().method("double", |number: i64| Ok(number * 2)))?;
/// # Ok(()) }
/// ```
#[derive(Debug, Default)]
pub struct Router {
    inner: rpc::router::Router,
}

impl Router {
    /// Returns a router without methods.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a method with typed parameters (`()` for none) and a typed result.
    pub fn method<P, R>(
        self,
        name: impl Into<String>,
        function: impl Fn(P) -> Result<R, RpcError> + Send + Sync + 'static,
    ) -> Self
    where
        P: DeserializeOwned + Send + 'static,
        R: Serialize + Send + 'static,
    {
        Router { inner: self.inner.method(name, move |params| ready(function(params))) }
    }

    /// Adds a method whose function also receives the [`Call`], for example for its sender.
    pub fn method_with_call<P, R>(
        self,
        name: impl Into<String>,
        function: impl Fn(Call, P) -> Result<R, RpcError> + Send + Sync + 'static,
    ) -> Self
    where
        P: DeserializeOwned + Send + 'static,
        R: Serialize + Send + 'static,
    {
        let inner = self.inner.method_with_call(name, move |call, params| ready(function(call, params)));
        Router { inner }
    }

    /// Adds a method whose parameters and result are bytes.
    pub fn raw(
        self,
        name: impl Into<String>,
        function: impl Fn(Call) -> Result<Bytes, RpcError> + Send + Sync + 'static,
    ) -> Self {
        Router { inner: self.inner.raw(name, move |call| ready(function(call))) }
    }

    /// Sets the function that receives notifications. Without it they are dropped.
    pub fn notification(self, function: impl Fn(Notification) + Send + Sync + 'static) -> Self {
        let inner = self.inner.notification(move |notification| {
            function(notification);
            ready(())
        });
        Router { inner }
    }

    /// Adds a method with a long result that is fetched in parts; see [`crate::Router::cursor`].
    ///
    /// ```no_run
    /// # fn example(client: elbus_client::blocking::Client) -> Result<(), elbus_client::Error> {
    /// use elbus_client::blocking::Router;
    /// let router = Router::new().cursor("squares", "squares.next", |to: u64| Ok((0..to).map(|n| n * n)));
    /// client.serve(router)?;
    /// # Ok(()) }
    /// ```
    pub fn cursor<P, I>(
        self,
        name: impl Into<String>,
        next: impl Into<String>,
        function: impl Fn(P) -> Result<I, RpcError> + Send + Sync + 'static,
    ) -> Self
    where
        P: DeserializeOwned + Send + 'static,
        I: IntoIterator + Send + 'static,
        I::IntoIter: Send + Unpin + 'static,
        I::Item: Serialize + Send + 'static,
    {
        Router { inner: self.inner.cursor(name, next, move |params| ready(function(params))) }
    }

    /// Sets after how long an unused cursor is dropped. Default: 60 s.
    pub fn cursor_lifetime(self, lifetime: Duration) -> Self {
        Router { inner: self.inner.cursor_lifetime(lifetime) }
    }
}

impl RpcHandler for Router {
    fn call(&self, call: Call) -> Result<Bytes, RpcError> {
        // the function runs on this thread
        block_on(rpc::serve::RpcHandler::call(&self.inner, call))
            .unwrap_or_else(|error| Err(RpcError::internal(error.to_string())))
    }

    fn notification(&self, notification: Notification) {
        // fails only on the thread that serves the clients, on which no handler is called
        let _ = block_on(rpc::serve::RpcHandler::notification(&self.inner, notification));
    }
}

/// Handle of a server of calls; from [`Client::serve`]. Dropping it does not stop the server, which ends with
/// the client.
///
/// ```no_run
/// # use elbus_client::blocking::{Client, Router};
/// # fn example(client: Client, router: Router) -> Result<(), elbus_client::Error> {
/// let server = client.serve(router)?;
/// server.drain()?; // every call that has arrived is answered
/// client.close()
/// # }
/// ```
#[derive(Debug)]
pub struct ServeHandle {
    inner: rpc::serve::ServeHandle,
}

impl ServeHandle {
    /// Stops accepting calls; see [`crate::ServeHandle::stop`]. Functions that run longer than the client's
    /// timeout run to their end, and their results are discarded.
    pub fn stop(self) {
        self.inner.stop();
    }

    /// Stops accepting calls and waits until all that have arrived are answered; see
    /// [`crate::ServeHandle::drain`].
    ///
    /// # Errors
    /// [`Error::InAsyncContext`].
    pub fn drain(self) -> Result<(), Error> {
        block_on(self.inner.drain())
    }
}

impl Client {
    /// Calls a method of another client and waits for the reply; see [`crate::Client::call`].
    ///
    /// ```no_run
    /// # fn example(client: elbus_client::blocking::Client) -> Result<(), elbus_client::Error> {
    /// let result = client.call("plant.oven", "temperature", "")?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`crate::Client::call`]; [`Error::InAsyncContext`].
    pub fn call(&self, target: &str, method: &str, params: impl Into<Bytes>) -> Result<Bytes, Error> {
        block_on(self.inner.call(target, method, params))?
    }

    /// Calls a method with options; see [`call`](Client::call).
    ///
    /// # Errors
    /// As [`call`](Client::call).
    pub fn call_with(
        &self,
        target: &str,
        method: &str,
        params: impl Into<Bytes>,
        options: CallOptions,
    ) -> Result<Bytes, Error> {
        block_on(self.inner.call_with(target, method, params, options))?
    }

    /// Calls a method with parameters and a result that serde converts to and from msgpack; see
    /// [`crate::Client::call_as`].
    ///
    /// ```no_run
    /// # fn example(client: elbus_client::blocking::Client) -> Result<(), elbus_client::Error> {
    /// #[derive(serde::Serialize)]
    /// struct Add { a: i64, b: i64 }
    /// let sum: i64 = client.call_as("math", "add", &Add { a: 1, b: 2 })?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::Conversion`], and as [`call`](Client::call).
    pub fn call_as<R: DeserializeOwned>(
        &self,
        target: &str,
        method: &str,
        params: &(impl Serialize + ?Sized),
    ) -> Result<R, Error> {
        block_on(self.inner.call_as(target, method, params))?
    }

    /// Calls a method without a reply (call id 0).
    ///
    /// # Errors
    /// As [`send`](Client::send).
    pub fn call0(&self, target: &str, method: &str, params: impl Into<Bytes>, qos: Qos) -> Result<(), Error> {
        block_on(self.inner.call0(target, method, params, qos))?
    }

    /// Sends an RPC notification.
    ///
    /// # Errors
    /// As [`send`](Client::send).
    pub fn notify(&self, target: &str, payload: impl Into<Bytes>, qos: Qos) -> Result<(), Error> {
        block_on(self.inner.notify(target, payload, qos))?
    }

    /// Serves calls and notifications on the library's threads. They are then no longer delivered to the
    /// client's [`Frames`](super::Frames).
    ///
    /// ```no_run
    /// # fn example(client: elbus_client::blocking::Client) -> Result<(), elbus_client::Error> {
    /// use elbus_client::blocking::Router;
    /// #[derive(serde::Deserialize)]
    /// struct Add { a: i64, b: i64 }
    /// client.serve(Router::new().method("add", |add: Add| Ok(add.a + add.b)))?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::AlreadyServing`].
    pub fn serve(&self, handler: impl RpcHandler) -> Result<ServeHandle, Error> {
        self.inner.serve(BlockingHandler(Arc::new(handler))).map(|inner| ServeHandle { inner })
    }

    /// Calls a method that opens a cursor; see [`crate::Client::cursor`].
    ///
    /// ```no_run
    /// # fn example(client: elbus_client::blocking::Client) -> Result<(), elbus_client::Error> {
    /// for square in client.cursor::<u64>("math", "squares", &1000, "squares.next")? {
    ///     println!("{}", square?);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`call_as`](Client::call_as).
    pub fn cursor<T: DeserializeOwned>(
        &self,
        target: &str,
        method: &str,
        params: &(impl Serialize + ?Sized),
        next: &str,
    ) -> Result<Cursor<T>, Error> {
        let inner = block_on(self.inner.cursor(target, method, params, next))??;
        Ok(Cursor { inner, failed: false })
    }
}

/// A long result that is fetched in parts; from [`Client::cursor`]. An iterator that calls for each item and
/// ends after the last one or an error.
///
/// ```no_run
/// # fn example(client: elbus_client::blocking::Client) -> Result<(), elbus_client::Error> {
/// let squares = client.cursor::<u64>("math", "squares", &1000, "squares.next")?;
/// let sum = squares.sum::<Result<u64, _>>()?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Cursor<T> {
    inner: rpc::cursor::Cursor<T>,
    failed: bool,
}

impl<T: DeserializeOwned> Cursor<T> {
    /// Returns the next `count` items with one call; fewer at the end, and none after it.
    ///
    /// # Errors
    /// As [`call_as`](Client::call_as); [`Error::Rpc`] with -32001 if the server has dropped the cursor.
    pub fn block(&mut self, count: u32) -> Result<Vec<T>, Error> {
        block_on(self.inner.block(count))?
    }
}

impl<T: DeserializeOwned> Iterator for Cursor<T> {
    type Item = Result<T, Error>;

    /// Calls for the next item.
    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let item = block_on(self.inner.next()).flatten().transpose();
        self.failed = matches!(item, Some(Err(_)));
        item
    }
}
