//! What the broker sets for its own process before anything is started: signals that shall not end it, and how many
//! descriptors it may have. Signals that end or reload it are not its business.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::{
    consts::{SIGALRM, SIGIO, SIGPIPE, SIGPROF, SIGUSR1, SIGUSR2, SIGVTALRM, SIGXFSZ},
    flag,
};
use std::{
    ops::RangeInclusive,
    sync::{Arc, atomic::AtomicBool},
};

/// Signals that mean nothing to the broker and whose default is to end it. SIGXFSZ comes with a write beyond the limit
/// of a file's size, which then fails instead; SIGPIPE with one to a pipe that nobody reads.
const MEANINGLESS: [i32; 9] =
    [SIGUSR1, SIGUSR2, SIGALRM, SIGVTALRM, SIGPROF, SIGIO, SIGPIPE, SIGXFSZ, SIGSTKFLT];
/// No kernel sends it.
const SIGSTKFLT: i32 = 16;
/// The default of these is to end the process as well. The C library keeps the numbers below to itself.
const REAL_TIME: RangeInclusive<i32> = 34..=64;

/// Makes signals without a meaning have no effect. A child process gets their defaults back, except for those of a
/// terminal.
pub(crate) fn ignore_signals() {
    for signal in MEANINGLESS.into_iter().chain(REAL_TIME) {
        // Nobody looks at the flag: that there is a handler is enough. Where there can be none, the signal is the C
        // library's.
        _ = flag::register(signal, Arc::new(AtomicBool::new(false)));
    }
    // a handler would have the write that caused the signal restarted without end
    elbus_broker::ignore_terminal_stops();
}

/// Raises the soft limit of descriptors to the hard one. Each connection needs one, and the soft limit is kept low for
/// programs that use select(2), which this one does not.
pub(crate) fn raise_descriptor_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => tracing::debug!(?current, ?maximum, "descriptor limit raised"),
        Err(error) => tracing::warn!(?current, ?maximum, %error, "descriptor limit not raised"),
    }
}
