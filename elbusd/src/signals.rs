//! Signals, handled by a thread of their own from the first moment on, and the deadline that the first one sets: the process
//! ends within `shutdown_seconds` plus a second, whatever hangs. Owns that end, and never takes part in an orderly one.
//!
//! SIGTERM, SIGINT and SIGQUIT end the process, and so do SIGXCPU (the limit of CPU time) and SIGPWR (the power fails); SIGHUP
//! reloads. `process.rs` ignores all others whose default is to end it, except for those that report a fault of the program
//! (SIGSEGV, SIGBUS, SIGABRT, SIGILL, SIGFPE, SIGTRAP, SIGSYS).
//!
//! Exit codes: 0 after an orderly end, also of a start that a signal has interrupted; 1 after an error, or at once upon a
//! second SIGTERM, SIGINT or SIGQUIT; 3 if the deadline has passed.

use parking_lot::Mutex;
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGXCPU},
    low_level::{exit, signal_name},
};
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver, SyncSender},
    },
    thread,
    time::{Duration, Instant},
};

use crate::log::Log;

/// The power fails: sent by some init systems.
const SIGPWR: i32 = 30;
/// Signals that end the process in order.
const ENDING: [i32; 5] = [SIGTERM, SIGINT, SIGQUIT, SIGXCPU, SIGPWR];
/// Signals that end it at once if it is ending already. The kernel repeats SIGXCPU each second.
const IMPATIENT: [i32; 3] = [SIGTERM, SIGINT, SIGQUIT];
/// A process that is ended by a second signal.
const EXIT_SECOND_SIGNAL: i32 = 1;
/// A process that did not end in time by itself.
const EXIT_DEADLINE: i32 = 3;
/// What the end may take beyond `shutdown_seconds`; the last part of it is for the last lines of the log.
const GRACE: Duration = Duration::from_secs(1);
const LAST_LINES: Duration = Duration::from_millis(300);
/// Before the configuration is read.
const DEFAULT_LIMIT: Duration = Duration::from_secs(2);
/// Waiting for the deadline, it is looked this often whether it was changed.
const STEP: Duration = Duration::from_millis(20);

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    Reload,
    End,
}

/// The signals of the process.
pub(crate) struct Signals {
    shared: Arc<Shared>,
    asked: Receiver<Asked>,
}

struct Shared {
    ending: Arc<AtomicBool>,
    /// `shutdown_seconds`. A leaf.
    limit: Mutex<Duration>,
    log: Log,
}

impl Signals {
    /// Handles signals from now on.
    ///
    /// # Errors
    /// The system refuses a handler or a thread.
    pub(crate) fn start(log: &Log) -> io::Result<Self> {
        let signals = signal_hook::iterator::Signals::new(ENDING.iter().chain([&SIGHUP]))?;
        let shared =
            Arc::new(Shared { ending: Arc::default(), limit: Mutex::new(DEFAULT_LIMIT), log: log.clone() });
        // reloads that are asked for while one is pending are one
        let (ask, asked) = mpsc::sync_channel(2);
        let this = shared.clone();
        thread::Builder::new().name("signals".to_owned()).spawn(move || this.handle(signals, &ask))?;
        Ok(Signals { shared, asked })
    }

    /// Waits for a signal.
    pub(crate) fn next(&self) -> Asked {
        if self.is_ending() { Asked::End } else { self.asked.recv().unwrap_or(Asked::End) }
    }

    /// Set once the process has been asked to end.
    pub(crate) fn ending(&self) -> Arc<AtomicBool> {
        self.shared.ending.clone()
    }

    pub(crate) fn is_ending(&self) -> bool {
        self.shared.ending.load(Ordering::Acquire)
    }

    /// What the end may take, counted from the signal.
    pub(crate) fn set_limit(&self, limit: Duration) {
        *self.shared.limit.lock() = limit;
    }
}

impl Shared {
    fn handle(self: Arc<Self>, mut signals: signal_hook::iterator::Signals, ask: &SyncSender<Asked>) {
        for signal in signals.forever() {
            if signal == SIGHUP {
                _ = ask.try_send(Asked::Reload);
                continue;
            }
            let name = if signal == SIGPWR { "SIGPWR" } else { signal_name(signal).unwrap_or("?") };
            if self.ending.swap(true, Ordering::AcqRel) {
                if !IMPATIENT.contains(&signal) {
                    continue;
                }
                self.line(&format!("a second signal ({name}): ended at once"));
                self.log.finish_within(LAST_LINES / 2);
                exit(EXIT_SECOND_SIGNAL);
            }
            let (this, begun) = (self.clone(), Instant::now());
            let deadline = move || this.end_by_deadline(begun);
            if thread::Builder::new().name("deadline".to_owned()).spawn(deadline).is_err() {
                self.line("cannot start a thread: ended at once");
                exit(EXIT_DEADLINE);
            }
            tracing::info!(signal = name, "shutting down");
            // full: the main thread looks at `ending` before it waits
            _ = ask.try_send(Asked::End);
        }
    }

    /// Ends the process if it does not end by itself.
    fn end_by_deadline(&self, begun: Instant) -> ! {
        let last = GRACE.saturating_sub(LAST_LINES);
        while begun.elapsed() < self.limit.lock().saturating_add(last) {
            thread::sleep(STEP);
        }
        let limit = self.limit.lock().as_secs_f64();
        for call in elbus_broker::hanging_calls() {
            self.line(&format!("does not return: {call}"));
        }
        self.line(&format!("not ended in time (shutdown_seconds = {limit}): ended at once"));
        self.log.finish_within(LAST_LINES / 2);
        exit(EXIT_DEADLINE);
    }

    /// Past tracing: whoever hangs may hold what it needs.
    fn line(&self, text: &str) {
        self.log.line(format!("elbusd: {text}\n").as_bytes());
    }
}
