//! Calls that wait for their reply. Owns call ids and outcomes; never sends.

use bytes::Bytes;
use elbus_protocol::rpc::NO_REPLY;
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use crate::{Error, receive::read_limit::Gate};

pub(crate) struct Calls {
    gate: Arc<Gate>,
    /// A leaf: nothing else is locked while it is held.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The last id that was given out.
    last: u32,
    /// Ids have been through once: all of them were given out.
    wrapped: bool,
    waiting: HashMap<u32, Waiting, foldhash::fast::RandomState>,
}

struct Waiting {
    target: Box<str>,
    waker: Option<Waker>,
    outcome: Option<Result<Bytes, Error>>,
}

impl Calls {
    pub(crate) fn new(gate: Arc<Gate>) -> Self {
        Calls { gate, state: Mutex::default() }
    }

    /// A call to a target; its reply ends the future, and dropping that forgets the call.
    pub(crate) fn begin(&self, target: &str) -> Pending<'_> {
        let mut state = self.state.lock();
        let id = loop {
            state.last = state.last.wrapping_add(1);
            state.wrapped |= state.last == NO_REPLY;
            if state.last != NO_REPLY && !state.waiting.contains_key(&state.last) {
                break state.last;
            }
        };
        state.waiting.insert(id, Waiting { target: target.into(), waker: None, outcome: None });
        drop(state);
        self.gate.begin();
        Pending { calls: self, id }
    }

    /// Ends a call; `false` where none of that id waits for this sender.
    pub(crate) fn complete(
        &self,
        id: u32,
        sender: Option<&str>,
        outcome: impl FnOnce() -> Result<Bytes, Error>,
    ) -> bool {
        let mut state = self.state.lock();
        let Some(call) = state.waiting.get_mut(&id) else { return false };
        if sender.is_some_and(|sender| *sender != *call.target) || call.outcome.is_some() {
            return false;
        }
        call.outcome = Some(outcome());
        let waker = call.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        true
    }

    /// Ends a call that the broker did not deliver.
    pub(crate) fn refuse(&self, id: u32, code: u8) {
        let mut state = self.state.lock();
        let Some(call) = state.waiting.get_mut(&id).filter(|call| call.outcome.is_none()) else { return };
        call.outcome = Some(Err(Error::from_code(code, "call to", &call.target)));
        let waker = call.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Whether an id was given out, some time ago.
    pub(crate) fn was_made(&self, id: u32) -> bool {
        let state = self.state.lock();
        id != NO_REPLY && (state.wrapped || id <= state.last)
    }

    /// Ends all calls.
    pub(crate) fn fail_all(&self, error: &Error) {
        let mut state = self.state.lock();
        let waiting = state.waiting.values_mut().filter(|call| call.outcome.is_none());
        let wakers: Vec<_> = waiting
            .filter_map(|call| {
                call.outcome = Some(Err(error.clone()));
                call.waker.take()
            })
            .collect();
        drop(state);
        for waker in wakers {
            waker.wake();
        }
    }

    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.state.lock().waiting.len()
    }
}

/// See [`Calls::begin`].
pub(crate) struct Pending<'a> {
    calls: &'a Calls,
    pub(crate) id: u32,
}

impl Future for Pending<'_> {
    type Output = Result<Bytes, Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.calls.state.lock();
        let Some(call) = state.waiting.get_mut(&self.id) else { return Poll::Ready(Err(Error::Closed)) };
        if let Some(outcome) = call.outcome.take() {
            // the place is given back when this is dropped; nothing can be put there meanwhile
            call.outcome = Some(Err(Error::Closed));
            return Poll::Ready(outcome);
        }
        match &mut call.waker {
            Some(waker) => waker.clone_from(context.waker()),
            None => call.waker = Some(context.waker().clone()),
        }
        Poll::Pending
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.calls.state.lock().waiting.remove(&self.id);
        self.calls.gate.finish();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll(call: &mut Pending<'_>) -> Poll<Result<Bytes, Error>> {
        Pin::new(call).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn replies_find_their_calls() {
        let calls = Calls::new(Arc::default());
        let (mut a, mut b) = (calls.begin("x"), calls.begin("y"));
        assert!(poll(&mut a).is_pending() && a.id != b.id);
        assert!(!calls.complete(b.id, Some("x"), || Ok(Bytes::new())), "not from whom was called");
        assert!(calls.complete(b.id, Some("y"), || Ok("two".into())));
        assert!(!calls.complete(b.id, Some("y"), || Ok("again".into())));
        assert!(matches!(poll(&mut b), Poll::Ready(Ok(result)) if result == "two"));
        calls.refuse(a.id, 0x71);
        assert!(matches!(poll(&mut a), Poll::Ready(Err(Error::NotRegistered { target })) if target == "x"));
        drop((a, b));
        assert_eq!(calls.waiting(), 0);
        assert!(calls.was_made(1) && calls.was_made(2) && !calls.was_made(3) && !calls.was_made(0));
    }

    #[test]
    fn a_dropped_call_frees_its_place() {
        let calls = Calls::new(Arc::default());
        let id = calls.begin("x").id;
        assert_eq!(calls.waiting(), 0);
        assert!(!calls.complete(id, Some("x"), || Ok(Bytes::new())));
    }

    #[test]
    fn ids_go_round_past_those_in_use_and_zero() {
        let calls = Calls::new(Arc::default());
        let first = calls.begin("x");
        calls.state.lock().last = u32::MAX - 1;
        let ids: Vec<_> = (0..3).map(|_| calls.begin("x").id).collect();
        assert_eq!((first.id, ids), (1, vec![u32::MAX, 2, 3]));
        assert!(calls.was_made(77));
    }
}
