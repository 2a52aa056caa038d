//! The incoming side of one connection: handshake ([`registration`]), then requests, dispatched in runs and
//! acknowledged in order. Owns the bytes of incomplete frames; allocates nothing for a length that is merely
//! announced. Dispatching stops within a read when a receiver is full: the rest of the read is kept and
//! dispatched before anything else is read ([`waiting`]).

mod dispatch;
pub(crate) mod mixed;
mod rate_limit;
mod registration;
mod waiting;

use bytes::Bytes;
use elbus_plugin_api::{Client, Payload, SharedBytes};
use elbus_protocol::{
    Limits,
    handshake::ServerHandshake,
    request::{REQUEST_HEADER_BYTES, RunBuffer, Step, next_run},
};
use elbus_socket::{READ_BYTES, Received, Socket};
use std::{io, sync::Arc};

use crate::{
    connection::{Connection, close_reason::CloseReason, liveness::Phase},
    server::peer_info::PeerInfo,
    session::{rate_limiter::RateLimiter, scratch::Scratch, unregistered::Unregistered},
};
pub(crate) use dispatch::RUN_BYTES;
use dispatch::{DispatchStop, ReadBatch};
use mixed::MixedBuffer;

/// Frames from this length on, header included, are read into memory of their own, which becomes the payload.
const LARGE_FRAME: usize = 64 * 1024 + REQUEST_HEADER_BYTES;

/// Bytes of a large frame that must arrive in each timeout.
pub(crate) const MIN_RATE_BYTES: usize = 64 * 1024;

/// A client that has sent a large frame gets memory for one of the same length at once, up to this many
/// bytes.
const TRUSTED_BYTES: usize = 4 * 1024 * 1024;

/// Unit in which kept bytes count in the broker's budget.
const COUNTED_BYTES: usize = 4096;

/// The reader of a connection between two reads.
pub(crate) struct Reader {
    connection: Arc<Connection>,
    socket: Arc<Socket>,
    peer: PeerInfo,
    port: Arc<str>,
    handshake: ServerHandshake,
    /// The registered client.
    client: Option<Client>,
    phase: Phase,
    /// An incomplete frame; unallocated when idle. From [`LARGE_FRAME`] on it ends where the frame ends.
    rest: Vec<u8>,
    /// Length of the frame in `rest`, as far as known.
    needed: usize,
    /// Whether `rest` begins with frames that must be dispatched before anything is read.
    stopped: bool,
    /// Whether the frame in `rest` is the one that can be received although the budget is used up.
    exceeds_budget: bool,
    /// Memory of `rest` counted in the broker's budget, in [`COUNTED_BYTES`].
    charged: u32,
    /// Length of the last large frame.
    last_large: u32,
    /// The current batch.
    batch: ReadBatch,
    /// `Some` until the client is registered.
    unregistered: Option<Box<Unregistered>>,
    /// `Some` if the client has rate limits.
    rate_limiter: Option<Box<RateLimiter>>,
}

impl Reader {
    pub(crate) fn new(
        connection: Arc<Connection>,
        socket: Arc<Socket>,
        peer: PeerInfo,
        port: Arc<str>,
        unregistered: Box<Unregistered>,
    ) -> Self {
        let has_rings = connection.server.rings.is_some();
        Reader {
            connection,
            socket,
            peer,
            port,
            handshake: if has_rings { ServerHandshake::with_rings() } else { ServerHandshake::new() },
            client: None,
            phase: Phase::Greeting,
            rest: Vec::new(),
            needed: REQUEST_HEADER_BYTES,
            stopped: false,
            exceeds_budget: false,
            charged: 0,
            last_large: 0,
            batch: ReadBatch::default(),
            unregistered: Some(unregistered),
            rate_limiter: None,
        }
    }

    /// Returns the peer of the connection.
    pub(crate) fn peer(&self) -> &PeerInfo {
        &self.peer
    }

    /// Sets what to do when a connection that is not registered is evicted.
    pub(crate) fn on_eviction(&self, evict: impl FnOnce() + Send + 'static) {
        if let Some(unregistered) = &self.unregistered {
            unregistered.on_eviction(evict);
        }
    }

    /// Takes the registered client; dropping it frees its name.
    pub(crate) fn take_client(&mut self) -> Option<Client> {
        self.stop_rate_limit();
        self.client.take()
    }

    /// Reads once, dispatches everything in it and flushes. Returns `true` if reading must pause, see
    /// [`wait_for_capacity`](Self::wait_for_capacity).
    pub(crate) fn step(&mut self) -> Result<bool, CloseReason> {
        if self.must_wait_for_memory() {
            return Ok(true);
        }
        let outcome = if self.stopped {
            self.resume()
        } else if self.needed < LARGE_FRAME {
            self.read_chunk()
        } else {
            self.read_large()
        };
        self.account();
        // also after an error: frames before it are valid
        let held = self.end_batch();
        if self.exceeds_budget {
            self.end_exceeding();
        }
        let waits = self.unregistered.as_ref().is_some_and(|unregistered| unregistered.waits());
        outcome.map(|()| held || self.stopped || waits || self.batch.turn.is_over())
    }

