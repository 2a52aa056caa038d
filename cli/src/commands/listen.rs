//! `elbus listen`.

use tokio::sync::mpsc;

use super::feed::{Feed, connect, subscribe};
use crate::{arguments::ListenArguments, ending::Ending, failure::Failure, link::Link};

pub(crate) async fn run(link: &Link, arguments: ListenArguments) -> Result<(), Failure> {
    let ending = Ending::watch()?;
    let (client, frames) = connect(link, &arguments.feed).await?;
    let feed = Feed::new(link, &client, &arguments.feed, arguments.raw);
    subscribe(link, &client, &arguments.feed).await?;
    // nobody calls
    let (_, heard) = mpsc::channel(1);
    feed.run(ending, client, frames, heard).await
}
