//! Runs one connection until it ends: reading, writing what senders leave, pinging. Owns the tasks of a
//! connection; never what follows its end.

use elbus_protocol::Op;
use elbus_socket::Socket;
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::{
    ack_table::{AckEvent, PendingAck},
    endpoint::Endpoint,
    frame_reader::{FrameReader, ReadBatch, ReadEnd},
    handshake::Registered,
    inner::Inner,
    link::ActiveLink,
    request::PROBE_FILTER,
    send_queue::{FlushResult, SendQueue},
};
use crate::{
    error::Error,
    receive::{demux::DemuxCache, inbox::Inbox},
    settings::Settings,
};

/// How long the broker can take to close a connection that the client has shut down.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Interval of writing to a full socket if there is no file descriptor to wait with.
const WRITE_RETRY: Duration = Duration::from_millis(5);

impl Inner {
    /// Runs a connection. Returns why it has ended.
    pub(super) async fn run(self: &Arc<Self>, link: ActiveLink) -> Error {
        match link {
            ActiveLink::Socket(registered) => self.run_socket(registered).await,
            #[cfg(feature = "in-process")]
            ActiveLink::InProcess => self.run_in_process().await,
        }
    }

    async fn run_socket(self: &Arc<Self>, registered: Registered) -> Error {
        let Registered { socket, read_ahead } = registered;
        let flusher = tokio::spawn(flush(self.clone()));
        let reader = FrameReader::new(socket.clone(), self.settings.max_frame_bytes, read_ahead);
        let end = tokio::select! {
            end = self.read(reader) => end,
            end = self.keep_alive() => end,
            () = async {
                self.close_requested().await;
                // a broker that does not read delays the end only by the timeout
                let _ = timeout(self.settings.timeout, self.send_queue.drained()).await;
                socket.shutdown_write();
                sleep(CLOSE_TIMEOUT).await;
            } => Error::Closed,
        };
        flusher.abort();
        end
    }

    #[cfg(feature = "in-process")]
    async fn run_in_process(&self) -> Error {
        let receive = async {
            let (mut frames, mut cache, mut touched) = (Vec::new(), DemuxCache::default(), Vec::new());
            while self.in_process.receive(&mut frames).await {
                self.demux.deliver(&mut frames, 0, &mut cache, &mut touched);
                self.wait_for_consumers(&touched).await;
            }
        };
        tokio::select! {
            () = receive => Error::disconnected("the broker has disconnected the client"),
            () = self.close_requested() => Error::Closed,
        }
    }

    async fn read(&self, mut reader: FrameReader) -> Error {
        let (mut batch, mut cache, mut touched, mut events) =
            (ReadBatch::default(), DemuxCache::default(), Vec::new(), Vec::new());
        let mut end = reader.begin(&mut batch).err();
        loop {
            if !batch.acks.is_empty() {
                self.send_queue.acknowledge(&batch.acks, &mut events);
                batch.acks.clear();
                for event in events.drain(..) {
                    match event {
                        AckEvent::CallRefused { call, code } => self.demux.calls.fail(call, code),
                        AckEvent::FiltersRefused { op, filters } => self.restore_in_halves(op, &filters),
                    }
                }
            }
            if !batch.frames.is_empty() {
                self.demux.deliver(&mut batch.frames, batch.shared_bytes, &mut cache, &mut touched);
                self.wait_for_consumers(&touched).await;
            }
            match end {
                Some(ReadEnd::Closed) => {
                    return Error::disconnected("the broker has closed the connection");
                }
                Some(ReadEnd::Io(error)) => return Error::disconnected_by("", error),
                Some(ReadEnd::Protocol(error)) => {
                    return Error::disconnected_by("the broker sent an invalid frame", error);
                }
                None => {}
            }
            end = reader.read(&mut batch, self.settings.busy_poll).await.err();
            self.reads.fetch_add(1, Ordering::Relaxed);
            self.bytes_received.store(reader.bytes, Ordering::Relaxed);
        }
    }

