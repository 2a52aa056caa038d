//! Forwards a connection under TLS as plain bytes: a task copies between it and a socket pair, whose other
//! end is used like any socket. Owns the copying and its end. Each direction keeps at most one chunk, and
//! only until it is written, so that a side that reads too slowly holds back the other one and an idle
//! connection has no buffer.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::{
    future::poll_fn,
    io,
    os::fd::OwnedFd,
    pin::pin,
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split},
    net::UnixStream,
    time::timeout,
};

/// Bytes per read; a TLS record contains at most as many.
const CHUNK: usize = 16 * 1024;
/// Interval at which a silent or stalled peer is checked against a closed plain end.
const LOOK: Duration = Duration::from_secs(1);

/// The plain end of a tunnel, and the task that copies.
pub struct Tunnel<F> {
    /// The plain end: a non-blocking stream socket, closed on exec.
    pub end: OwnedFd,
    /// Runs until the connection ends. If the plain end is closed and the peer reads nothing, it ends within
    /// two seconds. Bytes sent before the close still arrive.
    pub work: F,
    /// Why nothing more can be received, unless the peer closed the connection properly. Set before the plain
    /// end reaches its end.
    pub fault: Arc<OnceLock<io::Error>>,
}

/// Creates a tunnel to a connection that has completed its handshake. Each direction ends on its own, after
/// the bytes sent before; the end of ours is a `close_notify`.
///
/// # Errors
/// No file descriptors are left for the socket pair.
pub fn tunnel<S>(secured: S) -> io::Result<Tunnel<impl Future<Output = ()> + Send>>
where
    S: AsyncRead + AsyncWrite + Send,
{
    let (end, other) = std::os::unix::net::UnixStream::pair()?;
    end.set_nonblocking(true)?;
    other.set_nonblocking(true)?;
    let other = UnixStream::from_std(other)?;
    let fault = Arc::new(OnceLock::new());
    Ok(Tunnel { end: end.into(), work: carry(secured, other, fault.clone()), fault })
}

async fn carry<S: AsyncRead + AsyncWrite>(secured: S, plain: UnixStream, fault: Arc<OnceLock<io::Error>>) {
    let (from_peer, to_peer) = split(secured);
    let mut inward = pin!(inward(from_peer, &plain, &fault));
    let mut outward = pin!(outward(&plain, to_peer));
    tokio::select! {
        () = inward.as_mut() => outward.await,
        () = outward.as_mut() => {
            // the peer may continue to send while the plain end still reads
            while timeout(LOOK, inward.as_mut()).await.is_err() && !has_closed(&plain) {}
        }
    }
}

/// Copies what the peer sends, until its end.
async fn inward(mut from_peer: impl AsyncRead + Unpin, plain: &UnixStream, fault: &OnceLock<io::Error>) {
    let mut taken = true;
    // an end without `close_notify` is an error; the bytes before it have been forwarded
    loop {
        let chunk = match receive(&mut from_peer).await {
            Ok(chunk) if chunk.is_empty() => break,
            Ok(chunk) => chunk,
            Err(error) => {
                let _ = fault.set(error); // this is the only place that sets it
                break;
            }
        };
        // continues to read after the plain end is closed: a reset could overtake the last bytes to the peer
        taken = taken && write_all(plain, &chunk).await.is_ok();
    }
    // fails if the plain end is already closed
    let _ = rustix::net::shutdown(plain, rustix::net::Shutdown::Write);
}

/// Copies what the plain end sends, until its end.
async fn outward(plain: &UnixStream, mut to_peer: impl AsyncWrite + Unpin) {
    while let Ok(chunk) = read(plain).await {
        if chunk.is_empty() {
            break;
        }
        let sent = async {
            to_peer.write_all(&chunk).await?;
            to_peer.flush().await
        };
        if patiently(sent, plain).await.is_err() {
            break;
        }
    }
    // fails if the connection is broken, which ends this direction too
    let _ = patiently(to_peer.shutdown(), plain).await;
}

