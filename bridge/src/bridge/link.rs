//! The state of a pair of nodes, and what was sent and has not arrived.

use super::{
    lists::{ListLimits, RemoteList},
    pieces::Pieces,
    receiving::{ACKNOWLEDGE_AFTER, Receiving, Violation},
};
use crate::{
    filter::Intersections,
    outbox::{self, Chunk, Entry, Outbox},
    proxy_id::ProxyId,
    settings::Settings,
    wire::{BatchKey, BatchKind, Header, Record, append_record, append_results, append_windows},
};
use bytes::Bytes;
use elbus_protocol::Code;
use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

/// Batches that are neither arrived nor lost, from which on no further runs are published.
const MAX_SENT: usize = 65_536;
/// Results, windows and the like in one batch.
const MAX_ENTRIES: usize = 1024;
/// Results, windows and the like that a node has caused and has not acknowledged. No node that acknowledges
/// what arrives comes near to it.
const MAX_OWED: usize = 1 << 20;
/// Time between two snapshots because of losses.
pub(super) const SNAPSHOT_INTERVAL: Duration = Duration::from_millis(200);

/// A link to another node.
#[derive(Debug)]
pub(super) struct Link<C> {
    /// Unique within this start.
    pub(super) number: u64,
    pub(super) peer_epoch: u64,
    pub(super) peer_session: u64,
    pub(super) session: u64,
    pub(super) outbox: Arc<Outbox<C>>,
    /// When a batch of the link arrived last.
    pub(super) alive_at: Duration,
    pub(super) sending: Sending,
    pub(super) receiving: Receiving,
    pub(super) names: RemoteList,
    pub(super) filters: RemoteList,
    /// The filters of the node, as far as this node exports them.
    pub(super) interest: Intersections,
    pub(super) pieces: Pieces,
    /// Proxies of the node by the names of its clients.
    pub(super) proxies: HashMap<Arc<str>, ProxyId>,
    /// Proxies that are not listed, and when each has sent last.
    pub(super) unlisted: HashMap<ProxyId, u64>,
    /// Grows with each run of an unlisted sender.
    pub(super) uses: u64,
    /// Bytes of runs that have arrived and that the broker has not taken.
    pub(super) untaken: usize,
    /// References that were given out before a moment.
    pub(super) references: VecDeque<(u64, Duration)>,
}

/// Numbers of a link.
#[derive(Debug, Clone, Copy)]
pub(super) struct LinkIds {
    pub(super) number: u64,
    pub(super) peer_epoch: u64,
    pub(super) peer_session: u64,
    pub(super) session: u64,
}

impl<C> Link<C> {
    pub(super) fn new(ids: LinkIds, settings: &Settings, now: Duration) -> Self {
        let limits = &settings.limits;
        Link {
            number: ids.number,
            peer_epoch: ids.peer_epoch,
            peer_session: ids.peer_session,
            session: ids.session,
            outbox: Arc::new(Outbox::new(limits, Header::len(&settings.node))),
            alive_at: now,
            sending: Sending::new(now),
            receiving: Receiving::new(limits),
            names: RemoteList::new(ListLimits::of_names(limits)),
            filters: RemoteList::new(ListLimits::of_filters(limits)),
            interest: Intersections::new(settings.exports.topics()),
            pieces: Pieces::new(limits),
            proxies: HashMap::new(),
            unlisted: HashMap::new(),
            uses: 0,
            untaken: 0,
            references: VecDeque::new(),
        }
    }

