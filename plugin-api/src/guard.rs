//! The panic barrier: one wrapper implements every trait that the broker calls in a plugin.
//!
//! A panic is caught where it happens, the instance is marked failed, the broker is told which callback, what
//! and where, and the callbacks of the instance are refused from then on. Only `close` of its sinks and `stop`
//! are still called, so that its peers notice; the plugin itself is leaked, since its `Drop` could wait for ever.

use abi_stable::{
    sabi_trait::TD_Opaque,
    std_types::{RResult, RStr, RVec},
};
use parking_lot::Mutex;
use std::{
    backtrace::{Backtrace, BacktraceStatus},
    cell::{Cell, RefCell},
    mem::ManuallyDrop,
    panic::{AssertUnwindSafe, catch_unwind},
    ptr::null,
    sync::{
        Arc, Once, OnceLock, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crate::{
    Call, CallError, Config, ControlHandler, Event, EventListener, Host, Notifier, Overdraft, Plugin, Queued,
    Run, Sink, SinkLimits,
    abi::{
        HostObject, InstanceObject, NotifierObject, RawCall, RawCallError, RawEvent, RawHandler, RawInstance,
        RawInstance_TO, RawListener, RawPluginError, RawSink, RawStatus, RawWorker,
    },
    sink::DeliveryStatus,
};
use elbus_protocol::Code;

thread_local! {
    /// The instance whose callback runs in this thread, the innermost one; null outside callbacks.
    static CURRENT: Cell<*const PanicScope> = const { Cell::new(null()) };
    /// The instance whose task is polled in this thread; null outside tasks, and in those that nobody has attributed.
    static TASK: Cell<*const PanicScope> = const { Cell::new(null()) };
    static PLACE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// In a callback of an instance that is not known. Never read through.
const UNKNOWN: *const PanicScope = std::ptr::dangling();
/// Bytes of a thread's name that the kernel keeps.
const THREAD_NAME_BYTES: usize = 15;
/// Lines of a backtrace that are logged.
const BACKTRACE_LINES: usize = 100;

/// Notes where a panic happened, which `catch_unwind` does not tell, and logs a backtrace if `RUST_BACKTRACE` asks for
/// one. Each library has its own std, hence its own hook. Outside a callback, in a thread or task of the plugin, a
/// loaded library logs the panic.
pub(crate) fn install_hook(linked: bool) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if CURRENT.try_with(|current| !current.get().is_null()).unwrap_or(false) {
                let place = info.location().map(ToString::to_string).unwrap_or_default();
                let _ = PLACE.try_with(|p| *p.borrow_mut() = place);
            } else if linked {
                return before(info);
            } else {
                let thread = thread_name();
                let thread = String::from_utf8_lossy(&thread);
                let library = LIBRARY.get().copied().unwrap_or_default();
                tracing::error!(%thread, library, "panic outside a callback: {info}");
            }
            log_backtrace();
        }));
    });
}

fn log_backtrace() {
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        for line in backtrace.to_string().lines().take(BACKTRACE_LINES) {
            tracing::error!("backtrace: {line}");
        }
    }
}

/// Runs `f` as a callback of the instance; a panic becomes `message, at file:line:column`.
#[inline]
pub(crate) fn catch<R>(instance: &PanicScope, f: impl FnOnce() -> R) -> Result<R, String> {
    let outer = CURRENT.with(|current| current.replace(instance));
    let result = catch_unwind(AssertUnwindSafe(f));
    CURRENT.with(|current| current.set(outer));
    result.map_err(text_of)
}

/// Runs a notifier callback, whose instance is not known; a panic becomes text as in [`catch`].
pub(crate) fn catch_notify<R>(f: impl FnOnce() -> R) -> Result<R, String> {
    let outer = CURRENT.with(|current| current.replace(UNKNOWN));
    let result = catch_unwind(AssertUnwindSafe(f));
    CURRENT.with(|current| current.set(outer));
    result.map_err(text_of)
}

/// Polls a task of the instance.
pub(crate) fn in_task<R>(instance: &PanicScope, poll: impl FnOnce() -> R) -> R {
    struct Restore(*const PanicScope);
    impl Drop for Restore {
        fn drop(&mut self) {
            TASK.with(|task| task.set(self.0));
        }
    }
    let _restore = Restore(TASK.with(|task| task.replace(instance)));
    poll()
}

