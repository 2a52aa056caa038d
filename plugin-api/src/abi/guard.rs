//! The panic barrier: one wrapper implements every trait that the broker calls in a plugin.
//!
//! A panic is caught where it happens, the instance is marked failed, the broker gets the callback, the
//! message and the location, and further callbacks of the instance are refused. Only `close` of its sinks and
//! `stop` are still called, so that its peers notice. The plugin itself is leaked, since its `Drop` could
//! block indefinitely.

use abi_stable::std_types::{ROption, RResult, RStr, RVec};
use elbus_protocol::Code;
use std::{
    mem::ManuallyDrop,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{
    FromRaw, HostObject, IntoRaw, NotifierObject, RawCall, RawCallError, RawEvent, RawHandler,
    RawInterceptor, RawListener, RawResolver, RawSink, RawSubscriptionListener, RawWorker, ReplayObject,
    catch::{Instance, catch},
};
use crate::{
    control::{Call, CallError, ControlHandler},
    delivery_status::DeliveryStatus,
    event::{Event, EventListener},
    hooks::{
        InterceptedRun, Interceptor, NameResolver, SubscriptionChange, SubscriptionListener,
        UnresolvedMessage, subscription_listener::replay_of,
    },
    inproc::RunBatch,
    mixed_run::MixedRun,
    notifier::Notifier,
    run::Run,
    sink::{Overdraft, Queued, Sink, SinkLimits},
};

/// The panic barrier of one instance: remembers whether it has failed, and reports a failure to the broker.
pub(crate) struct PanicScope {
    host: HostObject,
    instance: Instance,
    failed: AtomicBool,
}

impl PanicScope {
    pub(crate) fn new(host: HostObject, name: &str) -> Arc<Self> {
        Arc::new(PanicScope { host, instance: Instance::new(name), failed: AtomicBool::new(false) })
    }

    pub(crate) fn object(&self) -> &HostObject {
        &self.host
    }

    pub(crate) fn name(&self) -> &str {
        self.instance.name()
    }

    pub(crate) fn instance(&self) -> &Instance {
        &self.instance
    }

    #[inline]
    fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    #[cold]
    fn fail(&self, callback: &str, panic: &str) {
        self.failed.store(true, Ordering::Release);
        self.host.failed(RStr::from_str(&format!("panic in {callback}: {panic}")));
    }

    /// Runs a callback, or returns `refused` if the instance has failed or fails now. Asserting unwind
    /// safety is sound: after a panic the state is not used again, except by `close` and `stop`.
    #[inline]
    fn run<R>(&self, callback: &str, refused: impl FnOnce(&str) -> R, f: impl FnOnce() -> R) -> R {
        if self.has_failed() {
            return refused("the plugin has failed before");
        }
        self.run_even_failed(callback, refused, f)
    }

    #[inline]
    pub(crate) fn run_even_failed<R>(
        &self,
        callback: &str,
        refused: impl FnOnce(&str) -> R,
        f: impl FnOnce() -> R,
    ) -> R {
        match catch(&self.instance, f) {
            Ok(result) => result,
            Err(panic) => {
                self.fail(callback, &panic);
                refused(&panic)
            }
        }
    }
}

/// An object of a plugin that the broker calls, behind the panic barrier.
pub(crate) struct Guarded<T> {
    pub(crate) inner: ManuallyDrop<T>,
    pub(crate) scope: Arc<PanicScope>,
}

impl<T> Guarded<T> {
    pub(crate) fn new(inner: T, scope: Arc<PanicScope>) -> Self {
        Guarded { inner: ManuallyDrop::new(inner), scope }
    }

    /// Runs a callback of the plugin behind the barrier.
    #[inline]
    pub(crate) fn run<R>(
        &self,
        callback: &str,
        refused: impl FnOnce(&str) -> R,
        f: impl FnOnce(&T) -> R,
    ) -> R {
        self.scope.run(callback, refused, || f(&self.inner))
    }
}

impl<T> Drop for Guarded<T> {
    fn drop(&mut self) {
        if self.scope.has_failed() {
            return;
        }
        let inner = &mut self.inner;
        // SAFETY: dropped here only, and not used afterwards: `self` is being dropped.
        if let Err(panic) = catch(self.scope.instance(), || unsafe { ManuallyDrop::drop(inner) }) {
            self.scope.fail("drop", &panic);
        }
    }
}

impl<S: Sink> RawSink for Guarded<S> {
    #[inline]
    fn deliver(&self, run: &mut Run<'_>) -> u8 {
        self.run("deliver", |_| DeliveryStatus::CLOSED, |sink| sink.deliver(run)).bits()
    }

    #[inline]
    fn deliver_mixed(&self, run: &mut MixedRun<'_>) -> u8 {
        self.run("deliver_mixed", |_| DeliveryStatus::CLOSED, |sink| sink.deliver_mixed(run)).bits()
    }

    #[inline]
    fn resume_sending(&self) {
        self.run("resume_sending", |_| (), S::resume_sending);
    }

    #[inline]
    fn flush(&self) {
        self.run("flush", |_| (), S::flush);
    }

    fn when_drained(&self, notifier: NotifierObject) {
        let fallback = notifier.clone();
        self.run("when_drained", |_| fallback.notify(), |sink| sink.when_drained(Notifier(notifier)));
    }

    fn when_empty(&self, notifier: NotifierObject) {
        let fallback = notifier.clone();
        self.run("when_empty", |_| fallback.notify(), |sink| sink.when_empty(Notifier(notifier)));
    }

    fn take_unsent(&self, reason: RStr<'_>, unsent: &mut RunBatch) {
        self.run("take_unsent", |_| (), |sink| sink.take_unsent(reason.as_str(), unsent));
    }

    fn close(&self, reason: RStr<'_>) {
        self.scope.run_even_failed("close", |_| (), || self.inner.close(reason.as_str()));
    }

    fn queued(&self) -> Queued {
        self.run("queued", |_| Queued::default(), S::queued)
    }

    fn limit(&self, limits: &SinkLimits) {
        self.run("limit", |_| (), |sink| sink.limit(limits));
    }

    fn overdraw(&self, overdraft: &Overdraft<'_>) -> bool {
        self.run("overdraw", |_| false, |sink| sink.overdraw(overdraft))
    }

    fn overdrawn(&self) -> u64 {
        self.run("overdrawn", |_| 0, S::overdrawn)
    }
}

impl<W: Fn(Notifier) + Send + Sync + 'static> RawWorker for Guarded<W> {
    fn ask(&self, answer: NotifierObject) {
        self.run("ask", |_| (), |ask| ask(Notifier(answer)));
    }
}

