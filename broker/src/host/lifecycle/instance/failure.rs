//! The failure of an instance: marks it failed, stops its service, and schedules its restart.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use super::Instance;
use crate::{
    access::RuleSetter,
    callbacks::{self, Callback},
    declaration::Restart,
    hooks::HookOwner,
    host::{api::context::HostedInstance, lifecycle::report::PluginState},
};

/// Time for a failed instance to close its connections.
const FAILED_DEADLINE: Duration = Duration::from_millis(500);
/// How long a restart waits until what the failed instance had registered is removed: its names and methods
/// could not be registered again.
const REMOVAL_LIMIT: Duration = Duration::from_secs(1);

/// What a failed instance had registered is removed when this is dropped.
struct Removal(Arc<Instance>);

impl Drop for Removal {
    fn drop(&mut self) {
        self.0.inner.lock().removals -= 1;
        self.0.removed.notify_all();
    }
}

impl HostedInstance for Instance {
    fn name(&self) -> &str {
        &self.name
    }

    fn may_add(&self, owner: u32) -> bool {
        // anything that a thread registers after the failure would never be removed; a thread in an abandoned
        // start can still be running
        let inner = self.inner.lock();
        inner.owner == owner && !inner.is_gone && !matches!(inner.state, PluginState::Failed(_))
    }

    fn hook_owner(&self, owner: u32) -> Result<HookOwner, &'static str> {
        if !self.may_add(owner) {
            return Err("the instance has stopped or failed");
        }
        // a candidate of a reload may never be used
        if self.inner.lock().object.is_none() {
            return Err("hooks can be added from `start` on");
        }
        let declaration = self.declaration.read();
        let (priority, on_failure) = (declaration.priority, declaration.on_failure);
        let statistics = self.context.router.instances.of(owner, || self.name.clone());
        Ok(HookOwner { owner, instance: self.name.as_str().into(), priority, on_failure, statistics })
    }

    fn rule_setter(&self) -> RuleSetter {
        self.sets_rules.store(true, Ordering::Relaxed);
        RuleSetter { instance: self.name.clone(), plugin: self.plugin_name() }
    }

    fn fail(self: Arc<Self>, owner: u32, reason: &str) {
        self.mark_failed(owner, reason);
    }

    fn connector_ended(self: Arc<Self>, owner: u32) {
        let serves = {
            let inner = self.inner.lock();
            inner.owner == owner && inner.object.is_some() && inner.state == PluginState::Started
        };
        if serves {
            self.mark_failed(
                owner,
                "its in-process clients were disconnected: the plugin that offers them has stopped",
            );
        }
    }
}

impl Instance {
    /// Cancels restarts: the instance is about to be stopped, so a failure from now on has no consequence.
    pub(in crate::host::lifecycle) fn cancel_restart(&self) {
        self.inner.lock().restart.cancel();
    }

    /// Schedules a restart of an instance that could not start.
    pub(in crate::host::lifecycle) fn retry_later(&self) {
        self.schedule_restart(true);
    }

    /// Returns when the restart is due, if one is scheduled.
    pub(in crate::host::lifecycle) fn restart_due(&self) -> Option<Instant> {
        self.inner.lock().restart.due()
    }

    /// Returns whether the restart is due. If so, it is counted as done.
    pub(in crate::host::lifecycle) fn take_due_restart(&self) -> bool {
        self.inner.lock().restart.take_due(Instant::now())
    }

    /// Schedules a restart. `force` includes an instance that does not serve yet.
    fn schedule_restart(&self, force: bool) {
        if self.declaration.read().restart == Restart::Never {
            return;
        }
        let (delay, attempt) = {
            let mut inner = self.inner.lock();
            (inner.restart.schedule(Instant::now(), force), inner.restart.restarts() + 1)
        };
        if let Some(delay) = delay {
            let delay_seconds = delay.as_secs();
            tracing::info!(plugin = self.name, delay_seconds, attempt, "restart scheduled");
            self.context.failures.signal();
        }
    }

    /// Waits until what failed creations had registered is removed, for at most 1 s.
    pub(super) fn wait_for_removal(&self) {
        let until = Instant::now() + REMOVAL_LIMIT;
        let mut inner = self.inner.lock();
        while inner.removals > 0 && !self.removed.wait_until(&mut inner, until).timed_out() {}
    }

    /// Marks the instance failed and stops its service in a thread of its own: the caller is inside a
    /// callback and may hold locks.
    pub(crate) fn mark_failed(self: &Arc<Self>, owner: u32, reason: &str) {
        tracing::error!(plugin = self.name, reason, "plugin failed");
        let object = {
            let mut inner = self.inner.lock();
            if inner.owner != owner {
                return; // a previous creation of the instance, which has ended
            }
            inner.is_gone = true;
            inner.removals += 1;
            inner.object.take()
        };
        let removal = Removal(self.clone());
        self.set_state(PluginState::Failed(reason.to_owned()));
        self.schedule_restart(false);
        let (context, reason) = (self.context.clone(), format!("plugin {} failed", self.name));
        let body = move || {
            context.remove_owner(owner, &reason);
            drop(removal);
            if let Some(object) = object {
                let milliseconds = FAILED_DEADLINE.as_millis() as u64;
                callbacks::for_caller(owner, Callback::Stop, "the broker", || object.stop(milliseconds));
                std::mem::forget(object); // its Drop could block indefinitely
            }
        };
        if let Err(error) = std::thread::Builder::new().name(format!("fail {}", self.name)).spawn(body) {
            tracing::error!(plugin = self.name, %error, "cannot spawn the thread that stops the plugin");
        }
    }
}
