//! Per-thread pools of send buffers, so that an idle queue holds no memory. Owns the pools, and frees the
//! buffers left over from a burst.

use parking_lot::Mutex;
use std::sync::{Arc, Weak};

/// Buffers kept per thread. With fewer, the allocator maps and unmaps memory all the time.
const MAX_BUFFERS: usize = 16;
/// Largest capacity of a kept buffer, in bytes.
const MAX_BUFFER_BYTES: usize = 512 * 1024;

#[derive(Default)]
struct Pool {
    buffers: Vec<Vec<u8>>,
    /// Smallest number of pooled buffers since the last [`release_unused`]: that many were not needed.
    fewest: usize,
}

/// The pools of all threads. Lock order: this, then a pool. A pool's lock is taken last and never held across
/// a call.
static POOLS: Mutex<Vec<Weak<Mutex<Pool>>>> = Mutex::new(Vec::new());

thread_local! {
    static POOL: Arc<Mutex<Pool>> = {
        let pool = Arc::default();
        POOLS.lock().push(Arc::downgrade(&pool));
        pool
    };
}

/// Takes a buffer from this thread's pool, or an empty one. Its contents are leftovers.
#[inline]
pub(crate) fn take() -> Vec<u8> {
    let taken = POOL.try_with(|pool| {
        let mut pool = pool.lock();
        let buffer = pool.buffers.pop();
        pool.fewest = pool.fewest.min(pool.buffers.len());
        buffer
    });
    taken.ok().flatten().unwrap_or_default()
}

/// Returns a buffer to this thread's pool, or frees it.
#[inline]
pub(crate) fn give_back(buffer: Vec<u8>) {
    if buffer.capacity() == 0 || buffer.capacity() > MAX_BUFFER_BYTES {
        return;
    }
    // a thread that is ending has no pool any more; the buffer is freed
    let _ = POOL.try_with(|pool| {
        let mut pool = pool.lock();
        if pool.buffers.len() < MAX_BUFFERS {
            pool.buffers.push(buffer);
        }
    });
}

/// Frees the buffers that were not needed since the last call. Call it every few seconds, from any thread; it
/// waits at most for another thread that takes a buffer.
pub fn release_unused() {
    let mut unused = vec![];
    POOLS.lock().retain(|pool| {
        let Some(pool) = pool.upgrade() else { return false };
        let mut pool = pool.lock();
        let kept = pool.buffers.len() - pool.fewest.min(pool.buffers.len());
        unused.extend(pool.buffers.drain(kept..));
        pool.fewest = pool.buffers.len();
        true
    });
    drop(unused); // freed outside the locks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_go_round_and_are_released() {
        // a new thread has a pool that no other test touches, except through `release_unused`
        std::thread::spawn(|| {
            let mut buffer = take();
            buffer.reserve_exact(1000);
            buffer.push(1);
            let address = buffer.as_ptr();
            give_back(buffer);
            let again = take();
            assert!(
                again.as_ptr() == address || again.capacity() == 0,
                "reused, unless another test released it"
            );
            give_back(Vec::with_capacity(MAX_BUFFER_BYTES + 1));
            assert_eq!(take().capacity(), 0, "larger than MAX_CAPACITY");
            give_back(Vec::with_capacity(10));
            release_unused();
            release_unused();
            assert_eq!(take().capacity(), 0, "released");
        })
        .join()
        .unwrap();
    }
}
