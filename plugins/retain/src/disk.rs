//! The disk store: a thread writes changed values to a file, several at once.
//!
//! Owns the thread, the time of its writes, and what happens if the disk fails: values stay in memory, nobody
//! is held, and all of them are written once it works again.

mod file;

use elbus_plugin_api::{Host, PluginError, PluginThread};
use parking_lot::Mutex;
use redb::backends::FileBackend;
use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
        mpsc,
    },
    time::{Duration, Instant},
};

use crate::topics::{Changes, Topics};
pub(crate) use file::Change;
use file::{FileError, StoreFile, move_aside};

/// Time that a start waits until the values have been read. A slow disk delays the broker no longer.
const READ_LIMIT: Duration = Duration::from_secs(10);
/// Time until a disk that has failed is tried again: the first and the longest.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(30);

/// What the thread and the instance share.
struct Shared {
    path: PathBuf,
    commit: Duration,
    changes: Arc<Changes>,
    commits: AtomicU64,
    fails: AtomicBool,
    is_ended: AtomicBool,
}

/// Opens the file.
type Open = dyn Fn(&Path) -> Result<StoreFile, FileError> + Send;

/// The disk store of an instance.
pub(crate) struct Disk {
    shared: Arc<Shared>,
    thread: Mutex<Option<PluginThread>>,
}

impl Disk {
    pub(crate) fn new(path: PathBuf, commit: Duration, topics: &Topics) -> Self {
        let changes = topics.changes().clone();
        let (commits, fails, is_ended) = (AtomicU64::new(0), AtomicBool::new(false), AtomicBool::new(false));
        let shared = Shared { path, commit, changes, commits, fails, is_ended };
        Disk { shared: Arc::new(shared), thread: Mutex::default() }
    }

    /// Reads the values into `topics` and starts to write changes. A disk that does not work, or takes more
    /// than [`READ_LIMIT`], is no error: it is tried again, and what it has is added then.
    pub(crate) fn start(&self, host: &Host, topics: &Arc<Topics>) -> Result<(), PluginError> {
        self.start_with(host, topics, Box::new(|path| StoreFile::open(path, |file: FileBackend| file)))
    }

    fn start_with(&self, host: &Host, topics: &Arc<Topics>, open: Box<Open>) -> Result<(), PluginError> {
        let (opened, wait) = mpsc::channel();
        let (shared, topics) = (self.shared.clone(), topics.clone());
        let work = move || {
            shared.changes.set_thread(std::thread::current());
            let mut committer =
                Committer { shared, topics, open, file: None, is_read: false, retry: FIRST_RETRY };
            committer.try_open();
            _ = opened.send(());
            committer.work();
        };
        *self.thread.lock() = Some(host.spawn(work)?);
        if wait.recv_timeout(READ_LIMIT) == Err(mpsc::RecvTimeoutError::Timeout) {
            tracing::warn!(
                path = %self.shared.path.display(),
                waited_seconds = READ_LIMIT.as_secs(),
                "retained values not read yet: the disk is slow; they are added when it has answered"
            );
        }
        Ok(())
    }

    /// Writes what has changed, and ends. Blocks no longer than until `deadline` has passed.
    pub(crate) fn stop(&self, deadline: Duration) {
        let thread = self.thread.lock().take();
        let Some(thread) = thread else { return };
        self.shared.is_ended.store(true, Relaxed);
        self.shared.changes.wake();
        if !thread.ended_within(deadline) {
            let path = self.shared.path.display();
            tracing::warn!(%path, ?deadline, "retained values not written within the deadline");
        }
    }

    /// Describes the state, for people.
    pub(crate) fn detail(&self) -> String {
        let commits = self.shared.commits.load(Relaxed);
        let fails = if self.shared.fails.load(Relaxed) { "; the disk fails" } else { "" };
        format!("written in {commits} commits{fails}")
    }
}

/// The thread's side.
struct Committer {
    shared: Arc<Shared>,
    topics: Arc<Topics>,
    open: Box<Open>,
    file: Option<StoreFile>,
    /// The values of the file have been read.
    is_read: bool,
    retry: Duration,
}

