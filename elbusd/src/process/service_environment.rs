//! What a service manager passes at the start: listening sockets, the address for notifications, the watchdog
//! interval. Removes it from the environment, so that child processes do not mistake it for theirs.
//!
//! Neither this nor `notify.rs` uses the crate `sd-notify` (0.5): it reads `NOTIFY_SOCKET` again for every
//! message, so the variable would stay in the environment that library probes inherit; it sends without a
//! timeout, so a busy service manager would block the broker; it connects to paths only, not to abstract
//! sockets; and its functions that remove variables are as unsafe as the call below.

use std::{
    ffi::OsString,
    os::fd::{FromRawFd, OwnedFd, RawFd},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

/// The first file descriptor that is passed, see sd_listen_fds(3).
const FIRST_FD: RawFd = 3;
/// Further sockets are ignored.
const MAX_LISTENERS: usize = 256;
const VARIABLES: [&str; 6] =
    ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// What the service manager has passed.
#[derive(Debug, Default)]
pub(crate) struct ServiceEnvironment {
    /// Listening sockets, for [`BrokerBuilder::listener`](elbus_broker::BrokerBuilder::listener).
    pub(crate) listeners: Vec<OwnedFd>,
    /// The address of the socket that receives notifications.
    pub(crate) notify_socket: Option<OsString>,
    /// The longest time between two keep-alive notifications.
    pub(crate) watchdog: Option<Duration>,
}

impl ServiceEnvironment {
    /// Takes it. Must be called before the first thread is started; later, or a second time, it is empty.
    pub(crate) fn take() -> Self {
        static TAKEN: AtomicBool = AtomicBool::new(false);
        if TAKEN.swap(true, Ordering::SeqCst) || thread_count() != Some(1) {
            return ServiceEnvironment::default();
        }
        let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let own = u64::from(std::process::id());
        let mut taken =
            ServiceEnvironment { notify_socket: std::env::var_os("NOTIFY_SOCKET"), ..Self::default() };
        if number("WATCHDOG_PID").is_none_or(|pid| pid == own) {
            let microseconds = number("WATCHDOG_USEC").filter(|microseconds| *microseconds > 0);
            taken.watchdog = microseconds.map(Duration::from_micros);
        }
        if number("LISTEN_PID") == Some(own) {
            let count = number("LISTEN_FDS").and_then(|count| usize::try_from(count).ok()).unwrap_or(0);
            taken.listeners = (FIRST_FD..).take(count.min(MAX_LISTENERS)).filter_map(take_fd).collect();
        }
        for variable in VARIABLES {
            // SAFETY: there is one thread, see above, so nothing reads the environment at the same time.
            unsafe { std::env::remove_var(variable) };
        }
        taken
    }
}

/// Takes a passed file descriptor, which is closed on exec from now on; `None` if it is not open.
fn take_fd(fd: RawFd) -> Option<OwnedFd> {
    let path = format!("/proc/self/fd/{fd}");
    std::fs::symlink_metadata(path).ok()?;
    // SAFETY: it is open, and LISTEN_PID says that it was passed to this very process; done once, before
    // anything else could have taken it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC).ok()?;
    Some(fd)
}

fn thread_count() -> Option<usize> {
    Some(std::fs::read_dir("/proc/self/task").ok()?.count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_several_threads_takes_nothing() {
        // the harness has one thread for itself and one for each test
        let taken = ServiceEnvironment::take();
        assert!(taken.listeners.is_empty() && taken.notify_socket.is_none());
    }
}
