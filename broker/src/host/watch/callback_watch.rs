//! The thread that watches callbacks: scans the [calls in progress](crate::callbacks) twenty times per
//! second, logs and counts slow ones, and fails instances whose callbacks do not return. Never calls a
//! plugin.
//!
//! It counts scans instead of time, so that no call ages while the whole process is suspended.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};

use super::call_ages::{CallAges, LateCall, REPORTED_AFTER};
use crate::{
    callbacks::{self, CallInProgress, Callback, Caller},
    host::{api::context::BrokerContext, lifecycle::plugins::Plugins},
};

/// Time between two scans.
const PERIOD: Duration = Duration::from_millis(50);
/// Number of scans after a report during which slow callbacks of the instance are only counted.
const REPORT_INTERVAL: u64 = 200;
/// Number of instances whose last report is remembered.
const MAX_REMEMBERED_REPORTS: usize = 1024;

/// Starts the thread, which ends with the plugins. Without it callbacks are not watched.
pub(crate) fn watch_callbacks(plugins: &Arc<Plugins>) {
    let (plugins, context) = (Arc::downgrade(plugins), plugins.context.clone());
    let body = move || run(&plugins, &context);
    if let Err(error) = std::thread::Builder::new().name("callback watch".to_owned()).spawn(body) {
        tracing::error!(%error, "callbacks of plugins are not watched: cannot start a thread");
    }
}

fn run(plugins: &Weak<Plugins>, context: &BrokerContext) {
    let mut ages = CallAges::default();
    let mut reports = Reports::default();
    loop {
        std::thread::sleep(PERIOD);
        let Some(plugins) = plugins.upgrade() else { return };
        let limit = context.callback_limit();
        let limit = u32::try_from(limit.as_millis() / PERIOD.as_millis()).unwrap_or(u32::MAX);
        reports.scans += 1;
        for late in ages.scan(callbacks::in_progress(), limit) {
            match late {
                LateCall::Reached(call) => reports.report(&plugins, context, &call, false),
                LateCall::BatchReached(call) => reports.report(&plugins, context, &call, true),
                LateCall::Returned(call, scans) => report_return(&plugins, &call, scans),
                LateCall::Expired(call) => fail(&plugins, context, &call, "has not returned within"),
                LateCall::BatchExpired(call) => {
                    fail(&plugins, context, &call, "has been called without a pause for")
                }
            }
        }
    }
}

/// The time of the last report of slow callbacks of each instance.
#[derive(Default)]
struct Reports {
    scans: u64,
    last: HashMap<u32, u64>,
}

impl Reports {
    fn report(&mut self, plugins: &Plugins, context: &BrokerContext, call: &CallInProgress, is_batch: bool) {
        if let Some(instance) = plugins.by_owner(call.owner) {
            instance.count_slow_callback();
        }
        let last = self.last.get(&call.owner);
        if last.is_some_and(|last| self.scans - last < REPORT_INTERVAL) {
            return;
        }
        if self.last.len() >= MAX_REMEMBERED_REPORTS {
            self.last.clear();
        }
        self.last.insert(call.owner, self.scans);
        let plugin = callbacks::owner_name(call.owner);
        let (callback, caller) = (call.callback.name(), caller_name(context, &call.caller));
        let (thread, milliseconds) = (&call.thread, (PERIOD * REPORTED_AFTER).as_millis());
        if is_batch {
            tracing::warn!(plugin, callback, caller, thread, milliseconds, "slow callbacks without a pause");
        } else {
            tracing::warn!(plugin, callback, caller, thread, milliseconds, "slow callback: has not returned");
        }
    }
}

fn report_return(plugins: &Plugins, call: &CallInProgress, scans: u32) {
    let (plugin, callback) = (callbacks::owner_name(call.owner), call.callback.name());
    let milliseconds = (PERIOD * scans).as_millis();
    // shorter calls are only counted
    if plugins.by_owner(call.owner).is_some() && scans >= 20 {
        tracing::info!(plugin, callback, milliseconds, "slow callback has returned");
    } else {
        tracing::debug!(plugin, callback, milliseconds, "slow callback has returned");
    }
}

fn caller_name(context: &BrokerContext, caller: &Caller) -> String {
    match caller {
        Caller::Client(number) => context.router.client_by_number(*number).unwrap_or_default(),
        Caller::Name(name) => name.clone(),
    }
}

/// Fails the instance whose callback does not return. The thread is abandoned and ends when the callback
/// returns.
fn fail(plugins: &Plugins, context: &BrokerContext, call: &CallInProgress, what: &str) {
    let seconds = context.callback_limit().as_secs_f64();
    let reason = format!("{} {what} {seconds} s (callback_seconds)", call.callback.name());
    let Some(instance) = plugins.by_owner(call.owner) else {
        let plugin = callbacks::owner_name(call.owner);
        return tracing::error!(plugin, thread = call.thread, reason, "callback abandoned");
    };
    if call.callback == Callback::OnEvent {
        context.router.events.replace_thread();
    }
    instance.mark_failed(call.owner, &reason);
}

/// Returns descriptions of the calls into plugins that do not return: those in progress both now and 50 ms
/// ago. Blocks for that time.
pub fn hanging_calls() -> Vec<String> {
    let all = callbacks::in_progress().into_iter().flat_map(|thread| thread.calls);
    let before: Vec<_> = all.map(|call| call.key).collect();
    std::thread::sleep(PERIOD);
    let innermost = callbacks::in_progress().into_iter().filter_map(|mut thread| thread.calls.pop());
    innermost
        .filter(|call| before.contains(&call.key))
        .map(|call| {
            let plugin = callbacks::owner_name(call.owner);
            format!("plugin {plugin} in {} (thread {})", call.callback.name(), call.thread)
        })
        .collect()
}