impl<I: Interceptor> RawInterceptor for Guarded<I> {
    #[inline]
    fn intercept(&self, run: &mut InterceptedRun<'_>) -> bool {
        let decide = |interceptor: &I| {
            interceptor.intercept_run(run);
            true
        };
        self.run("intercept", |_| false, decide)
    }
}

impl<L: SubscriptionListener> RawSubscriptionListener for Guarded<L> {
    fn on_change(&self, change: &SubscriptionChange<'_>, replay: ROption<ReplayObject>) {
        self.run("on_change", |_| (), |listener| listener.on_change(change, replay_of(replay)));
    }
}

impl<R: NameResolver> RawResolver for Guarded<R> {
    fn resolve(&self, message: &UnresolvedMessage<'_>) -> u64 {
        self.run("resolve", |_| 0, |resolver| resolver.resolve(message).to_millis())
    }
}

impl<L: EventListener> RawListener for Guarded<L> {
    fn on_event(&self, event: &RawEvent<'_>) {
        if let Some(event) = Option::<Event<'_>>::from_raw(event) {
            self.run("on_event", |_| (), |listener| listener.on_event(&event));
        }
    }
}

impl<H: ControlHandler> RawHandler for Guarded<H> {
    fn call(&self, call: &RawCall<'_>) -> RResult<RVec<u8>, RawCallError> {
        let refused = |why: &str| Err(CallError::of_code(Code::Other, why));
        self.run("a control method", refused, |handler| handler.call(&Call::from_raw(call)))
            .map(RVec::from)
            .map_err(CallError::into_raw)
            .into()
    }
}
