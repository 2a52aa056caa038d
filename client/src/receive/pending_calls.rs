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

use super::read_limit::ReadLimit;
use crate::error::Error;

pub(crate) struct PendingCalls {
    read_limit: Arc<ReadLimit>,
    /// A leaf lock: no other lock is taken while it is held.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    last_id: u32,
    /// The ids have wrapped around: all of them have been issued.
    wrapped: bool,
    calls: HashMap<u32, CallState, foldhash::fast::RandomState>,
}

struct CallState {
    target: Box<str>,
    waker: Option<Waker>,
    outcome: Option<Result<Bytes, Error>>,
}

impl PendingCalls {
    pub(crate) fn new(read_limit: Arc<ReadLimit>) -> Self {
        PendingCalls { read_limit, state: Mutex::default() }
    }

    /// Registers a call to a target. The future completes with the reply; dropping it forgets the call.
    pub(crate) fn register(&self, target: &str) -> PendingCall<'_> {
        let mut state = self.state.lock();
        let id = loop {
            state.last_id = state.last_id.wrapping_add(1);
            state.wrapped |= state.last_id == NO_REPLY;
            if state.last_id != NO_REPLY && !state.calls.contains_key(&state.last_id) {
                break state.last_id;
            }
        };
        state.calls.insert(id, CallState { target: target.into(), waker: None, outcome: None });
        drop(state);
        self.read_limit.operation_started();
        PendingCall { calls: self, id }
    }

    /// Completes a call with a reply. Returns `false` if no call with this id to this sender is pending.
    pub(crate) fn complete(
        &self,
        id: u32,
        sender: &str,
        outcome: impl FnOnce() -> Result<Bytes, Error>,
    ) -> bool {
        let mut state = self.state.lock();
        let Some(call) = state.calls.get_mut(&id) else { return false };
        if *sender != *call.target || call.outcome.is_some() {
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

    /// Fails a call that the broker has not delivered.
    pub(crate) fn fail(&self, id: u32, code: u8) {
        let mut state = self.state.lock();
        let Some(call) = state.calls.get_mut(&id).filter(|call| call.outcome.is_none()) else { return };
        call.outcome = Some(Err(Error::from_code(code, "call to", &call.target)));
        let waker = call.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Returns whether an id has been issued before.
    pub(crate) fn was_issued(&self, id: u32) -> bool {
        let state = self.state.lock();
        id != NO_REPLY && (state.wrapped || id <= state.last_id)
    }

    /// Fails all pending calls.
    pub(crate) fn fail_all(&self, error: &Error) {
        let mut state = self.state.lock();
        let pending = state.calls.values_mut().filter(|call| call.outcome.is_none());
        let wakers: Vec<_> = pending
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
    fn count(&self) -> usize {
        self.state.lock().calls.len()
    }
}

/// A registered call; see [`PendingCalls::register`].
pub(crate) struct PendingCall<'a> {
    calls: &'a PendingCalls,
    pub(crate) id: u32,
}

impl Future for PendingCall<'_> {
    type Output = Result<Bytes, Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.calls.state.lock();
        let Some(call) = state.calls.get_mut(&self.id) else { return Poll::Ready(Err(Error::Closed)) };
        if let Some(outcome) = call.outcome.take() {
            // the entry is removed when this is dropped; until then it accepts no other outcome
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

impl Drop for PendingCall<'_> {
    fn drop(&mut self) {
        self.calls.state.lock().calls.remove(&self.id);
        self.calls.read_limit.operation_finished();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll(call: &mut PendingCall<'_>) -> Poll<Result<Bytes, Error>> {
        Pin::new(call).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn replies_complete_their_calls() {
        let calls = PendingCalls::new(Arc::default());
        let (mut a, mut b) = (calls.register("x"), calls.register("y"));
        assert!(poll(&mut a).is_pending() && a.id != b.id);
        assert!(!calls.complete(b.id, "x", || Ok(Bytes::new())), "not from the called client");
        assert!(calls.complete(b.id, "y", || Ok("two".into())));
        assert!(!calls.complete(b.id, "y", || Ok("again".into())));
        assert!(matches!(poll(&mut b), Poll::Ready(Ok(result)) if result == "two"));
        calls.fail(a.id, 0x71);
        assert!(
            matches!(poll(&mut a), Poll::Ready(Err(Error::NotRegistered { target, .. })) if target == "x")
        );
        drop((a, b));
        assert_eq!(calls.count(), 0);
        assert!(calls.was_issued(1) && calls.was_issued(2) && !calls.was_issued(3) && !calls.was_issued(0));
    }

    #[test]
    fn a_dropped_call_is_forgotten() {
        let calls = PendingCalls::new(Arc::default());
        let id = calls.register("x").id;
        assert_eq!(calls.count(), 0);
        assert!(!calls.complete(id, "x", || Ok(Bytes::new())));
    }

    #[test]
    fn ids_wrap_around_and_skip_zero_and_those_in_use() {
        let calls = PendingCalls::new(Arc::default());
        let first = calls.register("x");
        calls.state.lock().last_id = u32::MAX - 1;
        let ids: Vec<_> = (0..3).map(|_| calls.register("x").id).collect();
        assert_eq!((first.id, ids), (1, vec![u32::MAX, 2, 3]));
        assert!(calls.was_issued(77));
    }
}
