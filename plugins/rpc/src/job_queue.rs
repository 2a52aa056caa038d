//! The queues of the threads for slow control methods: limited in total, per identity and per caller, and
//! served in turn. A job waits for at most one job of every other identity, and of every other caller of its
//! own identity. Runs no job.

use elbus_plugin_api::{CallError, Code, Qos, Queued};
use parking_lot::{Condvar, Mutex};
use std::collections::{HashMap, VecDeque};

/// A number of calls, and the bytes of their names and parameters.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Amount {
    pub(crate) jobs: usize,
    pub(crate) bytes: usize,
}

/// The limits of the queued jobs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct JobLimits {
    pub(crate) all: Amount,
    pub(crate) identity: Amount,
    pub(crate) caller: Amount,
}

impl JobLimits {
    /// The limits of methods that every client may call. One identity leaves room for others.
    pub(crate) const ORDINARY: JobLimits = JobLimits {
        all: Amount { jobs: 256, bytes: 4 << 20 },
        identity: Amount { jobs: 192, bytes: 3 << 20 },
        caller: Amount { jobs: 64, bytes: 1 << 20 },
    };
    /// The limits of administrative methods: queued calls have been authorised, and have no identity.
    pub(crate) const ADMIN: JobLimits = JobLimits {
        all: Amount { jobs: 64, bytes: 1 << 20 },
        identity: Amount { jobs: 64, bytes: 1 << 20 },
        caller: Amount { jobs: 16, bytes: 256 << 10 },
    };
}

impl Amount {
    fn with(self, job: &Job) -> Self {
        Amount { jobs: self.jobs + 1, bytes: self.bytes + job.bytes() }
    }

    fn without(self, job: &Job) -> Self {
        Amount { jobs: self.jobs - 1, bytes: self.bytes - job.bytes() }
    }

    /// Returns the part of `limit` that is used, in thousandths.
    fn share(self, limit: Amount) -> usize {
        (self.jobs * 1000 / limit.jobs.max(1)).max(self.bytes * 1000 / limit.bytes.max(1))
    }

    /// Returns why a queue of this amount is over its limit. `whose` describes the calls, for the message.
    fn exceeds(self, limit: Amount, whose: &str) -> Option<String> {
        if self.jobs > limit.jobs {
            return Some(format!("{} calls{whose} are queued, the limit is {}", self.jobs - 1, limit.jobs));
        }
        let text =
            || format!("the queued calls{whose} have {} bytes, the limit is {}", self.bytes, limit.bytes);
        (self.bytes > limit.bytes).then(text)
    }
}

/// A call of a slow method.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) caller: String,
    pub(crate) caller_id: u64,
    /// The identity of the caller, see [`Host::identity`](elbus_plugin_api::Host::identity).
    pub(crate) identity: u64,
    pub(crate) qos: Qos,
    pub(crate) call_id: u32,
    pub(crate) method: String,
    pub(crate) params: Vec<u8>,
}

impl Job {
    fn bytes(&self) -> usize {
        self.caller.len() + self.method.len() + self.params.len()
    }
}

/// The queued jobs of one thread. A leaf lock.
#[derive(Debug)]
pub(crate) struct Jobs {
    limits: JobLimits,
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    /// The groups of jobs by identity; none is empty.
    groups: HashMap<u64, Group>,
    /// The identity of each caller that has a queue.
    identities: HashMap<u64, u64>,
    /// Each identity with a group, once, in the order of turns.
    turns: VecDeque<u64>,
    held: Amount,
    /// The worker is running a job.
    busy: bool,
    ended: bool,
}

/// The queued jobs of one identity.
#[derive(Debug, Default)]
struct Group {
    /// The queues by caller; none is empty.
    queues: HashMap<u64, CallerQueue>,
    /// Each caller with a queue, once, in the order of turns.
    turns: VecDeque<u64>,
    held: Amount,
}

/// The queued jobs of one caller.
#[derive(Debug, Default)]
struct CallerQueue {
    jobs: VecDeque<Job>,
    held: Amount,
}

impl Group {
    fn push(&mut self, job: Job) {
        let queue = self.queues.entry(job.caller_id).or_default();
        if queue.jobs.is_empty() {
            self.turns.push_back(job.caller_id);
        }
        queue.held = queue.held.with(&job);
        self.held = self.held.with(&job);
        queue.jobs.push_back(job);
    }

