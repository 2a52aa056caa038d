//! Sends kept values to clients that subscribe: one thread for all clients, each as fast as it reads.
//!
//! Owns the order in which replays take turns. A replay ends when its filters have been walked through or
//! its client has left; one whose client has something queued waits for the client's notifier.

mod queue;

use elbus_plugin_api::{
    Host, Notifier,
    hooks::{EarlierPublication, Replay, Replayed, SubscriptionChange, SubscriptionEvent},
};
use std::sync::Arc;

use crate::topics::{Cursor, Filter, Found, Topics};
use queue::{Queue, Work};

/// Values that a replay sends before the next one has its turn.
const VALUES_AT_ONCE: usize = 64;
/// Memory of a replay and of one of its filters, beside the text of the filters.
const REPLAY_BYTES: usize = 512;
const FILTER_BYTES: usize = 32;

/// A replay to a client that has subscribed.
struct Job {
    client_id: u64,
    identity: u64,
    replay: Arc<Replay>,
    filters: Vec<Filter>,
    /// The filter that is being walked through.
    filter: usize,
    cursor: Cursor,
    bytes: usize,
}

/// What a turn of a replay has ended with.
enum Turn {
    /// There is more to send.
    More,
    /// The client has something queued.
    Wait,
    Done,
}

impl Job {
    /// Sends some values; returns how many topics it has looked at.
    fn take_turn(&mut self, topics: &Topics, found: &mut Vec<Found>) -> (Turn, usize) {
        found.clear();
        let Some(filter) = self.filters.get(self.filter) else { return (Turn::Done, 0) };
        let start = self.cursor.clone();
        let visits = topics.walk(filter, &mut self.cursor, VALUES_AT_ONCE, found);
        // no lock is held: what delivers can publish
        for (index, (topic, value)) in found.iter().enumerate() {
            let publication = EarlierPublication::new(value.sender(), topic, value.payload(), value.mark());
            match self.replay.send(&publication) {
                Replayed::Sent | Replayed::Skipped => {}
                Replayed::Ended => return (Turn::Done, visits),
                Replayed::Wait => {
                    // what is current is looked up again then
                    let before = index.checked_sub(1).and_then(|before| found.get(before));
                    self.cursor = before.map_or(start, |(topic, _)| Cursor::after(topic));
                    return (Turn::Wait, visits);
                }
            }
        }
        if self.cursor.is_at_end() {
            self.filter += 1;
            self.cursor = Cursor::default();
        }
        (if self.filter < self.filters.len() { Turn::More } else { Turn::Done }, visits)
    }
}

/// The replays of an instance. Any thread may use it; only [`work`](Replayer::work) blocks.
pub(crate) struct Replayer {
    host: Host,
    queue: Arc<Queue>,
}

impl Replayer {
    pub(crate) fn new(host: Host, topics_per_second: u64) -> Self {
        Replayer { host, queue: Arc::new(Queue::new(topics_per_second)) }
    }

    /// Returns the number of replays that run or wait.
    pub(crate) fn running(&self) -> usize {
        self.queue.count()
    }

    /// Has the worker notify that it works.
    pub(crate) fn ask(&self, answer: Notifier) {
        self.queue.ask(answer);
    }

    /// Replays until [`end`](Replayer::end) is called.
    pub(crate) fn work(&self, topics: &Topics) {
        let mut found = Vec::with_capacity(VALUES_AT_ONCE);
        loop {
            let mut job = match self.queue.next() {
                Work::Replay(job) => job,
                Work::Answer(notifier) => {
                    notifier.notify();
                    continue;
                }
                Work::End => return,
            };
            let (turn, visits) = job.take_turn(topics, &mut found);
            found.clear();
            self.queue.charge(job.identity, visits);
            match turn {
                Turn::More => {
                    // until then the client gets nothing, and its next turn can be long in coming
                    job.replay.flush();
                    self.queue.put_back(job);
                }
                Turn::Done => self.queue.finish(job),
                Turn::Wait => {
                    let replay = job.replay.clone();
                    let (client_id, id) = self.queue.park(job);
                    let queue = Arc::downgrade(&self.queue);
                    // it can be called at once
                    replay.when_ready(Notifier::new(move || {
                        if let Some(queue) = queue.upgrade() {
                            queue.wake(client_id, id);
                        }
                    }));
                }
            }
        }
    }

    /// Ends all replays and the worker.
    pub(crate) fn end(&self) {
        self.queue.end();
    }
}

impl Replayer {
    /// Begins a replay to a client that has subscribed, and ends those of one that has left.
    pub(crate) fn on_change(&self, change: &SubscriptionChange<'_>, replay: Option<Replay>) {
        let client_id = change.client_id();
        if change.event() == Some(SubscriptionEvent::Left) {
            return self.queue.forget(client_id);
        }
        let Some(replay) = replay else { return };
        let filters: Vec<_> = change.filters().map(Filter::new).collect();
        let bytes =
            REPLAY_BYTES + filters.iter().map(|filter| FILTER_BYTES + filter.text().len()).sum::<usize>();
        let identity = self.host.identity(change.client(), client_id);
        let replay = Arc::new(replay);
        let job = Job { client_id, identity, replay, filters, filter: 0, cursor: Cursor::default(), bytes };
        // the refused one is dropped here, outside the lock
        if let Err(refused) = self.queue.add(job)
            && let Some(suppressed) = refused.suppressed
        {
            tracing::warn!(
                client = change.client(),
                filters = refused.job.filters.len(),
                bytes,
                limit_bytes = queue::MAX_BYTES,
                limit_bytes_of_identity = queue::MAX_IDENTITY_BYTES,
                suppressed,
                "retained values not sent: too many subscriptions wait for theirs"
            );
        }
    }
}
