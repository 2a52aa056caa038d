//! How far writers may be ahead of readers. A writer that is too far sleeps until half of its window is free: it takes no
//! processor from what is measured, and wakes once for thousands of messages.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::Thread,
    time::{Duration, Instant},
};

use crate::{Failure, driver};

/// On a cache line of its own.
#[repr(align(128))]
#[derive(Default)]
struct Place(AtomicU64);

/// The progress of one group.
pub(crate) struct Window {
    /// What each reader has had of each writer: by reader, then writer.
    progress: Vec<Place>,
    writers: Vec<Writer>,
    failed: AtomicBool,
}

struct Writer {
    thread: OnceLock<Thread>,
    /// What all readers must have had before it goes on; `u64::MAX` while it is awake.
    waits_for: Place,
}

impl Window {
    pub(crate) fn new(readers: usize, writers: usize) -> Self {
        let awake = || Writer { thread: OnceLock::new(), waits_for: Place(AtomicU64::new(u64::MAX)) };
        Window {
            progress: (0..readers * writers).map(|_| Place::default()).collect(),
            writers: (0..writers).map(|_| awake()).collect(),
            failed: AtomicBool::new(false),
        }
    }

    /// A reader has had so many of a writer.
    #[inline]
    pub(crate) fn advance(&self, reader: usize, writer: usize, came: u64) {
        let Some(place) = self.progress.get(reader * self.writers.len() + writer) else { return };
        let before = place.0.load(Ordering::Relaxed);
        if came == before {
            return;
        }
        place.0.store(came, Ordering::SeqCst);
        let Some(writer_state) = self.writers.get(writer) else { return };
        let wanted = writer_state.waits_for.0.load(Ordering::SeqCst);
        if came >= wanted
            && self.slowest(writer) >= wanted
            && let Some(thread) = writer_state.thread.get()
        {
            thread.unpark();
        }
    }

    fn slowest(&self, writer: usize) -> u64 {
        let of_writer = self.progress.iter().skip(writer).step_by(self.writers.len().max(1));
        of_writer.map(|place| place.0.load(Ordering::SeqCst)).min().unwrap_or(0)
    }

    /// Somebody has failed: nobody waits any longer.
    pub(crate) fn fail(&self) {
        self.failed.store(true, Ordering::SeqCst);
        for thread in self.writers.iter().filter_map(|writer| writer.thread.get()) {
            thread.unpark();
        }
    }

    /// Waits until `more` messages may follow the `sent` ones; `slowest` is what the writer last knew of its readers.
    #[inline]
    pub(crate) fn wait(
        &self,
        writer: usize,
        sent: u64,
        more: u64,
        size: u64,
        slowest: &mut u64,
    ) -> Result<(), Failure> {
        if sent + more <= *slowest + size {
            return Ok(());
        }
        *slowest = self.slowest(writer);
        if sent + more <= *slowest + size {
            return Ok(());
        }
        self.sleep(writer, sent.saturating_sub(size / 2), slowest)
    }

    #[cold]
    fn sleep(&self, writer: usize, wanted: u64, slowest: &mut u64) -> Result<(), Failure> {
        let Some(state) = self.writers.get(writer) else { return Ok(()) };
        state.thread.get_or_init(std::thread::current);
        state.waits_for.0.store(wanted, Ordering::SeqCst);
        let begin = Instant::now();
        let result = loop {
            *slowest = self.slowest(writer);
            if *slowest >= wanted {
                break Ok(());
            }
            if self.failed.load(Ordering::SeqCst) {
                break Err("ended, since another client failed".into());
            }
            if begin.elapsed() > driver::PATIENCE {
                break Err(format!("{} messages are lost or late", wanted - *slowest).into());
            }
            std::thread::park_timeout(Duration::from_secs(1));
        };
        state.waits_for.0.store(u64::MAX, Ordering::SeqCst);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn a_writer_is_never_more_than_a_window_ahead_of_the_slowest() {
        let (window, sent) = (Arc::new(Window::new(2, 1)), Arc::new(AtomicU64::new(0)));
        let writer = std::thread::spawn({
            let (window, sent) = (window.clone(), sent.clone());
            move || {
                let mut slowest = 0;
                for number in 0..1000 {
                    if window.wait(0, number, 1, 10, &mut slowest).is_err() {
                        return false;
                    }
                    sent.store(number + 1, Ordering::SeqCst);
                }
                true
            }
        });
        let mut came = 0;
        while came < 1000 {
            let there = sent.load(Ordering::SeqCst);
            assert!(there <= came + 10);
            if there > came {
                window.advance(0, 0, there);
                came += 1;
                window.advance(1, 0, came);
            }
        }
        assert_eq!(writer.join().ok(), Some(true));
    }

    #[test]
    fn a_failure_wakes_writers() {
        let window = Arc::new(Window::new(1, 1));
        let writer = std::thread::spawn({
            let window = window.clone();
            move || window.wait(0, 4, 1, 4, &mut 0).is_err()
        });
        window.fail();
        assert_eq!(writer.join().ok(), Some(true));
    }
}