    fn pop(&mut self) -> Option<Job> {
        let caller = self.turns.pop_front()?;
        let queue = self.queues.get_mut(&caller)?;
        let job = queue.jobs.pop_front()?;
        queue.held = queue.held.without(&job);
        self.held = self.held.without(&job);
        if queue.jobs.is_empty() {
            self.queues.remove(&caller);
        } else {
            self.turns.push_back(caller);
        }
        Some(job)
    }

    /// Removes the newest job of the caller with the greatest share, if that exceeds `share`.
    fn displace(&mut self, limits: &JobLimits, share: usize) -> Option<Job> {
        let share_of = |queue: &CallerQueue| queue.held.share(limits.caller);
        let (caller, queue) = self.queues.iter_mut().max_by_key(|(_, queue)| share_of(queue))?;
        if share_of(queue) <= share {
            return None;
        }
        let caller = *caller;
        let job = queue.jobs.pop_back()?;
        queue.held = queue.held.without(&job);
        self.held = self.held.without(&job);
        if queue.jobs.is_empty() {
            self.queues.remove(&caller);
            self.turns.retain(|turn| *turn != caller);
        }
        Some(job)
    }
}

impl Queue {
    fn push(&mut self, job: Job) {
        let group = self.groups.entry(job.identity).or_default();
        if group.queues.is_empty() {
            self.turns.push_back(job.identity);
        }
        self.held = self.held.with(&job);
        self.identities.insert(job.caller_id, job.identity);
        group.push(job);
    }

    fn pop(&mut self) -> Option<Job> {
        let identity = self.turns.pop_front()?;
        let group = self.groups.get_mut(&identity)?;
        let job = group.pop()?;
        if !group.queues.contains_key(&job.caller_id) {
            self.identities.remove(&job.caller_id);
        }
        self.held = self.held.without(&job);
        if group.queues.is_empty() {
            self.groups.remove(&identity);
        } else {
            self.turns.push_back(identity);
        }
        Some(job)
    }

    /// Returns the queued amounts of an identity and of one of its callers.
    fn held_of(&self, job: &Job) -> (Amount, Amount) {
        let Some(group) = self.groups.get(&job.identity) else { return Default::default() };
        (group.held, group.queues.get(&job.caller_id).map_or(Amount::default(), |queue| queue.held))
    }

    /// Removes a job to make room for another one: a job of the identity with the greatest share, if that
    /// exceeds the share of the other job's identity; otherwise one of a caller of the same identity with a
    /// greater share.
    fn displace(&mut self, limits: &JobLimits, job: &Job) -> Option<Job> {
        let (identity, caller) = self.held_of(job);
        let share = identity.with(job).share(limits.identity);
        let greatest = self.groups.iter().max_by_key(|(_, group)| group.held.share(limits.identity));
        match greatest.filter(|(_, group)| group.held.share(limits.identity) > share) {
            Some((identity, _)) => self.displace_of(*identity, limits, 0),
            None => self.displace_of(job.identity, limits, caller.with(job).share(limits.caller)),
        }
    }

    /// Removes the newest job of the caller of an identity with the greatest share, if that exceeds `share`.
    fn displace_of(&mut self, identity: u64, limits: &JobLimits, share: usize) -> Option<Job> {
        let group = self.groups.get_mut(&identity)?;
        let job = group.displace(limits, share)?;
        if !group.queues.contains_key(&job.caller_id) {
            self.identities.remove(&job.caller_id);
        }
        self.held = self.held.without(&job);
        if group.queues.is_empty() {
            self.groups.remove(&identity);
            self.turns.retain(|turn| *turn != identity);
        }
        Some(job)
    }
}

impl Jobs {
    pub(crate) fn new(limits: JobLimits) -> Self {
        Jobs { limits, queue: Mutex::default(), changed: Condvar::new() }
    }

    /// Refuses a caller that has reached its limit, before its next job is prepared.
    ///
    /// # Errors
    /// The caller has reached its limit.
    pub(crate) fn check(&self, caller_id: u64) -> Result<(), CallError> {
        let queue = self.queue.lock();
        let group = queue.identities.get(&caller_id).and_then(|identity| queue.groups.get(identity));
        let held = group.and_then(|group| group.queues.get(&caller_id)).map_or(0, |queue| queue.held.jobs);
        let limit = self.limits.caller.jobs;
        if held < limit {
            return Ok(());
        }
        let text = format!("{held} calls of this client are queued, the limit is {limit}");
        Err(CallError::new(Code::Busy.rpc_code(), text))
    }

