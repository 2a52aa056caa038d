//! Signals that have no meaning for the broker and must not end or stop it. Those that end or reload it are
//! handled in `signals.rs`.

use signal_hook::{
    consts::{SIGALRM, SIGIO, SIGPIPE, SIGPROF, SIGUSR1, SIGUSR2, SIGVTALRM, SIGXFSZ},
    flag,
};
use std::{
    ops::RangeInclusive,
    sync::{Arc, atomic::AtomicBool},
};

/// Signals without a meaning whose default is to end the process. SIGXFSZ comes with a write beyond the limit
/// of a file's size, which then fails instead; SIGPIPE with a write to a pipe without a reader.
const MEANINGLESS: [i32; 9] =
    [SIGUSR1, SIGUSR2, SIGALRM, SIGVTALRM, SIGPROF, SIGIO, SIGPIPE, SIGXFSZ, SIGSTKFLT];
/// No kernel sends it.
const SIGSTKFLT: i32 = 16;
/// Their default is to end the process as well. The C library keeps the numbers below to itself.
const REAL_TIME: RangeInclusive<i32> = 34..=64;

/// Makes signals without a meaning have no effect. A child process gets their defaults back, except for those
/// of a terminal.
pub(crate) fn ignore_signals() {
    for signal in MEANINGLESS.into_iter().chain(REAL_TIME) {
        // The flag is not read: that there is a handler is enough. If there can be none, the signal is the C
        // library's.
        _ = flag::register(signal, Arc::new(AtomicBool::new(false)));
    }
    // SIGTTOU and SIGTTIN stop a background process that uses its terminal. A handler would have the write
    // that caused the signal restarted without end.
    for signal in [libc::SIGTTOU, libc::SIGTTIN] {
        // SAFETY: no handler is installed, and the signals are valid.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}
