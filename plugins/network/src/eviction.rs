//! The eviction of a connection that is still being prepared. Owns the race between the preparation and the
//! eviction; chooses no victim.

use elbus_stream::SessionPermit;
use std::pin::pin;
use tokio::sync::mpsc;

/// The slot that a connection has lost to another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EvictedFrom {
    /// The slot of a connection that has not registered.
    Pending,
    /// The slot of a TLS handshake in progress, of which there can be this many.
    Handshake(usize),
}

impl EvictedFrom {
    /// Returns the reason for [`SessionPermit::log_eviction`]; `None` is its default.
    pub fn reason(self) -> Option<String> {
        match self {
            EvictedFrom::Pending => None,
            EvictedFrom::Handshake(limit) => {
                Some(format!("evicted: {limit} TLS handshakes are in progress (tls.max_handshakes)"))
            }
        }
    }
}

/// Ends the preparation of a connection. Cheap to clone.
#[derive(Clone)]
pub struct Evictor(mpsc::Sender<EvictedFrom>);

impl Evictor {
    /// Ends the preparation, unless it has ended.
    pub(crate) fn evict(&self, from: EvictedFrom) {
        // full if the connection is evicted already, closed if its preparation has ended
        let _ = self.0.try_send(from);
    }
}

/// Runs the preparation of a connection.
///
/// # Errors
/// The connection was evicted first; the preparation was dropped.
pub async fn unless_evicted<W: Future>(
    permit: &SessionPermit,
    prepare: impl FnOnce(Evictor) -> W,
) -> Result<W::Output, EvictedFrom> {
    let (sender, mut evicted) = mpsc::channel(1);
    let evictor = Evictor(sender);
    let pending = evictor.clone();
    permit.on_eviction(move || pending.evict(EvictedFrom::Pending));
    let mut work = pin!(prepare(evictor));
    tokio::select! {
        output = work.as_mut() => Ok(output),
        Some(slot) = evicted.recv() => Err(slot),
    }
}
