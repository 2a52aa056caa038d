//! Turns observed messages into records, and decodes what they are in the RPC layer. Hides the calls by which
//! a monitoring client controls its session.

use elbus_plugin_api::{BROKER_NAME, Code, Op, hooks::Observation};
use elbus_protocol::rpc::{RpcFrame, decode_rpc};
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use crate::{
    record::{Record, Rpc},
    rpc_calls::{Call, RpcCalls, method_text},
};

/// The method that a client calls steadily while it monitors.
pub(crate) const RENEW: &str = "monitor.renew";
/// All methods of the monitor begin with this.
const METHOD_PREFIX: &str = "monitor.";
/// The time in which a call is observed after its reply, at most.
pub(crate) const EARLY_TIME: Duration = Duration::from_millis(250);
/// Replies that wait for their calls, and bytes of their payloads.
const MAX_EARLY: usize = 256;
const MAX_EARLY_BYTES: usize = 4 << 20;

/// A reply that was observed before its call: each thread queues what it has routed, and the callee can be
/// faster than the thread of the caller.
struct Early {
    seen: Observation,
    id: u32,
    since: Instant,
}

/// Decodes the messages of one session.
pub(crate) struct Decoder {
    /// The monitoring client.
    client: Box<str>,
    payload_bytes: usize,
    call_time: Duration,
    calls: RpcCalls,
    early: VecDeque<Early>,
    early_bytes: usize,
}

impl Decoder {
    pub(crate) fn new(client: &str, payload_bytes: usize, call_time: Duration) -> Self {
        Decoder {
            client: client.into(),
            payload_bytes,
            call_time,
            calls: RpcCalls::default(),
            early: VecDeque::new(),
            early_bytes: 0,
        }
    }

    /// Passes the records of a message to `out`.
    pub(crate) fn take(&mut self, seen: Observation, now: Instant, out: &mut impl FnMut(Record<'_>)) {
        let rpc = if seen.op() == Op::Message { decode_rpc(seen.payload()).ok() } else { None };
        match rpc {
            None => out(Record::new(&seen, seen.payload(), None, self.payload_bytes)),
            Some(RpcFrame::Notification { payload }) => {
                let rpc = Rpc { kind: "notification", ..Rpc::default() };
                out(Record::new(&seen, payload, Some(rpc), self.payload_bytes));
            }
            Some(RpcFrame::Request { call_id, method, params }) => {
                let method = method_text(method);
                let hidden = self.is_hidden(&seen, &method);
                if !hidden {
                    let rpc =
                        Rpc { kind: "call", id: Some(call_id), method: Some(&method), ..Rpc::default() };
                    out(Record::new(&seen, params, Some(rpc), self.payload_bytes));
                }
                // nobody answers a call that was not delivered
                if seen.code() == Code::Ok {
                    self.calls.add(Call::new(&seen, call_id, &method, hidden, now));
                    self.answer_early(&seen, call_id, out);
                }
            }
            Some(RpcFrame::Reply { call_id, .. } | RpcFrame::Error { call_id, .. }) => {
                match self.calls.take(seen.target(), seen.sender(), call_id) {
                    Some(call) => self.reply(&seen, Some(&call), out),
                    None => self.keep_early(seen, call_id, now, out),
                }
            }
        }
    }

    /// Passes on what has waited long enough: replies without a call, and calls without a reply.
    pub(crate) fn expire(&mut self, now: Instant, out: &mut impl FnMut(Record<'_>)) {
        while self.early.front().is_some_and(|early| now.duration_since(early.since) >= EARLY_TIME) {
            self.give_up_early(out);
        }
        while let Some(call) = self.calls.take_expired(self.call_time, now) {
            if !call.hidden {
                out(Record::unanswered(&call, self.call_time));
            }
        }
    }

    /// Passes on the replies that still wait for their calls.
    pub(crate) fn finish(&mut self, out: &mut impl FnMut(Record<'_>)) {
        while !self.early.is_empty() {
            self.give_up_early(out);
        }
    }

    /// Returns the time after which [`expire`](Self::expire) is called again, at most `longest`.
    pub(crate) fn wait(&self, longest: Duration) -> Duration {
        if !self.early.is_empty() {
            EARLY_TIME
        } else if self.calls.any() {
            self.call_time.min(longest)
        } else {
            longest
        }
    }

    fn is_hidden(&self, seen: &Observation, method: &str) -> bool {
        let is_own = seen.sender() == &*self.client && method.starts_with(METHOD_PREFIX);
        seen.target() == BROKER_NAME && (is_own || method == RENEW)
    }

    /// Passes on a reply. Of replies without a call, those of the broker to the monitoring client are hidden:
    /// it has called `monitor.start` before anything was observed.
    fn reply(&self, seen: &Observation, call: Option<&Call>, out: &mut impl FnMut(Record<'_>)) {
        let hidden = match call {
            Some(call) => call.hidden,
            None => seen.sender() == BROKER_NAME && seen.target() == &*self.client,
        };
        if hidden {
            return;
        }
        let (kind, id, error, body) = match decode_rpc(seen.payload()) {
            Ok(RpcFrame::Reply { call_id, result }) => ("reply", call_id, None, result),
            Ok(RpcFrame::Error { call_id, code, data }) => ("error", call_id, Some(code), data),
            _ => return,
        };
        let took = call.map(|call| seen.unix_nanos().saturating_sub(call.unix_nanos) / 1000);
        let method = call.map(|call| &*call.method);
        let rpc = Rpc { kind, id: Some(id), method, error, micros: took };
        out(Record::new(seen, body, Some(rpc), self.payload_bytes));
    }

    fn keep_early(&mut self, seen: Observation, id: u32, now: Instant, out: &mut impl FnMut(Record<'_>)) {
        self.early_bytes += seen.payload().len();
        self.early.push_back(Early { seen, id, since: now });
        while self.early.len() > MAX_EARLY || self.early_bytes > MAX_EARLY_BYTES {
            self.give_up_early(out);
        }
    }

    fn give_up_early(&mut self, out: &mut impl FnMut(Record<'_>)) {
        if let Some(early) = self.early.pop_front() {
            self.early_bytes -= early.seen.payload().len();
            self.reply(&early.seen, None, out);
        }
    }

    /// Passes on the reply to a call that was observed before the call, if there is one.
    fn answer_early(&mut self, call: &Observation, id: u32, out: &mut impl FnMut(Record<'_>)) {
        let answers = |early: &Early| {
            early.id == id && early.seen.sender() == call.target() && early.seen.target() == call.sender()
        };
        let Some(index) = self.early.iter().position(answers) else { return };
        if let Some(early) = self.early.remove(index) {
            self.early_bytes -= early.seen.payload().len();
            let call = self.calls.take(call.sender(), call.target(), id);
            self.reply(&early.seen, call.as_ref(), out);
        }
    }
}
