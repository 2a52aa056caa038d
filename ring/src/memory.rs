//! The shared memory: made and sealed by the broker, checked and mapped by both sides. Owns the mapping and
//! every access to bytes in it.

use rustix::{
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate, memfd_create},
    io::Errno,
    mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap},
};
use std::{
    io::{self, ErrorKind},
    marker::PhantomData,
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    ptr::{self, NonNull},
    sync::atomic::Ordering::{Acquire, Relaxed, Release},
};

use crate::layout::{CONTROL_BYTES, Control, MAGIC, VERSION, is_ring_size, memory_bytes};

/// Without these seals a peer could shrink the memory, and an access beyond its end would kill the process.
const REQUIRED_SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW);

/// A mapping of the shared memory, of fixed size.
pub(crate) struct Memory {
    start: NonNull<u8>,
    ring_bytes: u32,
}

// SAFETY: the mapping belongs to this value alone, and is unmapped when it is dropped. Nothing in it depends
// on a thread.
unsafe impl Send for Memory {}
// SAFETY: shared access is to atomics, and through raw pointers to bytes that the peer can change anyway.
unsafe impl Sync for Memory {}

impl Memory {
    /// Makes, sizes and seals the memory, before any other process has it.
    pub(crate) fn create(ring_bytes: u32) -> io::Result<(Self, OwnedFd)> {
        if !is_ring_size(ring_bytes) {
            return Err(io::Error::new(
                ErrorKind::InvalidInput,
                format!("{ring_bytes} is no size of a ring"),
            ));
        }
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let fd = match memfd_create("elbus-ring", flags | MemfdFlags::NOEXEC_SEAL) {
            // before Linux 6.3
            Err(Errno::INVAL) => memfd_create("elbus-ring", flags)?,
            made => made?,
        };
        ftruncate(&fd, memory_bytes(ring_bytes) as u64)?;
        fcntl_add_seals(&fd, REQUIRED_SEALS | SealFlags::SEAL)?;
        let memory = Self::map(fd.as_fd(), ring_bytes)?;
        let header = &memory.control().header;
        header.version.store(VERSION, Relaxed);
        header.ring_bytes.store(ring_bytes, Relaxed);
        header.magic.store(MAGIC, Release);
        Ok((memory, fd))
    }

    /// Maps memory that the broker has made.
    pub(crate) fn open(fd: BorrowedFd<'_>) -> io::Result<Self> {
        let invalid =
            |why: &str| io::Error::new(ErrorKind::InvalidData, format!("not memory of rings: {why}"));
        if !fcntl_get_seals(fd)?.contains(REQUIRED_SEALS) {
            return Err(invalid("its size is not sealed"));
        }
        let size = u64::try_from(fstat(fd)?.st_size).unwrap_or(0);
        let ring_bytes = size.saturating_sub(CONTROL_BYTES as u64) / 2;
        let ring_bytes = u32::try_from(ring_bytes).unwrap_or(0);
        if !is_ring_size(ring_bytes) || memory_bytes(ring_bytes) as u64 != size {
            return Err(invalid("its size is not that of two rings"));
        }
        let memory = Self::map(fd, ring_bytes)?;
        let header = &memory.control().header;
        if header.magic.load(Acquire) != MAGIC
            || header.version.load(Relaxed) != VERSION
            || header.ring_bytes.load(Relaxed) != ring_bytes
        {
            return Err(invalid("unknown version"));
        }
        Ok(memory)
    }

    /// Maps a memory of which the caller has checked the size and the seals.
    fn map(fd: BorrowedFd<'_>, ring_bytes: u32) -> io::Result<Self> {
        let (access, len) = (ProtFlags::READ | ProtFlags::WRITE, memory_bytes(ring_bytes));
        // SAFETY: a new mapping at an address that the kernel chooses overlaps nothing of this process
        let start = unsafe { mmap(ptr::null_mut(), len, access, MapFlags::SHARED, fd, 0)? };
        let start = NonNull::new(start.cast()).ok_or(ErrorKind::InvalidData)?;
        Ok(Memory { start, ring_bytes })
    }

