//! Calls that wait for their replies: finds the call of a reply by caller, callee and id. Bounded in count
//! and bytes; calls that stay unanswered age out.

use elbus_plugin_api::hooks::Observation;
use elbus_protocol::rpc::NO_REPLY;
use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

/// Calls that can wait for their replies.
const MAX_CALLS: usize = 4096;
/// Bytes of their names and methods.
const MAX_BYTES: usize = 1 << 20;
/// Bytes that are kept of a method's name.
pub(crate) const MAX_METHOD_BYTES: usize = 256;

/// A call that waits for its reply.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) caller: Box<str>,
    pub(crate) callee: Box<str>,
    pub(crate) id: u32,
    pub(crate) method: Box<str>,
    /// When it was routed, in nanoseconds since 1970.
    pub(crate) unix_nanos: u64,
    /// Whether the call and its reply are not shown.
    pub(crate) hidden: bool,
    /// When it was observed.
    since: Instant,
}

impl Call {
    /// Creates the call of a message.
    pub(crate) fn new(seen: &Observation, id: u32, method: &str, hidden: bool, now: Instant) -> Self {
        Call {
            caller: seen.sender().into(),
            callee: seen.target().into(),
            id,
            method: method.into(),
            unix_nanos: seen.unix_nanos(),
            hidden,
            since: now,
        }
    }

    fn bytes(&self) -> usize {
        size_of::<Call>() + self.caller.len() + self.callee.len() + self.method.len()
    }
}

/// Returns the name of a method as text, cut to [`MAX_METHOD_BYTES`].
pub(crate) fn method_text(method: &[u8]) -> String {
    String::from_utf8_lossy(method.get(..MAX_METHOD_BYTES).unwrap_or(method)).into_owned()
}

/// The calls, in the order in which they were observed.
#[derive(Default)]
pub(crate) struct RpcCalls {
    calls: VecDeque<Option<Call>>,
    /// The number of the first of `calls`.
    first: u64,
    /// Numbers of calls, by id, caller and callee.
    numbers: HashMap<(u32, Box<str>, Box<str>), u64>,
    bytes: usize,
}

impl RpcCalls {
    /// Adds a call. The oldest ones make room for it; a call with the same id replaces the previous one.
    pub(crate) fn add(&mut self, call: Call) {
        if call.id == NO_REPLY {
            return;
        }
        self.take(&call.caller, &call.callee, call.id);
        while self.numbers.len() >= MAX_CALLS || (self.bytes + call.bytes() > MAX_BYTES && self.bytes > 0) {
            self.remove_first();
        }
        self.bytes += call.bytes();
        let number = self.first + self.calls.len() as u64;
        self.numbers.insert((call.id, call.caller.clone(), call.callee.clone()), number);
        self.calls.push_back(Some(call));
    }

    /// Takes the call that a reply from `callee` to `caller` answers.
    pub(crate) fn take(&mut self, caller: &str, callee: &str, id: u32) -> Option<Call> {
        let number = self.numbers.remove(&(id, caller.into(), callee.into()))?;
        let index = usize::try_from(number - self.first).ok()?;
        let call = self.calls.get_mut(index)?.take()?;
        self.bytes -= call.bytes();
        self.trim();
        Some(call)
    }

    /// Takes the oldest call if it has waited for `limit`.
    pub(crate) fn take_expired(&mut self, limit: Duration, now: Instant) -> Option<Call> {
        let oldest = self.calls.front()?.as_ref()?;
        if now.saturating_duration_since(oldest.since) < limit {
            return None;
        }
        self.remove_first()
    }

    /// Returns whether any call waits.
    pub(crate) fn any(&self) -> bool {
        !self.numbers.is_empty()
    }

    fn remove_first(&mut self) -> Option<Call> {
        let call = self.calls.pop_front()?;
        self.first += 1;
        if let Some(call) = &call {
            self.bytes -= call.bytes();
            self.numbers.remove(&(call.id, call.caller.clone(), call.callee.clone()));
        }
        self.trim();
        call
    }

    /// Removes the places of calls that were taken, from the front.
    fn trim(&mut self) {
        while self.calls.front().is_some_and(Option::is_none) {
            self.calls.pop_front();
            self.first += 1;
        }
        if self.calls.len() > 2 * MAX_CALLS {
            // one call is never answered, and thousands after it were
            self.remove_first();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(id: u32, method: &str, since: Instant) -> Call {
        let (caller, callee) = ("caller".into(), "callee".into());
        Call { caller, callee, id, method: method.into(), unix_nanos: 0, hidden: false, since }
    }

    #[test]
    fn a_reply_finds_its_call_once() {
        let (mut calls, now) = (RpcCalls::default(), Instant::now());
        calls.add(call(1, "a", now));
        calls.add(call(2, "b", now));
        assert!(calls.take("caller", "other", 1).is_none() && calls.take("callee", "caller", 1).is_none());
        assert_eq!(&*calls.take("caller", "callee", 2).unwrap().method, "b");
        assert!(calls.take("caller", "callee", 2).is_none() && calls.any());
        calls.add(call(1, "again", now));
        assert_eq!(&*calls.take("caller", "callee", 1).unwrap().method, "again");
        assert!(!calls.any() && calls.bytes == 0 && calls.calls.is_empty());
        calls.add(call(NO_REPLY, "no reply", now));
        assert!(!calls.any());
    }

    #[test]
    fn calls_age_out_in_their_order() {
        let (mut calls, now) = (RpcCalls::default(), Instant::now());
        let later = now + Duration::from_secs(5);
        calls.add(call(1, "a", now));
        calls.add(call(2, "b", later));
        let limit = Duration::from_secs(10);
        assert!(calls.take_expired(limit, now + Duration::from_secs(9)).is_none());
        assert_eq!(calls.take_expired(limit, now + limit).unwrap().id, 1);
        assert!(calls.take_expired(limit, now + limit).is_none());
        assert_eq!(calls.take_expired(limit, later + limit).unwrap().id, 2);
        assert!(!calls.any() && calls.bytes == 0);
    }

    #[test]
    fn count_and_bytes_are_bounded() {
        let (mut calls, now) = (RpcCalls::default(), Instant::now());
        let long = "m".repeat(MAX_METHOD_BYTES);
        // the first one stays unanswered, so places of answered ones cannot be removed before it is
        calls.add(call(u32::MAX, "unanswered", now));
        for id in 1..20_000 {
            calls.add(call(id, "m", now));
            calls.take("caller", "callee", id).unwrap();
            assert!(calls.calls.len() <= 2 * MAX_CALLS + 1);
        }
        for id in 1..20_000 {
            calls.add(call(id, &long, now));
            assert!(calls.numbers.len() <= MAX_CALLS && calls.bytes <= MAX_BYTES);
        }
        assert!(calls.take("caller", "callee", 19_999).is_some() && calls.numbers.len() > 1000);
        assert!(calls.take("caller", "callee", 1).is_none());
    }
}