    /// Returns the next batch, if there is something to send.
    pub(super) fn next_batch(&mut self, from: &Sender<'_>, now: Duration) -> Option<Bytes> {
        let chunk = if self.sending.sent.len() < MAX_SENT { self.outbox.take_chunk() } else { None };
        if chunk.is_none() && !self.sending.is_due(now) && !self.receiving.is_due(now) {
            return None;
        }
        let head_len = Header::len(from.node);
        let chunk = chunk.unwrap_or_else(|| Chunk::new(head_len, 256));
        let Chunk { mut bytes, entries, names, interest, in_flight, .. } = chunk;
        // the receiver drops a snapshot of which something was lost, whatever the batch had
        let has_names = names.has_any || self.sending.is_names_open;
        let has_interest = interest.has_any || self.sending.is_interest_open;
        self.sending.is_names_open = names.is_open.unwrap_or(self.sending.is_names_open);
        self.sending.is_interest_open = interest.is_open.unwrap_or(self.sending.is_interest_open);
        let mut sent = Sent {
            len: bytes.len() - head_len,
            in_flight,
            entries,
            has_names,
            has_interest,
            ..Sent::new(now)
        };
        self.sending.append_due(&mut bytes, &mut sent);
        sent.is_eliciting = bytes.len() > head_len;
        sent.lost_upto = self.receiving.append_due(&mut bytes);
        let header = Header {
            kind: BatchKind::Link,
            from_epoch: from.epoch,
            to_epoch: self.peer_epoch,
            from_session: self.session,
            to_session: self.peer_session,
            sequence: self.sending.push(sent),
            node: from.node,
        };
        header.seal(&mut bytes, from.key);
        Some(bytes.into())
    }

    /// Returns a last batch, which says that this node stops.
    pub(super) fn stop_batch(&mut self, from: &Sender<'_>, now: Duration) -> Bytes {
        let mut bytes = vec![0; Header::len(from.node)];
        append_record(&mut bytes, &Record::Stop);
        let header = Header {
            kind: BatchKind::Link,
            from_epoch: from.epoch,
            to_epoch: self.peer_epoch,
            from_session: self.session,
            to_session: self.peer_session,
            sequence: self.sending.push(Sent::new(now)),
            node: from.node,
        };
        header.seal(&mut bytes, from.key);
        bytes.into()
    }

    /// Returns whether the node does not answer any more.
    pub(super) fn is_silent(&self, lost_after: Duration, now: Duration) -> bool {
        now >= self.alive_at + lost_after || self.sending.is_stuck(lost_after, now)
    }

    /// Returns whether the node causes more results than it acknowledges.
    pub(super) fn owes_too_much(&self) -> bool {
        let sending = &self.sending;
        let unsent = sending.results.len() + sending.windows.len() + sending.dropped.len();
        unsent + sending.noted > MAX_OWED
    }

    /// Returns the reference below which waiting ends, if it is time.
    pub(super) fn time_out(&mut self, timeout: Duration, now: Duration) -> Option<u64> {
        let next = self.outbox.next_reference();
        if self.references.back().is_none_or(|(upto, _)| *upto < next) {
            self.references.push_back((next, now));
        }
        let mut late = None;
        while let Some((upto, at)) = self.references.front()
            && now >= *at + timeout
        {
            late = Some(*upto);
            self.references.pop_front();
        }
        late
    }
}

/// Who seals batches, and with which key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sender<'a> {
    pub(super) node: &'a str,
    pub(super) epoch: u64,
    /// Of the destination.
    pub(super) key: &'a BatchKey,
}

/// A batch that was published.
#[derive(Debug)]
struct Sent {
    at: Duration,
    /// Bytes of its chunk.
    len: usize,
    /// Bytes in flight when it was published.
    in_flight: usize,
    entries: Vec<Entry>,
    /// Whether its loss is followed by a snapshot.
    has_names: bool,
    has_interest: bool,
    results: Vec<(u64, Code)>,
    windows: Vec<(u64, u32)>,
    dropped: Vec<u32>,
    /// The end of the last range of lost batches that it reports.
    lost_upto: u64,
    /// Whether its arrival is acknowledged without delay.
    is_eliciting: bool,
}

