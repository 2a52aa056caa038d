//! Whether a client is alive, without a clock in its reader: the reader counts what it completes, the keeper sees
//! whether the count moves. Owns the phases of a connection and how long each may last (sections 2, 3 and 5).

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// What the broker waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    /// The three bytes of the greeting.
    Greeting = 0,
    /// The two bytes of the name's length.
    NameLength = 1,
    /// The name.
    Name = 2,
    /// The header of a frame.
    Header = 3,
    /// The body of a frame, its header being complete.
    Body = 4,
    /// Somebody else: the client is not read from until its receivers have drained.
    Held = 5,
}

impl Phase {
    const ALL: [Phase; 6] =
        [Phase::Greeting, Phase::NameLength, Phase::Name, Phase::Header, Phase::Body, Phase::Held];

    /// How long it may last, the timeout being `T`.
    fn limit(self, timeout: Duration) -> Option<Duration> {
        match self {
            Phase::Greeting | Phase::NameLength | Phase::Name | Phase::Body => Some(timeout),
            Phase::Header => Some(timeout.saturating_mul(5) / 4),
            Phase::Held => None,
        }
    }

    /// Whether the client is registered.
    pub(crate) fn is_registered(self) -> bool {
        matches!(self, Phase::Header | Phase::Body | Phase::Held)
    }
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Phase::Greeting => "greeting",
            Phase::NameLength => "name length",
            Phase::Name => "name",
            Phase::Header => "frame header",
            Phase::Body => "frame body",
            Phase::Held => "nothing",
        })
    }
}

/// Written by the reader of a connection, read by the keeper: the phase in the low byte, above it a count of steps.
#[derive(Default)]
pub(crate) struct Liveness(AtomicU64);

impl Liveness {
    /// The client has completed something, and the broker now waits for `phase`. One writer only.
    #[inline]
    pub(crate) fn step(&self, phase: Phase) {
        let steps = self.0.load(Ordering::Relaxed) >> 8;
        self.0.store(steps.wrapping_add(1) << 8 | phase as u64, Ordering::Relaxed);
    }

    /// What the broker waits for.
    #[inline]
    pub(crate) fn phase(&self) -> Phase {
        phase_of(self.0.load(Ordering::Relaxed))
    }
}

fn phase_of(word: u64) -> Phase {
    Phase::ALL.into_iter().find(|phase| *phase as u64 == word & 0xFF).unwrap_or(Phase::Greeting)
}

/// What the keeper has seen of a connection.
pub(crate) struct Watch {
    seen: u64,
    since: Instant,
}

impl Watch {
    pub(crate) fn new(now: Instant) -> Self {
        Watch { seen: 0, since: now }
    }

    /// The phase that has lasted too long, if it has. Never early; late by at most the time between two calls.
    pub(crate) fn late(&mut self, liveness: &Liveness, now: Instant, timeout: Duration) -> Option<Phase> {
        let word = liveness.0.load(Ordering::Relaxed);
        if word != self.seen {
            *self = Watch { seen: word, since: now };
            return None;
        }
        let phase = phase_of(word);
        phase.limit(timeout).filter(|limit| now.duration_since(self.since) >= *limit).map(|_| phase)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_seen_and_steps_reset_it() {
        let second = Duration::from_secs(1);
        let start = Instant::now();
        let (liveness, mut watch) = (Liveness::default(), Watch::new(start));
        let timeout = 4 * second;
        assert_eq!(watch.late(&liveness, start + 3 * second, timeout), None);
        assert_eq!(watch.late(&liveness, start + 4 * second, timeout), Some(Phase::Greeting));
        liveness.step(Phase::Header);
        assert_eq!(watch.late(&liveness, start + 10 * second, timeout), None);
        assert_eq!(watch.late(&liveness, start + 14 * second, timeout), None);
        liveness.step(Phase::Header);
        assert_eq!(watch.late(&liveness, start + 15 * second, timeout), None, "a step in the same phase");
        assert_eq!(watch.late(&liveness, start + 20 * second, timeout), Some(Phase::Header));
        liveness.step(Phase::Held);
        assert_eq!(watch.late(&liveness, start + 21 * second, timeout), None);
        assert_eq!(
            watch.late(&liveness, start + 1000 * second, timeout),
            None,
            "held back as long as it takes"
        );
        for phase in Phase::ALL {
            liveness.step(phase);
            assert_eq!(liveness.phase(), phase);
        }
    }
}
