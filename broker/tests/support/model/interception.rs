//! The interceptor of the model: decides about the frames of mixed runs by their numbers.

use elbus_broker::Broker;
use elbus_plugin_api::{
    Code, Op,
    hooks::{Hook, HookScope, InterceptedFrame, OnFailure, Verdict},
};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::SeqCst},
};

use super::fits;

/// What the interceptor applies to.
const INTERCEPTED_TOPICS: [&str; 2] = ["a/#", "b"];
const INTERCEPTED_NAMES: [&str; 2] = ["a", "a.b"];
/// Where it redirects publications and messages.
pub(super) const NEW_TOPIC: &str = "a/b";
const NEW_NAME: &str = "b";

/// Decides about a frame by its number, which is its payload.
fn decide(op: Op, payload: &[u8], may_redirect: bool) -> Verdict {
    let number: Option<usize> = std::str::from_utf8(payload).ok().and_then(|text| text.parse().ok());
    match number.unwrap_or_default() % 8 {
        3 => Verdict::Reject(Code::BadData),
        4 => Verdict::Consume,
        5 => Verdict::replace_payload([b"replaced ", payload].concat()),
        6 if may_redirect => Verdict::redirect(if op == Op::Publish { NEW_TOPIC } else { NEW_NAME }),
        _ => Verdict::Continue,
    }
}

/// The interceptor, if there is one.
#[derive(Default)]
pub(super) struct Interception {
    hook: Option<Hook>,
    may_redirect: Arc<AtomicBool>,
}

impl Interception {
    /// Adds or removes the interceptor.
    pub(super) fn set(&mut self, broker: &Broker, intercepts: bool) {
        self.hook = None;
        if intercepts {
            let scope = HookScope::new().publications(INTERCEPTED_TOPICS).messages(INTERCEPTED_NAMES);
            let may_redirect = self.may_redirect.clone();
            let decide = move |frame: &InterceptedFrame<'_>| {
                decide(frame.op(), frame.payload(), may_redirect.load(SeqCst))
            };
            self.hook = Some(broker.host().add_interceptor(&scope, OnFailure::Closed, decide).unwrap());
        }
    }

    pub(super) fn set_may_redirect(&self, may_redirect: bool) {
        self.may_redirect.store(may_redirect, SeqCst);
    }

    /// Returns the verdict about a frame of a mixed run.
    pub(super) fn verdict(&self, op: Op, target: &str, payload: &[u8]) -> Verdict {
        let applies = match op {
            Op::Publish => INTERCEPTED_TOPICS.iter().any(|filter| fits(filter, target, '/', "+", "#")),
            _ => INTERCEPTED_NAMES.contains(&target),
        };
        match applies && self.hook.is_some() {
            true => decide(op, payload, self.may_redirect.load(SeqCst)),
            false => Verdict::Continue,
        }
    }
}
