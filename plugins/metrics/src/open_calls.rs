//! Calls that wait for their replies: finds the call of a reply by caller, callee and id. Bounded in count
//! and in the length of names; calls that stay unanswered age out.
//!
//! A reply can be observed before its call: each thread queues what it has routed, and the callee can be
//! faster than the thread of the caller. So replies without a call wait briefly for it.

use elbus_protocol::rpc::NO_REPLY;
use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher, RandomState},
    time::{Duration, Instant},
};

use crate::call_durations::CallEnd;

/// Calls, and replies, that can wait.
const MAX_CALLS: usize = 65_536;
/// For how long a reply waits for its call.
const EARLY_TIME: Duration = Duration::from_secs(1);
/// Bytes that are kept of a method.
const MAX_METHOD_BYTES: usize = 128;

/// A call as its reply names it: hashes of caller and callee, and the id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key(u64, u32);

#[derive(Debug)]
enum Open {
    Call { method: Box<str>, unix_nanos: u64 },
    Reply { end: CallEnd, unix_nanos: u64 },
}

/// A call that has ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct EndedCall {
    pub(crate) method: Box<str>,
    pub(crate) end: CallEnd,
    pub(crate) duration: Duration,
}

/// Calls and early replies, in the order in which they were observed.
#[derive(Default)]
pub(crate) struct OpenCalls {
    open: HashMap<Key, (u64, Open)>,
    order: VecDeque<(Key, u64, Instant)>,
    next: u64,
    hashing: RandomState,
}

impl OpenCalls {
    fn key(&self, caller: &str, callee: &str, id: u32) -> Key {
        Key(self.hashing.hash_one((caller, callee)), id)
    }

    /// Adds a call that was routed at `unix_nanos`; returns it if its reply was there first.
    pub(crate) fn call(
        &mut self,
        (caller, callee, id): (&str, &str, u32),
        method: &[u8],
        unix_nanos: u64,
        now: Instant,
    ) -> Option<EndedCall> {
        if id == NO_REPLY {
            return None;
        }
        let method = method.get(..MAX_METHOD_BYTES).unwrap_or(method);
        let method: Box<str> = String::from_utf8_lossy(method).into();
        let key = self.key(caller, callee, id);
        if let Some((_, Open::Reply { .. })) = self.open.get(&key)
            && let Some((_, Open::Reply { end, unix_nanos: replied })) = self.open.remove(&key)
        {
            let duration = Duration::from_nanos(replied.saturating_sub(unix_nanos));
            return Some(EndedCall { method, end, duration });
        }
        self.add(key, Open::Call { method, unix_nanos }, now);
        None
    }

    /// Takes the call that a reply answers. A reply without a call waits for it.
    pub(crate) fn reply(
        &mut self,
        (caller, callee, id): (&str, &str, u32),
        end: CallEnd,
        unix_nanos: u64,
        now: Instant,
    ) -> Option<EndedCall> {
        let key = self.key(caller, callee, id);
        match self.open.remove(&key) {
            Some((_, Open::Call { method, unix_nanos: called })) => {
                let duration = Duration::from_nanos(unix_nanos.saturating_sub(called));
                Some(EndedCall { method, end, duration })
            }
            _ => {
                self.add(key, Open::Reply { end, unix_nanos }, now);
                None
            }
        }
    }

    fn add(&mut self, key: Key, open: Open, now: Instant) {
        if self.order.len() >= 2 * MAX_CALLS {
            // answered ones leave their places behind
            let open = &self.open;
            self.order.retain(|(key, number, _)| open.get(key).is_some_and(|(other, _)| other == number));
        }
        while self.open.len() >= MAX_CALLS
            && let Some((oldest, number, _)) = self.order.pop_front()
        {
            self.take(oldest, number);
        }
        self.next += 1;
        self.open.insert(key, (self.next, open));
        self.order.push_back((key, self.next, now));
    }

