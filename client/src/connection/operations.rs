//! Performs operations: queues the frame, waits for capacity and for the acknowledgement. Owns the conversion
//! of their outcome to an error; never the public interface.

use bytes::Bytes;
use elbus_protocol::{Code, Qos, rpc};
use tokio::time::timeout;

#[cfg(feature = "in-process")]
use super::endpoint::Endpoint;
use super::{
    ack_table::PendingAck,
    inner::Inner,
    request::{Request, operation_text},
    send_queue::QueueError,
};
use crate::error::Error;

impl Inner {
    /// Queues a frame, and waits for its acknowledgement if it requests one.
    pub(crate) async fn send(&self, request: &Request<'_>) -> Result<(), Error> {
        #[cfg(feature = "in-process")]
        if let Endpoint::InProcess(_) = self.endpoint {
            return self.in_process.send(request).await;
        }
        let wants_ack = request.qos.wants_ack();
        let ack = || wants_ack.then_some(PendingAck::Awaited(None));
        // a frame that finds room is queued without another future: this is the whole cost of most sends
        let op_id = match self.send_queue.send(request, ack()) {
            Ok(op_id) => op_id,
            Err(QueueError::Failed(error)) => return Err(error),
            Err(QueueError::Full) => Box::pin(self.queue(|| self.send_queue.send(request, ack()))).await?,
        };
        if !wants_ack {
            // a loop of sends must let other tasks run, and leave in batches of some size
            tokio::task::coop::consume_budget().await;
            return Ok(());
        }
        self.acknowledged(op_id, operation_text(request.op), request.target).await
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
        self.queue(|| self.send_queue.send(request, Some(PendingAck::Call(call)))).await.map(drop)
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
