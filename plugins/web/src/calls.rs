//! Calls and their replies, as observed: the slowest and the failed ones of the last quarter of an hour.
//! Bounded in number and bytes.

use elbus_protocol::rpc::NO_REPLY;
use serde::Serialize;
use std::{
    cmp::Ordering,
    collections::{HashMap, VecDeque},
};

/// Calls that can wait for their replies.
const MAX_PENDING: usize = 4096;
/// Replies that were observed before their calls.
const MAX_EARLY: usize = 256;
/// Calls in each list.
const MAX_LISTED: usize = 100;
/// Bytes of a name, a method or an error; longer ones are cut.
const MAX_TEXT_BYTES: usize = 256;
/// Time after which a listed call is forgotten.
const MAX_AGE_NANOS: u64 = 900 * 1_000_000_000;
/// Time after which a call without a reply has failed.
const UNANSWERED_NANOS: u64 = 60 * 1_000_000_000;
/// Duration from which a call is slow.
const SLOW_NANOS: u64 = 10 * 1_000_000;

/// A call, by which its reply is found: caller, callee and id.
type Key = (Box<str>, Box<str>, u32);

/// A call that waits for its reply.
struct Pending {
    method: Box<str>,
    /// When it was routed, in nanoseconds since 1970.
    at: u64,
    /// Its place in the order, by which an older call with the same key is recognised.
    number: u64,
}

/// A reply that was observed before its call.
struct Early {
    key: Key,
    at: u64,
    error: Option<Box<str>>,
    /// Whether it was kept once already.
    is_old: bool,
}

/// A call with its result.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct ListedCall {
    /// When it was made: Unix time in milliseconds.
    at_ms: u64,
    pub(crate) caller: Box<str>,
    pub(crate) target: Box<str>,
    method: Box<str>,
    /// `None` without a reply.
    duration_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Box<str>>,
}

impl ListedCall {
    /// Returns the call without the text of its error, which is part of a message. The code stays.
    pub(crate) fn without_text(mut self) -> Self {
        let code = self.error.as_deref().and_then(|error| error.split_once(": ")).map(|(code, _)| code);
        if let Some(code) = code.filter(|code| code.parse::<i16>().is_ok()) {
            self.error = Some(code.into());
        }
        self
    }
}

/// The calls.
#[derive(Default)]
pub(crate) struct Calls {
    pending: HashMap<Key, Pending>,
    order: VecDeque<(u64, Key)>,
    last: u64,
    early: VecDeque<Early>,
    slow: Vec<ListedCall>,
    errors: VecDeque<ListedCall>,
}

impl Calls {
    /// Adds a call that was routed at `at`, in nanoseconds since 1970.
    pub(crate) fn call(&mut self, caller: &str, callee: &str, id: u32, method: &[u8], at: u64) {
        if id == NO_REPLY {
            return;
        }
        let method = cut(&String::from_utf8_lossy(method));
        let key: Key = (caller.into(), callee.into(), id);
        if let Some(place) = self.early.iter().position(|early| early.key.2 == id && early.key == key)
            && let Some(early) = self.early.remove(place)
        {
            return self.list(&key, method, at, Some(early.at), early.error);
        }
        self.make_room();
        self.last += 1;
        self.order.push_back((self.last, key.clone()));
        self.pending.insert(key, Pending { method, at, number: self.last });
    }

    /// Adds a reply from `callee` to `caller`. `error` is what it failed with.
    pub(crate) fn reply(
        &mut self,
        caller: &str,
        callee: &str,
        id: u32,
        error: Option<(i16, &[u8])>,
        at: u64,
    ) {
        let key: Key = (caller.into(), callee.into(), id);
        let error = error.map(|(code, text)| -> Box<str> {
            let text = cut(&String::from_utf8_lossy(text.get(..MAX_TEXT_BYTES).unwrap_or(text)));
            if text.is_empty() { code.to_string().into() } else { format!("{code}: {text}").into() }
        });
        match self.take(&key, None) {
            Some(Pending { method, at: begun, .. }) => self.list(&key, method, begun, Some(at), error),
            None => {
                if self.early.len() >= MAX_EARLY {
                    self.early.pop_front();
                }
                self.early.push_back(Early { key, at, error, is_old: false });
            }
        }
    }

