//! What payloads hold, and the proof that all of them came, once and in order. Owns the layout: a number, then a time.
//!
//! The number has the writer in its upper 16 bits, then one bit that says it is the writer's last. The time is
//! nanoseconds since the beginning in the first message of each batch, and zero in the others: asking the clock for
//! each message would be a good part of the load.

use std::time::Instant;

use crate::{Failure, histogram::Histogram};

/// The least a payload has.
pub(crate) const HEAD_BYTES: usize = 16;
pub(crate) const MAX_WRITERS: usize = 1 << 16;
const WRITER_SHIFT: u32 = 48;
const LAST: u64 = 1 << 47;

/// Writes the number and the time into a payload.
#[inline]
pub(crate) fn stamp(payload: &mut [u8], writer: usize, number: u64, last: bool, nanos: u64) {
    let mark = (writer as u64) << WRITER_SHIFT | if last { LAST } else { 0 } | number;
    if let Some((first, rest)) = payload.split_first_chunk_mut::<8>() {
        *first = mark.to_le_bytes();
        if let Some(time) = rest.first_chunk_mut::<8>() {
            *time = nanos.to_le_bytes();
        }
    }
}

/// The time since the beginning; never zero.
#[inline]
pub(crate) fn nanos_since(begin: Instant) -> u64 {
    (begin.elapsed().as_nanos() as u64).max(1)
}

/// What a reader knows.
pub(crate) struct Check {
    begin: Instant,
    /// The mark that is due from each writer.
    due: Vec<u64>,
    unfinished: usize,
    /// When what is looked at was read, where anyone has asked.
    now: u64,
    latency: Histogram,
}

impl Check {
    pub(crate) fn new(writers: usize, begin: Instant) -> Self {
        let due = (0..writers as u64).map(|writer| writer << WRITER_SHIFT).collect();
        Check { begin, due, unfinished: writers, now: 0, latency: Histogram::new() }
    }

    /// Something was read: times count from now.
    #[inline]
    pub(crate) fn read(&mut self) {
        self.now = 0;
    }

    #[inline]
    pub(crate) fn take(&mut self, payload: &[u8]) -> Result<(), Failure> {
        let (Some(mark), Some(time)) = (number_at(payload, 0), number_at(payload, 8)) else {
            return Err(too_short(payload.len()));
        };
        let Some(due) = self.due.get_mut((mark >> WRITER_SHIFT) as usize) else {
            return Err(wrong(mark, None));
        };
        if mark != *due {
            if mark != *due | LAST {
                return Err(wrong(mark, Some(*due)));
            }
            self.unfinished = self.unfinished.saturating_sub(1); // each writer has but one last number
        }
        *due = mark + 1;
        if time != 0 {
            self.time(time);
        }
        Ok(())
    }

    /// The first message of a batch, which says when it was sent.
    #[cold]
    fn time(&mut self, sent: u64) {
        if self.now == 0 {
            self.now = nanos_since(self.begin);
        }
        self.latency.record(self.now.saturating_sub(sent));
    }

    /// Whether the last message of every writer has come.
    #[inline]
    pub(crate) fn is_complete(&self) -> bool {
        self.unfinished == 0
    }

    /// How many messages of a writer have come.
    #[inline]
    pub(crate) fn came(&self, writer: usize) -> u64 {
        self.due.get(writer).map_or(0, |due| due & (LAST - 1))
    }

    pub(crate) fn came_in_all(&self) -> u64 {
        (0..self.due.len()).map(|writer| self.came(writer)).sum()
    }

    pub(crate) fn into_latency(self) -> Histogram {
        self.latency
    }
}

#[inline]
fn number_at(payload: &[u8], place: usize) -> Option<u64> {
    payload.get(place..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

#[cold]
fn too_short(bytes: usize) -> Failure {
    format!("a payload of {bytes} bytes, shorter than any that was sent").into()
}

#[cold]
fn wrong(mark: u64, due: Option<u64>) -> Failure {
    let tell = |mark: u64| format!("number {} of writer {}", mark & (LAST - 1), mark >> WRITER_SHIFT);
    match due {
        Some(due) => {
            format!("{} came where {} was due: lost, repeated or out of order", tell(mark), tell(due))
        }
        None => format!("{} came, of whom nothing was due", tell(mark)),
    }
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(writer: usize, number: u64, last: bool) -> [u8; 20] {
        let mut payload = [0; 20];
        stamp(&mut payload, writer, number, last, number % 2);
        payload
    }

    #[test]
    fn complete_is_what_came_once_and_in_order() {
        let mut check = Check::new(2, Instant::now());
        for (writer, number, last) in
            [(0, 0, false), (1, 0, false), (1, 1, true), (0, 1, false), (0, 2, true)]
        {
            assert!(!check.is_complete());
            assert!(check.take(&payload(writer, number, last)).is_ok());
        }
        assert!(check.is_complete());
        assert_eq!((check.came(0), check.came(1), check.came_in_all()), (3, 2, 5));
        assert!(check.take(&payload(0, 3, false)).is_err(), "behind the last");
        assert_eq!(check.into_latency().samples(), 2);
    }

    #[test]
    fn loss_repetition_and_disorder_are_errors() {
        for wrong in [payload(0, 2, false), payload(0, 0, false), payload(1, 1, false), payload(0, 2, true)] {
            let mut check = Check::new(1, Instant::now());
            assert!(check.take(&payload(0, 0, false)).is_ok());
            assert!(check.take(&wrong).is_err());
        }
        assert!(Check::new(1, Instant::now()).take(&[0; 15]).is_err());
    }
}
