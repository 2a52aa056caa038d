//! Calls into plugins that are in progress: which callback of which instance each thread is in, and for whom. Owns the
//! records, which cost a message a few stores; reads no clock, and judges nothing: that is the watch's (`host/watch.rs`).
//!
//! The records are those of the process, as its threads are: several brokers in a program share them, and instances have
//! numbers that are unique in the process.

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
    Flush,
    WhenDrained,
    Close,
    Queued,
    Limit,
    Overdraw,
    Overdrawn,
    OnEvent,
    Method,
    SlowMethod,
    Create,
    Start,
    Serve,
    Refresh,
    Status,
    Stop,
    Ask,
}

const CALLBACKS: [(Callback, &str); 18] = [
    (Callback::Deliver, "deliver"),
    (Callback::Flush, "flush"),
    (Callback::WhenDrained, "when_drained"),
    (Callback::Close, "close"),
    (Callback::Queued, "queued"),
    (Callback::Limit, "limit"),
    (Callback::Overdraw, "overdraw"),
    (Callback::Overdrawn, "overdrawn"),
    (Callback::OnEvent, "on_event"),
    (Callback::Method, "a control method"),
    (Callback::SlowMethod, "a slow control method"),
    (Callback::Create, "create"),
    (Callback::Start, "start"),
    (Callback::Serve, "serve"),
    (Callback::Refresh, "refresh"),
    (Callback::Status, "status"),
    (Callback::Stop, "stop"),
    (Callback::Ask, "ask"),
];

impl Callback {
    /// As authors of plugins know it.
    pub(crate) fn name(self) -> &'static str {
        CALLBACKS.iter().find(|(callback, _)| *callback == self).map_or("?", |(_, name)| name)
    }

    /// Whether its contract is not to block: a thread of a transport may be in it.
    pub(crate) fn must_not_block(self) -> bool {
        (self as u8) <= Callback::Method as u8 || [Callback::Status, Callback::Ask].contains(&self)
    }

    fn of(number: u64) -> Option<Self> {
        CALLBACKS.iter().map(|(callback, _)| *callback).find(|callback| *callback as u64 == number & 0xFF)
    }
}

/// A callback of an instance, in one word. Zero is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Word(u64);

impl Word {
    const fn new(owner: u32, callback: Callback) -> Self {
        Word((owner as u64) << 8 | callback as u64)
    }

    fn owner(self) -> u32 {
        (self.0 >> 8) as u32
    }
}

/// Calls are counted by instance in so many counters for each thread; instances may share one.
const COUNTERS: usize = 16;

/// What a thread is in.
#[derive(Default)]
struct Record {
    /// The innermost call, where it is on behalf of a client; see [`Word`].
    word: AtomicU64,
    /// Of that call.
    serial: AtomicU64,
    /// The greatest that a call on behalf of a client had.
    last_serial: AtomicU64,
    /// For which client, see [`set_client`].
    client: AtomicU64,
    /// Changes with each batch, see [`end_batch`].
    batch: AtomicU64,
    /// How many calls on behalf of clients were made, by instance, see [`counter`].
    counts: [AtomicU64; COUNTERS],
    /// All other calls, and those on behalf of clients that are waiting for inner ones, outermost first. Held by the thread for
    /// a push or a pop, and by the watch for a copy.
    others: Mutex<Vec<Other>>,
    /// The name of the thread; empty while the record is spare.
    thread: Mutex<String>,
}

struct Other {
    word: Word,
    serial: u64,
    caller: Caller,
}

impl Record {
    fn counter(&self, owner: u32) -> Option<&AtomicU64> {
        self.counts.get(owner as usize % COUNTERS)
    }

    /// Keeps the call in progress among the others, as an inner one begins.
    #[cold]
    fn suspend(&self, word: u64) {
        // whose client it is for is not known any more: the inner call has named its own
        let call = Other { word: Word(word), serial: self.serial.load(Relaxed), caller: Caller::Client(0) };
        self.others.lock().push(call);
        self.word.store(0, Relaxed);
    }

