//! Records the calls into plugins that are in progress: which callback of which instance each thread
//! executes, and on whose behalf. A record costs a message a few stores. Reads no clock and decides nothing:
//! `host/watch` does.
//!
//! The records belong to the process, as its threads do: several brokers in a program share them, and the
//! owner numbers of instances are unique in the process.

use parking_lot::Mutex;
use std::{
    cell::Cell,
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

/// A callback of a plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Callback {
    Deliver = 1,
    DeliverMixed,
    Intercept,
    Resolve,
    ResumeSending,
    Flush,
    WhenDrained,
    WhenEmpty,
    TakeUnsent,
    Close,
    Queued,
    Limit,
    Overdraw,
    Overdrawn,
    OnEvent,
    OnChange,
    Method,
    SlowMethod,
    Create,
    Start,
    Serve,
    Refresh,
    Status,
    Figures,
    Stop,
    Ask,
}

const CALLBACKS: [(Callback, &str); 26] = [
    (Callback::Deliver, "deliver"),
    (Callback::DeliverMixed, "deliver_mixed"),
    (Callback::Intercept, "intercept"),
    (Callback::Resolve, "resolve"),
    (Callback::ResumeSending, "resume_sending"),
    (Callback::Flush, "flush"),
    (Callback::WhenDrained, "when_drained"),
    (Callback::WhenEmpty, "when_empty"),
    (Callback::TakeUnsent, "take_unsent"),
    (Callback::Close, "close"),
    (Callback::Queued, "queued"),
    (Callback::Limit, "limit"),
    (Callback::Overdraw, "overdraw"),
    (Callback::Overdrawn, "overdrawn"),
    (Callback::OnEvent, "on_event"),
    (Callback::OnChange, "on_change"),
    (Callback::Method, "a control method"),
    (Callback::SlowMethod, "a slow control method"),
    (Callback::Create, "create"),
    (Callback::Start, "start"),
    (Callback::Serve, "serve"),
    (Callback::Refresh, "refresh"),
    (Callback::Status, "status"),
    (Callback::Figures, "figures"),
    (Callback::Stop, "stop"),
    (Callback::Ask, "ask"),
];

impl Callback {
    /// Returns its name in the plugin API.
    pub(crate) fn name(self) -> &'static str {
        CALLBACKS.iter().find(|(callback, _)| *callback == self).map_or("?", |(_, name)| name)
    }

    /// Returns whether it must not block: a thread of a transport may execute it.
    pub(crate) fn must_not_block(self) -> bool {
        (self as u8) <= Callback::Method as u8
            || [Callback::Status, Callback::Figures, Callback::Ask].contains(&self)
    }

    fn of(number: u64) -> Option<Self> {
        CALLBACKS.iter().map(|(callback, _)| *callback).find(|callback| *callback as u64 == number & 0xFF)
    }
}

/// A callback and its instance, packed into one integer. Zero: no call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct PackedCall(u64);

impl PackedCall {
    const fn new(owner: u32, callback: Callback) -> Self {
        PackedCall((owner as u64) << 8 | callback as u64)
    }

    fn owner(self) -> u32 {
        (self.0 >> 8) as u32
    }
}

/// The number of call counters of each thread; instances may share one.
const COUNTERS: usize = 16;

/// The calls that a thread executes.
#[derive(Default)]
struct ThreadRecord {
    /// The innermost call, if it is on behalf of a client; see [`PackedCall`].
    call: AtomicU64,
    /// The serial number of that call.
    serial: AtomicU64,
    /// The last serial number of a call on behalf of a client.
    last_serial: AtomicU64,
    /// The client, see [`set_client`].
    client: AtomicU64,
    /// Changes with each batch, see [`end_batch`].
    batch: AtomicU64,
    /// The number of calls on behalf of clients, by instance, see [`counter`](ThreadRecord::counter).
    counts: [AtomicU64; COUNTERS],
    /// All other calls, and calls on behalf of clients that wait for inner ones, outermost first. The thread
    /// locks it for a push or a pop, and the watch for a copy.
    others: Mutex<Vec<OtherCall>>,
    /// The name of the thread; empty while the record is unused.
    thread: Mutex<String>,
}

