//! Remote calls, waited for, and methods that are plain functions. Owns the adapter between the two kinds of handler;
//! what a call is, and its conversion, is the async side's.

use serde::{Serialize, de::DeserializeOwned};
use std::{
    future::{Future, ready},
    sync::Arc,
    time::Duration,
};

use super::{
    Client,
    waiting::{apart, wait},
};
use crate::{Bytes, Call, CallOptions, CursorItem, Error, Notification, Qos, RpcError};

/// Serves what other clients call, with functions that may wait. [`Router`] is one.
pub trait RpcHandler: Send + Sync + 'static {
    /// Answers a call, on a thread of the library's own; up to 512 run at the same time. What comes back is sent to the
    /// caller, unless that wants no reply. A panic is answered as an internal error.
    ///
    /// # Errors
    /// What the caller is to get instead of a result.
    fn call(&self, call: Call) -> Result<Bytes, RpcError>;

    /// Takes a notification. One at a time, in order, independently of calls.
    fn notification(&self, notification: Notification) {
        drop(notification);
    }
}

/// Runs a blocking handler on threads.
struct Apart<H>(Arc<H>);

impl<H: RpcHandler> crate::RpcHandler for Apart<H> {
    fn call(&self, call: Call) -> impl Future<Output = Result<Bytes, RpcError>> + Send {
        let handler = self.0.clone();
        apart(move || handler.call(call))
    }

    fn notification(&self, notification: Notification) -> impl Future<Output = ()> + Send {
        let handler = self.0.clone();
        apart(move || handler.notification(notification))
    }
}

/// Serves calls by functions, as [`crate::Router`]; here they are plain ones, and may wait.
#[derive(Debug, Default)]
pub struct Router {
    inner: crate::Router,
}

impl Router {
    /// Without any method.
    pub fn new() -> Self {
        Self::default()
    }

    /// A method with typed parameters (`()` for none) and a typed result.
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

    /// As [`method`](Router::method); the function gets the call as well, for its sender for instance.
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

    /// A method that takes and gives bytes.
    pub fn raw(
        self,
        name: impl Into<String>,
        function: impl Fn(Call) -> Result<Bytes, RpcError> + Send + Sync + 'static,
    ) -> Self {
        Router { inner: self.inner.raw(name, move |call| ready(function(call))) }
    }

    /// What happens to notifications; without it they are dropped.
    pub fn notification(self, function: impl Fn(Notification) + Send + Sync + 'static) -> Self {
        let inner = self.inner.notification(move |notification| {
            function(notification);
            ready(())
        });
        Router { inner }
    }

    /// A method whose result is long and is fetched in parts: [`crate::Router::cursor`].
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

    /// For how long a cursor is kept that nobody asks. Default: 60 s.
    pub fn cursor_lifetime(self, lifetime: Duration) -> Self {
        Router { inner: self.inner.cursor_lifetime(lifetime) }
    }
}

impl RpcHandler for Router {
    fn call(&self, call: Call) -> Result<Bytes, RpcError> {
        // the functions run within, on this thread
        wait(crate::RpcHandler::call(&self.inner, call))
            .unwrap_or_else(|error| Err(RpcError::internal(error.to_string())))
    }

    fn notification(&self, notification: Notification) {
        // fails only where a handler must not be called: in an async context
        let _ = wait(crate::RpcHandler::notification(&self.inner, notification));
    }
}

/// Calls are being served; from [`Client::serve`]. Dropping it lets that go on until the client ends.
#[derive(Debug)]
pub struct Serving {
    inner: crate::Serving,
}

impl Serving {
    /// [`crate::Serving::stop`]. Functions that run longer than the client's timeout run to their end, and nobody gets their
    /// results.
    pub fn stop(self) {
        self.inner.stop();
    }

    /// [`crate::Serving::drain`].
    ///
    /// # Errors
    /// [`Error::InAsyncContext`].
    pub fn drain(self) -> Result<(), Error> {
        wait(self.inner.drain())
    }
}

impl Client {
    /// Calls a method of another client and waits for the reply: [`crate::Client::call`].
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
        wait(self.inner.call(target, method, params))?
    }

    /// As [`call`](Client::call), with options.
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
        wait(self.inner.call_with(target, method, params, options))?
    }

    /// Calls with parameters and a result that serde converts from and to msgpack: [`crate::Client::call_as`].
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
        wait(self.inner.call_as(target, method, params))?
    }

    /// Calls without wanting a reply (call id 0).
    ///
    /// # Errors
    /// As [`send`](Client::send).
    pub fn call0(&self, target: &str, method: &str, params: impl Into<Bytes>, qos: Qos) -> Result<(), Error> {
        wait(self.inner.call0(target, method, params, qos))?
    }

    /// Sends a notification of the RPC layer.
    ///
    /// # Errors
    /// As [`send`](Client::send).
    pub fn notify(&self, target: &str, payload: impl Into<Bytes>, qos: Qos) -> Result<(), Error> {
        wait(self.inner.notify(target, payload, qos))?
    }

    /// Serves calls and notifications from now on, on threads of the library's own. They then no longer arrive with the
    /// client's frames.
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
    pub fn serve(&self, handler: impl RpcHandler) -> Result<Serving, Error> {
        self.inner.serve(Apart(Arc::new(handler))).map(|inner| Serving { inner })
    }

    /// Calls a method that answers with a cursor: [`crate::Client::cursor`].
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
    pub fn cursor<T: CursorItem>(
        &self,
        target: &str,
        method: &str,
        params: &(impl Serialize + ?Sized),
        next: &str,
    ) -> Result<Cursor<T>, Error> {
        let inner = wait(self.inner.cursor(target, method, params, next))??;
        Ok(Cursor { inner, failed: false })
    }
}

/// A long result that is fetched in parts; from [`Client::cursor`]. An iterator, which calls for each item and ends
/// behind the last one or an error.
#[derive(Debug)]
pub struct Cursor<T> {
    inner: crate::Cursor<T>,
    failed: bool,
}

impl<T: CursorItem> Cursor<T> {
    /// The next `count` items; fewer at the end, none behind it. Fewer calls than one for each item.
    ///
    /// # Errors
    /// As [`call_as`](Client::call_as); [`Error::Rpc`] with -32001 where the callee has dropped the cursor.
    pub fn block(&mut self, count: u32) -> Result<Vec<T>, Error> {
        wait(self.inner.block(count))?
    }
}

impl<T: CursorItem> Iterator for Cursor<T> {
    type Item = Result<T, Error>;

    /// Calls for the next item.
    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let item = wait(self.inner.next()).flatten().transpose();
        self.failed = matches!(item, Some(Err(_)));
        item
    }
}