    /// Takes it back as the inner one has returned.
    #[cold]
    fn resume(&self, word: u64) {
        let call = self.others.lock().pop();
        self.serial.store(call.map_or(0, |call| call.serial), Relaxed);
        self.word.store(word, Relaxed);
    }
}

/// The records of all threads. They are leaked, so that a thread can keep a reference without counting, and reused.
/// Lock order: this, then those of a record.
static RECORDS: Mutex<Vec<&'static Record>> = Mutex::new(Vec::new());
/// Instances by number. A leaf.
static NAMES: Mutex<BTreeMap<u32, String>> = Mutex::new(BTreeMap::new());
/// As many are remembered; those that were created first are forgotten.
const REMEMBERED_NAMES: usize = 4096;
/// Serials of other calls; those of a record have the upper half to themselves.
static OTHER_SERIALS: AtomicU64 = AtomicU64::new(1 << 63);
/// Characters of a caller's name that are kept.
const CALLER_CHARS: usize = 128;

thread_local! {
    /// Has no destructor, so it can be read until the very end of the thread.
    static RECORD: Cell<Option<&'static Record>> = const { Cell::new(None) };
    static LEASE: Cell<Option<Lease>> = const { Cell::new(None) };
}

/// Gives the record of a thread back when the thread ends.
struct Lease(&'static Record);

impl Drop for Lease {
    fn drop(&mut self) {
        RECORD.set(None);
        self.0.word.store(0, Relaxed);
        self.0.others.lock().clear();
        self.0.thread.lock().clear();
    }
}

#[inline]
fn record() -> Option<&'static Record> {
    match RECORD.get() {
        None => lease(),
        some => some,
    }
}

/// A record for this thread; none while the thread is ending.
#[cold]
fn lease() -> Option<&'static Record> {
    // an empty name would be that of a spare record
    let current = std::thread::current();
    let name = current.name().filter(|name| !name.is_empty()).unwrap_or("(unnamed)").to_owned();
    let mut records = RECORDS.lock();
    let spare = records.iter().copied().find(|record| record.thread.lock().is_empty());
    let record = spare.unwrap_or_else(|| {
        let record: &'static Record = Box::leak(Box::default());
        records.push(record);
        record
    });
    *record.thread.lock() = name;
    drop(records);
    let lease = Cell::new(Some(Lease(record)));
    // if it is refused, it is dropped here and gives the record back
    LEASE.try_with(|place| place.swap(&lease)).ok()?;
    RECORD.set(Some(record));
    Some(record)
}

/// Names the client on whose behalf this thread makes its next calls, by the number of its registration; zero for none.
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
    let outer = record.word.load(Relaxed);
    if outer != 0 {
        record.suspend(outer);
    }
    let serial = record.last_serial.load(Relaxed) + 1;
    record.last_serial.store(serial, Relaxed);
    record.word.store(Word::new(owner, callback).0, Relaxed);
    record.serial.store(serial, Relaxed);
    if let Some(count) = record.counter(owner) {
        count.store(count.load(Relaxed) + 1, Relaxed);
    }
    let result = call();
    if outer == 0 {
        record.word.store(0, Relaxed);
    } else {
        record.resume(outer);
    }
    result
}

/// Ends a batch: what a thread has done without doing anything else in between. One that is ended within a call ends
/// nothing: it is a part of what that call does.
#[inline]
pub(crate) fn end_batch() {
    if let Some(record) = record()
        && record.word.load(Relaxed) == 0
    {
        record.batch.store(record.batch.load(Relaxed) + 1, Relaxed);
    }
}

/// Makes any other call.
pub(crate) fn other<R>(owner: u32, callback: Callback, caller: &str, call: impl FnOnce() -> R) -> R {
    let Some(record) = record() else { return call() };
    let outer = record.word.load(Relaxed);
    if outer != 0 {
        record.suspend(outer);
    }
    let serial = OTHER_SERIALS.fetch_add(1, Relaxed);
    let caller = Caller::Name(caller.chars().take(CALLER_CHARS).collect());
    record.others.lock().push(Other { word: Word::new(owner, callback), serial, caller });
    let result = call();
    record.others.lock().retain(|other| other.serial != serial);
    if outer != 0 {
        record.resume(outer);
    }
    result
}

