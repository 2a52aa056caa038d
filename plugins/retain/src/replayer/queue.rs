//! The replays that run or wait, by identity. Owns their limits and the rate of each identity.
//!
//! One lock, a leaf lock. Replays are dropped outside it, since that enters the broker.

use elbus_plugin_api::{
    Notifier,
    rate::{LogThrottle, TokenBucket},
};
use parking_lot::{Condvar, Mutex};
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::{Duration, Instant},
};

use super::Job;

/// Memory of all replays.
pub(super) const MAX_BYTES: usize = 64 << 20;
/// Memory of the replays of one identity.
pub(super) const MAX_IDENTITY_BYTES: usize = MAX_BYTES / 4;
/// What a replay costs beside the topics that it looks at.
const REPLAY_TOPICS: usize = 100;
/// Identities without replays are forgotten beyond this number.
const MAX_IDLE_IDENTITIES: usize = 1024;

/// What the worker does next.
pub(super) enum Work {
    Replay(Job),
    Answer(Notifier),
    End,
}

/// A replay that was not added.
pub(super) struct Refused {
    pub(super) job: Job,
    /// If this can be logged, the number of those that were not.
    pub(super) suppressed: Option<u64>,
}

/// The replays of an identity.
struct Identity {
    ready: VecDeque<Job>,
    bytes: usize,
    bucket: TokenBucket,
}

struct State {
    identities: HashMap<u64, Identity>,
    /// Identities with replays that are ready, in turn.
    turns: VecDeque<u64>,
    /// Those that wait for their clients, by the client and a number.
    waiting: BTreeMap<(u64, u64), Job>,
    last_number: u64,
    bytes: usize,
    count: usize,
    questions: Vec<Notifier>,
    refused: LogThrottle,
    is_ended: bool,
}

pub(super) struct Queue {
    topics_per_second: u64,
    state: Mutex<State>,
    changed: Condvar,
}

impl State {
    fn identity(&mut self, identity: u64, rate: u64, now: Instant) -> &mut Identity {
        if !self.identities.contains_key(&identity) && self.identities.len() >= MAX_IDLE_IDENTITIES {
            self.identities.retain(|_, one| one.bytes > 0 || !one.bucket.until_full(now).is_zero());
        }
        self.identities.entry(identity).or_insert_with(|| Identity {
            ready: VecDeque::new(),
            bytes: 0,
            bucket: TokenBucket::new(rate, now),
        })
    }

    fn make_ready(&mut self, job: Job) {
        let identity = job.identity;
        if let Some(of) = self.identities.get_mut(&identity) {
            of.ready.push_back(job);
            if of.ready.len() == 1 {
                self.turns.push_back(identity);
            }
        }
    }

    /// Counts a replay less.
    fn release(&mut self, job: &Job) {
        self.bytes -= job.bytes;
        self.count -= 1;
        if let Some(of) = self.identities.get_mut(&job.identity) {
            of.bytes -= job.bytes;
        }
    }
}

impl Queue {
    pub(super) fn new(topics_per_second: u64) -> Self {
        let state = State {
            identities: HashMap::new(),
            turns: VecDeque::new(),
            waiting: BTreeMap::new(),
            last_number: 0,
            bytes: 0,
            count: 0,
            questions: Vec::new(),
            refused: LogThrottle::new(1, Duration::from_secs(60)),
            is_ended: false,
        };
        Queue { topics_per_second, state: Mutex::new(state), changed: Condvar::new() }
    }

    pub(super) fn count(&self) -> usize {
        self.state.lock().count
    }

    pub(super) fn ask(&self, answer: Notifier) {
        self.state.lock().questions.push(answer);
        self.changed.notify_one();
    }

