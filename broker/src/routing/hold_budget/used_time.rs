//! How much of a budget was used within a sliding window. Reads no clock: the caller passes the current part
//! of the window.

use std::time::Duration;

/// Parts of a window. The use of a part expires as a whole.
pub(super) const PARTS: usize = 10;

/// The time that one owner of a budget has used within a window, counted in parts of the window.
#[derive(Default)]
pub(super) struct UsedTime {
    /// The use in each part of the window, and in the part before it.
    parts: [Duration; PARTS + 1],
    /// The number of the newest part.
    part: u64,
    /// The budget was used up, and since then less than half of it has expired.
    pub(super) spent: bool,
}

impl UsedTime {
    /// Removes the use that is no longer in the window, whose current part is `part`.
    pub(super) fn forget(&mut self, part: u64, limit: Duration) {
        self.turn(part);
        self.spent &= self.sum() > limit / 2;
    }

    pub(super) fn turn(&mut self, part: u64) {
        let passed = part.saturating_sub(self.part).min(self.parts.len() as u64);
        for behind in 0..passed {
            let at = (part - behind) % self.parts.len() as u64;
            if let Some(slot) = self.parts.get_mut(at as usize) {
                *slot = Duration::ZERO;
            }
        }
        self.part = self.part.max(part);
    }

    pub(super) fn add(&mut self, time: Duration, limit: Duration) {
        let at = self.part % self.parts.len() as u64;
        if let Some(slot) = self.parts.get_mut(at as usize) {
            *slot = slot.saturating_add(time);
        }
        self.spent |= self.sum() >= limit;
    }

    pub(super) fn sum(&self) -> Duration {
        self.parts.iter().fold(Duration::ZERO, |sum, part| sum.saturating_add(*part))
    }
}
