//! Where the tasks of an instance run: on the runtime of the embedding program, or on its own. Owns that
//! choice and the end of an own runtime, which never blocks and never panics.

use std::{io, sync::Arc};
use tokio::runtime::{Builder, Handle, RuntimeFlavor};

use crate::server::driver_watch::DriverWatch;

/// The runtime of an instance.
pub(crate) struct Runtime {
    /// `None` where the program's is used, and after the end.
    own: Option<tokio::runtime::Runtime>,
    handle: Handle,
    /// Keeps other workers polling while a callback blocks one; `None` if there is a single worker.
    _watch: Option<Arc<DriverWatch>>,
}

impl Runtime {
    /// The runtime that the calling thread is in, else a new one with `workers` threads named after the
    /// instance.
    ///
    /// The program's runtime must have its I/O and time drivers enabled.
    pub(crate) fn obtain(instance: &str, workers: usize) -> io::Result<Self> {
        if let Ok(handle) = Handle::try_current() {
            let _watch = DriverWatch::over(&handle)?;
            return Ok(Runtime { own: None, handle, _watch });
        }
        let own = Builder::new_multi_thread()
            .worker_threads(workers)
            .thread_name(instance)
            .enable_io()
            .enable_time()
            .build()?;
        let handle = own.handle().clone();
        let _watch = DriverWatch::over(&handle)?;
        Ok(Runtime { own: Some(own), handle, _watch })
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Whether no task can make progress while the calling thread waits.
    pub(crate) fn needs_this_thread(&self) -> bool {
        self.handle.runtime_flavor() == RuntimeFlavor::CurrentThread
            && Handle::try_current().is_ok_and(|current| current.id() == self.handle.id())
    }
}

impl Drop for Runtime {
    /// An own runtime ends in the background: waiting for it is not allowed inside another runtime.
    fn drop(&mut self) {
        if let Some(own) = self.own.take() {
            own.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_without_runtime_gets_one() {
        let runtime = Runtime::obtain("own", 1).unwrap();
        assert!(runtime.own.is_some() && !runtime.needs_this_thread());
        let name = runtime.handle().spawn(async { std::thread::current().name().map(str::to_owned) });
        let outside = Builder::new_current_thread().build().unwrap();
        assert_eq!(outside.block_on(name).unwrap().as_deref(), Some("own"));
        // dropped inside another runtime, where tokio's own drop would panic
        outside.block_on(async move { drop(runtime) });
    }

    #[test]
    fn the_runtime_of_the_program_is_used() {
        let outside = Builder::new_current_thread().build().unwrap();
        outside.block_on(async {
            let runtime = Runtime::obtain("none", 1).unwrap();
            assert!(runtime.own.is_none() && runtime.needs_this_thread());
        });
    }
}
