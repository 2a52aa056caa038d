//! What an observer shows of the traffic: flows and calls. Owns the observer, which exists only while
//! somebody asks for them, and how much of the traffic is looked at.
//!
//! The observer takes samples: it queues what fits into [`QUEUE_BYTES`], ten times per second. A bus with
//! little traffic is thereby seen completely, and one with much pays for a fraction.

use elbus_plugin_api::{
    BROKER_NAME, Code, Host, Op,
    hooks::{Hook, HookScope, Observation, Observer},
    unix_nanos,
};
use elbus_protocol::rpc::{RpcFrame, decode_rpc};
use parking_lot::Mutex;
use std::time::{Duration, Instant};

use crate::{calls::Calls, flows::Flows};

/// Time between two samples.
pub(crate) const SAMPLE_INTERVAL: Duration = Duration::from_millis(100);
/// Bytes of a sample.
const QUEUE_BYTES: usize = 512 * 1024;
/// Messages that are looked at after one sample; the rest follow after the next.
const MAX_MESSAGES: usize = 8192;
/// Time after the last request for which the observer stays.
const LEASE: Duration = Duration::from_secs(120);

/// The traffic as observed. Its lock is held while a sample is looked at, and never while the broker is
/// called.
#[derive(Default)]
pub(crate) struct Traffic(Mutex<State>);

#[derive(Default)]
struct State {
    wanted: Option<Instant>,
    /// Since when there is an observer: Unix time in milliseconds.
    since_ms: u64,
    flows: Flows,
    calls: Calls,
    /// Messages that no sample had.
    missed: u64,
    /// Whether it was logged that there are too many observers.
    is_refused: bool,
}

/// The observer of the collector's thread.
pub(crate) struct TrafficObserver {
    _hook: Hook,
    observer: Observer,
}

impl Traffic {
    /// Has the collector observe the traffic, or go on observing it.
    pub(crate) fn want(&self) {
        self.0.lock().wanted = Some(Instant::now());
    }

    /// Returns whether somebody has asked lately.
    pub(crate) fn is_wanted(&self, now: Instant) -> bool {
        self.0.lock().wanted.is_some_and(|wanted| now.saturating_duration_since(wanted) < LEASE)
    }

    /// Begins to observe, and forgets what was observed before. `None` if the broker has too many observers.
    pub(crate) fn observe(&self, host: &Host) -> Option<TrafficObserver> {
        let scope = HookScope::everything().sampled();
        let (_hook, observer) = match host.add_observer(&scope, QUEUE_BYTES) {
            Ok(added) => added,
            Err(error) => {
                if !std::mem::replace(&mut self.0.lock().is_refused, true) {
                    tracing::warn!(%error, "cannot observe the traffic for web.map and web.calls");
                }
                return None;
            }
        };
        let mut state = self.0.lock();
        let wanted = state.wanted;
        *state = State { wanted, since_ms: unix_nanos() / 1_000_000, ..State::default() };
        Some(TrafficObserver { _hook, observer })
    }

    /// Looks at a sample.
    pub(crate) fn look(&self, observer: &mut TrafficObserver) {
        let now = Instant::now();
        for _ in 0..MAX_MESSAGES / 64 {
            let mut state = self.0.lock();
            let seen = (0..64).map_while(|_| observer.observer.try_receive());
            // counted: each message that is taken allows another one
            if seen.map(|seen| state.add(&seen, now)).count() < 64 {
                break;
            }
        }
        let mut state = self.0.lock();
        state.missed = observer.observer.missed();
        state.flows.expire(now);
        state.calls.expire(unix_nanos());
    }

    /// Returns the flows, since when they are observed, and how many messages were not.
    pub(crate) fn with_flows<R>(&self, read: impl FnOnce(&Flows, u64, u64) -> R) -> R {
        let state = self.0.lock();
        read(&state.flows, state.since_ms, state.missed)
    }

    /// Reads the calls.
    pub(crate) fn with_calls<R>(&self, read: impl FnOnce(&Calls) -> R) -> R {
        read(&self.0.lock().calls)
    }
}

