//! The lock, the hints and the tasks of a connection: those of parking_lot, std and tokio, and in a build for
//! the models (`--cfg elbus_model`) those of shuttle, which tries the orders in which threads may run. Owns
//! no logic.

#[cfg(not(elbus_model))]
pub(crate) use parking_lot::{Mutex, MutexGuard};
#[cfg(not(elbus_model))]
pub(crate) use std::sync::atomic::AtomicBool;

#[cfg(elbus_model)]
pub(crate) use model::Mutex;
#[cfg(elbus_model)]
pub(crate) use shuttle::sync::{MutexGuard, atomic::AtomicBool};

/// Runs a task of a connection on the runtime of its instance.
pub(crate) fn spawn(runtime: &tokio::runtime::Handle, task: impl Future<Output = ()> + Send + 'static) {
    #[cfg(not(elbus_model))]
    runtime.spawn(task);
    #[cfg(elbus_model)]
    {
        let _ = runtime;
        shuttle::future::spawn(task);
    }
}

#[cfg(elbus_model)]
mod model {
    use shuttle::sync::{self, MutexGuard};
    use std::sync::PoisonError;

    pub(crate) struct Mutex<T>(sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Mutex(sync::Mutex::new(value))
        }

        pub(crate) fn get_mut(&mut self) -> &mut T {
            self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }
}
