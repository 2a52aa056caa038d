//! `elbus rpc listen`: answers each call with an empty result, and shows it.

use elbus_client::{Bytes, Call, Notification, RpcError, RpcHandler};
use tokio::sync::mpsc;

use super::feed::{Feed, Heard, connect, subscribe};
use crate::{arguments::FeedArguments, ending::Ending, failure::Failure, link::Link};

/// Calls that wait to be shown; those behind them are not answered before.
const WAITING: usize = 64;

pub(crate) async fn run(link: &Link, arguments: FeedArguments) -> Result<(), Failure> {
    let ending = Ending::watch()?;
    let (client, frames) = connect(link, &arguments).await?;
    let feed = Feed::new(link, &client, &arguments, false);
    let (tell, heard) = mpsc::channel(WAITING);
    let serving = client.serve(Teller { tell })?;
    subscribe(link, &client, &arguments).await?;
    let result = feed.run(ending, client, frames, heard).await;
    drop(serving);
    result
}

/// Passes on what it is called with.
struct Teller {
    tell: mpsc::Sender<Heard>,
}

impl RpcHandler for Teller {
    async fn call(&self, call: Call) -> Result<Bytes, RpcError> {
        let heard = Heard {
            kind: if call.wants_reply() { "call" } else { "call0" },
            sender: call.sender().to_owned(),
            realtime: call.is_realtime(),
            method: Some(call.method().to_owned()),
            payload: call.params().clone(),
        };
        match self.tell.send(heard).await {
            Ok(()) => Ok(Bytes::new()),
            Err(_) => Err(RpcError::internal("it is ending")),
        }
    }

    async fn notification(&self, notification: Notification) {
        let heard = Heard {
            kind: "notification",
            sender: notification.sender().to_owned(),
            realtime: false,
            method: None,
            payload: notification.payload().clone(),
        };
        // fails at the end, when nobody looks any more
        _ = self.tell.send(heard).await;
    }
}