impl Sent {
    fn new(at: Duration) -> Self {
        Sent {
            at,
            len: 0,
            in_flight: 0,
            entries: Vec::new(),
            has_names: false,
            has_interest: false,
            results: Vec::new(),
            windows: Vec::new(),
            dropped: Vec::new(),
            lost_upto: 0,
            is_eliciting: false,
        }
    }

    /// Returns how many results, windows and the like are noted, to be sent again if the batch is lost.
    fn noted(&self) -> usize {
        self.results.len() + self.windows.len() + self.dropped.len()
    }
}

/// What was published and what is to be published beside runs.
#[derive(Debug)]
pub(super) struct Sending {
    /// Number of the first batch in `sent`.
    first: u64,
    sent: VecDeque<Sent>,
    /// Sum of [`Sent::noted`].
    noted: usize,
    /// When the first one of them was acknowledged, or the link began.
    progress: Duration,
    results: VecDeque<(u64, Code)>,
    windows: HashMap<u64, u64>,
    /// Bytes in `windows`.
    window_bytes: u64,
    windows_due: Duration,
    dropped: Vec<u32>,
    pub(super) wants_ping: bool,
    /// Whether parts of a snapshot were published, and not yet the last one.
    is_names_open: bool,
    is_interest_open: bool,
    /// When a snapshot is due because changes were lost.
    pub(super) names_due: Option<Duration>,
    pub(super) interest_due: Option<Duration>,
}

impl Sending {
    fn new(now: Duration) -> Self {
        Sending {
            first: 1,
            sent: VecDeque::new(),
            noted: 0,
            progress: now,
            results: VecDeque::new(),
            windows: HashMap::new(),
            window_bytes: 0,
            windows_due: Duration::MAX,
            dropped: Vec::new(),
            wants_ping: true,
            is_names_open: false,
            is_interest_open: false,
            names_due: None,
            interest_due: None,
        }
    }

    /// Returns when windows should be returned.
    pub(super) fn deadline(&self) -> Duration {
        let snapshots = self.names_due.into_iter().chain(self.interest_due).min().unwrap_or(Duration::MAX);
        self.windows_due.min(snapshots)
    }

    fn is_due(&self, now: Duration) -> bool {
        self.wants_ping || !self.results.is_empty() || !self.dropped.is_empty() || now >= self.windows_due
    }

    /// Returns whether nothing was acknowledged for so long although something should be.
    fn is_stuck(&self, lost_after: Duration, now: Duration) -> bool {
        let oldest = self.sent.iter().find(|sent| sent.is_eliciting).map(|sent| sent.at);
        oldest.is_some_and(|at| now >= at.max(self.progress) + lost_after)
    }

    /// A result for the node.
    pub(super) fn add_result(&mut self, reference: u64, code: Code) {
        self.results.push_back((reference, code));
    }

    /// Bytes that the broker has taken. They are returned at once from `enough` bytes on.
    pub(super) fn add_window(&mut self, window: u64, bytes: usize, enough: usize, now: Duration) {
        *self.windows.entry(window).or_insert(0) += bytes as u64;
        self.window_bytes += bytes as u64;
        let is_enough = self.window_bytes >= enough as u64;
        self.windows_due = self.windows_due.min(if is_enough { now } else { now + ACKNOWLEDGE_AFTER });
    }

    /// Appends what is due, and notes it in `sent`.
    fn append_due(&mut self, out: &mut Vec<u8>, sent: &mut Sent) {
        if self.wants_ping {
            self.wants_ping = false;
            append_record(out, &Record::Ping);
        }
        if !self.results.is_empty() {
            let count = self.results.len().min(MAX_ENTRIES);
            sent.results.extend(self.results.drain(..count));
            append_results(out, &sent.results);
        }
        if !self.windows.is_empty() {
            let ids: Vec<u64> = self.windows.keys().take(MAX_ENTRIES).copied().collect();
            for id in ids {
                let bytes = self.windows.remove(&id).unwrap_or_default();
                self.window_bytes -= bytes;
                let mut left = bytes;
                while left > 0 {
                    let part = u32::try_from(left).unwrap_or(u32::MAX);
                    sent.windows.push((id, part));
                    left -= u64::from(part);
                }
            }
            append_windows(out, &sent.windows);
            if self.windows.is_empty() {
                self.windows_due = Duration::MAX;
            }
        }
        let count = self.dropped.len().min(MAX_ENTRIES);
        for transfer in self.dropped.drain(..count) {
            append_record(out, &Record::DropPieces { transfer });
            sent.dropped.push(transfer);
        }
    }