    fn take(&mut self, key: Key, number: u64) -> Option<Open> {
        self.open.get(&key).filter(|(other, _)| *other == number)?;
        self.open.remove(&key).map(|(_, open)| open)
    }

    /// Takes a call that has waited for `limit` without an answer. Forgets replies whose call does not come.
    pub(crate) fn take_expired(&mut self, limit: Duration, now: Instant) -> Option<EndedCall> {
        while let Some((key, number, since)) = self.order.front().copied() {
            let age = now.saturating_duration_since(since);
            let is_open = self.open.get(&key).is_some_and(|(other, _)| *other == number);
            let is_call = is_open && matches!(self.open.get(&key), Some((_, Open::Call { .. })));
            if is_open && age < if is_call { limit } else { EARLY_TIME } {
                return None;
            }
            self.order.pop_front();
            if let Some(Open::Call { method, .. }) = self.take(key, number) {
                return Some(EndedCall { method, end: CallEnd::Unanswered, duration: limit });
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALL: (&str, &str, u32) = ("caller", "callee", 7);

    fn ended(method: &str, end: CallEnd, nanos: u64) -> Option<EndedCall> {
        Some(EndedCall { method: method.into(), end, duration: Duration::from_nanos(nanos) })
    }

    #[test]
    fn a_reply_ends_its_call_once_whichever_is_observed_first() {
        let (mut calls, now) = (OpenCalls::default(), Instant::now());
        assert_eq!(calls.call(CALL, b"get", 100, now), None);
        assert_eq!(calls.reply(("callee", "caller", 7), CallEnd::Reply, 150, now), None, "another call");
        assert_eq!(calls.reply(CALL, CallEnd::Error, 150, now), ended("get", CallEnd::Error, 50));
        assert_eq!(calls.reply(CALL, CallEnd::Reply, 250, now), None, "its call was not observed yet");
        assert_eq!(calls.call(CALL, b"set", 200, now), ended("set", CallEnd::Reply, 50));
        assert_eq!(calls.call(("caller", "callee", NO_REPLY), b"x", 1, now), None);
        assert_eq!(calls.take_expired(Duration::from_secs(60), now + EARLY_TIME), None);
        assert!(calls.open.is_empty());
    }

    #[test]
    fn calls_age_out() {
        let (mut calls, now) = (OpenCalls::default(), Instant::now());
        let limit = Duration::from_secs(60);
        calls.reply(("x", "y", 1), CallEnd::Reply, 1, now);
        calls.call(CALL, b"get", 100, now);
        assert_eq!(calls.take_expired(limit, now + limit / 2), None);
        assert_eq!(calls.open.len(), 1);
        let expected = ended("get", CallEnd::Unanswered, 60_000_000_000);
        assert_eq!(calls.take_expired(limit, now + limit), expected);
        assert_eq!(calls.take_expired(limit, now + 2 * limit), None);
        assert_eq!(calls.reply(CALL, CallEnd::Reply, 150, now), None);
    }

    #[test]
    fn the_number_of_calls_is_limited() {
        let (mut calls, now) = (OpenCalls::default(), Instant::now());
        for id in 1..=MAX_CALLS as u32 + 10 {
            calls.call(("a", "b", id), b"m", 0, now);
        }
        assert_eq!(calls.open.len(), MAX_CALLS);
        assert_eq!(calls.reply(("a", "b", 11), CallEnd::Reply, 0, now), ended("m", CallEnd::Reply, 0));
        // one that stays unanswered, and many after it that are answered
        for id in 1..=5 * MAX_CALLS as u32 {
            calls.call(("c", "d", id), b"m", 0, now);
            calls.reply(("c", "d", id), CallEnd::Reply, 0, now);
            assert!(calls.order.len() <= 2 * MAX_CALLS && calls.open.len() <= MAX_CALLS);
        }
        let limit = Duration::from_secs(60);
        assert_eq!(calls.take_expired(limit, now + limit), ended("m", CallEnd::Unanswered, 60_000_000_000));
    }
}
