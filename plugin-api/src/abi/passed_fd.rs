//! File descriptors that cross the boundary. Each has one owner at any time and can only be created from an
//! owned file descriptor, so a host in safe code cannot make a plugin close one that it does not own.

use abi_stable::StableAbi;
use std::{
    mem::ManuallyDrop,
    os::fd::{FromRawFd, IntoRawFd, OwnedFd, RawFd},
};

/// An open file descriptor and its ownership.
#[repr(transparent)]
#[derive(StableAbi, Debug)]
pub struct PassedFd {
    number: RawFd,
}

impl From<OwnedFd> for PassedFd {
    fn from(fd: OwnedFd) -> Self {
        PassedFd { number: fd.into_raw_fd() }
    }
}

impl From<PassedFd> for OwnedFd {
    fn from(passed: PassedFd) -> Self {
        let passed = ManuallyDrop::new(passed);
        // SAFETY: the number is that of the file descriptor this was created from and has owned since; it is
        // not dropped.
        unsafe { OwnedFd::from_raw_fd(passed.number) }
    }
}

impl Drop for PassedFd {
    fn drop(&mut self) {
        // SAFETY: as above; after this nothing uses the number.
        drop(unsafe { OwnedFd::from_raw_fd(self.number) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn a_passed_fd_has_one_owner() {
        let (near, passed) = std::os::unix::net::UnixStream::pair().unwrap();
        let number = passed.as_raw_fd();
        let back = OwnedFd::from(PassedFd::from(OwnedFd::from(passed)));
        assert_eq!(back.as_raw_fd(), number);
        drop(PassedFd::from(back));
        let mut byte = [0];
        assert_eq!(std::io::Read::read(&mut &near, &mut byte).unwrap(), 0, "the other end is closed");
    }
}
