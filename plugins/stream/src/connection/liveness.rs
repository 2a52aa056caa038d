//! Whether a client is alive, without a clock in its reader: the reader records the housekeeping tick during
//! which something was completed. Owns the phases of a connection and their time limits (protocol sections 2,
//! 3 and 5).

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// What the broker is waiting for.
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
    /// The body of a frame, its header being complete, or the next 64 KiB of it.
    Body = 4,
    /// A receiver: the client is not read until its receivers have drained.
    Held = 5,
    /// Its turn to register, if registrations are limited per second.
    Turn = 6,
}

impl Phase {
    const ALL: [Phase; 7] = [
        Phase::Greeting,
        Phase::NameLength,
        Phase::Name,
        Phase::Header,
        Phase::Body,
        Phase::Held,
        Phase::Turn,
    ];

    /// Returns the time limit of the phase; `T` of the protocol is `timeout`.
    pub(crate) fn limit(self, timeout: Duration) -> Option<Duration> {
        match self {
            Phase::Greeting | Phase::NameLength | Phase::Name | Phase::Body => Some(timeout),
            Phase::Header => Some(timeout.saturating_mul(5) / 4),
            Phase::Held | Phase::Turn => None,
        }
    }

    /// Returns whether the client is registered.
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
            Phase::Held | Phase::Turn => "nothing",
        })
    }
}

/// Written by the reader, read by housekeeping: the phase in the low byte, the tick during which it began
/// above it.
#[derive(Default)]
pub(crate) struct Liveness(AtomicU64);

impl Liveness {
    /// The client has completed something and `phase` begins; `now` is the current tick.
    #[inline]
    pub(crate) fn step(&self, phase: Phase, now: u64) {
        self.0.store(now << 8 | phase as u64, Ordering::Relaxed);
    }

    /// Returns the phase, and the tick during which it began.
    #[inline]
    pub(crate) fn last(&self) -> (Phase, u64) {
        let word = self.0.load(Ordering::Relaxed);
        let phase = Phase::ALL.into_iter().find(|phase| *phase as u64 == word & 0xFF);
        (phase.unwrap_or(Phase::Greeting), word >> 8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phase_and_tick_are_stored_together() {
        let liveness = Liveness::default();
        assert_eq!(liveness.last(), (Phase::Greeting, 0));
        for (phase, now) in Phase::ALL.into_iter().zip([0, 1, 255, 256, 1 << 20, 1 << 40, 1 << 50]) {
            liveness.step(phase, now);
            assert_eq!(liveness.last(), (phase, now));
        }
    }

    #[test]
    fn only_phases_that_depend_on_others_have_no_limit() {
        let timeout = Duration::from_secs(4);
        for phase in Phase::ALL {
            let limit = match phase {
                Phase::Header => Some(Duration::from_secs(5)),
                Phase::Held | Phase::Turn => None,
                _ => Some(timeout),
            };
            assert_eq!(phase.limit(timeout), limit, "{phase}");
        }
    }
}
