//! The process at the other end of a UNIX socket as a pidfd, which cannot come to mean another process. One
//! system call that has no safe wrapper yet.

use std::{
    ffi::{c_int, c_void},
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

/// The same on all architectures of Linux that Rust supports, except those that took their numbers from
/// other systems.
#[cfg(not(any(
    target_arch = "mips",
    target_arch = "mips64",
    target_arch = "sparc",
    target_arch = "sparc64"
)))]
mod numbers {
    use std::ffi::c_int;

    pub(super) const SOL_SOCKET: c_int = 1;
    pub(super) const SO_PEERPIDFD: c_int = 77;
    pub(super) const ENOPROTOOPT: c_int = 92;
}

unsafe extern "C" {
    fn getsockopt(
        socket: c_int,
        level: c_int,
        name: c_int,
        value: *mut c_void,
        value_bytes: *mut u32,
    ) -> c_int;
}

/// Returns a pidfd of the process that connected a UNIX socket, even if its number has been reused. `None`
/// if the kernel does not support it (before Linux 6.5).
///
/// # Errors
/// The process has exited, there are no file descriptors left, or it is not a UNIX socket.
pub fn peer_process(socket: BorrowedFd<'_>) -> io::Result<Option<OwnedFd>> {
    #[cfg(any(
        target_arch = "mips",
        target_arch = "mips64",
        target_arch = "sparc",
        target_arch = "sparc64"
    ))]
    return Ok(None);
    #[cfg(not(any(
        target_arch = "mips",
        target_arch = "mips64",
        target_arch = "sparc",
        target_arch = "sparc64"
    )))]
    {
        let mut fd: c_int = -1;
        let mut bytes = size_of::<c_int>() as u32;
        // SAFETY: the socket is open while it is borrowed; the kernel writes at most `bytes` bytes to a
        // value of that length, and their number to a variable of its own.
        let result = unsafe {
            getsockopt(
                socket.as_raw_fd(),
                numbers::SOL_SOCKET,
                numbers::SO_PEERPIDFD,
                (&raw mut fd).cast(),
                &raw mut bytes,
            )
        };
        if result != 0 {
            let error = io::Error::last_os_error();
            return if error.raw_os_error() == Some(numbers::ENOPROTOOPT) { Ok(None) } else { Err(error) };
        }
        if fd < 0 || bytes as usize != size_of::<c_int>() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        // SAFETY: the kernel has just created it for this call, so nothing else owns it.
        Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::{fd::AsFd, unix::net::UnixStream};

    #[test]
    fn the_process_behind_a_socket_is_known_if_the_kernel_supports_it() {
        let (near, _far) = UnixStream::pair().unwrap();
        if let Some(process) = peer_process(near.as_fd()).unwrap() {
            let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", process.as_raw_fd())).unwrap();
            let pid = info.lines().find_map(|line| line.strip_prefix("Pid:"));
            assert_eq!(pid.map(|pid| pid.trim().parse()), Some(Ok(std::process::id())), "{info}");
        }
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(peer_process(file.as_fd()).is_err());
    }
}