    /// Adds a replay, unless there are too many.
    pub(super) fn add(&self, job: Job) -> Result<(), Refused> {
        let now = Instant::now();
        let mut state = self.state.lock();
        let bytes = job.bytes;
        let all = state.bytes + bytes;
        let is_ended = state.is_ended;
        let of = state.identity(job.identity, self.topics_per_second, now);
        if is_ended || all > MAX_BYTES || of.bytes + bytes > MAX_IDENTITY_BYTES {
            let suppressed = state.refused.admit(now).filter(|_| !is_ended);
            return Err(Refused { job, suppressed });
        }
        of.bytes += bytes;
        of.bucket.take(REPLAY_TOPICS as u64, now);
        state.bytes = all;
        state.count += 1;
        state.make_ready(job);
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// Blocks until there is something to do. Identities take turns, and so do the replays of one; an
    /// identity beyond its rate waits.
    pub(super) fn next(&self) -> Work {
        let mut state = self.state.lock();
        loop {
            if state.is_ended {
                return Work::End;
            }
            if let Some(notifier) = state.questions.pop() {
                return Work::Answer(notifier);
            }
            let now = Instant::now();
            let mut pause: Option<Duration> = None;
            for _ in 0..state.turns.len() {
                let Some(identity) = state.turns.pop_front() else { break };
                let Some(of) = state.identities.get_mut(&identity) else { continue };
                if of.bucket.left(now) < 0.0 {
                    let until = of.bucket.until(0.0).max(Duration::from_millis(1));
                    pause = Some(pause.map_or(until, |pause| pause.min(until)));
                    state.turns.push_back(identity);
                    continue;
                }
                let job = of.ready.pop_front();
                if !of.ready.is_empty() {
                    state.turns.push_back(identity);
                }
                if let Some(job) = job {
                    return Work::Replay(job);
                }
            }
            match pause {
                Some(pause) => _ = self.changed.wait_for(&mut state, pause),
                None => self.changed.wait(&mut state),
            }
        }
    }

    /// Counts topics that a replay has looked at against the rate of its identity.
    pub(super) fn charge(&self, identity: u64, topics: usize) {
        if let Some(of) = self.state.lock().identities.get_mut(&identity) {
            of.bucket.take(topics as u64, Instant::now());
        }
    }

    pub(super) fn put_back(&self, job: Job) {
        let mut state = self.state.lock();
        if !state.is_ended {
            return state.make_ready(job);
        }
        drop(state);
        drop(job);
    }

    pub(super) fn finish(&self, job: Job) {
        self.state.lock().release(&job);
        drop(job);
    }

    /// Has a replay wait; returns what [`wake`](Queue::wake) needs.
    pub(super) fn park(&self, job: Job) -> (u64, u64) {
        let mut state = self.state.lock();
        state.last_number += 1;
        let key = (job.client_id, state.last_number);
        let unused = if state.is_ended { Some(job) } else { state.waiting.insert(key, job) };
        drop(state);
        drop(unused);
        key
    }

    /// Continues a replay that waits.
    pub(super) fn wake(&self, client_id: u64, number: u64) {
        let mut state = self.state.lock();
        if let Some(job) = state.waiting.remove(&(client_id, number)) {
            state.make_ready(job);
            drop(state);
            self.changed.notify_one();
        }
    }

    /// Ends the replays that wait for a client that has left. Others of it end in their next turn.
    pub(super) fn forget(&self, client_id: u64) {
        let mut state = self.state.lock();
        let mut ended = Vec::new();
        while let Some((key, _)) = state.waiting.range((client_id, 0)..=(client_id, u64::MAX)).next() {
            let key = *key;
            ended.extend(state.waiting.remove(&key));
        }
        ended.iter().for_each(|job| state.release(job));
        drop(state);
        drop(ended);
    }

    pub(super) fn end(&self) {
        let mut state = self.state.lock();
        state.is_ended = true;
        let waiting = std::mem::take(&mut state.waiting);
        let identities = std::mem::take(&mut state.identities);
        state.turns.clear();
        drop(state);
        self.changed.notify_all();
        drop((waiting, identities));
    }
}
