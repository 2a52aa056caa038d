//! Memory that was freed and that the allocator keeps. Owns the one call that gives it back to the system.

/// Gives memory that is free, but kept by the allocator, back to the system. What was freed lies between what is in use,
/// so the allocator does not do that by itself; after a crowd has left it is most of the process. Takes up to some
/// milliseconds, in which other threads that allocate may wait; any thread. Loaded plugins are included, since they
/// share the C library. Does nothing where that is not glibc.
pub fn release_unused_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: the signature is that of malloc.h; the function takes its own locks and touches free memory only, so
        // any thread may call it at any time, with any number.
        unsafe extern "C" {
            safe fn malloc_trim(pad: usize) -> core::ffi::c_int;
        }
        // whether anything was given back makes no difference
        let _ = malloc_trim(0);
    }
}
