//! Memory that was freed and that the allocator keeps. Owns the calls that give it back to the system.

/// Has all threads allocate from one arena. Otherwise each has one of its own, and of these glibc keeps the free end, up
/// to some megabytes, even when [`release_unused_memory`] asks for it. To be called before the first thread is started;
/// for programs, not for libraries, since it concerns all of the process. Leaves it alone where `MALLOC_ARENA_MAX` is
/// set, and where the C library is not glibc.
pub fn use_one_arena() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: the signature is that of malloc.h; the function takes its own locks, knows which parameters there are,
        // and touches nothing but its settings.
        unsafe extern "C" {
            safe fn mallopt(parameter: core::ffi::c_int, value: core::ffi::c_int) -> core::ffi::c_int;
        }
        /// Of malloc.h.
        const M_ARENA_MAX: core::ffi::c_int = -8;
        if std::env::var_os("MALLOC_ARENA_MAX").is_none() {
            // where it is refused there are several, which costs memory only
            let _ = mallopt(M_ARENA_MAX, 1);
        }
    }
}

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
