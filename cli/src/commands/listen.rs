//! `elbus listen`: prints received frames.

use tokio::sync::mpsc;

use super::feed::{Feed, connect, subscribe};
use crate::{arguments::messages::ListenArguments, context::Context, error::CliError, shutdown::Shutdown};

pub(crate) async fn run(context: &Context, arguments: ListenArguments) -> Result<(), CliError> {
    let shutdown = Shutdown::install()?;
    let (client, frames) = connect(context, &arguments.feed).await?;
    let feed = Feed::new(context, &client, &arguments.feed, arguments.raw);
    let topics = subscribe(context, &client, &arguments.feed).await?;
    // this client answers no calls
    let (_, rpc_events) = mpsc::channel(1);
    feed.run(shutdown, client, frames, topics, rpc_events).await
}
