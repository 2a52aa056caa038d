//! What happens to messages for a name that is not registered: the resolvers are asked, the messages wait,
//! and they are delivered or refused. Decides; [`waiting_names`](crate::routing::waiting_names) has the runs.

use elbus_plugin_api::{Code, DeliveryStatus, QueueBudget, Run, abi::ResolverObject, hooks::HookScope};
use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use super::Router;
use crate::{
    hooks::HookOwner,
    routing::{
        fan_out::allows_message,
        registered_client::RegisteredClient,
        waiting_names::{Behind, HeldRun, NextStep, Pushed},
    },
    statistics::Refusal,
};

/// What became of a message to a name that was not registered.
pub(in crate::routing) enum Unregistered {
    /// It waits.
    Waits,
    Refused(Code),
    /// The name has registered in the meantime. Also the run if it was to wait, with its result.
    Registered(Arc<RegisteredClient>, Option<HeldRun>),
}

impl Router {
    /// Sets the budget in which waiting messages count, and what wakes the thread that calls
    /// [`end_due_waits`](Self::end_due_waits).
    pub(crate) fn set_wait_timer(&self, budget: QueueBudget, wake: impl Fn() + Send + Sync + 'static) {
        self.waiting.set_budget(budget);
        self.waiting.set_waker(wake);
    }

    /// Adds a name resolver; returns its id.
    ///
    /// # Errors
    /// There are too many.
    pub(crate) fn add_resolver(
        &self,
        of: HookOwner,
        scope: HookScope,
        object: ResolverObject,
    ) -> Result<u64, String> {
        self.resolvers.add(of, scope, object)
    }

    /// Removes the resolver of this id, if there is one, and ends its waits.
    pub(in crate::routing) fn remove_resolver(&self, id: u64) {
        let removed = self.resolvers.remove(id);
        removed.iter().for_each(|resolver| self.end_waits_of(resolver.id()));
    }

    /// Removes the resolvers of an instance, and ends their waits.
    pub(in crate::routing) fn remove_resolvers_of(&self, owner: u32) {
        let removed = self.resolvers.remove_owner(owner);
        removed.iter().for_each(|resolver| self.end_waits_of(resolver.id()));
    }

    fn end_waits_of(&self, resolver: u64) {
        for (name, runs) in self.waiting.end_waits_of(resolver) {
            refuse(&name, runs, "its name resolver has ended");
        }
    }

    /// Ends the wait for a name that a resolver has begun.
    pub(crate) fn end_wait(&self, resolver: u64, name: &str) {
        refuse(name, self.waiting.end_wait(resolver, name), "its name resolver has given up");
    }

    /// Ends the waits whose time is over; returns when the next one is due.
    pub(crate) fn end_due_waits(&self, now: Instant) -> Option<Instant> {
        let (due, next) = self.waiting.take_due(now);
        for (name, runs) in due {
            refuse(&name, runs, "it has not registered in time");
        }
        next
    }

    /// Has a message to a name that is not registered wait, if a resolver says so.
    pub(in crate::routing) fn wait_for_name(
        &self,
        name: &str,
        run: &mut Run<'_>,
        body_bytes: usize,
    ) -> Unregistered {
        match self.waiting.next_step(name) {
            NextStep::Wait => {}
            NextStep::Refuse => {
                tracing::debug!(name, "message refused: too many names are awaited");
                return Unregistered::Refused(Code::NotRegistered);
            }
            NextStep::Ask { question } => {
                let answer = self.resolvers.ask(name, run);
                let until = |time: Duration| Instant::now() + time;
                let awaits = answer.is_some_and(|(resolver, time)| {
                    let is_registered = || self.resolvers.has(resolver);
                    self.waiting.await_name(name, question, resolver, until(time), is_registered)
                });
                if !awaits {
                    refuse(name, self.waiting.refuse_name(name, question), "no resolver knows it");
                    // the resolver may have registered it itself
                    return match self.find(name) {
                        Some(client) => Unregistered::Registered(client, None),
                        None => Unregistered::Refused(Code::NotRegistered),
                    };
                }
            }
        }
        if run.qos().wants_ack() && !run.can_defer() {
            return match self.find(name) {
                Some(client) => Unregistered::Registered(client, None),
                None => Unregistered::Refused(Code::NotRegistered),
            };
        }
        let mut held = HeldRun::new(run, body_bytes);
        let registry = self.registry.read();
        if let Some(client) = registry.find(name) {
            return Unregistered::Registered(client.clone(), Some(held));
        }
        if let Some(sender) = registry.find(run.sender()).filter(|sender| sender.id == run.sender_id()) {
            held.from = Arc::downgrade(sender);
        }
        let pushed = self.waiting.push(name, held);
        drop(registry);
        match pushed {
            Pushed::Waits => return Unregistered::Waits,
            Pushed::NotAwaited => return Unregistered::Refused(Code::NotRegistered),
            Pushed::Full => {}
        }
        let messages = run.payloads().len();
        self.count_refused(Refusal::NameWait, messages);
        tracing::debug!(name, messages, "messages refused: no more can wait for their name");
        Unregistered::Refused(Code::NotDelivered)
    }

    /// Has a run wait behind those that are being delivered to a client that has just registered.
    pub(in crate::routing) fn wait_behind(
        &self,
        client: &RegisteredClient,
        run: &mut Run<'_>,
        body_bytes: usize,
    ) -> Behind {
        self.waiting.push_behind(&client.name, client.id, || HeldRun::new(run, body_bytes))
    }

    /// Delivers what has waited for a client that has just registered, which is marked as
    /// [awaited](RegisteredClient::is_awaited).
    #[cold]
    pub(super) fn deliver_waiting(&self, client: &Arc<RegisteredClient>) {
        let (mut is_full, mut messages) = (false, 0);
        while let Some(runs) = self.waiting.take_delivery(&client.name, client.id, || client.end_awaited()) {
            let mut is_dirty = false;
            for run in runs {
                messages += run.frames();
                let (code, delivery) = self.deliver_held(client, &run);
                is_dirty |= delivery.has(DeliveryStatus::DIRTY);
                is_full |= delivery.has(DeliveryStatus::FULL);
                run.complete(code);
            }
            if is_dirty {
                client.flush();
            }
        }
        client.release_awaited(is_full);
        tracing::debug!(client = &*client.name, messages, "messages that waited for the client delivered");
    }

    fn deliver_held(&self, client: &RegisteredClient, run: &HeldRun) -> (Code, DeliveryStatus) {
        let sender = run.from.upgrade().filter(|sender| !sender.is_gone());
        let policy = sender.and_then(|sender| sender.policy());
        if policy.is_some_and(|policy| !allows_message(&policy, &client.name)) {
            return (Code::AccessDenied, DeliveryStatus::CLOSED);
        }
        let delivery = run.with_run(|run| client.deliver(run));
        let code = if delivery.is_taken() {
            client.counts.sent(run.frames(), run.body_bytes);
            Code::Ok
        } else if delivery.has(DeliveryStatus::REFUSED) {
            self.count_refused(Refusal::QueueFull, run.frames());
            Code::NotDelivered
        } else {
            Code::NotRegistered
        };
        (code, delivery)
    }
}

/// Refuses runs whose wait has ended.
fn refuse(name: &str, runs: VecDeque<HeldRun>, reason: &str) {
    if runs.is_empty() {
        return;
    }
    let messages: usize = runs.iter().map(HeldRun::frames).sum();
    tracing::debug!(name, messages, reason, "messages that waited for a name refused");
    runs.into_iter().for_each(|run| run.complete(Code::NotRegistered));
}