    /// Notes a batch. Returns its number.
    fn push(&mut self, sent: Sent) -> u64 {
        self.noted += sent.noted();
        self.sent.push_back(sent);
        self.first + self.sent.len() as u64 - 1
    }

    /// Returns how many messages are in batches that are neither arrived nor lost. A message in several
    /// pieces counts once.
    pub(super) fn messages_in_flight(&self) -> u64 {
        let entries = self.sent.iter().flat_map(|sent| &sent.entries);
        let whole = entries.clone().filter(|entry| entry.transfer == 0);
        let mut pieced: Vec<u32> =
            entries.filter(|entry| entry.transfer != 0).map(|entry| entry.transfer).collect();
        pieced.sort_unstable();
        pieced.dedup();
        whole.map(|entry| u64::from(entry.messages)).sum::<u64>() + pieced.len() as u64
    }

    /// Number of batches that are neither arrived nor lost.
    pub(super) fn unacknowledged(&self) -> usize {
        self.sent.len()
    }
}

/// What the acknowledgement of batches has changed.
#[derive(Debug)]
pub(super) struct Acknowledged<C> {
    pub(super) completed: Vec<(C, Code)>,
    pub(super) messages_lost: u64,
}

impl<C> Link<C> {
    /// The node has said which batches have arrived.
    pub(super) fn acknowledge(
        &mut self,
        upto: u64,
        lost: impl Iterator<Item = (u64, u64)>,
        now: Duration,
    ) -> Result<Acknowledged<C>, Violation> {
        let mut result = Acknowledged { completed: Vec::new(), messages_lost: 0 };
        let sending = &mut self.sending;
        if upto >= sending.first + sending.sent.len() as u64 {
            return Err(Violation);
        }
        // in order, so that both are walked through once
        let mut ranges = lost.peekable();
        let mut end = 0;
        while sending.first <= upto
            && let Some(sent) = sending.sent.pop_front()
        {
            let number = sending.first;
            sending.first += 1;
            sending.noted -= sent.noted();
            sending.progress = now;
            while let Some((first, count)) = ranges.next_if(|(first, _)| *first <= number) {
                if count == 0 || first < end {
                    return Err(Violation);
                }
                end = first.saturating_add(count);
            }
            let is_lost = number < end;
            if !is_lost {
                self.receiving.confirm(sent.lost_upto);
                let time = now.saturating_sub(sent.at);
                let batch = outbox::Acknowledged { bytes: sent.len, in_flight: sent.in_flight, time };
                self.outbox.arrived(batch, &sent.entries);
                continue;
            }
            self.receiving.repeat(now);
            let (messages, transfers) = self.outbox.lost(sent.len, &sent.entries, &mut result.completed);
            result.messages_lost += messages;
            sending.dropped.extend(transfers);
            sending.dropped.extend(sent.dropped);
            sending.results.extend(sent.results);
            for (window, bytes) in sent.windows {
                *sending.windows.entry(window).or_insert(0) += u64::from(bytes);
                sending.window_bytes += u64::from(bytes);
                sending.windows_due = now;
            }
            if sent.has_names {
                sending.names_due.get_or_insert(now + SNAPSHOT_INTERVAL);
            }
            if sent.has_interest {
                sending.interest_due.get_or_insert(now + SNAPSHOT_INTERVAL);
            }
        }
        Ok(result)
    }
}
