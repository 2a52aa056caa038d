//! Memory that was freed and that the allocator keeps. Owns the calls that give it back to the system.

/// Sets the allocator of glibc to keep what is freed until [`release_unused_memory`] is called, and to have one arena. By
/// itself it gives large pieces and the free end of the heap back at once, so that buffers which come and go with each
/// burst are mapped, zeroed and unmapped each time, a quarter of the broker's time; and each thread has an arena of its
/// own, of which some megabytes stay even when asked for. To be called before the first thread is started, by programs that
/// call [`release_unused_memory`] when it is quiet; not by libraries, since it concerns all of the process. A setting whose
/// environment variable of mallopt(3) is set is left alone; nothing is done where the C library is not glibc.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: the signature is that of malloc.h; the function takes its own locks, knows which parameters there are,
        // and touches nothing but its settings.
        unsafe extern "C" {
            safe fn mallopt(parameter: core::ffi::c_int, value: core::ffi::c_int) -> core::ffi::c_int;
        }
        // the numbers of malloc.h; 32 MiB is the largest threshold it takes
        for (variable, parameter, value) in [
            ("MALLOC_ARENA_MAX", -8, 1),
            ("MALLOC_MMAP_THRESHOLD_", -3, 32 << 20),
            ("MALLOC_TRIM_THRESHOLD_", -1, core::ffi::c_int::MAX),
        ] {
            if std::env::var_os(variable).is_none() {
                // where it is refused, that costs memory or time only
                let _ = mallopt(parameter, value);
            }
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
