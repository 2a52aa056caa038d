//! Whether this node has its name: listening, claiming, defending (section 4).

use crate::output::OwnName;
use std::time::Duration;

/// Shortest time between two answers to another start of this name.
const DEFENCE_INTERVAL: Duration = Duration::from_millis(100);
/// Starts of this name that are answered within that time. Anybody can repeat beacons of earlier ones.
const MAX_DEFENDED: usize = 8;

/// Whether this node has its name, and what it should say about it.
#[derive(Debug)]
pub(super) struct Claim {
    epoch: u64,
    listen: Duration,
    lost_after: Duration,
    beat: Duration,
    state: State,
    next_beacon: Duration,
    /// When the name was last defended against each of the latest starts that want it.
    defended: Vec<(u64, Duration)>,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// Not connected yet, or stopped.
    Off,
    Listening {
        until: Duration,
    },
    Claimed {
        count: u64,
    },
    Taken {
        defended_at: Duration,
    },
}

/// What a node says about its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Beacon {
    pub(super) has_name: bool,
    pub(super) count: u64,
    pub(super) contender: u64,
}

impl Claim {
    pub(super) fn new(epoch: u64, listen: Duration, lost_after: Duration, beat: Duration) -> Self {
        let next_beacon = Duration::ZERO;
        Claim { epoch, listen, lost_after, beat, state: State::Off, next_beacon, defended: Vec::new() }
    }

    /// Returns whether the node has its name.
    pub(super) fn has_name(&self) -> bool {
        matches!(self.state, State::Claimed { .. })
    }

    /// The engine is connected. Returns the state if it has changed.
    pub(super) fn connected(&mut self, now: Duration) -> Option<OwnName> {
        self.next_beacon = now;
        match &mut self.state {
            State::Off => {
                self.state = State::Listening { until: now + self.listen };
                return Some(OwnName::Listening);
            }
            State::Listening { until } => *until = now + self.listen,
            State::Taken { defended_at } => *defended_at = now,
            State::Claimed { .. } => {}
        }
        None
    }

    /// The node stops.
    pub(super) fn stop(&mut self) {
        self.state = State::Off;
    }

    /// Returns the epoch of this start. A node that was refused its name claims it as a later start.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Returns the state if the passing of time has changed it. `next_epoch` is an epoch that was never used.
    pub(super) fn tick(&mut self, now: Duration, next_epoch: impl FnOnce() -> u64) -> Option<OwnName> {
        let (is_free, was_refused) = match self.state {
            State::Listening { until } => (now >= until, false),
            State::Taken { defended_at } => (now >= defended_at + self.lost_after, true),
            State::Off | State::Claimed { .. } => (false, false),
        };
        if !is_free {
            return None;
        }
        if was_refused {
            // what refused the name names the previous epoch, and has no effect if it is repeated
            self.epoch = next_epoch();
        }
        self.state = State::Claimed { count: 0 };
        self.next_beacon = now;
        Some(OwnName::Claimed)
    }

    /// Returns the beacon that is due, if one is.
    pub(super) fn due(&mut self, now: Duration) -> Option<Beacon> {
        if now < self.next_beacon {
            return None;
        }
        match &mut self.state {
            State::Off => None,
            State::Claimed { count } => {
                *count += 1;
                self.next_beacon = now + self.beat;
                Some(Beacon { has_name: true, count: *count, contender: 0 })
            }
            State::Listening { .. } | State::Taken { .. } => {
                self.next_beacon = now + self.beat / 2;
                Some(Beacon { has_name: false, count: 0, contender: 0 })
            }
        }
    }

    /// Returns when [`tick`](Self::tick) and [`due`](Self::due) should be called.
    pub(super) fn deadline(&self) -> Duration {
        match self.state {
            State::Off => Duration::MAX,
            State::Claimed { .. } => self.next_beacon,
            State::Listening { until } => self.next_beacon.min(until),
            State::Taken { defended_at } => self.next_beacon.min(defended_at + self.lost_after),
        }
    }

    /// Returns whether another start of this name is answered, and notes it if it is.
    fn is_defence_due(&mut self, epoch: u64, now: Duration) -> bool {
        let at = self.defended.iter().position(|(other, _)| *other == epoch);
        let oldest = || self.defended.iter().enumerate().min_by_key(|(_, (_, last))| *last).map(|(at, _)| at);
        let at = match at {
            None if self.defended.len() < MAX_DEFENDED => {
                self.defended.push((epoch, now));
                return true;
            }
            None => oldest(),
            at => at,
        };
        match at.and_then(|at| self.defended.get_mut(at)) {
            Some(entry) if now >= entry.1 + DEFENCE_INTERVAL => {
                *entry = (epoch, now);
                true
            }
            _ => false,
        }
    }

    /// Another node of this name has published a beacon. Returns the state if it has changed, and the answer
    /// if one is due.
    ///
    /// Only what names this start as its contender decides: an attacker can repeat what was published before,
    /// and cannot know the epoch.
    pub(super) fn answer_to(
        &mut self,
        epoch: u64,
        beacon: Beacon,
        now: Duration,
    ) -> (Option<OwnName>, Option<Beacon>) {
        let is_answer = beacon.has_name && beacon.contender == self.epoch;
        match self.state {
            State::Off => (None, None),
            State::Claimed { count } => {
                let was_first = beacon.count > count || (beacon.count == count && epoch < self.epoch);
                if is_answer && was_first {
                    self.state = State::Taken { defended_at: now };
                    return (Some(OwnName::Taken), None);
                }
                let is_due = self.is_defence_due(epoch, now);
                (None, is_due.then_some(Beacon { has_name: true, count, contender: epoch }))
            }
            State::Listening { .. } if is_answer => {
                self.state = State::Taken { defended_at: now };
                (Some(OwnName::Taken), None)
            }
            State::Taken { .. } if is_answer => {
                self.state = State::Taken { defended_at: now };
                (None, None)
            }
            State::Listening { .. } | State::Taken { .. } => (None, None),
        }
    }
}
