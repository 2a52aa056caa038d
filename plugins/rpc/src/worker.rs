//! The one thread for control methods that may block, and the bounded queue before it. Never knows what a job is
//! about.

use elbus_plugin_api::{CallError, Code, Qos, Queued};
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;

/// So many calls may wait, and so many bytes of parameters.
pub(crate) const MAX_JOBS: usize = 256;
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// A call of a slow method.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) caller: String,
    pub(crate) caller_id: u64,
    pub(crate) qos: Qos,
    pub(crate) call_id: u32,
    pub(crate) method: String,
    pub(crate) params: Vec<u8>,
}

/// The jobs that wait. Its lock is a leaf.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    jobs: VecDeque<Job>,
    bytes: usize,
    /// The worker is in a job.
    busy: bool,
    ended: bool,
}

impl Job {
    fn bytes(&self) -> usize {
        self.caller.len() + self.method.len() + self.params.len()
    }
}

impl Jobs {
    /// Lets a job wait; never blocks.
    pub(crate) fn add(&self, job: Job) -> Result<(), CallError> {
        let busy = |text| Err(CallError::new(Code::Busy.rpc_code(), text));
        let mut queue = self.queue.lock();
        if queue.ended {
            return busy("the broker's address is closing".to_owned());
        }
        if queue.jobs.len() >= MAX_JOBS {
            return busy(format!("{MAX_JOBS} slow calls are waiting already"));
        }
        let bytes = queue.bytes + job.bytes();
        if bytes > MAX_BYTES {
            return busy(format!("slow calls of {bytes} bytes exceed {MAX_BYTES}"));
        }
        queue.bytes = bytes;
        queue.jobs.push_back(job);
        drop(queue);
        self.changed.notify_one();
        Ok(())
    }

    /// Waits for a job, the one before being done; `None` once it is over.
    pub(crate) fn next(&self) -> Option<Job> {
        let mut queue = self.queue.lock();
        queue.busy = false;
        loop {
            if queue.ended {
                return None;
            }
            if let Some(job) = queue.jobs.pop_front() {
                queue.bytes -= job.bytes();
                queue.busy = true;
                return Some(job);
            }
            self.changed.wait(&mut queue);
        }
    }

    /// Forgets what waits and takes no more. Says whether the worker is in a job.
    pub(crate) fn end(&self) -> bool {
        let mut queue = self.queue.lock();
        let busy = queue.busy;
        *queue = Queue { ended: true, busy, ..Default::default() };
        drop(queue);
        self.changed.notify_all();
        busy
    }

    pub(crate) fn waiting(&self) -> Queued {
        let queue = self.queue.lock();
        Queued { frames: queue.jobs.len() as u64, bytes: queue.bytes as u64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(call_id: u32, bytes: usize) -> Job {
        Job {
            caller: String::new(),
            caller_id: 1,
            qos: Qos::NO,
            call_id,
            method: String::new(),
            params: vec![0; bytes],
        }
    }

    #[test]
    fn the_queue_is_bounded_in_count_and_bytes() {
        let jobs = Jobs::default();
        for n in 0..MAX_JOBS as u32 {
            jobs.add(job(n, 1)).unwrap();
        }
        let error = jobs.add(job(0, 1)).unwrap_err();
        assert_eq!((error.code, error.text.as_str()), (-32118, "256 slow calls are waiting already"));
        assert_eq!(jobs.waiting(), Queued { frames: 256, bytes: 256 });
        for n in 0..MAX_JOBS as u32 {
            assert_eq!(jobs.next().unwrap().call_id, n);
        }
        assert_eq!(jobs.waiting(), Queued::default());
        jobs.add(job(1, MAX_BYTES)).unwrap();
        let error = jobs.add(job(2, 1)).unwrap_err();
        assert_eq!(error.text, "slow calls of 4194305 bytes exceed 4194304");
        assert!(jobs.end(), "in the last one it was given");
        assert!(jobs.next().is_none());
        assert!(!jobs.end());
        assert_eq!(jobs.add(job(3, 0)).unwrap_err().code, -32118);
    }
}
