//! Calling methods of other clients. Owns the requests and the conversion of their outcome; never serves.

use bytes::Bytes;
use elbus_protocol::{Qos, rpc};
use serde::{Serialize, de::DeserializeOwned};
use std::time::Duration;
use tokio::time::timeout;

use super::msgpack::{decode_result, encode_params};
use crate::{api::client::Client, connection::request::Request, error::Error};

/// Options of a call; for [`Client::call_with`].
///
/// ```no_run
/// # async fn example(client: elbus_client::Client) -> Result<(), elbus_client::Error> {
/// use elbus_client::CallOptions;
/// use std::time::Duration;
/// let options = CallOptions::new().timeout(Duration::from_secs(60));
/// let report = client.call_with("plant.archive", "report", "", options).await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, Default)]
#[must_use = "pass it to Client::call_with"]
pub struct CallOptions {
    timeout: Option<Duration>,
    realtime: bool,
}

impl CallOptions {
    /// Returns the defaults: the client's timeout, not real-time.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how long to wait for the reply.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sets whether the request is sent as real-time. By convention the reply then is, too.
    pub fn realtime(mut self, realtime: bool) -> Self {
        self.realtime = realtime;
        self
    }
}

impl Client {
    /// Calls a method of another client and waits for the reply. Many calls can be in flight at once;
    /// dropping the future forgets the call.
    ///
    /// If the target is not registered the call fails at once, because the broker acknowledges the request.
    /// If the target disconnects before it replies, the call times out.
    ///
    /// ```no_run
    /// # async fn example(client: elbus_client::Client) -> Result<(), elbus_client::Error> {
    /// let result = client.call("plant.oven", "temperature", "").await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::Rpc`] if the method returns an error, [`Error::NotRegistered`], [`Error::NotDelivered`],
    /// [`Error::Timeout`], and as [`send`](Client::send).
    pub async fn call(&self, target: &str, method: &str, params: impl Into<Bytes>) -> Result<Bytes, Error> {
        self.call_with(target, method, params, CallOptions::new()).await
    }

    /// Calls a method with options; see [`call`](Client::call).
    ///
    /// # Errors
    /// As [`call`](Client::call).
    pub async fn call_with(
        &self,
        target: &str,
        method: &str,
        params: impl Into<Bytes>,
        options: CallOptions,
    ) -> Result<Bytes, Error> {
        let after = options.timeout.unwrap_or(self.inner.settings.timeout);
        let qos = if options.realtime { Qos::REALTIME_PROCESSED } else { Qos::PROCESSED };
        let call = self.inner.call(target, method, params.into(), qos);
        timeout(after, call).await.unwrap_or_else(|_| {
            Err(Error::Timeout { operation: format!("call of {method:?} of {target:?}"), after })
        })
    }

    /// Calls a method with parameters and a result that serde converts to and from msgpack. Structs become
    /// maps with the names of their fields; `()` stands for no parameters.
    ///
    /// ```no_run
    /// # async fn example(client: elbus_client::Client) -> Result<(), elbus_client::Error> {
    /// #[derive(serde::Serialize)]
    /// struct Add { a: i64, b: i64 }
    /// let sum: i64 = client.call_as("math", "add", &Add { a: 1, b: 2 }).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::Conversion`], and as [`call`](Client::call).
    pub async fn call_as<R: DeserializeOwned>(
        &self,
        target: &str,
        method: &str,
        params: &(impl Serialize + ?Sized),
    ) -> Result<R, Error> {
        let result = self.call(target, method, encode_params(params)?).await?;
        decode_result(&result, target, method)
    }

    /// Calls a method without a reply (call id 0).
    ///
    /// ```no_run
    /// # async fn example(client: elbus_client::Client) -> Result<(), elbus_client::Error> {
    /// use elbus_client::Qos;
    /// client.call0("plant.oven", "beep", "", Qos::NO).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`send`](Client::send).
    pub async fn call0(
        &self,
        target: &str,
        method: &str,
        params: impl Into<Bytes>,
        qos: Qos,
    ) -> Result<(), Error> {
        let mut head = Vec::new();
        rpc::encode_request_head(&mut head, rpc::NO_REPLY, method)?;
        self.inner.send(Request::message(target, &head, params.into(), qos)).await
    }

    /// Sends an RPC notification.
    ///
    /// # Errors
    /// As [`send`](Client::send).
    pub async fn notify(&self, target: &str, payload: impl Into<Bytes>, qos: Qos) -> Result<(), Error> {
        self.inner.send(Request::message(target, &[rpc::NOTIFICATION], payload.into(), qos)).await
    }
}