    /// Queues a job; never blocks. If the queue is full, jobs of identities with a greater share are
    /// displaced, or jobs of callers with a greater share of the same identity. Returns the displaced jobs,
    /// whose callers must be answered; the new job is among them if no room could be made for it.
    ///
    /// # Errors
    /// The limit of the caller, of its identity, or of the queue is reached.
    pub(crate) fn add(&self, job: Job) -> Result<Vec<Job>, CallError> {
        let limits = &self.limits;
        let busy = |text| Err(CallError::new(Code::Busy.rpc_code(), text));
        let mut queue = self.queue.lock();
        if queue.ended {
            return busy("the broker's address is closing".to_owned());
        }
        let mut displaced = Vec::new();
        loop {
            let (identity, caller) = queue.held_of(&job);
            if let Some(why) = caller.with(&job).exceeds(limits.caller, " of this client") {
                return busy(why);
            }
            // an identity at its limit has the greatest share
            let (why, other) = if let Some(why) = queue.held.with(&job).exceeds(limits.all, "") {
                (why, queue.displace(limits, &job))
            } else if let Some(why) =
                identity.with(&job).exceeds(limits.identity, " of clients of this identity")
            {
                let share = caller.with(&job).share(limits.caller);
                (why, queue.displace_of(job.identity, limits, share))
            } else {
                break;
            };
            match other {
                Some(other) => displaced.push(other),
                None if displaced.is_empty() => return busy(why),
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

    /// Ends the previous job and waits for the next one; `None` once the queue has ended. Identities take
    /// turns, and so do the callers of each.
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

    /// Ends the queue and drops its jobs. Returns whether the worker is running one.
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
        Queued { frames: queue.held.jobs as u64, bytes: queue.held.bytes as u64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job_of(identity: u64, caller_id: u64, call_id: u32, bytes: usize) -> Job {
        let (caller, method) = (String::new(), String::new());
        Job { caller, caller_id, identity, qos: Qos::NO, call_id, method, params: vec![0; bytes] }
    }

    fn job(caller_id: u64, call_id: u32, bytes: usize) -> Job {
        job_of(0, caller_id, call_id, bytes)
    }

    const LIMITS: JobLimits = JobLimits {
        all: Amount { jobs: 8, bytes: 8000 },
        identity: Amount { jobs: 8, bytes: 8000 },
        caller: Amount { jobs: 4, bytes: 4000 },
    };
    const SHARED: JobLimits = JobLimits { identity: Amount { jobs: 6, bytes: 6000 }, ..LIMITS };

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
        assert!(jobs.queue.lock().identities.is_empty());
        assert_eq!(jobs.waiting(), Queued::default());
    }

    #[test]
    fn one_caller_is_bounded_in_count_and_bytes() {
        let jobs = Jobs::new(LIMITS);
        (0..4).for_each(|call| assert!(jobs.add(job(1, call, 10)).unwrap().is_empty()));
        let error = jobs.add(job(1, 4, 10)).unwrap_err();
        let text = "4 calls of this client are queued, the limit is 4";
        assert_eq!((error.code, error.text.as_str()), (-32118, text));
        assert_eq!(jobs.check(1).unwrap_err(), error);
        assert!(jobs.check(2).is_ok());
        assert_eq!(jobs.waiting(), Queued { frames: 4, bytes: 40 });
        let error = jobs.add(job(2, 0, 4001)).unwrap_err();
        assert_eq!(error.text, "the queued calls of this client have 4001 bytes, the limit is 4000");
        assert!(jobs.add(job(2, 0, 4000)).unwrap().is_empty());
    }

    #[test]
    fn a_full_queue_makes_room_for_a_caller_with_fewer_jobs() {
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
        assert_eq!(displaced.len(), 2, "until all callers have about the same: {displaced:?}");
        assert!(
            displaced.iter().all(|(caller, call)| *caller < 3 && *call == 3),
            "the newest jobs are displaced: {displaced:?}"
        );
        let error = jobs.add(job(3, 2, 0)).unwrap_err();
        assert_eq!(error.text, "8 calls are queued, the limit is 8");
        assert_eq!(order(&jobs).len(), 8);
    }

    #[test]
    fn a_queue_full_of_bytes_makes_room_for_a_caller_with_fewer_bytes() {
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

    /// Identity, caller and call of each job.
    fn keys(jobs: impl IntoIterator<Item = Job>) -> Vec<(u64, u64, u32)> {
        jobs.into_iter().map(|job| (job.identity, job.caller_id, job.call_id)).collect()
    }

    #[test]
    fn identities_take_turns_and_so_do_the_callers_of_each() {
        let jobs = Jobs::new(LIMITS);
        for (identity, caller, call) in [(1, 1, 1), (1, 1, 2), (1, 2, 1), (1, 3, 1), (2, 4, 1), (2, 4, 2)] {
            assert!(jobs.add(job_of(identity, caller, call, 0)).unwrap().is_empty());
        }
        let order = keys((0..6).map(|_| jobs.next().unwrap()));
        assert_eq!(order, [(1, 1, 1), (2, 4, 1), (1, 2, 1), (2, 4, 2), (1, 3, 1), (1, 1, 2)]);
        assert_eq!(jobs.waiting(), Queued::default());
    }

    #[test]
    fn an_identity_leaves_room_for_others_with_any_number_of_callers() {
        let jobs = Jobs::new(SHARED);
        (0..6).for_each(|caller| assert!(jobs.add(job_of(1, caller, 0, 0)).unwrap().is_empty()));
        for caller in 6..300 {
            let error = jobs.add(job_of(1, caller, 0, 0)).unwrap_err();
            assert_eq!(error.text, "6 calls of clients of this identity are queued, the limit is 6");
        }
        (0..2).for_each(|call| assert!(jobs.add(job_of(2, 500, call, 0)).unwrap().is_empty()));
        let error = jobs.add(job_of(1, 7, 0, 0)).unwrap_err();
        assert_eq!(error.code, -32118);
        assert_eq!(
            keys(jobs.add(job_of(2, 500, 2, 0)).unwrap()).len(),
            1,
            "a job of the first identity is displaced"
        );
        let bytes = jobs.add(job_of(3, 600, 0, 4000)).unwrap();
        assert_eq!(keys(bytes).len(), 1, "a job of the identity with the greatest share");
        let order = keys((0..8).map(|_| jobs.next().unwrap()));
        assert_eq!(order[1..3], [(2, 500, 0), (3, 600, 0)]);
    }

    #[test]
    fn a_full_identity_makes_room_for_its_caller_with_fewer_jobs() {
        let jobs = Jobs::new(SHARED);
        (0..4).for_each(|call| assert!(jobs.add(job_of(1, 1, call, 0)).unwrap().is_empty()));
        (0..2).for_each(|call| assert!(jobs.add(job_of(1, 2, call, 0)).unwrap().is_empty()));
        assert!(jobs.add(job_of(2, 9, 0, 0)).unwrap().is_empty());
        assert_eq!(keys(jobs.add(job_of(1, 3, 0, 0)).unwrap()), [(1, 1, 3)]);
        // no job of another identity was displaced
        assert_eq!(keys((0..2).map(|_| jobs.next().unwrap())), [(1, 1, 0), (2, 9, 0)]);
    }

    #[test]
    fn the_bytes_of_an_identity_are_bounded() {
        let jobs = Jobs::new(SHARED);
        (0..3).for_each(|caller| assert!(jobs.add(job_of(1, caller, 0, 2000)).unwrap().is_empty()));
        let error = jobs.add(job_of(1, 3, 0, 2000)).unwrap_err();
        let text = "the queued calls of clients of this identity have 8000 bytes, the limit is 6000";
        assert_eq!(error.text, text);
        assert!(jobs.add(job_of(2, 9, 0, 2000)).unwrap().is_empty());
    }

    #[test]
    fn the_end_drops_queued_jobs() {
        let jobs = Jobs::new(LIMITS);
        jobs.add(job(1, 1, 0)).unwrap();
        jobs.add(job(1, 2, 0)).unwrap();
        assert!(jobs.next().is_some());
        assert!(jobs.end(), "the worker is running its job");
        assert!(jobs.next().is_none());
        assert!(!jobs.end());
        assert_eq!(jobs.add(job(1, 3, 0)).unwrap_err().code, -32118);
    }
}
