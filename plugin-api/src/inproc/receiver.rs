//! The reading side of an in-process client: messages taken over and not yet read, and who waits for more. Knows
//! nothing of where they come from.

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

use super::{Message, RunBatch};

/// Room for so many runs, and messages, is kept when all are read.
const KEEP: usize = 64;
/// So many readers wait at once. Those that have given up cannot be told from the others, so beyond this all are
/// woken: a reader that still waits looks and comes again.
const MAX_READERS: usize = 256;

#[derive(Default)]
pub(super) struct Receiver {
    /// A leaf.
    state: Mutex<State>,
    /// Whether there are messages in the state: right for whoever reads alone, a hint for several.
    unread: AtomicBool,
    /// How often the bell has rung: whoever found nothing before waits only if it has not rung since. Changed under
    /// the lock.
    rung: AtomicU64,
}

#[derive(Default)]
struct State {
    messages: VecDeque<Message>,
    /// Emptied, for what is received next.
    spare: RunBatch,
    waiting: Waiting,
}

/// Those who wait. One alone, which is the rule, needs no allocation.
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

    /// To be called without the lock: a waker may run its task at once.
    fn wake(self) {
        self.first.into_iter().chain(self.others).for_each(Waker::wake);
    }
}

impl Receiver {
    /// There is something to receive: all who wait look.
    pub(super) fn ring(&self) {
        let mut state = self.state.lock();
        self.rung.fetch_add(1, Release);
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        waiting.wake();
    }

    /// The next message, `Ready(None)` once nothing will follow. `receive` moves what has come into its argument,
    /// and, if told so and there is nothing, sees to it that the bell [rings](Receiver::ring) when there is; `false`
    /// once nothing will follow. `waker` is called when it is worth another look.
    #[inline]
    pub(super) fn poll(
        &self,
        waker: Option<&Waker>,
        receive: impl Fn(&mut RunBatch, bool) -> bool,
    ) -> Poll<Option<Message>> {
        if self.unread.load(Relaxed) {
            return self.poll_unread(None, waker, receive);
        }
        let (mut received, rung) = (RunBatch::default(), self.rung.load(Acquire));
        let open = receive(&mut received, waker.is_some());
        match received.take_lone() {
            Some(message) => Poll::Ready(Some(message)),
            None => self.poll_unread(Some(Polled { received, open, rung }), waker, receive),
        }
    }

    /// The same with what has been taken over and not been read before; `look` is what was found just now.
    fn poll_unread(
        &self,
        mut look: Option<Polled>,
        waker: Option<&Waker>,
        receive: impl Fn(&mut RunBatch, bool) -> bool,
    ) -> Poll<Option<Message>> {
        let mut state = self.state.lock();
        loop {
            if let Some(look) = &mut look
                && !look.received.is_empty()
            {
                look.received.take_apart(KEEP, |message| state.messages.push_back(message));
            }
            if let Some(message) = state.messages.pop_front() {
                return Poll::Ready(Some(self.leave(state, message)));
            }
            let Some(Polled { received, open, rung }) = look.take() else {
                let (mut received, rung) = (std::mem::take(&mut state.spare), self.rung.load(Acquire));
                // outside the lock: it wakes senders, and a waker may run its task at once
                drop(state);
                let open = receive(&mut received, waker.is_some());
                look = Some(Polled { received, open, rung });
                state = self.state.lock();
                continue;
            };
            state.spare = received;
            if state.messages.capacity() > KEEP {
                state.messages.shrink_to(KEEP);
            }
            if !open {
                return Poll::Ready(None);
            }
            let Some(waker) = waker else { return Poll::Pending };
            if self.rung.load(Relaxed) == rung {
                state.waiting.add(waker);
                let crowd =
                    (state.waiting.others.len() >= MAX_READERS).then(|| std::mem::take(&mut state.waiting));
                drop(state);
                if let Some(crowd) = crowd {
                    crowd.wake();
                }
                return Poll::Pending;
            }
        }
    }

    /// Moves messages that were taken over and not read, `most` of them.
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

    /// Whoever leaves others waiting beside messages, which they did not see when they looked, wakes them.
    #[inline]
    fn leave(&self, mut state: MutexGuard<'_, State>, message: Message) -> Message {
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

/// What came of asking for more.
struct Polled {
    received: RunBatch,
    /// Something may follow.
    open: bool,
    /// How often the bell had rung before.
    rung: u64,
}

struct Unpark(Thread);

impl std::task::Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// A waker that ends the [parking](std::thread::park) of this thread.
pub(super) fn waker_of_thread() -> Waker {
    thread_local! {
        static WAKER: Waker = new_waker();
    }
    fn new_waker() -> Waker {
        Arc::new(Unpark(std::thread::current())).into()
    }
    // a thread that is ending has none any more
    WAKER.try_with(Waker::clone).unwrap_or_else(|_| new_waker())
}

#[cfg(test)]
mod tests;
