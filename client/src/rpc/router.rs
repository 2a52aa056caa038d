//! Methods as functions. Owns which name means which function and the conversion of parameters and results; never
//! concurrency.

use bytes::Bytes;
use futures_core::Stream;
use serde::{Serialize, de::DeserializeOwned};
use std::{collections::HashMap, pin::Pin, sync::Arc, time::Duration};

use super::{
    cursor::{Cursors, Items, Next},
    serve::{Call, Notification, RpcHandler},
};
use crate::RpcError;

type Answer = Pin<Box<dyn Future<Output = Result<Bytes, RpcError>> + Send>>;
type Method = Box<dyn Fn(Call) -> Answer + Send + Sync>;
type OnNotification = Box<dyn Fn(Notification) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// Serves calls by functions, each under the name of a method; any other method is answered with -32601.
///
/// Parameters come from msgpack and results go to it; wrong parameters are answered with -32602 and a sentence why.
#[derive(Default)]
pub struct Router {
    methods: HashMap<String, Method>,
    notification: Option<OnNotification>,
    cursors: Arc<Cursors>,
}

impl Router {
    /// Without any method.
    pub fn new() -> Self {
        Self::default()
    }

    /// A method with typed parameters (`()` for none) and a typed result.
    pub fn method<P, R, F, A>(self, name: impl Into<String>, function: F) -> Self
    where
        P: DeserializeOwned + Send + 'static,
        R: Serialize + Send + 'static,
        F: Fn(P) -> A + Send + Sync + 'static,
        A: Future<Output = Result<R, RpcError>> + Send + 'static,
    {
        self.method_with_call(name, move |_, params| function(params))
    }

    /// As [`method`](Router::method); the function gets the call as well, for its sender for instance.
    pub fn method_with_call<P, R, F, A>(self, name: impl Into<String>, function: F) -> Self
    where
        P: DeserializeOwned + Send + 'static,
        R: Serialize + Send + 'static,
        F: Fn(Call, P) -> A + Send + Sync + 'static,
        A: Future<Output = Result<R, RpcError>> + Send + 'static,
    {
        self.raw(name, move |call| {
            let answer = call.parse::<P>().map(|params| function(call, params));
            async move { encode(&answer?.await?).map(Bytes::from) }
        })
    }

    /// A method that takes and gives bytes.
    pub fn raw<F, A>(mut self, name: impl Into<String>, function: F) -> Self
    where
        F: Fn(Call) -> A + Send + Sync + 'static,
        A: Future<Output = Result<Bytes, RpcError>> + Send + 'static,
    {
        self.methods.insert(name.into(), Box::new(move |call| Box::pin(function(call))));
        self
    }

    /// What happens to notifications; without it they are dropped.
    pub fn notification<F, A>(mut self, function: F) -> Self
    where
        F: Fn(Notification) -> A + Send + Sync + 'static,
        A: Future<Output = ()> + Send + 'static,
    {
        self.notification = Some(Box::new(move |notification| Box::pin(function(notification))));
        self
    }

    /// A method whose result is long and is fetched in parts: it answers with a cursor, and `next` gives the items, one or
    /// a block at a time (protocol section 7). A cursor that nobody asks for 60 s is dropped.
    ///
    /// ```no_run
    /// # async fn example(client: elbus_client::Client) -> Result<(), elbus_client::Error> {
    /// use elbus_client::{Router, RpcError};
    /// let router = Router::new()
    ///     .cursor("squares", "squares.next", |to: u64| async move { Ok::<_, RpcError>((0..to).map(|n| n * n)) });
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
        self.cursor_of(name, next, function, |items| Box::pin(Items(items.into_iter())))
    }

    /// As [`cursor`](Router::cursor), for items that come over time.
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
        self.cursor_of(name, next, function, |items| Box::pin(super::cursor::Encoded(Box::pin(items))))
    }

    /// For how long a cursor is kept that nobody asks. Default: 60 s.
    pub fn cursor_lifetime(self, lifetime: Duration) -> Self {
        self.cursors.set_lifetime(lifetime);
        self
    }

    fn cursor_of<P, I, F, A>(
        self,
        name: impl Into<String>,
        next: impl Into<String>,
        function: F,
        encoded: fn(I) -> super::cursor::EncodedItems,
    ) -> Self
    where
        P: DeserializeOwned + Send + 'static,
        I: Send + 'static,
        F: Fn(P) -> A + Send + Sync + 'static,
        A: Future<Output = Result<I, RpcError>> + Send + 'static,
    {
        let (open, go_on) = (self.cursors.clone(), self.cursors.clone());
        let opened = self.raw(name, move |call| {
            let items = call.parse::<P>().map(&function);
            let (cursors, owner) = (open.clone(), call.sender().to_owned());
            async move {
                let items = encoded(items?.await?);
                encode(&cursors.open(owner, items)?).map(Bytes::from)
            }
        });
        opened.raw(next, move |call| {
            let cursors = go_on.clone();
            async move {
                let next: Next = call.parse()?;
                cursors.next(call.sender(), next).await
            }
        })
    }
}

pub(crate) fn encode(result: &impl Serialize) -> Result<Vec<u8>, RpcError> {
    rmp_serde::to_vec_named(result).map_err(|error| RpcError::internal(error.to_string()))
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