    pub(crate) fn ring_bytes(&self) -> u32 {
        self.ring_bytes
    }

    pub(crate) fn control(&self) -> &Control {
        // SAFETY: the mapping is at least a page long and page-aligned, lives as long as `self`, and a
        // `Control` is nothing but atomics, valid with whatever the peer writes. The size is sealed, so no
        // access faults.
        unsafe { self.start.cast::<Control>().as_ref() }
    }

    /// Returns the bytes of a ring, 0 or 1.
    #[inline]
    pub(crate) fn bytes(&self, ring: usize) -> RingBytes<'_> {
        let offset = CONTROL_BYTES + (ring & 1) * self.ring_bytes as usize;
        // SAFETY: both rings are within the mapping, whose length is `memory_bytes(ring_bytes)`
        let start = unsafe { self.start.add(offset) };
        RingBytes { start, len: self.ring_bytes, memory: PhantomData }
    }
}

impl Memory {
    /// Gives the pages of a ring from this offset on back to the system. They read as zeroes afterwards.
    pub(crate) fn give_back(&self, ring: usize, from: usize) {
        let bytes = self.bytes(ring);
        let (from, len) = (from.min(bytes.len as usize), bytes.len as usize);
        // SAFETY: both are within the mapping. The pages are shared memory that the peer can empty in the
        // same way, and never referenced. Where pages are larger than 4 KiB the range may not begin at one:
        // that is an error, and nothing is given back.
        let _ = unsafe { madvise(bytes.start.add(from).as_ptr().cast(), len - from, Advice::LinuxRemove) };
    }

    /// Gives all pages back to the system, even if others have the memory.
    pub(crate) fn give_back_all(&self) {
        let len = memory_bytes(self.ring_bytes);
        // SAFETY: the whole mapping; as in `give_back`
        let _ = unsafe { madvise(self.start.as_ptr().cast(), len, Advice::LinuxRemove) };
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the mapping of `map`, with its length; no reference to it outlives `self`
        let _ = unsafe { munmap(self.start.as_ptr().cast(), memory_bytes(self.ring_bytes)) };
    }
}

/// The bytes of one ring. The peer can change them at any time, so there is never a reference to them: they
/// are only copied.
#[derive(Clone, Copy)]
pub(crate) struct RingBytes<'m> {
    start: NonNull<u8>,
    /// A power of two.
    len: u32,
    memory: PhantomData<&'m Memory>,
}

impl RingBytes<'_> {
    /// Bytes of this buffer as a ring, for a model.
    #[cfg(all(test, elbus_model))]
    pub(crate) fn of(buffer: &std::cell::UnsafeCell<[u8; 8]>) -> RingBytes<'_> {
        RingBytes { start: NonNull::new(buffer.get().cast()).unwrap(), len: 8, memory: PhantomData }
    }

    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    /// Returns where the byte of a count is. Within the ring, whatever the peer says the base is.
    #[inline]
    pub(crate) fn place(&self, count: u32, base: u32) -> usize {
        (count.wrapping_sub(base) & (self.len - 1)) as usize
    }

    /// Splits a copy that begins at a place: bytes up to the end of the ring, and those at its beginning.
    /// Never exceeds the ring.
    #[inline]
    fn split(&self, place: usize, bytes: usize) -> (usize, usize, usize) {
        let len = self.len as usize;
        let place = place & (len - 1);
        let bytes = bytes.min(len);
        let first = bytes.min(len - place);
        (place, first, bytes - first)
    }

    /// Copies bytes out, as many as there is space for, at most a whole ring. Returns how many.
    #[inline]
    pub(crate) fn copy_out(&self, place: usize, into: &mut [MaybeUninit<u8>]) -> usize {
        let (place, first, second) = self.split(place, into.len());
        // SAFETY: `place + first` and `second` do not exceed the ring, `first + second` not `into`, and the
        // two do not overlap, since `into` is a Rust slice and the mapping is never one. The peer can write
        // meanwhile: what arrives is then any mixture of bytes, all of which are valid.
        unsafe {
            ptr::copy_nonoverlapping(self.start.as_ptr().add(place), into.as_mut_ptr().cast(), first);
            ptr::copy_nonoverlapping(self.start.as_ptr(), into.as_mut_ptr().add(first).cast(), second);
        }
        first + second
    }

    /// Copies bytes in, at most a whole ring.
    #[inline]
    pub(crate) fn copy_in(&self, place: usize, from: &[u8]) {
        let (place, first, second) = self.split(place, from.len());
        // SAFETY: as in `copy_out`
        unsafe {
            ptr::copy_nonoverlapping(from.as_ptr(), self.start.as_ptr().add(place), first);
            ptr::copy_nonoverlapping(from.as_ptr().add(first), self.start.as_ptr(), second);
        }
    }
}

