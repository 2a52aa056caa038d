//! Catches panics and attributes threads: which instance's code runs, where it panicked.
//!
//! Knows nothing of what is called; [`guard`](super::guard) does.

use parking_lot::Mutex;
use std::{
    backtrace::{Backtrace, BacktraceStatus},
    cell::{Cell, RefCell},
    panic::{AssertUnwindSafe, catch_unwind},
    ptr::null,
    sync::{Arc, Once, OnceLock, Weak},
};

thread_local! {
    /// The instance whose callback runs in this thread, the innermost one; null outside callbacks.
    static CURRENT: Cell<*const Instance> = const { Cell::new(null()) };
    /// The instance whose task is polled in this thread; null outside attributed tasks.
    static TASK: Cell<*const Instance> = const { Cell::new(null()) };
    static LOCATION: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Marks a callback of an unknown instance. Never dereferenced.
const UNKNOWN: *const Instance = std::ptr::dangling();
/// Bytes of a thread's name that the kernel keeps.
const THREAD_NAME_BYTES: usize = 15;
/// Lines of a backtrace that are logged.
const BACKTRACE_LINES: usize = 100;

/// The identity of an instance, which threads point to while its code runs.
pub(crate) struct Instance {
    name: Arc<str>,
}

impl Instance {
    pub(crate) fn new(name: &str) -> Self {
        Instance { name: name.into() }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

/// Installs a panic hook that records the location of a panic, which `catch_unwind` does not report, and
/// logs a backtrace if `RUST_BACKTRACE` requests one. Each library has its own std, hence its own hook.
/// Outside callbacks, in a thread or task of the plugin, a loaded library logs the panic.
pub(crate) fn install_hook(linked: bool) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if CURRENT.try_with(|current| !current.get().is_null()).unwrap_or(false) {
                let location = info.location().map(ToString::to_string).unwrap_or_default();
                let _ = LOCATION.try_with(|l| *l.borrow_mut() = location);
            } else if linked {
                return previous(info);
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

/// Runs `f` as a callback of the instance. A panic becomes `message, at file:line:column`.
#[inline]
pub(crate) fn catch<R>(instance: &Instance, f: impl FnOnce() -> R) -> Result<R, String> {
    let outer = CURRENT.with(|current| current.replace(instance));
    let result = catch_unwind(AssertUnwindSafe(f));
    CURRENT.with(|current| current.set(outer));
    result.map_err(text_of)
}

/// Runs the callback of a notifier, whose instance is unknown. A panic becomes text as in [`catch`].
pub(crate) fn catch_notify<R>(f: impl FnOnce() -> R) -> Result<R, String> {
    let outer = CURRENT.with(|current| current.replace(UNKNOWN));
    let result = catch_unwind(AssertUnwindSafe(f));
    CURRENT.with(|current| current.set(outer));
    result.map_err(text_of)
}

/// Polls a task of the instance.
pub(crate) fn in_task<R>(instance: &Instance, poll: impl FnOnce() -> R) -> R {
    struct Restore(*const Instance);
    impl Drop for Restore {
        fn drop(&mut self) {
            TASK.with(|task| task.set(self.0));
        }
    }
    let _restore = Restore(TASK.with(|task| task.replace(instance)));
    poll()
}

/// Returns the name of the instance whose callback or task runs in this thread, if the plugin is linked into
/// this program or this code is part of its library. For programs that log: events of linked plugins do not
/// name their instance.
///
/// # Examples
/// ```
/// assert_eq!(elbus_plugin_api::running_instance(), None);
/// ```
pub fn running_instance() -> Option<String> {
    let set = |slot: &'static std::thread::LocalKey<Cell<*const Instance>>| {
        let instance = slot.try_with(Cell::get).unwrap_or(null());
        let instance = if instance == UNKNOWN { null() } else { instance };
        // SAFETY: not `UNKNOWN`, so `catch` or `in_task` has set it to an instance that is borrowed while
        // its callback runs or its task is polled, in this thread; they restore the previous value before
        // the borrow ends.
        unsafe { instance.as_ref() }.map(|instance| instance.name.to_string())
    };
    set(&CURRENT).or_else(|| set(&TASK))
}

/// The names of the instances of this library, to find the one that a thread belongs to.
static INSTANCES: Mutex<Vec<Weak<str>>> = Mutex::new(Vec::new());

/// The crate of the plugin, if this code is part of a loaded library.
static LIBRARY: OnceLock<&str> = OnceLock::new();

/// Adds an instance of a loaded library, whose plugin is a `P`.
pub(crate) fn add_library_instance<P>(instance: &Instance) {
    LIBRARY.get_or_init(|| std::any::type_name::<P>().split("::").next().unwrap_or_default());
    let mut instances = INSTANCES.lock();
    instances.retain(|other| other.strong_count() > 0);
    instances.push(Arc::downgrade(&instance.name));
}

/// Reads the thread's name from the kernel, cut to [`THREAD_NAME_BYTES`]: std's is gone while thread-locals
/// are destroyed.
fn thread_name() -> Vec<u8> {
    let mut name = std::fs::read("/proc/thread-self/comm").unwrap_or_default();
    name.pop_if(|last| *last == b'\n');
    name
}

/// Returns the name of the instance whose code runs in this thread: that of the callback or task, else the
/// one that the thread is named after (as threads of `Host::spawn` and of transports are), else the only one
/// of the library. `None` if it is unknown.
pub(crate) fn current_name() -> Option<String> {
    if let Some(running) = running_instance() {
        return Some(running);
    }
    let thread = thread_name();
    let instances: Vec<_> = INSTANCES.lock().iter().filter_map(Weak::upgrade).collect();
    let names_the_thread = |instance: &&Arc<str>| {
        let name = instance.as_bytes();
        !thread.is_empty() && name[..name.len().min(THREAD_NAME_BYTES)] == thread
    };
    let by_thread = instances.iter().find(names_the_thread);
    let only = || instances.first().filter(|first| instances.iter().all(|other| other == *first));
    by_thread.or_else(only).map(|name| name.to_string())
}

#[cold]
fn text_of(panic: Box<dyn std::any::Any + Send>) -> String {
    let text = match panic.downcast_ref::<&str>() {
        Some(text) => (*text).to_owned(),
        None => panic.downcast_ref::<String>().cloned().unwrap_or_else(|| "(no text)".to_owned()),
    };
    std::mem::forget(panic); // its drop could panic in turn
    // a thread that ends has destroyed its location
    match LOCATION.try_with(RefCell::take).unwrap_or_default() {
        location if location.is_empty() => text,
        location => format!("{text}, at {location}"),
    }
}