struct OtherCall {
    call: PackedCall,
    serial: u64,
    caller: Caller,
}

impl ThreadRecord {
    fn counter(&self, owner: u32) -> Option<&AtomicU64> {
        self.counts.get(owner as usize % COUNTERS)
    }

    /// Moves the call in progress to the others when an inner one begins.
    #[cold]
    fn suspend(&self, call: u64) {
        // its client is unknown from here on: the inner call has set its own
        let call = OtherCall {
            call: PackedCall(call),
            serial: self.serial.load(Relaxed),
            caller: Caller::Client(0),
        };
        self.others.lock().push(call);
        self.call.store(0, Relaxed);
    }

    /// Moves it back when the inner one has returned.
    #[cold]
    fn resume(&self, call: u64) {
        let suspended = self.others.lock().pop();
        self.serial.store(suspended.map_or(0, |call| call.serial), Relaxed);
        self.call.store(call, Relaxed);
    }
}

/// The records of all threads. They are leaked, so that a thread can keep a reference without counting, and
/// reused. Lock order: this, then those of a record.
static RECORDS: Mutex<Vec<&'static ThreadRecord>> = Mutex::new(Vec::new());
/// The names of instances by owner number. A leaf lock.
static NAMES: Mutex<BTreeMap<u32, String>> = Mutex::new(BTreeMap::new());
/// The number of names that are kept; the oldest are dropped.
const MAX_NAMES: usize = 4096;
/// Serial numbers of other calls; those of a record stay below this value.
static OTHER_SERIALS: AtomicU64 = AtomicU64::new(1 << 63);
/// Longer names of callers are cut.
const MAX_CALLER_CHARS: usize = 128;

thread_local! {
    /// Has no destructor, so that it can be read until the thread has ended.
    static RECORD: Cell<Option<&'static ThreadRecord>> = const { Cell::new(None) };
    static LEASE: Cell<Option<Lease>> = const { Cell::new(None) };
}

/// Returns the record of a thread when the thread ends.
struct Lease(&'static ThreadRecord);

impl Drop for Lease {
    fn drop(&mut self) {
        RECORD.set(None);
        self.0.call.store(0, Relaxed);
        self.0.others.lock().clear();
        self.0.thread.lock().clear();
    }
}

#[inline]
fn record() -> Option<&'static ThreadRecord> {
    match RECORD.get() {
        None => lease(),
        some => some,
    }
}

/// Returns a record for this thread; `None` while the thread is ending.
#[cold]
fn lease() -> Option<&'static ThreadRecord> {
    // an empty name would mark the record unused
    let current = std::thread::current();
    let name = current.name().filter(|name| !name.is_empty()).unwrap_or("(unnamed)").to_owned();
    let mut records = RECORDS.lock();
    let unused = records.iter().copied().find(|record| record.thread.lock().is_empty());
    let record = unused.unwrap_or_else(|| {
        let record: &'static ThreadRecord = Box::leak(Box::default());
        records.push(record);
        record
    });
    *record.thread.lock() = name;
    drop(records);
    let lease = Cell::new(Some(Lease(record)));
    // on failure it is dropped here, which returns the record
    LEASE.try_with(|current| current.swap(&lease)).ok()?;
    RECORD.set(Some(record));
    Some(record)
}

/// Sets the client on whose behalf this thread makes its next calls, by the number of its registration; zero
/// for no client.
#[inline]
pub(crate) fn set_client(number: u64) {
    if let Some(record) = record() {
        record.client.store(number, Relaxed);
    }
}

/// Makes a call on behalf of a client: recorded without a lock.
#[inline]
pub(crate) fn for_client<R>(owner: u32, callback: Callback, call: impl FnOnce() -> R) -> R {
    let Some(record) = record() else { return call() };
    let outer = record.call.load(Relaxed);
    if outer != 0 {
        record.suspend(outer);
    }
    let serial = record.last_serial.load(Relaxed) + 1;
    record.last_serial.store(serial, Relaxed);
    record.call.store(PackedCall::new(owner, callback).0, Relaxed);
    record.serial.store(serial, Relaxed);
    if let Some(count) = record.counter(owner) {
        count.store(count.load(Relaxed) + 1, Relaxed);
    }
    let result = call();
    if outer == 0 {
        record.call.store(0, Relaxed);
    } else {
        record.resume(outer);
    }
    result
}

