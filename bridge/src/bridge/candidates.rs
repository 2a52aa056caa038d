//! Links that a node wants and that it has not confirmed (section 5).
//!
//! Hellos of earlier starts can be repeated by anybody, so the hello of one start does not take the place of
//! another start's at once: a link begins with the start that confirms it.

use std::time::Duration;

/// Starts of a node of which a hello is remembered.
const MAX_CANDIDATES: usize = 8;
/// Shortest time between two answers to the same start.
const WELCOME_INTERVAL: Duration = Duration::from_millis(50);
/// Time for which a candidate is remembered at least, however many hellos arrive.
const KEEP: Duration = Duration::from_millis(500);

/// A link that a node wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) epoch: u64,
    pub(super) peer_session: u64,
    pub(super) session: u64,
    since: Duration,
    next_welcome: Duration,
}

/// What a hello results in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// A welcome.
    Welcome(Candidate),
    /// The hello is older than one that has arrived.
    Replay,
    /// Nothing: there was an answer just now, or there are too many.
    None,
}

/// The links that a node wants: one for each of its starts that has said hello.
#[derive(Debug, Default)]
pub(super) struct Candidates(Vec<Candidate>);

impl Candidates {
    /// A hello has arrived. `session` is the own session if it is a new one.
    pub(super) fn hello(&mut self, epoch: u64, peer_session: u64, session: u64, now: Duration) -> Answer {
        let next_welcome = now + WELCOME_INTERVAL;
        if let Some(known) = self.0.iter_mut().find(|known| known.epoch == epoch) {
            if known.peer_session > peer_session {
                return Answer::Replay;
            }
            if known.peer_session < peer_session {
                (known.peer_session, known.session, known.since) = (peer_session, session, now);
            } else if now < known.next_welcome {
                return Answer::None;
            }
            known.next_welcome = next_welcome;
            return Answer::Welcome(*known);
        }
        let candidate = Candidate { epoch, peer_session, session, since: now, next_welcome };
        if self.0.len() < MAX_CANDIDATES {
            self.0.push(candidate);
            return Answer::Welcome(candidate);
        }
        match self.0.iter_mut().min_by_key(|known| known.since) {
            Some(oldest) if now >= oldest.since + KEEP => {
                *oldest = candidate;
                Answer::Welcome(candidate)
            }
            _ => Answer::None,
        }
    }

    /// Returns whether a start has said hello for the first time within the last half second, so that it is
    /// about to confirm. Repeating the hello does not prolong that.
    pub(super) fn is_wanted_by(&self, epoch: u64, now: Duration) -> bool {
        self.0.iter().any(|known| known.epoch == epoch && now < known.since + KEEP)
    }

    /// Returns the own session that a start was given.
    pub(super) fn session_of(&self, epoch: u64) -> Option<u64> {
        self.0.iter().find(|known| known.epoch == epoch).map(|known| known.session)
    }

    /// Returns whether a batch with these numbers confirms a link.
    pub(super) fn confirms(&self, (epoch, peer_session): (u64, u64), session: u64) -> bool {
        let is_same = |known: &Candidate| (known.epoch, known.peer_session) == (epoch, peer_session);
        self.0.iter().any(|known| is_same(known) && known.session == session)
    }

    /// A link has begun.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}