/// The name of the instance whose callback, thread or task runs in this thread, where the plugin is linked into this program or
/// this code is that of its library. For a program that logs: lines of plugins that are linked in do not name their instance.
pub fn running_instance() -> Option<String> {
    let set = |slot: &'static std::thread::LocalKey<Cell<*const PanicScope>>| {
        let instance = slot.try_with(Cell::get).unwrap_or(null());
        let instance = if instance == UNKNOWN { null() } else { instance };
        // SAFETY: not `UNKNOWN`, so `catch` or `in_task` has set it, to an instance that is borrowed while its callback runs or
        // its task is polled, in this thread; they take it back before the borrow ends.
        unsafe { instance.as_ref() }.map(|instance| instance.name.clone())
    };
    set(&CURRENT).or_else(|| set(&TASK))
}

/// The instances of this library, for telling whose thread it is.
static INSTANCES: Mutex<Vec<Weak<PanicScope>>> = Mutex::new(Vec::new());

/// The crate of the plugin, where this code is that of a loaded library.
static LIBRARY: OnceLock<&str> = OnceLock::new();

/// Enters an instance of a loaded library, whose plugin is a `P`.
pub(crate) fn note<P>(instance: &Arc<PanicScope>) {
    LIBRARY.get_or_init(|| std::any::type_name::<P>().split("::").next().unwrap_or_default());
    let mut instances = INSTANCES.lock();
    instances.retain(|other| other.strong_count() > 0);
    instances.push(Arc::downgrade(instance));
}

/// As the kernel has it, cut to [`THREAD_NAME_BYTES`]. That of std is gone while thread-locals are destroyed.
fn thread_name() -> Vec<u8> {
    let mut name = std::fs::read("/proc/thread-self/comm").unwrap_or_default();
    name.pop_if(|last| *last == b'\n');
    name
}

/// The name of the instance whose code runs in this thread: that of the callback or task, else that the thread is named after (as
/// those of [`Host::spawn`] and of the transports are), else the only one of the library. `None` if that is not known.
pub(crate) fn current_name() -> Option<String> {
    if let Some(running) = running_instance() {
        return Some(running);
    }
    let thread = thread_name();
    let instances: Vec<_> = INSTANCES.lock().iter().filter_map(Weak::upgrade).collect();
    let is_its_own = |instance: &&Arc<PanicScope>| {
        let name = instance.name().as_bytes();
        !thread.is_empty() && name[..name.len().min(THREAD_NAME_BYTES)] == thread
    };
    let by_thread = instances.iter().find(is_its_own);
    let only =
        || instances.first().filter(|first| instances.iter().all(|other| other.name() == first.name()));
    by_thread.or_else(only).map(|instance| instance.name().to_owned())
}

#[cold]
fn text_of(panic: Box<dyn std::any::Any + Send>) -> String {
    let text = match panic.downcast_ref::<&str>() {
        Some(text) => (*text).to_owned(),
        None => panic.downcast_ref::<String>().cloned().unwrap_or_else(|| "(no text)".to_owned()),
    };
    std::mem::forget(panic); // its drop could panic in turn
    // a thread that is ending has no place any more
    match PLACE.try_with(RefCell::take).unwrap_or_default() {
        place if place.is_empty() => text,
        place => format!("{text}, at {place}"),
    }
}

/// One instance of a plugin: whether it has failed, and whom to tell.
pub(crate) struct PanicScope {
    host: HostObject,
    name: String,
    failed: AtomicBool,
}

impl PanicScope {
    pub(crate) fn new(host: HostObject, name: &str) -> Arc<Self> {
        Arc::new(PanicScope { host, name: name.to_owned(), failed: AtomicBool::new(false) })
    }

    pub(crate) fn host(self: &Arc<Self>) -> Host {
        Host::new(self.clone())
    }

    pub(crate) fn object(&self) -> &HostObject {
        &self.host
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
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

    /// Runs a callback, or answers `refused` where the instance has failed or fails now. Asserting unwind safety is
    /// honest: after a panic the state is not looked at again, but for `close` and `stop`.
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
        match catch(self, f) {
            Ok(result) => result,
            Err(panic) => {
                self.fail(callback, &panic);
                refused(&panic)
            }
        }
    }
}