    /// Records that a call was not delivered.
    pub(crate) fn undelivered(&mut self, caller: &str, callee: &str, method: &[u8], why: &str, at: u64) {
        let method = cut(&String::from_utf8_lossy(method));
        self.list(&(caller.into(), callee.into(), 0), method, at, None, Some(why.into()));
    }

    /// Forgets the oldest calls if there are too many, and places of answered ones.
    fn make_room(&mut self) {
        while self.pending.len() >= MAX_PENDING
            && let Some((number, key)) = self.order.pop_front()
        {
            self.take(&key, Some(number));
        }
        if self.order.len() >= 2 * MAX_PENDING {
            let pending = &self.pending;
            self.order.retain(|(number, key)| pending.get(key).is_some_and(|call| call.number == *number));
        }
    }

    fn take(&mut self, key: &Key, number: Option<u64>) -> Option<Pending> {
        let is_it =
            self.pending.get(key).is_some_and(|call| number.is_none_or(|number| call.number == number));
        if is_it { self.pending.remove(key) } else { None }
    }

    fn list(&mut self, key: &Key, method: Box<str>, at: u64, end: Option<u64>, error: Option<Box<str>>) {
        let nanos = end.map(|end| end.saturating_sub(at));
        let call = ListedCall {
            at_ms: at / 1_000_000,
            caller: cut(&key.0),
            target: cut(&key.1),
            method,
            duration_ms: nanos.map(|nanos| (nanos / 1000) as f64 / 1000.0),
            error,
        };
        if call.error.is_some() {
            if self.errors.len() >= MAX_LISTED {
                self.errors.pop_front();
            }
            self.errors.push_back(call.clone());
        }
        if nanos.is_some_and(|nanos| nanos >= SLOW_NANOS) {
            self.slow.push(call);
            self.slow.sort_by(|a, b| b.duration_ms.partial_cmp(&a.duration_ms).unwrap_or(Ordering::Equal));
            self.slow.truncate(MAX_LISTED);
        }
    }

    /// Gives up calls without replies and replies without calls, and forgets old ones. Called now and then;
    /// `now` is in nanoseconds since 1970.
    pub(crate) fn expire(&mut self, now: u64) {
        self.early.retain_mut(|early| !std::mem::replace(&mut early.is_old, true));
        while let Some((number, key)) = self.order.front() {
            let found = self.pending.get(key).filter(|call| call.number == *number);
            let is_waiting = found.is_some_and(|call| now.saturating_sub(call.at) < UNANSWERED_NANOS);
            if is_waiting {
                break;
            }
            let Some((number, key)) = self.order.pop_front() else { break };
            if let Some(Pending { method, at, .. }) = self.take(&key, Some(number)) {
                let why = format!("no reply within {} s", UNANSWERED_NANOS / 1_000_000_000);
                self.list(&key, method, at, None, Some(why.into()));
            }
        }
        let oldest_ms = now.saturating_sub(MAX_AGE_NANOS) / 1_000_000;
        self.slow.retain(|call| call.at_ms >= oldest_ms);
        self.errors.retain(|call| call.at_ms >= oldest_ms);
    }

    /// Returns the slow calls, the slowest first, and the failed ones, the last first.
    pub(crate) fn all(&self) -> (Vec<ListedCall>, Vec<ListedCall>) {
        (self.slow.clone(), self.errors.iter().rev().cloned().collect())
    }
}