impl State {
    fn add(&mut self, seen: &Observation, now: Instant) {
        let (sender, target, payload) = (seen.sender(), seen.target(), seen.payload());
        let rpc = if seen.op() == Op::Message { decode_rpc(payload).ok() } else { None };
        let at = seen.unix_nanos();
        match &rpc {
            Some(RpcFrame::Request { call_id, method, .. }) => match seen.code() {
                Code::Ok => self.calls.call(sender, target, *call_id, method, at),
                code => self.calls.undelivered(sender, target, method, &format!("not delivered: {code}"), at),
            },
            Some(RpcFrame::Reply { call_id, .. }) => {
                self.calls.reply(target, sender, *call_id, None, at);
                return; // the flow is that of the call
            }
            Some(RpcFrame::Error { call_id, code, data }) => {
                self.calls.reply(target, sender, *call_id, Some((*code, data)), at);
                return;
            }
            Some(RpcFrame::Notification { .. }) | None => {}
        }
        // what the broker announces is not traffic of clients
        if sender != BROKER_NAME {
            self.flows.add(seen.op(), sender, target, rpc.is_some(), payload.len(), now);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use elbus_plugin_api::testing::FakeHost;
    use elbus_protocol::rpc::{encode_error, encode_notification, encode_reply, encode_request};

    fn observed(fake: &FakeHost, traffic: &Traffic) -> TrafficObserver {
        traffic.want();
        assert!(traffic.is_wanted(Instant::now()) && !traffic.is_wanted(Instant::now() + LEASE));
        traffic.observe(&fake.host("web")).unwrap()
    }

    fn flows(traffic: &Traffic) -> Vec<String> {
        traffic.with_flows(|flows, _, _| {
            flows.all().iter().map(|it| format!("{} {:?} {}", it.from, it.kind, it.to)).collect()
        })
    }

    #[test]
    fn calls_and_flows_are_found_among_messages() {
        let (fake, traffic) = (FakeHost::new(), Traffic::default());
        let mut observer = observed(&fake, &traffic);
        fake.observe("a", Op::Message, "b", &[b"plain"], Code::Ok, 1);
        fake.observe("a", Op::Message, "b", &[&encode_request(1, "m", b"").unwrap()], Code::Ok, 1);
        fake.observe("b", Op::Message, "a", &[&encode_error(1, -32601, b"no")], Code::Ok, 1);
        fake.observe("a", Op::Message, "c", &[&encode_request(2, "m", b"").unwrap()], Code::NotRegistered, 0);
        fake.observe("a", Op::Message, "d", &[&encode_notification(b"x")], Code::Ok, 1);
        fake.observe("c", Op::Message, "a", &[&encode_reply(9, b"")], Code::Ok, 1);
        fake.observe("p", Op::Publish, "x/y/z", &[b"1", b"2"], Code::Ok, 0);
        fake.observe(BROKER_NAME, Op::Publish, ".broker/info", &[b"1"], Code::Ok, 0);
        traffic.look(&mut observer);
        let expected =
            ["p Topic x/y/#", "a Message b", "a Rpc b", "a Rpc c", "a Rpc d"].map(str::to_owned).to_vec();
        assert_eq!(flows(&traffic), expected);
        traffic.with_calls(|calls| {
            let targets: Vec<_> = calls.all().1.iter().map(|call| call.target.clone()).collect();
            assert_eq!(targets, ["c".into(), "b".into()] as [Box<str>; 2], "the last one first");
        });
        traffic.with_flows(|_, since_ms, missed| assert!(since_ms > 1_600_000_000_000 && missed == 0));
    }

    #[test]
    fn a_flood_is_sampled_and_what_is_missed_is_counted() {
        let (fake, traffic) = (FakeHost::new(), Traffic::default());
        let mut observer = observed(&fake, &traffic);
        let total = 100_000;
        for _ in 0..total {
            fake.observe("a", Op::Message, "b", &[&[0; 100]], Code::Ok, 1);
        }
        for _ in 0..10 {
            traffic.look(&mut observer);
        }
        let missed = traffic.with_flows(|_, _, missed| missed);
        assert!((total / 2..total).contains(&missed), "{missed}");
        // the next observer begins empty
        drop(observer);
        let _observer = observed(&fake, &traffic);
        assert_eq!((flows(&traffic), traffic.with_flows(|_, _, missed| missed)), (vec![], 0));
    }
}
