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

const CALLBACKS: [(Callback, &str); 16] = [
    (Callback::Deliver, "deliver"),
    (Callback::Flush, "flush"),
    (Callback::WhenDrained, "when_drained"),
    (Callback::Close, "close"),
    (Callback::Queued, "queued"),
    (Callback::Limit, "limit"),
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

/// What a thread is in.
#[derive(Default)]
struct Record {
    /// The innermost call on behalf of a client, see [`Word`].
    word: AtomicU64,
    /// Changes with each of these calls.
    serial: AtomicU64,
    /// For which client, see [`set_client`].
    client: AtomicU64,
    /// All other calls, outermost first. Held by the thread for a push or a pop, and by the watch for a copy.
    others: Mutex<Vec<Other>>,
    /// The name of the thread; empty while the record is spare.
    thread: Mutex<String>,
}

struct Other {
    word: Word,
    serial: u64,
    caller: String,
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
    record.word.store(Word::new(owner, callback).0, Relaxed);
    record.serial.store(record.serial.load(Relaxed) + 1, Relaxed);
    let result = call();
    record.word.store(outer, Relaxed);
    result
}

/// Makes any other call.
pub(crate) fn other<R>(owner: u32, callback: Callback, caller: &str, call: impl FnOnce() -> R) -> R {
    let Some(record) = record() else { return call() };
    let serial = OTHER_SERIALS.fetch_add(1, Relaxed);
    let caller = caller.chars().take(CALLER_CHARS).collect();
    record.others.lock().push(Other { word: Word::new(owner, callback), serial, caller });
    let outer = record.word.swap(0, Relaxed);
    let result = call();
    record.word.store(outer, Relaxed);
    record.others.lock().retain(|other| other.serial != serial);
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

/// All calls in progress: for each thread that is in one, from the outermost to the innermost.
pub(crate) fn in_progress() -> Vec<Vec<InProgress>> {
    let records = RECORDS.lock().clone();
    let of_record = |(index, record): (usize, &&'static Record)| {
        let mut calls = vec![];
        for other in &*record.others.lock() {
            calls.extend(Callback::of(other.word.0).map(|callback| InProgress {
                key: (index, other.serial),
                owner: other.word.owner(),
                callback,
                caller: Caller::Name(other.caller.clone()),
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
        calls
    };
    records.iter().enumerate().map(of_record).filter(|calls| !calls.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    fn of(owner: u32) -> Vec<(Callback, Caller)> {
        let all = in_progress().into_iter().flatten();
        all.filter(|call| call.owner == owner).map(|call| (call.callback, call.caller)).collect()
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
            let calls: Vec<_> =
                in_progress().into_iter().flatten().filter(|call| call.owner == owner).collect();
            both_in.wait();
            assert_eq!(calls.len(), 2);
            assert_ne!(calls[0].key.0, calls[1].key.0, "two records");
            assert_eq!(calls[0].thread, "(unnamed)");
        });
    }

    #[test]
    fn one_call_keeps_its_key_and_the_next_has_another() {
        let owner = 1_000_002;
        let key = || in_progress().into_iter().flatten().find(|call| call.owner == owner).unwrap().key;
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