fn cut(text: &str) -> Box<str> {
    let end = (0..=text.len().min(MAX_TEXT_BYTES)).rev().find(|end| text.is_char_boundary(*end));
    text.get(..end.unwrap_or(0)).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    /// Some time of day.
    const START: u64 = 1_700_000_000_000 * MS;

    #[test]
    fn slow_calls_and_errors_are_listed_with_their_durations() {
        let mut calls = Calls::default();
        for (id, ms) in [(1, 5), (2, 50), (3, 20)] {
            calls.call("a", "b", id, b"m", START);
            calls.reply("a", "b", id, None, START + ms * MS);
        }
        calls.call("a", "b", 4, b"fails", START + MS);
        calls.reply("a", "b", 4, Some((-32602, b"why")), START + 2 * MS);
        calls.call("a", "b", NO_REPLY, b"m", START);
        calls.undelivered("a", "gone", b"m", "not registered", START);
        let (slow, errors) = calls.all();
        assert_eq!(slow.iter().map(|call| call.duration_ms).collect::<Vec<_>>(), [Some(50.0), Some(20.0)]);
        let error = |call: &ListedCall| (call.target.clone(), call.duration_ms, call.error.clone().unwrap());
        let expected =
            [("gone".into(), None, "not registered".into()), ("b".into(), Some(1.0), "-32602: why".into())];
        assert_eq!(errors.iter().map(error).collect::<Vec<_>>(), expected);
        assert_eq!(errors[1].at_ms, START / MS + 1);
        let without = |call: &ListedCall| call.clone().without_text().error.unwrap();
        assert_eq!([without(&errors[0]), without(&errors[1])], ["not registered".into(), "-32602".into()]);
        assert!(calls.pending.is_empty());
    }

    #[test]
    fn a_reply_can_be_observed_before_its_call() {
        let mut calls = Calls::default();
        calls.reply("a", "b", 7, None, START + 30 * MS);
        calls.expire(START);
        calls.call("a", "b", 7, b"m", START);
        assert_eq!(calls.all().0[0].duration_ms, Some(30.0));
        calls.reply("a", "b", 8, None, START);
        calls.expire(START);
        calls.expire(START);
        calls.call("a", "b", 8, b"m", START);
        assert_eq!((calls.early.len(), calls.pending.len()), (0, 1), "it belongs to an earlier call");
    }

    #[test]
    fn calls_without_a_reply_fail_and_old_ones_are_forgotten() {
        let mut calls = Calls::default();
        calls.call("a", "b", 1, b"m", START);
        // the same id again: the first one is forgotten
        calls.call("a", "b", 1, b"again", START + MS);
        calls.expire(START + UNANSWERED_NANOS);
        assert!(calls.all().1.is_empty());
        calls.expire(START + UNANSWERED_NANOS + MS);
        let (_, errors) = calls.all();
        assert_eq!((errors.len(), &*errors[0].method, errors[0].duration_ms), (1, "again", None));
        calls.expire(START + MAX_AGE_NANOS + 2 * MS);
        assert!(calls.all().1.is_empty() && calls.order.is_empty());
    }

    #[test]
    fn everything_is_bounded() {
        let mut calls = Calls::default();
        let long = "x".repeat(10_000);
        for id in 1..20_000 {
            calls.call("a", "b", id, long.as_bytes(), START);
            calls.reply("a", "c", id, Some((1, long.as_bytes())), START);
            calls.undelivered(&long, "b", b"m", "x", START);
        }
        assert!(calls.pending.len() <= MAX_PENDING && calls.order.len() <= 2 * MAX_PENDING);
        assert!(calls.early.len() <= MAX_EARLY && calls.errors.len() <= MAX_LISTED);
        for id in 1..20_000 {
            calls.call("a", "d", id, b"m", START);
            calls.reply("a", "d", id, None, START + u64::from(id) * 100 * MS);
        }
        let (slow, errors) = calls.all();
        assert_eq!((slow.len(), slow[0].duration_ms), (MAX_LISTED, Some(1_999_900.0)));
        assert!(errors.iter().all(|call| call.caller.len() <= MAX_TEXT_BYTES));
        assert!(calls.pending.len() <= MAX_PENDING);
    }
}
