//! The receiving side of an in-process client: messages taken over and not yet read, and the readers that
//! wait for more. Knows nothing of their source.

use parking_lot::{Mutex, MutexGuard};
use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    task::{Poll, Waker},
    thread::Thread,
};

use super::owned_run::{Message, RunBatch};

/// Capacity for runs, and for messages, that is kept when all are read.
const KEPT_CAPACITY: usize = 64;
/// Readers that wait at once. Those that have given up cannot be told from the others, so beyond this all
/// are woken: a reader that still waits polls again.
const MAX_READERS: usize = 256;

#[derive(Default)]
pub(super) struct Receiver {
    /// No other lock is taken under it.
    state: Mutex<State>,
    /// Whether there are messages in the state: exact for a single reader, a hint for several.
    unread: AtomicBool,
    /// The number of notifications: a reader that found nothing waits only if it has not changed since.
    /// Changed under the lock.
    notifications: AtomicU64,
}

#[derive(Default)]
struct State {
    messages: VecDeque<Message>,
    /// Emptied, reused for the next batch.
    spare: RunBatch,
    waiting: Waiting,
}

/// The readers that wait. A single one, which is the rule, needs no allocation.
#[derive(Default)]
struct Waiting {
    first: Option<Waker>,
    others: Vec<Waker>,
}

impl Waiting {
    fn add(&mut self, waker: &Waker) {
        match &self.first {
            None => self.first = Some(waker.clone()),
            Some(first) if first.will_wake(waker) => {}
            Some(_) if self.others.iter().any(|other| other.will_wake(waker)) => {}
            Some(_) => self.others.push(waker.clone()),
        }
    }

    /// Must be called without the lock: a waker can run its task at once.
    fn wake(self) {
        self.first.into_iter().chain(self.others).for_each(Waker::wake);
    }
}

impl Receiver {
    /// Wakes all readers that wait: there is something to receive, or the client is closed.
    pub(super) fn notify(&self) {
        let mut state = self.state.lock();
        self.notifications.fetch_add(1, Release);
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        waiting.wake();
    }

    /// Returns the next message, `Ready(None)` once nothing will follow. `receive` moves what has arrived
    /// into its argument and, if its second argument is `true` and there is nothing, has
    /// [`notify`](Receiver::notify) called when there is; it returns `false` once nothing will follow.
    /// `waker` is called when polling again is useful.
    #[inline]
    pub(super) fn poll(
        &self,
        waker: Option<&Waker>,
        receive: impl Fn(&mut RunBatch, bool) -> bool,
    ) -> Poll<Option<Message>> {
        if self.unread.load(Relaxed) {
            return self.poll_unread(None, waker, receive);
        }
        let (mut received, notifications) = (RunBatch::default(), self.notifications.load(Acquire));
        let open = receive(&mut received, waker.is_some());
        match received.take_single() {
            Some(message) => Poll::Ready(Some(message)),
            None => self.poll_unread(Some(Polled { received, open, notifications }), waker, receive),
        }
    }

    /// As [`poll`](Receiver::poll), for messages that have been taken over and not been read; `polled` is
    /// what was received just now.
    fn poll_unread(
        &self,
        mut polled: Option<Polled>,
        waker: Option<&Waker>,
        receive: impl Fn(&mut RunBatch, bool) -> bool,
    ) -> Poll<Option<Message>> {
        let mut state = self.state.lock();
        loop {
            if let Some(polled) = &mut polled
                && !polled.received.is_empty()
            {
                polled.received.split(KEPT_CAPACITY, |message| state.messages.push_back(message));
            }
            if let Some(message) = state.messages.pop_front() {
                return Poll::Ready(Some(self.take_over(state, message)));
            }
            let Some(Polled { received, open, notifications }) = polled.take() else {
                let (mut received, notifications) =
                    (std::mem::take(&mut state.spare), self.notifications.load(Acquire));
                // outside the lock: it wakes senders, and a waker can run its task at once
                drop(state);
                let open = receive(&mut received, waker.is_some());
                polled = Some(Polled { received, open, notifications });
                state = self.state.lock();
                continue;
            };
            state.spare = received;
            if state.messages.capacity() > KEPT_CAPACITY {
                state.messages.shrink_to(KEPT_CAPACITY);
            }
            if !open {
                return Poll::Ready(None);
            }
            let Some(waker) = waker else { return Poll::Pending };
            if self.notifications.load(Relaxed) == notifications {
                state.waiting.add(waker);
                let all =
                    (state.waiting.others.len() >= MAX_READERS).then(|| std::mem::take(&mut state.waiting));
                drop(state);
                if let Some(all) = all {
                    all.wake();
                }
                return Poll::Pending;
            }
        }
    }

    /// Moves messages that were taken over and not read, `most` of them at most.
    pub(super) fn take_unread(&self, into: &mut Vec<Message>, most: usize) -> usize {
        if !self.unread.load(Relaxed) {
            return 0;
        }
        let mut state = self.state.lock();
        let count = state.messages.len().min(most);
        into.extend(state.messages.drain(..count));
        self.unread.store(!state.messages.is_empty(), Relaxed);
        count
    }

    /// Returns `message`. If readers wait while messages are left, which were not there when they polled,
    /// wakes them.
    #[inline]
    fn take_over(&self, mut state: MutexGuard<'_, State>, message: Message) -> Message {
        let unread = !state.messages.is_empty();
        self.unread.store(unread, Relaxed);
        if unread && state.waiting.first.is_some() {
            let waiting = std::mem::take(&mut state.waiting);
            drop(state);
            waiting.wake();
        }
        message
    }
}

/// What `receive` returned.
struct Polled {
    received: RunBatch,
    /// Whether more can follow.
    open: bool,
    /// The number of notifications before.
    notifications: u64,
}

struct Unpark(Thread);

impl std::task::Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Returns a waker that ends the [parking](std::thread::park) of this thread.
pub(crate) fn waker_of_thread() -> Waker {
    thread_local! {
        static WAKER: Waker = new_waker();
    }
    fn new_waker() -> Waker {
        Arc::new(Unpark(std::thread::current())).into()
    }
    // a thread that ends has destroyed its waker
    WAKER.try_with(Waker::clone).unwrap_or_else(|_| new_waker())
}

#[cfg(test)]
mod tests;
