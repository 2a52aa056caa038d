//! `elbus rpc listen`: prints calls and notifications, and answers each call with an empty result.

use elbus_client::{Bytes, Call, Notification, RpcError, RpcHandler};
use tokio::sync::mpsc;

use super::feed::{Feed, RpcEvent, connect, subscribe};
use crate::{arguments::messages::FeedArguments, context::Context, error::CliError, shutdown::Shutdown};

/// Calls queued to be printed. Further calls are answered once there is room again.
const CHANNEL_CAPACITY: usize = 64;

pub(crate) async fn run(context: &Context, arguments: FeedArguments) -> Result<(), CliError> {
    let shutdown = Shutdown::install()?;
    let (client, frames) = connect(context, &arguments).await?;
    let feed = Feed::new(context, &client, &arguments, false);
    let (events, rpc_events) = mpsc::channel(CHANNEL_CAPACITY);
    let serve_handle = client.serve(RpcPrinter { events })?;
    let topics = subscribe(context, &client, &arguments).await?;
    let result = feed.run(shutdown, client, frames, topics, rpc_events).await;
    drop(serve_handle);
    result
}

/// Passes calls and notifications to the feed, which prints them.
struct RpcPrinter {
    events: mpsc::Sender<RpcEvent>,
}

impl RpcHandler for RpcPrinter {
    async fn call(&self, call: Call) -> Result<Bytes, RpcError> {
        let event = RpcEvent {
            kind: if call.wants_reply() { "call" } else { "call0" },
            sender: call.sender().to_owned(),
            realtime: call.is_realtime(),
            method: Some(call.method().to_owned()),
            payload: call.params().clone(),
        };
        match self.events.send(event).await {
            Ok(()) => Ok(Bytes::new()),
            Err(_) => Err(RpcError::internal("the listener is exiting")),
        }
    }

    async fn notification(&self, notification: Notification) {
        let event = RpcEvent {
            kind: "notification",
            sender: notification.sender().to_owned(),
            realtime: false,
            method: None,
            payload: notification.payload().clone(),
        };
        // fails once the feed has ended
        _ = self.events.send(event).await;
    }
}