#[cfg(all(test, not(elbus_model)))]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::layout::{MAX_RING_BYTES, MIN_RING_BYTES};

    #[test]
    fn only_sealed_memory_of_the_right_size_is_mapped() {
        let (_memory, fd) = Memory::create(MIN_RING_BYTES).unwrap();
        assert_eq!(Memory::open(fd.as_fd()).unwrap().ring_bytes(), MIN_RING_BYTES);
        for bytes in [0, 1, MIN_RING_BYTES / 2, MIN_RING_BYTES + 1, MAX_RING_BYTES * 2] {
            assert!(Memory::create(bytes).is_err(), "{bytes}");
        }
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let of_size = |size: u64, seals: SealFlags| {
            let fd = memfd_create("test", flags).unwrap();
            ftruncate(&fd, size).unwrap();
            fcntl_add_seals(&fd, seals).unwrap();
            Memory::open(fd.as_fd()).map(drop).unwrap_err().to_string()
        };
        let right = memory_bytes(MIN_RING_BYTES) as u64;
        assert!(of_size(right, SealFlags::empty()).contains("not sealed"));
        assert!(of_size(right, SealFlags::GROW).contains("not sealed"));
        assert!(of_size(right, REQUIRED_SEALS).contains("unknown version"), "no header");
        for size in [0, 1, 4095, 4096, right - 1, right + 1, right * 3, u64::from(u32::MAX) * 4] {
            assert!(of_size(size, REQUIRED_SEALS).contains("size"), "{size}");
        }
        let pipe = rustix::pipe::pipe().unwrap();
        assert!(Memory::open(pipe.0.as_fd()).is_err(), "no memory at all");
    }

    #[test]
    fn a_peer_cannot_change_the_size_or_the_seals() {
        let (memory, fd) = Memory::create(MIN_RING_BYTES).unwrap();
        let size = memory_bytes(MIN_RING_BYTES) as u64;
        for other in [0, 4096, size - 1, size + 1, size * 2] {
            assert_eq!(ftruncate(&fd, other), Err(Errno::PERM), "{other}");
        }
        assert_eq!(rustix::io::pwrite(&fd, &[1], size), Err(Errno::PERM));
        for seal in [SealFlags::WRITE, SealFlags::FUTURE_WRITE] {
            assert_eq!(fcntl_add_seals(&fd, seal), Err(Errno::PERM));
        }
        // a hole reads as zeroes; it is no fault
        let hole = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&fd, hole, 0, size).unwrap();
        assert_eq!(memory.control().header.magic.load(Relaxed), 0);
        let mut all = vec![MaybeUninit::uninit(); MIN_RING_BYTES as usize];
        assert_eq!(memory.bytes(1).copy_out(7, &mut all), MIN_RING_BYTES as usize);
    }
}
