//! The reading side of an in-process client: messages taken over and not yet read, and who waits for more. Knows
//! nothing of where they come from.

use parking_lot::{Mutex, MutexGuard};
use std::{
    collections::VecDeque,
    sync::Arc,
    task::{Poll, Waker},
    thread::Thread,
};

use super::{Message, Received};

/// Room for so many runs, and messages, is kept when all are read.
const KEEP: usize = 64;
/// So many readers wait at once. Those that have given up cannot be told from the others, so beyond this all are
/// woken: a reader that still waits looks and comes again.
const MAX_READERS: usize = 256;

#[derive(Default)]
pub(super) struct Reading {
    /// A leaf.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    messages: VecDeque<Message>,
    /// Emptied, for what is received next.
    spare: Received,
    /// How often the bell has rung: whoever found nothing before waits only if it has not rung since.
    rung: u64,
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

impl Reading {
    /// There is something to receive: all who wait look.
    pub(super) fn ring(&self) {
        let mut state = self.state.lock();
        state.rung = state.rung.wrapping_add(1);
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        waiting.wake();
    }

    /// The next message, `Ready(None)` once nothing will follow. `receive` moves what has come into its argument,
    /// and, if told so and there is nothing, sees to it that the bell [rings](Reading::ring) when there is; `false`
    /// once nothing will follow. `waker` is called when it is worth another look.
    #[inline]
    pub(super) fn poll(
        &self,
        waker: Option<&Waker>,
        receive: impl Fn(&mut Received, bool) -> bool,
    ) -> Poll<Option<Message>> {
        let mut state = self.state.lock();
        loop {
            if let Some(message) = state.messages.pop_front() {
                return Poll::Ready(Some(Self::leave(state, message)));
            }
            let (mut received, rung) = (std::mem::take(&mut state.spare), state.rung);
            // outside the lock: it wakes senders, and a waker may run its task at once
            drop(state);
            let open = receive(&mut received, waker.is_some());
            state = self.state.lock();
            if !received.is_empty() {
                let messages = &mut state.messages;
                received.take_apart(KEEP, |message| messages.push_back(message));
            }
            state.spare = received;
            if !state.messages.is_empty() {
                continue;
            }
            if state.messages.capacity() > KEEP {
                state.messages.shrink_to(KEEP);
            }
            if !open {
                return Poll::Ready(None);
            }
            let Some(waker) = waker else { return Poll::Pending };
            if state.rung == rung {
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

    /// Whoever leaves others waiting beside messages, which they did not see when they looked, wakes them.
    #[inline]
    fn leave(mut state: MutexGuard<'_, State>, message: Message) -> Message {
        if state.waiting.first.is_some() && !state.messages.is_empty() {
            let waiting = std::mem::take(&mut state.waiting);
            drop(state);
            waiting.wake();
        }
        message
    }
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