    /// Returns whether no more frames or outcomes can arrive than those already read.
    fn is_disconnected(&self) -> bool {
        match self.endpoint {
            Endpoint::Socket(_) => self.send_queue.is_disconnected(),
            #[cfg(feature = "in-process")]
            Endpoint::InProcess(_) => false,
        }
    }

    /// Waits until none of these inboxes is over its limit, or the connection is lost, but not longer than
    /// `hold_limit`: a broker disconnects a client that reads nothing. Frames over the limit of an inbox are
    /// then dropped and counted: those of the next read or, if the consumer has taken none, until it
    /// continues.
    async fn wait_for_consumers(&self, inboxes: &[Arc<Inbox>]) {
        let mut deadline = None;
        for inbox in inboxes {
            let taken = inbox.taken();
            while inbox.is_over_limit(self.read_limit.factor()) && !self.is_disconnected() {
                self.reader_paused.store(true, Ordering::Relaxed);
                let hold_limit = self.settings.hold_limit;
                let until = *deadline.get_or_insert_with(|| Instant::now().checked_add(hold_limit));
                match until {
                    Some(until) => drop(timeout_at(until, self.read_limit.changed()).await),
                    None => self.read_limit.changed().await,
                }
                if until.is_some_and(|until| until <= Instant::now())
                    && inbox.drop_excess(taken, self.read_limit.factor())
                {
                    let client = &self.name;
                    tracing::warn!(
                        client,
                        ?hold_limit,
                        "received frames are not consumed in time; dropping further ones"
                    );
                }
            }
        }
        self.reader_paused.store(false, Ordering::Relaxed);
    }

    /// Pings. Returns when the broker has been silent for twice the timeout, although a probe was sent after
    /// the first half.
    async fn keep_alive(&self) -> Error {
        let &Settings { timeout, ping_interval, .. } = &self.settings;
        let (mut reads, mut since, mut probed) = (0, Instant::now(), false);
        loop {
            sleep(ping_interval.min(timeout)).await;
            self.send_queue.ping_if_idle();
            let now = self.reads.load(Ordering::Relaxed);
            if now != reads || self.reader_paused.load(Ordering::Relaxed) {
                (reads, since, probed) = (now, Instant::now(), false);
                continue;
            }
            let silent = since.elapsed();
            if silent >= timeout * 2 && probed {
                let seconds = silent.as_secs_f64();
                return Error::disconnected(format!("the broker has been silent for {seconds:.1} s"));
            }
            if silent >= timeout && !probed {
                probed = true;
                // if it cannot be queued, enough frames are queued that the broker has to answer
                let probe = PendingAck::Abandoned;
                let _ = self.send_queue.change_filters(Op::Unexclude, &[PROBE_FILTER], probe);
            }
        }
    }
}

/// Writes the frames that senders leave in the queue.
async fn flush(inner: Arc<Inner>) {
    loop {
        inner.send_queue.flush_requested().await;
        let mut result = inner.send_queue.flush();
        while matches!(result, FlushResult::Gathering) {
            tokio::task::yield_now().await;
            result = inner.send_queue.flush();
        }
        match result {
            FlushResult::Done | FlushResult::Gathering => {}
            FlushResult::Disconnected => return,
            FlushResult::Full(socket) => flush_when_writable(&inner.send_queue, &socket).await,
        }
    }
}

/// Writes until the queue is empty, or the connection is lost. The second file descriptor exists only
/// meanwhile.
async fn flush_when_writable(queue: &SendQueue, socket: &Socket) {
    match socket.writable_twin() {
        Ok(twin) => {
            let mut full = true;
            while full && twin.writable().await.is_ok() {
                twin.while_writable(|| {
                    full = matches!(queue.flush(), FlushResult::Full(_));
                    !full
                });
            }
        }
        Err(error) => {
            tracing::debug!(%error, "no file descriptor to wait for a writable socket; polling it");
            while matches!(queue.flush(), FlushResult::Full(_)) {
                sleep(WRITE_RETRY).await;
            }
        }
    }
}
