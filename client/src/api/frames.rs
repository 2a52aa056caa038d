//! The frames of a client, as its user receives them. Owns the receiving end; never decides what arrives there.

use futures_core::Stream;
use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
};

use crate::{Client, Frame, receive::inbox::Receiver};

/// What a client receives: messages, broadcasts and publications that no [`Subscription`](crate::Subscription), handler
/// or call takes. A stream as well.
///
/// Dropping it says that nobody wants them: they are then counted and dropped
/// ([`ClientStats::unclaimed`](crate::ClientStats::unclaimed)). While it is kept and nobody takes from it, at most
/// `queue_bytes` are read ahead, as [`Overflow`](crate::Overflow) says.
pub struct Frames {
    receiver: Receiver,
    client: Client,
}

impl Frames {
    pub(crate) fn new(client: Client, receiver: Receiver) -> Self {
        Frames { receiver, client }
    }

    /// The next frame; `None` once the client has ended and everything is taken. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Frame> {
        poll_fn(|context| self.receiver.poll_next(context)).await
    }

    /// The next frame if there is one. Any thread; does not block.
    pub fn try_next(&mut self) -> Option<Frame> {
        self.receiver.try_next()
    }

    /// How many frames an [`Overflow`](crate::Overflow) that drops has dropped so far; each is also reported by the
    /// frame behind it.
    pub fn missed(&self) -> u64 {
        self.receiver.missed()
    }

    /// The client they are of.
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

impl std::fmt::Debug for Frames {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Frames of {:?}", self.client.name())
    }
}