/// Ends a batch: the calls that a thread has made without doing anything else in between. Has no effect
/// within a call, which the batch is then a part of.
#[inline]
pub(crate) fn end_batch() {
    if let Some(record) = record()
        && record.call.load(Relaxed) == 0
    {
        record.batch.store(record.batch.load(Relaxed) + 1, Relaxed);
    }
}

/// Makes a call on behalf of a named caller, such as the broker itself.
pub(crate) fn for_caller<R>(owner: u32, callback: Callback, caller: &str, call: impl FnOnce() -> R) -> R {
    let Some(record) = record() else { return call() };
    let outer = record.call.load(Relaxed);
    if outer != 0 {
        record.suspend(outer);
    }
    let serial = OTHER_SERIALS.fetch_add(1, Relaxed);
    let caller = Caller::Name(caller.chars().take(MAX_CALLER_CHARS).collect());
    record.others.lock().push(OtherCall { call: PackedCall::new(owner, callback), serial, caller });
    let result = call();
    record.others.lock().retain(|other| other.serial != serial);
    if outer != 0 {
        record.resume(outer);
    }
    result
}

/// Sets the name of an instance, for the log.
pub(crate) fn set_owner_name(owner: u32, name: &str) {
    let mut names = NAMES.lock();
    names.insert(owner, name.to_owned());
    if names.len() > MAX_NAMES {
        names.pop_first();
    }
}

/// Returns the name of an instance.
pub(crate) fn owner_name(owner: u32) -> String {
    NAMES.lock().get(&owner).cloned().unwrap_or_else(|| "(the program)".to_owned())
}

/// A call in progress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CallInProgress {
    /// Identifies the call.
    pub(crate) key: (usize, u64),
    pub(crate) owner: u32,
    pub(crate) callback: Callback,
    pub(crate) caller: Caller,
    pub(crate) thread: String,
}

/// The client or component on whose behalf a call is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Caller {
    /// The number of its registration; zero if unknown.
    Client(u64),
    /// A name; empty if unknown.
    Name(String),
}

/// The calls in progress of one thread.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ThreadCalls {
    /// The number of its record.
    pub(crate) record: usize,
    /// The number of its batch.
    pub(crate) batch: u64,
    /// The number of calls on behalf of clients to the instance of the innermost call.
    pub(crate) count: u64,
    /// From the outermost to the innermost.
    pub(crate) calls: Vec<CallInProgress>,
}

/// Returns all threads that have made calls, and their calls in progress.
pub(crate) fn in_progress() -> Vec<ThreadCalls> {
    let records = RECORDS.lock().clone();
    let of_record = |(index, record): (usize, &&'static ThreadRecord)| {
        let batch = record.batch.load(Relaxed);
        let mut calls = vec![];
        for other in &*record.others.lock() {
            calls.extend(Callback::of(other.call.0).map(|callback| CallInProgress {
                key: (index, other.serial),
                owner: other.call.owner(),
                callback,
                caller: other.caller.clone(),
                thread: String::new(),
            }));
        }
        // the serial number first: if a call begins meanwhile, the next scan sees it as another call
        let serial = record.serial.load(Relaxed);
        let call = PackedCall(record.call.load(Relaxed));
        calls.extend(Callback::of(call.0).map(|callback| CallInProgress {
            key: (index, serial),
            owner: call.owner(),
            callback,
            caller: Caller::Client(record.client.load(Relaxed)),
            thread: String::new(),
        }));
        if !calls.is_empty() {
            let thread = record.thread.lock().clone();
            calls.iter_mut().for_each(|call| call.thread.clone_from(&thread));
        }
        let counter = record.counter(call.owner());
        ThreadCalls { record: index, batch, count: counter.map_or(0, |count| count.load(Relaxed)), calls }
    };
    records.iter().enumerate().map(of_record).collect()
}

#[cfg(test)]
mod tests;