    /// Flushes the receivers first: they are waited for.
    #[inline]
    fn end_batch(&mut self) -> bool {
        let held = self.client.as_mut().is_some_and(Client::end_batch);
        if std::mem::take(&mut self.batch.dirty) {
            self.connection.flush();
        }
        // deliveries of others and replies to its own calls count like its acknowledgements
        self.batch.full |= self.connection.is_over_limit();
        held | self.batch.full | self.is_rate_limited()
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.connection.liveness.step(phase, self.connection.server.now());
    }

    /// Reads into the thread's buffer, behind the kept bytes.
    fn read_chunk(&mut self) -> Result<(), CloseReason> {
        let mut scratch = Scratch::take();
        let result = self.read_into(&mut scratch);
        scratch.give_back();
        result
    }

    fn read_into(&mut self, scratch: &mut Scratch) -> Result<(), CloseReason> {
        let kept = self.rest.len();
        // kept bytes are shorter than a large frame or the longest name, so there is room behind them
        let Some((start, room)) = scratch.buffer.split_at_mut_checked(kept) else {
            return Err(CloseReason::Broken(io::ErrorKind::InvalidData.into()));
        };
        start.copy_from_slice(&self.rest);
        let room = if self.rate_limiter.is_some() {
            let at_once = self.read_bytes(room.len());
            room.get_mut(..at_once).unwrap_or_default()
        } else {
            room
        };
        let received = if self.connection.is_read_requested() {
            self.receive_unannounced(room)
        } else {
            self.socket.receive(room)
        };
        let received = match received.map_err(CloseReason::of_error)? {
            Received::Nothing => return Ok(()),
            Received::End => return Err(CloseReason::Left),
            Received::Bytes(count) => count,
        };
        self.batch.bytes = self.batch.bytes.saturating_add(received as u32);
        let input = scratch.buffer.get(..kept + received).unwrap_or_default();
        let (mut run, mut mixed) = (scratch.vectors.run(), scratch.vectors.mixed());
        let used = self.feed(input, &mut run, &mut mixed);
        scratch.vectors.put(run);
        scratch.vectors.put_mixed(mixed);
        self.keep(input.get(used?..).unwrap_or_default());
        Ok(())
    }

    /// Reads as requested by housekeeping, until nothing is left.
    #[cold]
    fn receive_unannounced(&self, buffer: &mut [u8]) -> io::Result<Received> {
        let received = self.socket.receive_unannounced(buffer);
        if matches!(received, Ok(Received::Nothing)) {
            self.connection.finish_requested_read();
        }
        received
    }

    /// Keeps the beginning of a frame.
    fn keep(&mut self, rest: &[u8]) {
        if self.needed >= LARGE_FRAME {
            let wanted = self.large_capacity(rest.len());
            self.rest = Vec::with_capacity(if self.has_room(wanted) { wanted } else { rest.len() });
        } else if rest.is_empty() {
            self.rest = Vec::new();
        } else {
            self.rest.clear();
        }
        self.rest.extend_from_slice(rest);
    }

    /// Returns the memory for a large frame of which `arrived` bytes are there: grows with these, or is as
    /// much as the last frame needed, and ends where the frame ends.
    fn large_capacity(&self, arrived: usize) -> usize {
        arrived
            .saturating_mul(2)
            .max(READ_BYTES)
            .max(TRUSTED_BYTES.min(self.last_large as usize))
            .min(self.needed)
    }

    /// Reads into the memory of a large frame.
    fn read_large(&mut self) -> Result<(), CloseReason> {
        let have = self.rest.len();
        if self.rest.capacity() == have {
            let more = self.large_capacity(have).saturating_sub(have);
            let more = if self.charge_if_room(have + more) { more } else { more.min(READ_BYTES) };
            let out_of_memory = |_| CloseReason::Broken(io::ErrorKind::OutOfMemory.into());
            self.rest.try_reserve_exact(more).map_err(out_of_memory)?;
        }
        let received = if self.connection.is_read_requested() {
            let mut buffer = [0; 4096];
            let room = buffer.len().min(self.rest.capacity() - have);
            let room = buffer.get_mut(..room).unwrap_or_default();
            let received = self.receive_unannounced(room);
            if let Ok(Received::Bytes(count)) = received {
                self.rest.extend_from_slice(room.get(..count).unwrap_or_default());
            }
            received
        } else {
            self.socket.receive_more(&mut self.rest)
        };
        match received.map_err(CloseReason::of_error)? {
            Received::Nothing => return Ok(()),
            Received::End => return Err(CloseReason::Left),
            Received::Bytes(count) => {
                self.batch.bytes = self.batch.bytes.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
            }
        }
        if self.rest.len() < self.needed {
            // each piece has its own timeout: the announced length bounds the total
            if have / MIN_RATE_BYTES < self.rest.len() / MIN_RATE_BYTES {
                self.enter(Phase::Body);
            }
            return Ok(());
        }
        self.take_large()
    }

