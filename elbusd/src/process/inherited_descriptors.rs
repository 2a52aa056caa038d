//! File descriptors that the process has inherited. Closes none: sockets that a service manager has passed
//! are among them.

/// The first descriptor after standard input, output and error.
const FIRST: libc::c_uint = 3;

/// Keeps the descriptors that the process has inherited from the processes that its plugins start. Without
/// effect before Linux 5.11.
pub(crate) fn close_inherited_on_exec() {
    // SAFETY: it sets a flag of descriptors; it closes none, and touches no memory.
    unsafe {
        libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC);
    }
}
