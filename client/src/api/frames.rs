//! The frames of a client, as its user receives them. Owns the receiving end; does not decide which frames
//! arrive there.

use futures_core::Stream;
use std::{
    fmt,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
};

use super::client::Client;
use crate::{frame::Frame, receive::inbox::Receiver};

/// The received frames of a client: messages, broadcasts, and publications that no [`Subscription`] or
/// handler takes.
///
/// Also a [`Stream`]. If it is dropped, its frames are discarded and counted
/// ([`ClientStats::unclaimed`](crate::ClientStats::unclaimed)). If it is kept and not read, at most
/// `queue_bytes` are queued, and [`Overflow`](crate::Overflow) applies.
///
/// ```no_run
/// # async fn example() -> Result<(), elbus_client::Error> {
/// use elbus_client::Client;
/// let (client, mut frames) = Client::connect("/tmp/elbus.sock", "plant.display").await?;
/// while let Some(frame) = frames.next().await {
///     println!("{} sent {:?}", frame.sender(), frame.payload());
/// }
/// # Ok(()) }
/// ```
///
/// [`Subscription`]: crate::Subscription
pub struct Frames {
    receiver: Receiver,
    client: Client,
}

impl Frames {
    pub(crate) fn new(client: Client, receiver: Receiver) -> Self {
        Frames { receiver, client }
    }

    /// Returns the next frame; `None` once the client has ended and its queue is empty. Dropping the future
    /// loses no frame.
    pub async fn next(&mut self) -> Option<Frame> {
        poll_fn(|context| self.receiver.poll_next(context)).await
    }

    /// Returns the next frame if one is queued. Does not block.
    pub fn try_next(&mut self) -> Option<Frame> {
        self.receiver.try_next()
    }

    /// Returns how many frames have been dropped so far, as [`Overflow`](crate::Overflow) describes, and how
    /// many the broker has reported because of [`Options`](crate::Options). The next frame reports them too.
    pub fn missed(&self) -> u64 {
        self.receiver.missed()
    }

    /// Returns the client that receives the frames.
    pub fn client(&self) -> &Client {
        &self.client
    }
}

impl Stream for Frames {
    type Item = Frame;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Frame>> {
        self.receiver.poll_next(context)
    }
}

impl fmt::Debug for Frames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frames of {:?}", self.client.name())
    }
}