    /// Dispatches the complete large frame and what is behind it.
    fn take_large(&mut self) -> Result<(), CloseReason> {
        self.last_large = u32::try_from(self.needed).unwrap_or(u32::MAX);
        let mut frame = std::mem::take(&mut self.rest);
        // empty, unless the allocator gave more than requested
        let behind = frame.split_off(self.needed);
        if let Some(blocked) = self.dispatch_large(Bytes::from(frame))? {
            self.stopped = true;
            self.rest = blocked.into();
            self.rest.extend_from_slice(&behind);
            return Ok(());
        }
        self.needed = REQUEST_HEADER_BYTES;
        let used = self.feed(&behind, &mut RunBuffer::new(), &mut MixedBuffer::default())?;
        self.keep(behind.get(used..).unwrap_or_default());
        Ok(())
    }

    /// Dispatches a complete frame, whose payload receivers can share. Returns the frame if a receiver is
    /// full.
    fn dispatch_large(&mut self, frame: Bytes) -> Result<Option<Bytes>, CloseReason> {
        let limits = self.limits();
        let Some(client) = &mut self.client else { return Ok(None) };
        let mut run = RunBuffer::<Payload<'_>>::new();
        if let Step::Run(head) = next_run(&frame, &mut 0, &limits, &mut run).map_err(CloseReason::Frame)? {
            let payload = run.payloads.first().map_or(0, |payload| payload.len());
            let shared = SharedBytes::from(frame.slice(frame.len() - payload..));
            let rate_limiter = self.rate_limiter.as_deref_mut();
            let mut sending = dispatch::Dispatcher {
                client,
                connection: &self.connection,
                batch: &mut self.batch,
                rate_limiter,
            };
            match sending.dispatch(&head, &run, 0..head.len, Some(&shared)) {
                Ok(()) | Err(DispatchStop::Full | DispatchStop::TurnOver) => {}
                Err(DispatchStop::Blocked { .. }) => return Ok(Some(frame)),
                Err(DispatchStop::Ended(reason)) => return Err(reason),
            }
        }
        self.enter(Phase::Header);
        Ok(None)
    }

    fn limits(&self) -> Limits {
        Limits { max_frame_bytes: self.connection.limits.max_frame_bytes() }
    }

    /// Dispatches all complete frames of `input`; returns their length.
    #[inline]
    fn feed<'a>(
        &mut self,
        input: &'a [u8],
        run: &mut RunBuffer<Payload<'a>>,
        mixed: &mut MixedBuffer<'a>,
    ) -> Result<usize, CloseReason> {
        let mut pos = 0;
        if self.client.is_none() {
            pos = self.greet(input)?;
        }
        let limits = self.limits();
        if self.rate_limiter.is_some() {
            self.refill_messages();
        }
        let Some(client) = &mut self.client else { return Ok(pos) };
        let start = pos;
        let rate_limiter = self.rate_limiter.as_deref_mut();
        let mut sending = dispatch::Dispatcher {
            client,
            connection: &self.connection,
            batch: &mut self.batch,
            rate_limiter,
        };
        let around = sending.around();
        let needed = loop {
            match next_run(input, &mut pos, &limits, run).map_err(CloseReason::Frame)? {
                Step::Run(head) => {
                    let mut dispatched = sending.dispatch_parts(&head, run, around);
                    if dispatched.is_ok()
                        && sending.rate_limiter.is_none()
                        && sending.batch.mixed.begins(head.len, input.len() - pos)
                    {
                        // a copy, so that the position itself can stay in a register
                        let mut behind = pos;
                        dispatched = sending.dispatch_mixed(input, &mut behind, &limits, around, mixed);
                        pos = behind;
                    }
                    if let Err(stop) = dispatched {
                        pos = stop.position(&head, run, pos)?;
                        self.stopped = true;
                        break REQUEST_HEADER_BYTES;
                    }
                }
                Step::Incomplete { needed } => break needed,
            }
        };
        self.needed = needed;
        let phase = if needed > REQUEST_HEADER_BYTES { Phase::Body } else { Phase::Header };
        // bytes that complete nothing are no sign of life
        if pos > start || phase != self.phase {
            self.enter(phase);
        }
        Ok(pos)
    }
}
