//! Performs operations: queues the frame, waits for capacity and for the acknowledgement. Owns the conversion
//! of their outcome to an error; never the public interface.

use bytes::Bytes;
use elbus_protocol::{Code, Qos, rpc};
use tokio::time::timeout;

#[cfg(feature = "in-process")]
use super::endpoint::Endpoint;
use super::{
    ack_table::FrameAck,
    inner::Inner,
    request::{Request, operation_text},
    send_queue::QueueError,
};
use crate::error::Error;

impl Inner {
    /// Queues a frame, and waits for its acknowledgement if it requests one.
    ///
    /// The future is moved with each frame, and most frames wait for nothing: so whatever waits is boxed, and
    /// the request is held once, which an `async fn` would not do.
    #[inline]
    #[expect(clippy::manual_async_fn, reason = "it would hold the request twice")]
    pub(crate) fn send<'a>(&'a self, request: Request<'a>) -> impl Future<Output = Result<(), Error>> + 'a {
        async move {
            #[cfg(feature = "in-process")]
            if let Endpoint::InProcess(_) = self.endpoint {
                return Box::pin(self.in_process.send(&request)).await;
            }
            let wants_ack = request.qos.wants_ack();
            let ack = wants_ack.then_some(FrameAck::Awaited);
            let op_id = match self.send_queue.send(&request, ack) {
                Ok(op_id) => op_id,
                Err(QueueError::Failed(error)) => return Err(error),
                Err(QueueError::Full) => Box::pin(self.queue(|| self.send_queue.send(&request, ack))).await?,
            };
            if wants_ack {
                let operation = operation_text(request.op);
                return Box::pin(self.acknowledged(op_id, operation, request.target)).await;
            }
            // a loop of sends must let other tasks run, and leave in batches of some size
            tokio::task::coop::consume_budget().await;
            Ok(())
        }
    }

    /// Calls a method of another client and waits for the reply, without a timeout.
    pub(crate) async fn call(
        &self,
        target: &str,
        method: &str,
        params: Bytes,
        qos: Qos,
    ) -> Result<Bytes, Error> {
        let call = self.demux.calls.register(target);
        let mut head = Vec::with_capacity(method.len() + 6);
        rpc::encode_request_head(&mut head, call.id, method)?;
        self.send_call(&Request::message(target, &head, params, qos), call.id).await?;
        call.await
    }

    /// Queues the request of a call. A refusal of the broker fails the call.
    async fn send_call(&self, request: &Request<'_>, call: u32) -> Result<(), Error> {
        #[cfg(feature = "in-process")]
        if let Endpoint::InProcess(_) = self.endpoint {
            return self.in_process.send(request).await;
        }
        self.queue(|| self.send_queue.send(request, Some(FrameAck::Call(call)))).await.map(drop)
    }

    /// Queues a ping.
    pub(crate) fn ping(&self) -> Result<(), Error> {
        #[cfg(feature = "in-process")]
        if let Endpoint::InProcess(_) = self.endpoint {
            return self.in_process.check_connected();
        }
        self.send_queue.ping()
    }

    /// Calls `queue` until there is capacity.
    pub(super) async fn queue<T>(
        &self,
        mut queue: impl FnMut() -> Result<T, QueueError>,
    ) -> Result<T, Error> {
        loop {
            match queue() {
                Ok(queued) => return Ok(queued),
                Err(QueueError::Failed(error)) => return Err(error),
                Err(QueueError::Full) => {
                    let after = self.settings.timeout;
                    if timeout(after, self.send_queue.capacity()).await.is_err() {
                        let operation = format!(
                            "waiting for space in the send queue (the broker at {} does not read)",
                            self.endpoint
                        );
                        return Err(Error::Timeout { operation, after });
                    }
                }
            }
        }
    }

    /// Waits for the acknowledgement of an operation.
    pub(super) async fn acknowledged(&self, op_id: u32, operation: &str, target: &str) -> Result<(), Error> {
        let after = self.settings.timeout;
        match timeout(after, self.send_queue.acknowledgement(op_id)).await {
            Ok(Ok(code)) if code == Code::Ok as u8 => Ok(()),
            Ok(Ok(code)) => Err(Error::from_code(code, operation, target)),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(Error::Timeout { operation: format!("{operation} {target:?}"), after }),
        }
    }
}
