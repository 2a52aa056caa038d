//! One broker at a time in a folder: between looking at an old socket file and putting a new one there, nobody else
//! may do the same. Owns that lock, which leaves no file behind: it is on the folder itself.

use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use std::{
    os::fd::OwnedFd,
    path::Path,
    time::{Duration, Instant},
};

/// Others hold the lock for moments. Somebody who holds it for longer is no broker, and cannot keep one from
/// starting.
const PATIENCE: Duration = Duration::from_secs(1);
const STEP: Duration = Duration::from_millis(5);

/// The lock on a folder, released when dropped.
pub(crate) struct FolderLock(
    #[expect(dead_code, reason = "the lock lives as long as the descriptor")] OwnedFd,
);

impl FolderLock {
    /// Waits a moment for the lock; goes on without it where it cannot be had.
    pub(crate) fn take(folder: &Path) -> Option<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let descriptor = open(folder, flags, Mode::empty()).ok()?;
        let end = Instant::now() + PATIENCE;
        loop {
            match flock(&descriptor, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Some(FolderLock(descriptor)),
                Err(error) if error == rustix::io::Errno::WOULDBLOCK && Instant::now() < end => {
                    std::thread::sleep(STEP);
                }
                Err(error) => {
                    tracing::debug!(folder = %folder.display(), %error, "going on without the folder's lock");
                    return None;
                }
            }
        }
    }
}
