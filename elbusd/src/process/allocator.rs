//! Settings of glibc's allocator, and returning free memory to the system. Concerns the whole process: a
//! program's decision, never a library's.

/// Makes glibc keep freed memory until [`release_unused_memory`] is called, and use one arena. Must be called
/// before the first thread is started.
///
/// By default glibc returns large blocks and the free end of the heap at once, so buffers that are used in
/// each burst are mapped, zeroed and unmapped every time: a quarter of the broker's time. Each thread also
/// has an arena of its own, of which some megabytes are kept even by `malloc_trim`. A setting is left alone
/// if its environment variable of mallopt(3) is set. Does nothing with other C libraries.
pub(crate) fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: the signature is that of malloc.h; the function takes its own locks, knows its parameters,
        // and changes nothing but its settings.
        unsafe extern "C" {
            safe fn mallopt(parameter: core::ffi::c_int, value: core::ffi::c_int) -> core::ffi::c_int;
        }
        // the numbers of malloc.h; 32 MiB is the largest threshold that is accepted
        for (variable, parameter, value) in [
            ("MALLOC_ARENA_MAX", -8, 1),
            ("MALLOC_MMAP_THRESHOLD_", -3, 32 << 20),
            ("MALLOC_TRIM_THRESHOLD_", -1, core::ffi::c_int::MAX),
        ] {
            if std::env::var_os(variable).is_none() {
                // a refusal costs memory or time only
                let _ = mallopt(parameter, value);
            }
        }
    }
}

/// Returns memory that the allocator keeps to the system. Any thread; takes up to some milliseconds, in which
/// other threads that allocate may wait.
///
/// Freed memory lies between blocks in use, so the allocator does not return it by itself; after many clients
/// have left it is most of the process. Includes loaded plugins, which share the C library. Does nothing if
/// that is not glibc.
pub(crate) fn release_unused_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: the signature is that of malloc.h; the function takes its own locks and touches free memory
        // only, so any thread may call it at any time, with any number.
        unsafe extern "C" {
            safe fn malloc_trim(pad: usize) -> core::ffi::c_int;
        }
        // whether anything was returned makes no difference
        let _ = malloc_trim(0);
    }
}