/// Runs work that depends on the peer; gives up if the plain end is closed and the peer makes no progress.
async fn patiently(work: impl Future<Output = io::Result<()>>, plain: &UnixStream) -> io::Result<()> {
    let mut work = pin!(work);
    let mut last_look = false;
    loop {
        match timeout(LOOK, work.as_mut()).await {
            Ok(result) => return result,
            Err(_) if last_look => return Err(io::ErrorKind::TimedOut.into()),
            Err(_) => last_look = has_closed(plain),
        }
    }
}

/// Reads from the peer; returns no bytes at the end. Memory is used only if something has arrived.
async fn receive(from_peer: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    poll_fn(|context| {
        let mut chunk = Vec::with_capacity(CHUNK);
        // has no state: a new one continues where this one waits
        let read = pin!(from_peer.read_buf(&mut chunk)).poll(context);
        read.map_ok(|_| chunk)
    })
    .await
}

/// Reads from the plain end as [`receive`] does from the peer.
async fn read(plain: &UnixStream) -> io::Result<Vec<u8>> {
    loop {
        plain.readable().await?;
        let mut chunk = Vec::with_capacity(CHUNK);
        match plain.try_read_buf(&mut chunk) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return result.map(|_| chunk),
        }
    }
}

async fn write_all(plain: &UnixStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        plain.writable().await?;
        match plain.try_write(bytes) {
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Returns whether the plain end is closed in both directions.
fn has_closed(plain: &UnixStream) -> bool {
    let mut polled = [PollFd::new(plain, PollFlags::empty())];
    let asked = poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
    let closed = PollFlags::HUP | PollFlags::ERR;
    asked.is_ok_and(|_| polled.iter().any(|socket| socket.revents().intersects(closed)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use tokio::io::{DuplexStream, duplex};

    /// Opens a tunnel to a peer without TLS; returns the peer, the plain end and the running task.
    fn open(room: usize) -> (DuplexStream, UnixStream, tokio::task::JoinHandle<()>) {
        let (peer, secured) = duplex(room);
        let Tunnel { end, work, .. } = tunnel(secured).unwrap();
        let end = UnixStream::from_std(end.into()).unwrap();
        (peer, end, tokio::spawn(work))
    }

    fn pattern(len: usize) -> Vec<u8> {
        (0..len).map(|index| (index * 31 / 7) as u8).collect()
    }

    #[tokio::test]
    async fn each_direction_ends_separately_and_loses_nothing() {
        let (mut peer, mut end, work) = open(1000);
        let (up, down) = (pattern(1_000_003), pattern(700_001));
        peer.write_all(&up[..5]).await.unwrap();
        let (mut first, mut all) = ([0; 5], vec![]);
        end.read_exact(&mut first).await.unwrap();
        end.write_all(b"x").await.unwrap();
        end.shutdown().await.unwrap();
        // ours has ended, and the peer still sends
        let sending = async {
            let mut last = vec![];
            peer.read_to_end(&mut last).await.unwrap();
            assert_eq!(last, b"x");
            peer.write_all(&up[5..]).await.unwrap();
            peer.shutdown().await.unwrap();
        };
        tokio::join!(sending, async { end.read_to_end(&mut all).await.unwrap() });
        assert!(first == up[..5] && all == up[5..]);
        work.await.unwrap();

        let (mut peer, mut end, work) = open(1000);
        peer.shutdown().await.unwrap();
        assert_eq!(end.read(&mut [0; 9]).await.unwrap(), 0);
        let mut all = vec![];
        let sending = async {
            end.write_all(&down).await.unwrap();
            drop(end);
        };
        tokio::join!(sending, async { peer.read_to_end(&mut all).await.unwrap() });
        assert!(all == down);
        work.await.unwrap();
    }

    #[tokio::test]
    async fn a_stalled_peer_is_dropped_after_the_plain_end_closes() {
        let (peer, mut end, work) = open(10);
        end.write_all(&pattern(100_000)).await.unwrap();
        drop(end);
        work.await.unwrap();
        drop(peer);
    }

    #[tokio::test]
    async fn a_silent_peer_is_dropped_after_the_plain_end_closes() {
        let (mut peer, end, work) = open(10);
        drop(end);
        assert_eq!(peer.read(&mut [0; 9]).await.unwrap(), 0);
        work.await.unwrap();
    }
}
