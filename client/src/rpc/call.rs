//! Calling. Owns the requests and what becomes of their outcome; never serves.

use bytes::Bytes;
use elbus_protocol::{Op, Qos, rpc};
use serde::{Serialize, de::DeserializeOwned};
use std::time::Duration;
use tokio::time::timeout;

use crate::{
    Client, Error,
    connection::Shared,
    connection::send_queue::{Ack, Request},
};

/// How a call is made.
#[derive(Debug, Clone, Copy, Default)]
pub struct CallOptions {
    timeout: Option<Duration>,
    realtime: bool,
}

impl CallOptions {
    /// The defaults: the client's timeout, not real-time.
    pub fn new() -> Self {
        Self::default()
    }

    /// For how long to wait for the reply.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sends the request as real-time; by convention the reply then is, too.
    pub fn realtime(mut self, realtime: bool) -> Self {
        self.realtime = realtime;
        self
    }
}

impl Client {
    /// Calls a method of another client and waits for the reply. Many calls may be under way at once; dropping the future
    /// forgets the call.
    ///
    /// A target that is not registered ends the call at once, since the request is acknowledged by the broker; a target
    /// that leaves before it replies ends it at its timeout.
    ///
    /// ```no_run
    /// # async fn example(client: elbus_client::Client) -> Result<(), elbus_client::Error> {
    /// let result = client.call("plant.oven", "temperature", "").await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::Rpc`] where the callee answers with an error, [`Error::NotRegistered`], [`Error::NotDelivered`],
    /// [`Error::Timeout`], and as [`send`](Client::send).
    pub async fn call(&self, target: &str, method: &str, params: impl Into<Bytes>) -> Result<Bytes, Error> {
        self.call_with(target, method, params, CallOptions::new()).await
    }

    /// As [`call`](Client::call), with options.
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
        let after = options.timeout.unwrap_or(self.shared.settings().timeout);
        let qos = if options.realtime { Qos::REALTIME_PROCESSED } else { Qos::PROCESSED };
        let call = self.shared.call(target, method, params.into(), qos);
        timeout(after, call).await.unwrap_or_else(|_| {
            Err(Error::Timeout { what: format!("call of {method:?} of {target:?}"), after })
        })
    }

    /// Calls with parameters and a result that serde converts from and to msgpack; parameters `()` are none, and structs
    /// become maps with the names of their fields.
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

    /// Calls without wanting a reply (call id 0).
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
        self.shared.carry(&message(target, &head, params.into(), qos)).await
    }

    /// Sends a notification of the RPC layer.
    ///
    /// # Errors
    /// As [`send`](Client::send).
    pub async fn notify(&self, target: &str, payload: impl Into<Bytes>, qos: Qos) -> Result<(), Error> {
        self.shared.carry(&message(target, &[rpc::NOTIFICATION], payload.into(), qos)).await
    }
}

fn message<'a>(target: &'a str, head: &'a [u8], payload: Bytes, qos: Qos) -> Request<'a> {
    Request { op: Op::Message, qos, target, receiver: "", head, payload }
}

impl Shared {
    async fn call(&self, target: &str, method: &str, params: Bytes, qos: Qos) -> Result<Bytes, Error> {
        let call = self.switchboard.calls.begin(target);
        let mut head = Vec::with_capacity(method.len() + 6);
        rpc::encode_request_head(&mut head, call.id, method)?;
        let request = message(target, &head, params, qos);
        #[cfg(feature = "in-process")]
        if let crate::connection::Place::InProcess(_) = self.place {
            self.local.carry(&request).await?;
            return call.await;
        }
        self.queue(|| self.outgoing.send(&request, Some(Ack::Call(call.id)))).await?;
        call.await
    }

    /// Sends a reply, of either kind.
    pub(crate) async fn reply(
        &self,
        target: &str,
        head: &[u8],
        data: Bytes,
        realtime: bool,
    ) -> Result<(), Error> {
        let qos = if realtime { Qos::REALTIME } else { Qos::NO };
        self.carry(&message(target, head, data, qos)).await
    }
}

/// Parameters as msgpack; nothing at all for `()`.
pub(crate) fn encode_params(params: &(impl Serialize + ?Sized)) -> Result<Vec<u8>, Error> {
    /// What msgpack makes of `()`.
    const NIL: [u8; 1] = [0xC0];
    let encoded = rmp_serde::to_vec_named(params)
        .map_err(|error| Error::Conversion { what: format!("parameters cannot be encoded: {error}") })?;
    Ok(if encoded == NIL { Vec::new() } else { encoded })
}

pub(crate) fn decode_result<R: DeserializeOwned>(
    result: &[u8],
    target: &str,
    method: &str,
) -> Result<R, Error> {
    // no bytes are what a callee without a result sends
    let result = if result.is_empty() { &[0xC0] } else { result };
    rmp_serde::from_slice(result).map_err(|error| Error::Conversion {
        what: format!("the result of {method:?} of {target:?} is not what was expected: {error}"),
    })
}
