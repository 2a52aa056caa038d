//! The locks and atomics of routing and events: those of parking_lot and std, and in a build for the models
//! (`--cfg elbus_model`) those of shuttle, which tries the orders in which threads may run. Owns no logic.

#[cfg(not(elbus_model))]
pub(crate) use parking_lot::{Mutex, RwLock};
#[cfg(not(elbus_model))]
pub(crate) use plain::{Turn, wait_until};
#[cfg(not(elbus_model))]
pub(crate) use std::sync::atomic;

#[cfg(elbus_model)]
pub(crate) use model::{Mutex, RwLock, Turn, wait_until};
#[cfg(elbus_model)]
pub(crate) use shuttle::sync::atomic;

#[cfg(not(elbus_model))]
mod plain {
    use parking_lot::ReentrantMutex;
    use std::{
        thread,
        time::{Duration, Instant},
    };

    /// Checks so often before it sleeps between two checks.
    const YIELDS: usize = 100;
    const SLEEP: Duration = Duration::from_micros(50);

    /// Waits for something that takes microseconds; returns whether it was so within `limit`.
    pub(crate) fn wait_until(limit: Duration, is_so: impl Fn() -> bool) -> bool {
        let begun = Instant::now();
        for check in 0.. {
            if is_so() {
                return true;
            }
            match check {
                0..YIELDS => thread::yield_now(),
                _ if begun.elapsed() >= limit => return false,
                _ => thread::sleep(SLEEP),
            }
        }
        false
    }

    /// Lets one thread at a time do something, which may do it again itself.
    #[derive(Default)]
    pub(crate) struct Turn(ReentrantMutex<()>);

    impl Turn {
        /// Calls `f` when it is the thread's turn, or after `limit`.
        pub(crate) fn take<R>(&self, limit: Duration, f: impl FnOnce() -> R) -> R {
            let _turn = self.0.try_lock_for(limit);
            f()
        }
    }
}

#[cfg(elbus_model)]
mod model {
    use shuttle::sync::{self, MutexGuard, RwLockReadGuard, RwLockWriteGuard};
    use std::sync::PoisonError;

    #[derive(Default)]
    pub(crate) struct Mutex<T>(sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Mutex(sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }

        pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
            self.0.try_lock().ok()
        }
    }

    /// Lets one thread at a time do something. The models do nothing within it that takes it again.
    #[derive(Default)]
    pub(crate) struct Turn(sync::Mutex<()>);

    impl Turn {
        pub(crate) fn take<R>(&self, _: std::time::Duration, f: impl FnOnce() -> R) -> R {
            let _turn = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            f()
        }
    }

    pub(crate) fn wait_until(_: std::time::Duration, is_so: impl Fn() -> bool) -> bool {
        while !is_so() {
            shuttle::thread::yield_now();
        }
        true
    }

    #[derive(Default)]
    pub(crate) struct RwLock<T>(sync::RwLock<T>);

    impl<T> RwLock<T> {
        pub(crate) fn new(value: T) -> Self {
            RwLock(sync::RwLock::new(value))
        }

        pub(crate) fn read(&self) -> RwLockReadGuard<'_, T> {
            self.0.read().unwrap_or_else(PoisonError::into_inner)
        }

        pub(crate) fn write(&self) -> RwLockWriteGuard<'_, T> {
            self.0.write().unwrap_or_else(PoisonError::into_inner)
        }
    }
}
