//! The observer of the plugin: counts publications by topic and measures calls, if the table asks for it. A
//! thread of its own reads it; what its queue cannot take is missed, and nobody is held.

use elbus_plugin_api::{
    Code, Host, Op, PluginError,
    hooks::{Hook, HookScope, Observation, Observer},
};
use elbus_protocol::rpc::{RpcFrame, decode_rpc};
use parking_lot::Mutex;
use std::{
    sync::{Arc, mpsc::RecvTimeoutError},
    time::{Duration, Instant},
};

use crate::{
    call_durations::{CallDurations, CallEnd},
    exposition::Samples,
    open_calls::{EndedCall, OpenCalls},
    settings::Settings,
    topic_counts::TopicCounts,
};

/// Interval of the search for unanswered calls.
const EXPIRY_INTERVAL: Duration = Duration::from_millis(500);
/// Messages that are counted under one lock.
const BATCH: usize = 256;

/// What is counted. A leaf lock, held for a batch of messages and for a scrape.
pub(crate) struct ObservedCounts(Mutex<(TopicCounts, Option<CallDurations>)>);

/// The running observer. Dropping it ends the observation and its thread.
pub(crate) struct Observing {
    counts: Arc<ObservedCounts>,
    _hook: Hook,
}

impl Observing {
    /// Begins to observe what the settings ask for; `None` if that is nothing.
    ///
    /// # Errors
    /// The observer or its thread cannot be created.
    pub(crate) fn start(host: &Host, settings: &Settings) -> Result<Option<Self>, PluginError> {
        let mut scope = HookScope::new();
        if !settings.topics.is_empty() {
            scope = scope.publications(&settings.topics);
        }
        if settings.rpc {
            // replies go to callers of any name
            scope = scope.messages(["*"]);
        }
        if settings.topics.is_empty() && !settings.rpc {
            return Ok(None);
        }
        let calls = settings.rpc.then(|| CallDurations::new(&settings.methods, settings.max_methods));
        let counts = ObservedCounts(Mutex::new((TopicCounts::new(settings.max_topics), calls)));
        let counts = Arc::new(counts);
        let (hook, observer) = host.add_observer(&scope, settings.queue_bytes)?;
        let (counting, limit) = (counts.clone(), settings.call_time);
        host.spawn(move || count_all(observer, &counting, limit))?;
        Ok(Some(Observing { counts, _hook: hook }))
    }

    /// Returns what is counted.
    pub(crate) fn counts(&self) -> Arc<ObservedCounts> {
        self.counts.clone()
    }
}

impl ObservedCounts {
    /// Adds the figures.
    pub(crate) fn sample(&self, samples: &mut Samples) {
        let counts = self.0.lock();
        counts.0.sample(samples);
        if let Some(calls) = &counts.1 {
            calls.sample(samples);
        }
    }
}

fn count_all(mut observer: Observer, counts: &ObservedCounts, limit: Duration) {
    let mut open = OpenCalls::default();
    let mut expire_at = Instant::now() + EXPIRY_INTERVAL;
    loop {
        let first = match observer.receive_timeout(EXPIRY_INTERVAL) {
            Ok(seen) => Some(seen),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let now = Instant::now();
        let mut counts = counts.0.lock();
        let (topics, calls) = &mut *counts;
        let more = std::iter::from_fn(|| observer.try_receive()).take(BATCH);
        for seen in first.into_iter().chain(more) {
            match seen.op() {
                Op::Message => {
                    if let Some(EndedCall { method, end, duration }) = take(&mut open, &seen, now)
                        && let Some(calls) = calls
                    {
                        calls.count(&method, end, duration);
                    }
                }
                _ => topics.count(seen.target(), seen.payload().len()),
            }
        }
        if now >= expire_at {
            expire_at = now + EXPIRY_INTERVAL;
            while let Some(EndedCall { method, end, duration }) = open.take_expired(limit, now) {
                if let Some(calls) = calls {
                    calls.count(&method, end, duration);
                }
            }
        }
    }
}

/// Returns the call that a message ends, if it is a reply, or a call whose reply was there first.
fn take(open: &mut OpenCalls, seen: &Observation, now: Instant) -> Option<EndedCall> {
    let (sender, target, nanos) = (seen.sender(), seen.target(), seen.unix_nanos());
    match decode_rpc(seen.payload()).ok()? {
        // nobody answers a call that was not delivered
        RpcFrame::Request { call_id, method, .. } if seen.code() == Code::Ok => {
            open.call((sender, target, call_id), method, nanos, now)
        }
        RpcFrame::Reply { call_id, .. } => open.reply((target, sender, call_id), CallEnd::Reply, nanos, now),
        RpcFrame::Error { call_id, .. } => open.reply((target, sender, call_id), CallEnd::Error, nanos, now),
        _ => None,
    }
}
