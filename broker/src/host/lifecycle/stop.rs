//! Stops instances: each in a thread of its own, in the reverse order of their declaration, within a
//! deadline. An instance that hangs is abandoned and does not prevent others from stopping.

use std::{
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use super::{instance::Instance, report::PluginState};
use crate::callbacks::{self, Callback};

/// Time beyond the deadline after which an instance is abandoned.
const GRACE: Duration = Duration::from_millis(500);

/// Maximum time that an interrupted change waits for the instances that it stops.
pub(super) const INTERRUPTED_TIMEOUT: Duration = Duration::from_secs(1);

/// Interval at which an interruption is checked.
const STEP: Duration = Duration::from_millis(20);

/// The time limit of a stop, which several instances share.
#[derive(Clone, Copy)]
pub(super) struct Limit {
    /// Deadline for draining queues.
    deadline: Instant,
    /// Time after which an instance that has not stopped is abandoned.
    abandoned: Instant,
    begun: Instant,
    /// The broker continues unless it is interrupted meanwhile.
    is_change: bool,
}

impl Limit {
    /// Returns the limit at the end of the broker.
    pub(super) fn of_end(deadline: Duration) -> Self {
        let now = Instant::now();
        Limit { deadline: now + deadline, abandoned: now + deadline + GRACE, begun: now, is_change: false }
    }

    /// Returns the limit of a change while the broker continues.
    pub(super) fn of_change(deadline: Duration) -> Self {
        Limit { is_change: true, ..Self::of_end(deadline) }
    }
}

/// Stops one instance while the broker continues, and removes what it has registered. Returns when it has
/// stopped or was abandoned.
pub(super) fn stop_one(instance: &Arc<Instance>, deadline: Duration, why: &str) {
    Stop::begin(instance, Limit::of_change(deadline), why).wait();
}

/// Stops instances in the reverse order of their declaration, each after the previous one has stopped, so
/// that the plugins an instance depends on still run while it stops. If one takes more than half of the
/// remaining time, the next is stopped without waiting for it. All that hang are abandoned at the same time.
pub(super) fn stop_all(instances: &[Arc<Instance>], why: &str, limit: Limit) {
    instances.iter().for_each(|instance| instance.cancel_restart());
    let least = GRACE / (2 * instances.len().max(1)) as u32;
    let stops = instances.iter().rev().map(|instance| {
        let mut stop = Stop::begin(instance, limit, why);
        let left = limit.deadline.saturating_duration_since(Instant::now());
        stop.wait_for(least.max(left / 2));
        stop
    });
    let stops: Vec<_> = stops.collect();
    stops.into_iter().for_each(Stop::wait);
}

/// A stop in progress.
struct Stop {
    instance: Arc<Instance>,
    owner: u32,
    why: String,
    stopped: mpsc::Receiver<()>,
    has_stopped: bool,
    limit: Limit,
}

impl Stop {
    fn begin(instance: &Arc<Instance>, limit: Limit, why: &str) -> Self {
        let (object, owner) = instance.take_object();
        let (done, stopped) = mpsc::channel();
        let (context, reason) = (instance.context.clone(), why.to_owned());
        let body = move || {
            if let Some(object) = object {
                let deadline = limit.deadline.saturating_duration_since(Instant::now());
                let milliseconds = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
                callbacks::for_caller(owner, Callback::Stop, "the broker", || object.stop(milliseconds));
                context.remove_owner(owner, &reason);
                drop(object);
            }
            _ = done.send(());
        };
        let spawned = std::thread::Builder::new().name(format!("stop {}", instance.name)).spawn(body);
        if let Err(error) = spawned {
            tracing::error!(plugin = instance.name, %error, "cannot spawn the thread that stops the plugin");
        }
        Stop { instance: instance.clone(), owner, why: why.to_owned(), stopped, has_stopped: false, limit }
    }

    /// Waits until the instance has stopped, for at most `limit`.
    fn wait_for(&mut self, limit: Duration) {
        let until = Instant::now() + limit;
        loop {
            if self.limit.is_change && self.instance.context.is_interrupted() {
                self.limit.is_change = false;
                self.limit.abandoned = self.limit.abandoned.min(Instant::now() + INTERRUPTED_TIMEOUT);
            }
            let left = until.min(self.limit.abandoned).saturating_duration_since(Instant::now());
            let step = if self.limit.is_change { left.min(STEP) } else { left };
            // disconnected if there is no thread
            self.has_stopped |= self.stopped.recv_timeout(step) != Err(mpsc::RecvTimeoutError::Timeout);
            if self.has_stopped || step == left {
                break;
            }
        }
        if self.has_stopped && !matches!(self.instance.state(), PluginState::Failed(_)) {
            self.instance.set_state(PluginState::Stopped);
        }
    }

    /// Waits until the instance has stopped, or abandons it.
    fn wait(mut self) {
        if self.has_stopped {
            return;
        }
        self.wait_for(self.limit.abandoned.saturating_duration_since(Instant::now()));
        if !self.has_stopped {
            let total = self.limit.abandoned.saturating_duration_since(self.limit.begun);
            let why = format!("did not stop within {} ms", total.as_millis());
            tracing::error!(plugin = self.instance.name, reason = why, "plugin abandoned");
            self.instance.context.remove_owner(self.owner, &self.why);
            self.instance.set_state(PluginState::Failed(why));
        }
    }
}
