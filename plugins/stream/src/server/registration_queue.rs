//! Limits registrations per second, round-robin among sources. Owns the order and the rate; a queued
//! connection holds one of the [`FairSlots`](crate::server::fair_slots::FairSlots), which bound the queue.

use elbus_plugin_api::rate::TokenBucket;
use parking_lot::Mutex;
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Weak},
    time::{Duration, Instant},
};
use tokio::{runtime::Handle, sync::oneshot};

use crate::server::source::Source;

/// Longest sleep of the task, after which it checks whether it is still needed.
const LONGEST_SLEEP: Duration = Duration::from_millis(100);

/// Queued registrations.
pub(crate) struct RegistrationQueue {
    /// Number of queued connections beyond which closed ones are removed.
    max_queued: usize,
    state: Mutex<State>,
}

struct State {
    /// Registrations that can proceed now.
    tokens: TokenBucket,
    queues: HashMap<Source, VecDeque<oneshot::Sender<()>>>,
    /// Sources of queued connections, in round-robin order.
    order: VecDeque<Source>,
    count: usize,
    /// A task releases queued connections.
    is_served: bool,
}

impl RegistrationQueue {
    /// Allows `per_second` on average and at once; `max_queued` connections can be queued.
    pub(crate) fn new(per_second: u64, max_queued: usize, now: Instant) -> Arc<Self> {
        let state = State {
            tokens: TokenBucket::new(per_second, now),
            queues: HashMap::new(),
            order: VecDeque::new(),
            count: 0,
            is_served: false,
        };
        Arc::new(RegistrationQueue { max_queued, state: Mutex::new(state) })
    }

    /// Returns `None` if the connection can proceed now, else a receiver that completes when it can.
    pub(crate) fn enqueue(
        self: &Arc<Self>,
        source: Source,
        runtime: &Handle,
    ) -> Option<oneshot::Receiver<()>> {
        let mut state = self.state.lock();
        let now = Instant::now();
        if state.count == 0 && state.tokens.try_take(now) {
            return None;
        }
        let (turn, receiver) = oneshot::channel();
        state.push(source, turn, self.max_queued);
        let is_served = std::mem::replace(&mut state.is_served, true);
        drop(state);
        if !is_served {
            runtime.spawn(serve(Arc::downgrade(self)));
        }
        Some(receiver)
    }

    /// Releases the registrations that are due. Returns the time until the next one, `None` if the queue is
    /// empty.
    fn release_due(&self, now: Instant) -> Option<Duration> {
        let mut state = self.state.lock();
        while state.tokens.left(now) >= 1.0 {
            let Some(turn) = state.pop() else {
                state.is_served = false;
                return None;
            };
            // a connection that is gone takes no turn
            if turn.send(()).is_ok() {
                state.tokens.take(1, now);
            }
        }
        Some(state.tokens.until(1.0))
    }
}

impl State {
    fn push(&mut self, source: Source, turn: oneshot::Sender<()>, max_queued: usize) {
        if self.count >= max_queued.saturating_mul(2) {
            self.remove_closed();
        }
        let queue = self.queues.entry(source).or_default();
        if queue.is_empty() {
            self.order.push_back(source);
        }
        queue.push_back(turn);
        self.count += 1;
    }

    /// Removes the next connection in round-robin order.
    fn pop(&mut self) -> Option<oneshot::Sender<()>> {
        let source = self.order.pop_front()?;
        let queue = self.queues.get_mut(&source)?;
        let turn = queue.pop_front();
        if queue.is_empty() {
            self.queues.remove(&source);
        } else {
            self.order.push_back(source);
        }
        self.count = self.count.saturating_sub(1);
        turn
    }

    fn remove_closed(&mut self) {
        self.queues.retain(|_, queue| {
            queue.retain(|turn| !turn.is_closed());
            !queue.is_empty()
        });
        self.order.retain(|source| self.queues.contains_key(source));
        self.count = self.queues.values().map(VecDeque::len).sum();
    }
}

/// Releases queued connections until the queue is empty or the instance is gone.
async fn serve(turns: Weak<RegistrationQueue>) {
    loop {
        let Some(wait) = turns.upgrade().and_then(|turns| turns.release_due(Instant::now())) else { return };
        tokio::time::sleep(wait.min(LONGEST_SLEEP)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Receivers = Vec<oneshot::Receiver<()>>;

    fn taken(receivers: &mut Receivers) -> usize {
        let before = receivers.len();
        receivers.retain_mut(|receiver| receiver.try_recv().is_err());
        before - receivers.len()
    }

    #[test]
    fn sources_take_turns_at_the_rate_and_closed_connections_take_none() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap(); // never runs the task
        let start = Instant::now();
        let turns = RegistrationQueue::new(10, 20, start);
        let ask = |user| turns.enqueue(Source::User(user), runtime.handle());
        assert_eq!((0..10).filter(|_| ask(1).is_some()).count(), 0, "a second's worth at once");
        let mut rank: Receivers = (0..30).filter_map(|_| ask(1)).collect();
        let mut modest: Receivers = (0..2).filter_map(|_| ask(2)).collect();
        assert_eq!((rank.len(), modest.len()), (30, 2));
        let at = |tenths: u64| start + Duration::from_millis(100 * tenths + 50);
        assert!(turns.release_due(at(2)).is_some_and(|wait| wait <= Duration::from_millis(100)));
        assert_eq!((taken(&mut rank), taken(&mut modest)), (1, 1), "one each");
        turns.release_due(at(4));
        assert_eq!((taken(&mut rank), taken(&mut modest)), (1, 1));
        rank.drain(..20);
        turns.release_due(at(6));
        assert_eq!((taken(&mut rank), rank.len()), (2, 6));
        assert_eq!(turns.release_due(at(20)), None, "all have had their turns");
        assert_eq!(rank.len() - taken(&mut rank), 0);
        assert!(ask(1).is_none());
    }

    #[test]
    fn closed_connections_are_removed_from_the_queue() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let turns = RegistrationQueue::new(1, 10, Instant::now());
        for _ in 0..1000 {
            drop(turns.enqueue(Source::Unknown, runtime.handle()));
        }
        let state = turns.state.lock();
        assert!(state.count <= 20 && state.queues.len() <= 1, "{}", state.count);
    }
}