impl Committer {
    fn work(&mut self) {
        loop {
            let is_last = if self.file.is_some() {
                self.wait_for_changes()
            } else {
                let ended = self.wait_until(Instant::now() + self.retry);
                self.retry = (self.retry * 2).min(LAST_RETRY);
                self.try_open();
                ended
            };
            if let Some(file) = &self.file
                && let Err(error) = Self::commit(&self.shared, &self.topics, file)
            {
                self.fail(&error);
            }
            if is_last {
                return;
            }
        }
    }

    /// Waits until something has changed, and then for the rest of the interval. Returns whether this is the
    /// last time.
    fn wait_for_changes(&self) -> bool {
        while !self.shared.changes.is_pending() {
            if self.shared.is_ended.load(Relaxed) {
                return true;
            }
            std::thread::park();
        }
        self.wait_until(Instant::now() + self.shared.commit)
    }

    /// Waits, unless the store ends.
    fn wait_until(&self, until: Instant) -> bool {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if self.shared.is_ended.load(Relaxed) {
                return true;
            }
            if left.is_zero() {
                return false;
            }
            std::thread::park_timeout(left);
        }
    }

    fn commit(shared: &Shared, topics: &Topics, file: &StoreFile) -> Result<(), FileError> {
        if shared.changes.is_pending() {
            file.check_place(&shared.path)?;
        }
        if shared.changes.begin() {
            let mut shards = topics.everything();
            file.replace(|| shards.next())?;
        } else {
            let mut changes = Vec::new();
            topics.take_changes(&mut changes);
            if changes.is_empty() {
                return Ok(());
            }
            file.apply(&changes)?;
        }
        shared.commits.fetch_add(1, Relaxed);
        Ok(())
    }

    fn try_open(&mut self) {
        let mut opened = self.open_and_read();
        if let Err(FileError::Damaged(error)) = &opened {
            let path = self.shared.path.display();
            match move_aside(&self.shared.path) {
                Ok(aside) => {
                    let aside = aside.display();
                    tracing::error!(%path, error, %aside, "file of retained values is damaged: moved aside");
                    opened = self.open_and_read();
                }
                Err(aside) => {
                    let error = format!("damaged ({error}), and cannot be moved aside: {aside}");
                    opened = Err(FileError::Unusable(error));
                }
            }
        }
        match opened {
            Ok(file) => {
                self.file = Some(file);
                self.retry = FIRST_RETRY;
                if self.shared.fails.swap(false, Relaxed) {
                    // what has changed meanwhile was not recorded
                    self.shared.changes.require_everything();
                    let path = self.shared.path.display();
                    tracing::info!(%path, "file of retained values works again: all values are written");
                }
            }
            Err(error) => self.fail(&error),
        }
    }

    fn open_and_read(&mut self) -> Result<StoreFile, FileError> {
        let file = (self.open)(&self.shared.path)?;
        if !self.is_read {
            let mut dropped = 0_u64;
            file.read(|topic, sender, payload| {
                if !self.topics.restore(topic, sender, payload) {
                    dropped += 1;
                }
            })?;
            self.is_read = true;
            if dropped > 0 {
                let path = self.shared.path.display();
                tracing::warn!(
                    %path,
                    dropped,
                    "retained values dropped: no table names their topic, or its limit is reached"
                );
            }
        }
        Ok(file)
    }

    /// From now on values are kept in memory only. Reported once, until the disk works again.
    fn fail(&mut self, error: &FileError) {
        if let FileError::Damaged(error) = error
            && self.file.take().is_some()
            && let Ok(aside) = move_aside(&self.shared.path)
        {
            let (path, aside) = (self.shared.path.display(), aside.display());
            tracing::error!(%path, error, %aside, "file of retained values is damaged: moved aside");
        }
        self.file = None;
        self.shared.changes.stop_recording();
        if !self.shared.fails.swap(true, Relaxed) {
            let path = self.shared.path.display();
            tracing::error!(
                %path,
                %error,
                "retained values cannot be written (key path): they stay in memory, and are written once the \
                 disk works again"
            );
        }
    }
}

#[cfg(test)]
mod tests;
