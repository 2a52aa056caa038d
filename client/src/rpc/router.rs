//! Methods as functions. Owns their names and the conversion of parameters and results; never concurrency.

use bytes::Bytes;
use futures_core::Stream;
use serde::{Serialize, de::DeserializeOwned};
use std::{collections::HashMap, pin::Pin, sync::Arc, time::Duration};

use super::{
    cursor::NextParams,
    msgpack::encode_result,
    serve::{Call, Notification, RpcHandler},
    server_cursors::{EncodedItems, EncodedIter, EncodedStream, ServerCursors},
};
use crate::error::rpc_error::RpcError;

type Answer = Pin<Box<dyn Future<Output = Result<Bytes, RpcError>> + Send>>;
type Method = Box<dyn Fn(Call) -> Answer + Send + Sync>;
type OnNotification = Box<dyn Fn(Notification) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// An [`RpcHandler`] that maps method names to functions. Calls of other methods fail with -32601.
///
/// Parameters and results are converted from and to msgpack. Calls with wrong parameters fail with -32602 and
/// the reason.
///
/// ```no_run
/// # async fn example(client: elbus_client::Client) -> Result<(), elbus_client::Error> {
/// use elbus_client::{Router, RpcError};
/// let router = Router::new()
///     .method("double", |number: i64| async move { Ok::<_, RpcError>(number * 2) })
///     .method("name", |(): ()| async { Ok::<_, RpcError>("oven") });
/// client.serve(router)?;
/// # Ok(()) }
/// ```
#[derive(Default)]
pub struct Router {
    methods: HashMap<String, Method>,
    notification: Option<OnNotification>,
    cursors: Arc<ServerCursors>,
}

impl Router {
    /// Returns a router without methods.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a method with typed parameters (`()` for none) and a typed result.
    pub fn method<P, R, F, A>(self, name: impl Into<String>, function: F) -> Self
    where
        P: DeserializeOwned + Send + 'static,
        R: Serialize + Send + 'static,
        F: Fn(P) -> A + Send + Sync + 'static,
        A: Future<Output = Result<R, RpcError>> + Send + 'static,
    {
        self.method_with_call(name, move |_, params| function(params))
    }

    /// Adds a method whose function also receives the [`Call`], for example for its sender.
    pub fn method_with_call<P, R, F, A>(self, name: impl Into<String>, function: F) -> Self
    where
        P: DeserializeOwned + Send + 'static,
        R: Serialize + Send + 'static,
        F: Fn(Call, P) -> A + Send + Sync + 'static,
        A: Future<Output = Result<R, RpcError>> + Send + 'static,
    {
        self.raw(name, move |call| {
            let answer = call.parse::<P>().map(|params| function(call, params));
            async move { encode_result(&answer?.await?).map(Bytes::from) }
        })
    }

    /// Adds a method whose parameters and result are bytes.
    pub fn raw<F, A>(mut self, name: impl Into<String>, function: F) -> Self
    where
        F: Fn(Call) -> A + Send + Sync + 'static,
        A: Future<Output = Result<Bytes, RpcError>> + Send + 'static,
    {
        self.methods.insert(name.into(), Box::new(move |call| Box::pin(function(call))));
        self
    }

    /// Sets the function that receives notifications. Without it they are dropped.
    pub fn notification<F, A>(mut self, function: F) -> Self
    where
        F: Fn(Notification) -> A + Send + Sync + 'static,
        A: Future<Output = ()> + Send + 'static,
    {
        self.notification = Some(Box::new(move |notification| Box::pin(function(notification))));
        self
    }

    /// Adds a method with a long result that is fetched in parts: the method `name` opens a cursor, and the
    /// method `next` returns its items, one or a block at a time (protocol section 7). A cursor that is not
    /// used for 60 s is dropped.
    ///
    /// ```no_run
    /// # async fn example(client: elbus_client::Client) -> Result<(), elbus_client::Error> {
    /// use elbus_client::{Router, RpcError};
    /// let router = Router::new()
    ///     .cursor("squares", "squares.next", |to: u64| async move {
    ///         Ok::<_, RpcError>((0..to).map(|n| n * n))
    ///     });
    /// client.serve(router)?;
    /// # Ok(()) }
    /// ```
    pub fn cursor<P, I, F, A>(self, name: impl Into<String>, next: impl Into<String>, function: F) -> Self
    where
        P: DeserializeOwned + Send + 'static,
        I: IntoIterator + Send + 'static,
        I::IntoIter: Send + Unpin + 'static,
        I::Item: Serialize + Send + 'static,
        F: Fn(P) -> A + Send + Sync + 'static,
        A: Future<Output = Result<I, RpcError>> + Send + 'static,
    {
        self.add_cursor(name, next, function, |items| Box::pin(EncodedIter(items.into_iter())))
    }

    /// As [`cursor`](Router::cursor), for items that are produced asynchronously.
    pub fn cursor_stream<P, S, F, A>(
        self,
        name: impl Into<String>,
        next: impl Into<String>,
        function: F,
    ) -> Self
    where
        P: DeserializeOwned + Send + 'static,
        S: Stream + Send + 'static,
        S::Item: Serialize + Send + 'static,
        F: Fn(P) -> A + Send + Sync + 'static,
        A: Future<Output = Result<S, RpcError>> + Send + 'static,
    {
        self.add_cursor(name, next, function, |items| Box::pin(EncodedStream(Box::pin(items))))
    }

    /// Sets after how long an unused cursor is dropped. Default: 60 s.
    pub fn cursor_lifetime(self, lifetime: Duration) -> Self {
        self.cursors.set_lifetime(lifetime);
        self
    }

    fn add_cursor<P, I, F, A>(
        self,
        name: impl Into<String>,
        next: impl Into<String>,
        function: F,
        encode: fn(I) -> EncodedItems,
    ) -> Self
    where
        P: DeserializeOwned + Send + 'static,
        I: Send + 'static,
        F: Fn(P) -> A + Send + Sync + 'static,
        A: Future<Output = Result<I, RpcError>> + Send + 'static,
    {
        let (open_cursors, next_cursors) = (self.cursors.clone(), self.cursors.clone());
        let opened = self.raw(name, move |call| {
            let items = call.parse::<P>().map(&function);
            let (cursors, owner) = (open_cursors.clone(), call.sender().to_owned());
            async move {
                let items = encode(items?.await?);
                encode_result(&cursors.open(owner, items)?).map(Bytes::from)
            }
        });
        opened.raw(next, move |call| {
            let cursors = next_cursors.clone();
            async move {
                let params: NextParams = call.parse()?;
                cursors.next(call.sender(), params).await
            }
        })
    }
}

impl RpcHandler for Router {
    async fn call(&self, call: Call) -> Result<Bytes, RpcError> {
        match self.methods.get(call.method()) {
            Some(method) => method(call).await,
            None => Err(RpcError::method_not_found()),
        }
    }

    async fn notification(&self, notification: Notification) {
        if let Some(function) = &self.notification {
            function(notification).await;
        }
    }
}

impl std::fmt::Debug for Router {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut methods: Vec<_> = self.methods.keys().collect();
        methods.sort();
        f.debug_struct("Router").field("methods", &methods).finish_non_exhaustive()
    }
}
