//! The queues before the threads for control methods that may block: bounded as a whole and for each caller,
//! and served in turn, so that nobody waits for more than one job of every other caller. Never knows what a
//! job is about.

use elbus_plugin_api::{CallError, Code, Qos, Queued};
use parking_lot::{Condvar, Mutex};
use std::collections::{HashMap, VecDeque};

/// How many calls may wait, and with how many bytes of names and parameters.
#[derive(Debug, Clone, Copy)]
pub(crate) struct JobLimits {
    pub(crate) jobs: usize,
    pub(crate) jobs_of_one: usize,
    pub(crate) bytes: usize,
    pub(crate) bytes_of_one: usize,
}

impl JobLimits {
    /// Of methods that anybody may call.
    pub(crate) const ORDINARY: JobLimits =
        JobLimits { jobs: 256, jobs_of_one: 64, bytes: 4 << 20, bytes_of_one: 1 << 20 };
    /// Of administrative methods: what waits was authorised.
    pub(crate) const ADMIN: JobLimits =
        JobLimits { jobs: 64, jobs_of_one: 16, bytes: 1 << 20, bytes_of_one: 256 << 10 };
}

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

/// The jobs that wait for one thread. Its lock is a leaf.
#[derive(Debug)]
pub(crate) struct Jobs {
    limits: JobLimits,
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    /// By caller; none is empty.
    lines: HashMap<u64, Line>,
    /// Each caller that has a line once, whose turn is next first.
    turns: VecDeque<u64>,
    jobs: usize,
    bytes: usize,
    /// The worker is in a job.
    busy: bool,
    ended: bool,
}

/// What waits of one caller.
#[derive(Debug, Default)]
struct Line {
    jobs: VecDeque<Job>,
    bytes: usize,
}

impl Line {
    /// How much of what one caller may have it has, in thousandths.
    fn share(&self, limits: &JobLimits, more_jobs: usize, more_bytes: usize) -> usize {
        let jobs = (self.jobs.len() + more_jobs) * 1000 / limits.jobs_of_one.max(1);
        jobs.max((self.bytes + more_bytes) * 1000 / limits.bytes_of_one.max(1))
    }
}

impl Job {
    fn bytes(&self) -> usize {
        self.caller.len() + self.method.len() + self.params.len()
    }
}

impl Queue {
    fn pop(&mut self) -> Option<Job> {
        let caller = self.turns.pop_front()?;
        let line = self.lines.get_mut(&caller)?;
        let job = line.jobs.pop_front()?;
        line.bytes -= job.bytes();
        self.jobs -= 1;
        self.bytes -= job.bytes();
        if line.jobs.is_empty() {
            self.lines.remove(&caller);
        } else {
            self.turns.push_back(caller);
        }
        Some(job)
    }

    fn push(&mut self, job: Job) {
        let line = self.lines.entry(job.caller_id).or_default();
        if line.jobs.is_empty() {
            self.turns.push_back(job.caller_id);
        }
        line.bytes += job.bytes();
        self.jobs += 1;
        self.bytes += job.bytes();
        line.jobs.push_back(job);
    }

    /// Takes the newest job of the caller with the greatest share, where that exceeds `share`.
    fn displace(&mut self, limits: &JobLimits, share: usize) -> Option<Job> {
        let (caller, line) = self.lines.iter_mut().max_by_key(|(_, line)| line.share(limits, 0, 0))?;
        if line.share(limits, 0, 0) <= share {
            return None;
        }
        let caller = *caller;
        let job = line.jobs.pop_back()?;
        line.bytes -= job.bytes();
        if line.jobs.is_empty() {
            self.lines.remove(&caller);
            self.turns.retain(|turn| *turn != caller);
        }
        self.jobs -= 1;
        self.bytes -= job.bytes();
        Some(job)
    }
}

impl Jobs {
    pub(crate) fn new(limits: JobLimits) -> Self {
        Jobs { limits, queue: Mutex::default(), changed: Condvar::new() }
    }

    /// Lets a job wait; never blocks. Where the queue is full, jobs of callers with a greater share make
    /// room. Returned are those that do not wait any more and whose callers are to be told, the new one among
    /// them if no room was made for it.
    ///
    /// # Errors
    /// The caller has as much waiting as it may, or everybody has.
    pub(crate) fn add(&self, job: Job) -> Result<Vec<Job>, CallError> {
        let JobLimits { jobs, jobs_of_one, bytes, bytes_of_one } = self.limits;
        let busy = |text| Err(CallError::new(Code::Busy.rpc_code(), text));
        let mut queue = self.queue.lock();
        if queue.ended {
            return busy("the broker's address is closing".to_owned());
        }
        let none = Line::default();
        let line = queue.lines.get(&job.caller_id).unwrap_or(&none);
        if line.jobs.len() >= jobs_of_one {
            return busy(format!(
                "{} calls of this client are waiting, the limit is {jobs_of_one}",
                line.jobs.len()
            ));
        }
        let of_one = line.bytes + job.bytes();
        if of_one > bytes_of_one {
            let text =
                format!("the waiting calls of this client have {of_one} bytes, the limit is {bytes_of_one}");
            return busy(text);
        }
        let share = line.share(&self.limits, 1, job.bytes());
        let mut displaced = Vec::new();
        while queue.jobs >= jobs || queue.bytes + job.bytes() > bytes {
            match queue.displace(&self.limits, share) {
                Some(other) => displaced.push(other),
                None if displaced.is_empty() => {
                    return busy(format!("{} calls are waiting, the limit is {jobs}", queue.jobs));
                }
                None => {
                    displaced.push(job);
                    return Ok(displaced);
                }
            }
        }
        queue.push(job);
        drop(queue);
        self.changed.notify_one();
        Ok(displaced)
    }