/// Remembers the name of an instance.
pub(crate) fn name_owner(owner: u32, name: &str) {
    let mut names = NAMES.lock();
    names.insert(owner, name.to_owned());
    if names.len() > REMEMBERED_NAMES {
        names.pop_first();
    }
}

/// The name of an instance.
pub(crate) fn owner_name(owner: u32) -> String {
    NAMES.lock().get(&owner).cloned().unwrap_or_else(|| "(the program)".to_owned())
}

/// A call in progress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InProgress {
    /// The same for the same call, and for no other.
    pub(crate) key: (usize, u64),
    pub(crate) owner: u32,
    pub(crate) callback: Callback,
    pub(crate) caller: Caller,
    pub(crate) thread: String,
}

/// For whom a call is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Caller {
    /// Zero for none.
    Client(u64),
    /// Empty for none.
    Name(String),
}

/// What a thread is in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct InThread {
    /// The number of its record.
    pub(crate) record: usize,
    /// The number of its batch.
    pub(crate) batch: u64,
    /// How many calls of the instance that the innermost call is of it has made on behalf of clients.
    pub(crate) count: u64,
    /// The calls in progress, from the outermost to the innermost.
    pub(crate) calls: Vec<InProgress>,
}

/// All threads that have made calls, and the calls in progress.
pub(crate) fn in_progress() -> Vec<InThread> {
    let records = RECORDS.lock().clone();
    let of_record = |(index, record): (usize, &&'static Record)| {
        let batch = record.batch.load(Relaxed);
        let mut calls = vec![];
        for other in &*record.others.lock() {
            calls.extend(Callback::of(other.word.0).map(|callback| InProgress {
                key: (index, other.serial),
                owner: other.word.owner(),
                callback,
                caller: other.caller.clone(),
                thread: String::new(),
            }));
        }
        // first the serial: a call that began meanwhile is then another one at the next look
        let serial = record.serial.load(Relaxed);
        let word = Word(record.word.load(Relaxed));
        calls.extend(Callback::of(word.0).map(|callback| InProgress {
            key: (index, serial),
            owner: word.owner(),
            callback,
            caller: Caller::Client(record.client.load(Relaxed)),
            thread: String::new(),
        }));
        if !calls.is_empty() {
            let thread = record.thread.lock().clone();
            calls.iter_mut().for_each(|call| call.thread.clone_from(&thread));
        }
        let counter = record.counter(word.owner());
        InThread { record: index, batch, count: counter.map_or(0, |count| count.load(Relaxed)), calls }
    };
    records.iter().enumerate().map(of_record).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    fn all_calls() -> impl Iterator<Item = InProgress> {
        in_progress().into_iter().flat_map(|thread| thread.calls)
    }

    fn of(owner: u32) -> Vec<(Callback, Caller)> {
        all_calls().filter(|call| call.owner == owner).map(|call| (call.callback, call.caller)).collect()
    }

    #[test]
    fn calls_are_seen_from_outside_while_they_last() {
        let (owner, client) = (1_000_001, 77);
        let ((told, tell), (go, wait)) = (mpsc::channel(), mpsc::channel::<()>());
        let thread = std::thread::spawn(move || {
            other(owner, Callback::OnEvent, "who", || {
                set_client(client);
                for_client(owner, Callback::Deliver, || {
                    told.send(()).unwrap();
                    wait.recv().unwrap();
                });
                told.send(()).unwrap();
                wait.recv().unwrap();
            });
            told.send(()).unwrap();
            wait.recv().unwrap();
        });
        let outer = (Callback::OnEvent, Caller::Name("who".into()));
        tell.recv().unwrap();
        assert_eq!(of(owner), [outer.clone(), (Callback::Deliver, Caller::Client(client))]);
        go.send(()).unwrap();
        tell.recv().unwrap();
        assert_eq!(of(owner), [outer]);
        go.send(()).unwrap();
        tell.recv().unwrap();
        assert_eq!(of(owner), []);
        go.send(()).unwrap();
        thread.join().unwrap();
    }

    #[test]
    fn threads_without_a_name_have_records_of_their_own() {
        let owner = 1_000_004;
        let both_in = std::sync::Barrier::new(3);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                let thread = std::thread::Builder::new().name(String::new());
                let wait = || _ = (both_in.wait(), both_in.wait());
                thread.spawn_scoped(scope, move || other(owner, Callback::Flush, "", wait)).unwrap();
            }
            both_in.wait();
            let calls: Vec<_> = all_calls().filter(|call| call.owner == owner).collect();
            both_in.wait();
            assert_eq!(calls.len(), 2);
            assert_ne!(calls[0].key.0, calls[1].key.0, "two records");
            assert_eq!(calls[0].thread, "(unnamed)");
        });
    }

    #[test]
    fn one_call_keeps_its_key_and_the_next_has_another() {
        let owner = 1_000_002;
        let key = || all_calls().find(|call| call.owner == owner).unwrap().key;
        let look_twice = || (key(), key());
        let first = for_client(owner, Callback::Flush, look_twice);
        let second = for_client(owner, Callback::Flush, look_twice);
        let third = other(owner, Callback::Stop, "", look_twice);
        for (one, other) in [first, second, third] {
            assert_eq!(one, other);
        }
        assert!(first != second && second != third);
    }

    #[test]
    fn a_call_keeps_its_key_while_it_makes_inner_ones() {
        let (owner, inner) = (1_000_005, 1_000_006);
        let key = |owner| all_calls().find(|call| call.owner == owner).map(|call| call.key);
        for_client(owner, Callback::Deliver, || {
            let own = key(owner);
            let mut seen = vec![own];
            for _ in 0..2 {
                for_client(inner, Callback::Deliver, || {
                    assert_eq!(key(owner), own);
                    other(inner, Callback::Method, "", || assert_eq!(key(owner), own));
                    seen.push(key(inner));
                });
                assert_eq!(key(owner), own);
            }
            assert!(seen.iter().all(|key| key.is_some()), "{seen:?}");
            seen.sort_unstable();
            seen.dedup();
            assert_eq!(seen.len(), 3, "and each has its own");
        });
        assert_eq!((key(owner), key(inner)), (None, None));
    }

    #[test]
    fn a_batch_that_ends_within_a_call_ends_nothing() {
        let owner = 1_000_007;
        let here = || {
            let threads = in_progress().into_iter();
            threads
                .map(|thread| (thread.batch, thread.count, thread.calls))
                .find(|(.., calls)| calls.iter().any(|call| call.owner == owner))
        };
        let look = || here().map(|(batch, count, _)| (batch, count)).unwrap_or_default();
        let (batch, count) = for_client(owner, Callback::Deliver, look);
        let within = for_client(owner, Callback::Deliver, || {
            end_batch();
            look()
        });
        assert_eq!(within, (batch, count + 1));
        end_batch();
        assert_eq!(for_client(owner, Callback::Flush, look), (batch + 1, count + 2));
    }

    #[test]
    fn each_callback_has_a_number_and_a_name_of_its_own() {
        for (index, (callback, name)) in CALLBACKS.iter().enumerate() {
            assert_eq!(*callback as usize, index + 1);
            assert_eq!((Callback::of(*callback as u64), callback.name()), (Some(*callback), *name));
        }
        let waiting = CALLBACKS.iter().filter(|(callback, _)| !callback.must_not_block()).map(|(c, _)| *c);
        use Callback::*;
        assert_eq!(waiting.collect::<Vec<_>>(), [SlowMethod, Create, Start, Serve, Refresh, Stop]);
    }
}
