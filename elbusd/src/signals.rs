//! Handles signals in a separate thread, and enforces the deadline that the first terminating signal sets:
//! the process exits within `shutdown_seconds` plus a second, even if a plugin hangs. Owns the forced exit;
//! the normal one is in `main.rs`.
//!
//! SIGTERM, SIGINT, SIGQUIT, SIGXCPU (CPU time limit) and SIGPWR (power failure) stop the process; SIGHUP
//! reloads. `process/ignored_signals.rs` ignores all others whose default is to end it, except for those that
//! report a fault of the program (SIGSEGV, SIGBUS, SIGABRT, SIGILL, SIGFPE, SIGTRAP, SIGSYS).
//!
//! Exit codes: 0 if stopped normally, even during the start; 1 after an error, or immediately after a second
//! SIGTERM, SIGINT or SIGQUIT; 3 if the deadline has passed.

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

/// Power failure, sent by some init systems.
const SIGPWR: i32 = 30;
/// Signals that stop the process.
const TERMINATING: [i32; 5] = [SIGTERM, SIGINT, SIGQUIT, SIGXCPU, SIGPWR];
/// Signals that end the process immediately if it is stopping already. The kernel repeats SIGXCPU every
/// second.
const FORCING: [i32; 3] = [SIGTERM, SIGINT, SIGQUIT];
/// Exit code after a second signal.
const EXIT_SECOND_SIGNAL: i32 = 1;
/// Exit code after the deadline.
const EXIT_DEADLINE: i32 = 3;
/// Time beyond `shutdown_seconds` until the forced exit.
const GRACE: Duration = Duration::from_secs(1);
/// The last part of [`GRACE`], which is for the last log lines.
const LAST_LINES: Duration = Duration::from_millis(300);
/// The limit before the configuration is read.
const DEFAULT_LIMIT: Duration = Duration::from_secs(2);
/// Pause between checks of the deadline, which a reload can change.
const STEP: Duration = Duration::from_millis(20);

/// What a signal requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SignalRequest {
    Reload,
    Stop,
}

/// Receives the requests of signals.
pub(crate) struct Signals {
    shared: Arc<Shared>,
    requests: Receiver<SignalRequest>,
}

struct Shared {
    stopping: Arc<AtomicBool>,
    /// `shutdown_seconds`. A leaf.
    limit: Mutex<Duration>,
    log: Log,
}

impl Signals {
    /// Handles signals from now on.
    ///
    /// # Errors
    /// A handler cannot be installed, or the thread cannot be started.
    pub(crate) fn start(log: &Log) -> io::Result<Self> {
        let signals = signal_hook::iterator::Signals::new(TERMINATING.iter().chain([&SIGHUP]))?;
        let shared =
            Arc::new(Shared { stopping: Arc::default(), limit: Mutex::new(DEFAULT_LIMIT), log: log.clone() });
        // reload requests while one is pending are merged
        let (request, requests) = mpsc::sync_channel(2);
        let this = shared.clone();
        thread::Builder::new().name("signals".to_owned()).spawn(move || this.handle(signals, &request))?;
        Ok(Signals { shared, requests })
    }

    /// Waits for a signal.
    pub(crate) fn next(&self) -> SignalRequest {
        if self.is_stopping() {
            return SignalRequest::Stop;
        }
        self.requests.recv().unwrap_or(SignalRequest::Stop)
    }

    /// Returns a flag that is set once the process is stopping.
    pub(crate) fn stopping(&self) -> Arc<AtomicBool> {
        self.shared.stopping.clone()
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.shared.stopping.load(Ordering::Acquire)
    }

    /// Sets the time limit for stopping, counted from the signal.
    pub(crate) fn set_limit(&self, limit: Duration) {
        *self.shared.limit.lock() = limit;
    }
}

impl Shared {
    fn handle(
        self: Arc<Self>,
        mut signals: signal_hook::iterator::Signals,
        request: &SyncSender<SignalRequest>,
    ) {
        for signal in signals.forever() {
            if signal == SIGHUP {
                _ = request.try_send(SignalRequest::Reload);
                continue;
            }
            let name = if signal == SIGPWR { "SIGPWR" } else { signal_name(signal).unwrap_or("?") };
            if self.stopping.swap(true, Ordering::AcqRel) {
                if !FORCING.contains(&signal) {
                    continue;
                }
                self.line(&format!("second signal ({name}): exiting immediately"));
                self.log.finish_within(LAST_LINES / 2);
                exit(EXIT_SECOND_SIGNAL);
            }
            let (this, started) = (self.clone(), Instant::now());
            let deadline = move || this.exit_at_deadline(started);
            if thread::Builder::new().name("deadline".to_owned()).spawn(deadline).is_err() {
                self.line("cannot start the deadline thread: exiting immediately");
                exit(EXIT_DEADLINE);
            }
            tracing::info!(signal = name, "shutting down");
            // if it is full, the main thread checks `stopping` before it waits
            _ = request.try_send(SignalRequest::Stop);
        }
    }

    /// Exits at the deadline, unless the process has exited before.
    fn exit_at_deadline(&self, started: Instant) -> ! {
        let last = GRACE.saturating_sub(LAST_LINES);
        while started.elapsed() < self.limit.lock().saturating_add(last) {
            thread::sleep(STEP);
        }
        let limit = self.limit.lock().as_secs_f64();
        for call in elbus_broker::hanging_calls() {
            self.line(&format!("callback does not return: {call}"));
        }
        self.line(&format!("not stopped within shutdown_seconds = {limit}: exiting"));
        self.log.finish_within(LAST_LINES / 2);
        exit(EXIT_DEADLINE);
    }

    /// Logs without `tracing`, whose locks a hanging thread may hold.
    fn line(&self, text: &str) {
        self.log.line(format!("elbusd: {text}\n").as_bytes());
    }
}