    /// Waits for a job, the one before being done; `None` once it is over. Callers take turns.
    pub(crate) fn next(&self) -> Option<Job> {
        let mut queue = self.queue.lock();
        queue.busy = false;
        loop {
            if queue.ended {
                return None;
            }
            if let Some(job) = queue.pop() {
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
        Queued { frames: queue.jobs as u64, bytes: queue.bytes as u64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(caller_id: u64, call_id: u32, bytes: usize) -> Job {
        let (caller, method) = (String::new(), String::new());
        Job { caller, caller_id, qos: Qos::NO, call_id, method, params: vec![0; bytes] }
    }

    const LIMITS: JobLimits = JobLimits { jobs: 8, jobs_of_one: 4, bytes: 8000, bytes_of_one: 4000 };

    fn order(jobs: &Jobs) -> Vec<(u64, u32)> {
        let count = jobs.waiting().frames;
        (0..count).map(|_| jobs.next().unwrap()).map(|job| (job.caller_id, job.call_id)).collect()
    }

    #[test]
    fn callers_take_turns_and_each_keeps_its_order() {
        let jobs = Jobs::new(LIMITS);
        for (caller, call) in [(1, 1), (1, 2), (1, 3), (2, 1), (3, 1), (3, 2)] {
            assert!(jobs.add(job(caller, call, 0)).unwrap().is_empty());
        }
        assert_eq!(order(&jobs), [(1, 1), (2, 1), (3, 1), (1, 2), (3, 2), (1, 3)]);
        assert_eq!(jobs.waiting(), Queued::default());
    }

    #[test]
    fn one_caller_is_bounded_in_count_and_bytes() {
        let jobs = Jobs::new(LIMITS);
        (0..4).for_each(|call| assert!(jobs.add(job(1, call, 10)).unwrap().is_empty()));
        let error = jobs.add(job(1, 4, 10)).unwrap_err();
        let text = "4 calls of this client are waiting, the limit is 4";
        assert_eq!((error.code, error.text.as_str()), (-32118, text));
        assert_eq!(jobs.waiting(), Queued { frames: 4, bytes: 40 });
        let error = jobs.add(job(2, 0, 4001)).unwrap_err();
        assert_eq!(error.text, "the waiting calls of this client have 4001 bytes, the limit is 4000");
        assert!(jobs.add(job(2, 0, 4000)).unwrap().is_empty());
    }

    #[test]
    fn a_full_queue_makes_room_for_who_has_less() {
        let jobs = Jobs::new(LIMITS);
        for caller in [1, 2] {
            (0..4).for_each(|call| assert!(jobs.add(job(caller, call, 0)).unwrap().is_empty()));
        }
        let mut displaced = Vec::new();
        for call in 0..2 {
            displaced.extend(jobs.add(job(3, call, 0)).unwrap());
        }
        displaced.sort_by_key(|job| (job.caller_id, job.call_id));
        let displaced: Vec<_> = displaced.iter().map(|job| (job.caller_id, job.call_id)).collect();
        assert_eq!(displaced.len(), 2, "until all have about the same: {displaced:?}");
        assert!(
            displaced.iter().all(|(caller, call)| *caller < 3 && *call == 3),
            "the newest go: {displaced:?}"
        );
        let error = jobs.add(job(3, 2, 0)).unwrap_err();
        assert_eq!(error.text, "8 calls are waiting, the limit is 8");
        assert_eq!(order(&jobs).len(), 8);
    }

    #[test]
    fn a_queue_full_of_bytes_makes_room_for_who_has_less() {
        let jobs = Jobs::new(LIMITS);
        for caller in [1, 2] {
            assert!(jobs.add(job(caller, 0, 1000)).unwrap().is_empty());
            assert!(jobs.add(job(caller, 1, 3000)).unwrap().is_empty());
        }
        let displaced = jobs.add(job(3, 0, 100)).unwrap();
        assert_eq!(displaced.len(), 1);
        assert_eq!((displaced[0].call_id, displaced[0].params.len()), (1, 3000));
        assert_eq!(jobs.waiting(), Queued { frames: 4, bytes: 5100 });
    }

    #[test]
    fn the_end_forgets_what_waits() {
        let jobs = Jobs::new(LIMITS);
        jobs.add(job(1, 1, 0)).unwrap();
        jobs.add(job(1, 2, 0)).unwrap();
        assert!(jobs.next().is_some());
        assert!(jobs.end(), "in the one it was given");
        assert!(jobs.next().is_none());
        assert!(!jobs.end());
        assert_eq!(jobs.add(job(1, 3, 0)).unwrap_err().code, -32118);
    }
}
