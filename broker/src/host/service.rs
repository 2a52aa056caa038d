//! What a service manager hands over at the start: listening sockets, and where it wants to be told how the program is.
//! Takes it out of the environment, so that nobody the program starts mistakes it for its own.

use std::{
    ffi::OsString,
    os::fd::{FromRawFd, OwnedFd, RawFd},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

/// The number of the first descriptor that is passed, as sd_listen_fds(3) has it.
const FIRST: RawFd = 3;
/// More are not taken.
const MOST: usize = 256;
const VARIABLES: [&str; 6] =
    ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// What was handed over.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Service {
    /// The sockets, for [`BrokerBuilder::listener`](crate::BrokerBuilder::listener).
    pub listeners: Vec<OwnedFd>,
    /// The address of the socket that is told of the program's state.
    pub notify_socket: Option<OsString>,
    /// What may pass between two signs of life.
    pub watchdog: Option<Duration>,
}

/// Takes over what a service manager has passed to this process. For programs, to be called before the first thread is
/// started; later, or a second time, it finds nothing.
pub fn take_service() -> Service {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::SeqCst) || threads() != Some(1) {
        return Service::default();
    }
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let own = u64::from(std::process::id());
    let mut service = Service { notify_socket: std::env::var_os("NOTIFY_SOCKET"), ..Service::default() };
    if number("WATCHDOG_PID").is_none_or(|pid| pid == own) {
        let microseconds = number("WATCHDOG_USEC").filter(|microseconds| *microseconds > 0);
        service.watchdog = microseconds.map(Duration::from_micros);
    }
    if number("LISTEN_PID") == Some(own) {
        let count = number("LISTEN_FDS").and_then(|count| usize::try_from(count).ok()).unwrap_or(0).min(MOST);
        service.listeners = (FIRST..).take(count).filter_map(take).collect();
    }
    for variable in VARIABLES {
        // SAFETY: there is one thread, see above, so nobody reads the environment meanwhile.
        unsafe { std::env::remove_var(variable) };
    }
    service
}

/// A descriptor that was passed, from now on closed on exec. `None` where there is none of that number.
fn take(number: RawFd) -> Option<OwnedFd> {
    let path = format!("/proc/self/fd/{number}");
    std::fs::symlink_metadata(path).ok()?;
    // SAFETY: it is open, and LISTEN_PID says that it was passed to this very process; done once, before anything else
    // had the time to take it.
    let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
    rustix::io::fcntl_setfd(&descriptor, rustix::io::FdFlags::CLOEXEC).ok()?;
    Some(descriptor)
}

/// How many threads this process has.
fn threads() -> Option<usize> {
    Some(std::fs::read_dir("/proc/self/task").ok()?.count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_of_several_threads_is_left_alone() {
        // the harness has one thread for itself and one for each test
        let service = take_service();
        assert!(service.listeners.is_empty() && service.notify_socket.is_none());
    }
}