/// Something of a plugin that the broker calls.
pub(crate) struct Guarded<T> {
    inner: ManuallyDrop<T>,
    instance: Arc<PanicScope>,
}

impl<T> Guarded<T> {
    pub(crate) fn new(inner: T, instance: Arc<PanicScope>) -> Self {
        Guarded { inner: ManuallyDrop::new(inner), instance }
    }

    /// Runs a callback of the plugin behind the barrier.
    #[inline]
    pub(crate) fn run<R>(
        &self,
        callback: &str,
        refused: impl FnOnce(&str) -> R,
        f: impl FnOnce(&T) -> R,
    ) -> R {
        self.instance.run(callback, refused, || f(&self.inner))
    }
}

impl<T> Drop for Guarded<T> {
    fn drop(&mut self) {
        if self.instance.has_failed() {
            return;
        }
        let inner = &mut self.inner;
        // SAFETY: dropped here only, and not used afterwards: `self` is going away.
        if let Err(panic) = catch(&self.instance, || unsafe { ManuallyDrop::drop(inner) }) {
            self.instance.fail("drop", &panic);
        }
    }
}

pub(crate) fn create<P: Plugin>(
    instance: Arc<PanicScope>,
    config: &str,
) -> Result<InstanceObject, RawPluginError> {
    let host = instance.host();
    let made = catch(&instance, || {
        let config = Config::parse(config)?;
        let plugin = P::create(host, &config)?;
        config.finish()?;
        Ok(plugin)
    });
    match made {
        Ok(Ok(plugin)) => Ok(RawInstance_TO::from_value(Guarded::new(plugin, instance), TD_Opaque)),
        Ok(Err(error)) => Err(crate::PluginError::into_raw(error)),
        Err(panic) => Err(RawPluginError::new("", &format!("panic in create: {panic}"))),
    }
}

impl<P: Plugin> RawInstance for Guarded<P> {
    fn start(&self) -> RResult<(), RawPluginError> {
        let refused = |panic: &str| Err(RawPluginError::new("", &format!("panic in start: {panic}")));
        self.run("start", refused, |plugin| plugin.start().map_err(crate::PluginError::into_raw)).into()
    }

    fn serve(&self) {
        self.run("serve", |_| (), P::serve);
    }

    fn stop(&self, deadline_millis: u64) {
        let deadline = Duration::from_millis(deadline_millis);
        self.instance.run_even_failed("stop", |_| (), || self.inner.stop(deadline));
    }

    fn status(&self) -> RawStatus {
        self.run("status", |_| RawStatus::default(), |plugin| plugin.status().into_raw())
    }

    fn refresh(&self) -> RResult<(), RawPluginError> {
        let refused = |panic: &str| Err(RawPluginError::new("", &format!("panic in refresh: {panic}")));
        self.run("refresh", refused, |plugin| plugin.refresh().map_err(crate::PluginError::into_raw)).into()
    }
}

impl<S: Sink> RawSink for Guarded<S> {
    #[inline]
    fn deliver(&self, run: &mut Run<'_>) -> u8 {
        self.run("deliver", |_| DeliveryStatus::CLOSED, |sink| sink.deliver(run)).bits()
    }

    #[inline]
    fn flush(&self) {
        self.run("flush", |_| (), S::flush);
    }

    fn when_drained(&self, notifier: NotifierObject) {
        let otherwise = notifier.clone();
        self.run("when_drained", |_| otherwise.notify(), |sink| sink.when_drained(Notifier(notifier)));
    }

    fn close(&self, reason: RStr<'_>) {
        self.instance.run_even_failed("close", |_| (), || self.inner.close(reason.as_str()));
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

impl<L: EventListener> RawListener for Guarded<L> {
    fn on_event(&self, event: &RawEvent<'_>) {
        if let Some(event) = Event::from_raw(event) {
            self.run("on_event", |_| (), |listener| listener.on_event(&event));
        }
    }
}

impl<H: ControlHandler> RawHandler for Guarded<H> {
    fn call(&self, call: &RawCall<'_>) -> RResult<RVec<u8>, RawCallError> {
        let refused = |why: &str| Err(CallError::new(Code::Other.rpc_code(), why));
        self.run("a control method", refused, |handler| handler.call(&Call::from_raw(call)))
            .map(RVec::from)
            .map_err(CallError::into_raw)
            .into()
    }
}
