//! A descriptor on its way across the boundary. It has one owner at any time, and can be made of a descriptor that is owned
//! only: so a host that is written in safe code cannot make a plugin close what is not its own.

use abi_stable::StableAbi;
use std::{
    mem::ManuallyDrop,
    os::fd::{FromRawFd, IntoRawFd, OwnedFd, RawFd},
};

/// An open descriptor and its ownership.
#[repr(transparent)]
#[derive(StableAbi, Debug)]
pub struct PassedDescriptor {
    number: RawFd,
}

impl From<OwnedFd> for PassedDescriptor {
    fn from(descriptor: OwnedFd) -> Self {
        PassedDescriptor { number: descriptor.into_raw_fd() }
    }
}

impl From<PassedDescriptor> for OwnedFd {
    fn from(passed: PassedDescriptor) -> Self {
        let passed = ManuallyDrop::new(passed);
        // SAFETY: the number is that of the descriptor this was made of, which it has owned since; it is not dropped.
        unsafe { OwnedFd::from_raw_fd(passed.number) }
    }
}

impl Drop for PassedDescriptor {
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
    fn one_owner_at_any_time() {
        let (kept, passed) = std::os::unix::net::UnixStream::pair().unwrap();
        let number = passed.as_raw_fd();
        let back = OwnedFd::from(PassedDescriptor::from(OwnedFd::from(passed)));
        assert_eq!(back.as_raw_fd(), number);
        drop(PassedDescriptor::from(back));
        let mut byte = [0];
        assert_eq!(std::io::Read::read(&mut &kept, &mut byte).unwrap(), 0, "the other end is closed");
    }
}
