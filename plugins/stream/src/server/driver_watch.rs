//! Keeps the I/O and timer driver of a multi-threaded runtime attended. Owns one thread per runtime, which
//! polls nothing and runs no task itself.
//!
//! In tokio a worker that is about to sleep takes the driver if it is free. The worker that the driver has
//! woken gives it up and runs its task; while that task blocks, the other workers sleep without the driver,
//! and nobody polls. The thread notices that and wakes one of them (ADR 19).

use parking_lot::Mutex;
use std::{
    io,
    sync::{Arc, Weak},
    thread,
    time::Duration,
};
use tokio::runtime::{Handle, RuntimeFlavor, RuntimeMetrics};

/// Time between two looks while workers are active.
const BUSY_PERIOD: Duration = Duration::from_millis(10);
/// Time between two looks while all workers sleep.
const IDLE_PERIOD: Duration = Duration::from_millis(50);

/// The watches of this process: several instances may share the runtime of the program. Nothing is called
/// under the lock.
static WATCHES: Mutex<Vec<Weak<DriverWatch>>> = Mutex::new(Vec::new());

/// The watch over the driver of one runtime. The thread ends after it is dropped.
pub(crate) struct DriverWatch {
    runtime: Handle,
}

impl DriverWatch {
    /// Returns the watch over a runtime, starting it if there is none. `None` if the runtime has a single
    /// worker: there is nobody to wake.
    pub(crate) fn over(runtime: &Handle) -> io::Result<Option<Arc<Self>>> {
        let single =
            runtime.runtime_flavor() != RuntimeFlavor::MultiThread || runtime.metrics().num_workers() < 2;
        if single {
            return Ok(None);
        }
        let mut watches = WATCHES.lock();
        watches.retain(|watch| watch.strong_count() > 0);
        let same = watches.iter().filter_map(Weak::upgrade).find(|watch| watch.runtime.id() == runtime.id());
        if same.is_some() {
            return Ok(same);
        }
        let watch = Arc::new(DriverWatch { runtime: runtime.clone() });
        let weak = Arc::downgrade(&watch);
        watches.push(weak.clone());
        let name = thread::current().name().map_or_else(|| "driver watch".to_owned(), str::to_owned);
        thread::Builder::new().name(name).spawn(move || run(&weak))?;
        Ok(Some(watch))
    }
}

fn run(watch: &Weak<DriverWatch>) {
    let mut look = Look::default();
    let mut period = IDLE_PERIOD;
    loop {
        thread::sleep(period);
        let Some(watch) = watch.upgrade() else { return };
        let workers = Workers::read(&watch.runtime.metrics());
        period = if workers.active > 0 || look.has_changed(&workers) { BUSY_PERIOD } else { IDLE_PERIOD };
        if look.is_unattended(&workers) {
            // from outside the runtime: a sleeping worker takes it, and the driver when it sleeps again
            watch.runtime.spawn(async {});
        }
    }
}

/// The workers of a runtime at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Workers {
    active: usize,
    sleeping: usize,
    /// How often workers have fallen asleep or woken up.
    changes: u64,
}

impl Workers {
    fn read(metrics: &RuntimeMetrics) -> Self {
        let mut workers = Workers { active: 0, sleeping: 0, changes: 0 };
        for index in 0..metrics.num_workers() {
            let count = metrics.worker_park_unpark_count(index);
            // odd while the worker sleeps
            if count % 2 == 1 {
                workers.sleeping += 1
            } else {
                workers.active += 1
            }
            workers.changes = workers.changes.wrapping_add(count);
        }
        workers
    }
}

/// What was seen so far.
#[derive(Debug, Default)]
struct Look {
    /// At the previous look.
    changes: u64,
    /// The previous look has woken a worker.
    has_woken: bool,
    /// The driver was attended at this number of changes, and is until the next change.
    attended_at: Option<u64>,
}

impl Look {
    fn has_changed(&self, workers: &Workers) -> bool {
        self.changes != workers.changes
    }

    /// Whether the driver may be unattended: no worker has fallen asleep since the previous look, one is
    /// active and others sleep.
    fn is_unattended(&mut self, workers: &Workers) -> bool {
        let same = !self.has_changed(workers);
        self.changes = workers.changes;
        if std::mem::take(&mut self.has_woken) && !same {
            // the worker that was woken has taken the driver, if it sleeps again
            self.attended_at = Some(workers.changes);
        }
        let unattended =
            same && workers.active > 0 && workers.sleeping > 0 && self.attended_at != Some(workers.changes);
        self.has_woken = unattended;
        unattended
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{io::Write, sync::mpsc, time::Instant};
    use tokio::{net::UnixStream, runtime::Builder};

    fn workers(active: usize, sleeping: usize, changes: u64) -> Workers {
        Workers { active, sleeping, changes }
    }

    #[test]
    fn a_worker_is_woken_once_for_each_time_nobody_may_be_polling() {
        let mut look = Look::default();
        assert!(!look.is_unattended(&workers(1, 3, 10)), "it has just become active");
        assert!(look.is_unattended(&workers(1, 3, 10)));
        assert!(!look.is_unattended(&workers(1, 3, 12)), "the one that was woken sleeps again");
        assert!(!look.is_unattended(&workers(1, 3, 12)), "and polls");
        assert!(!look.is_unattended(&workers(2, 2, 13)));
        assert!(look.is_unattended(&workers(2, 2, 13)), "the one that polled is active, too");
        assert!(look.is_unattended(&workers(2, 2, 13)), "nobody has woken up yet");
        assert!(!look.is_unattended(&workers(4, 0, 15)));
        assert!(!look.is_unattended(&workers(4, 0, 15)), "nobody could be woken");
        assert!(!look.is_unattended(&workers(0, 4, 19)));
        assert!(!look.is_unattended(&workers(0, 4, 19)), "all sleep, one of them polls");
    }

    /// Blocks workers one after the other, each while it was the one that polled.
    #[test]
    fn a_task_that_blocks_its_worker_holds_nobody_up() {
        let runtime = Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
        let watch = DriverWatch::over(runtime.handle()).unwrap();
        assert!(watch.is_some());
        let mut release = vec![];
        for _ in 0..3 {
            let ((give, take), (told, tell)) = (mpsc::channel::<()>(), mpsc::channel());
            let (near, far) = std::os::unix::net::UnixStream::pair().unwrap();
            far.set_nonblocking(true).unwrap();
            runtime.spawn(async move {
                let far = UnixStream::from_std(far).unwrap();
                far.readable().await.unwrap();
                told.send(()).unwrap();
                _ = take.recv();
            });
            // a moment in which all workers fall asleep
            thread::sleep(Duration::from_millis(20));
            (&near).write_all(b"x").unwrap();
            tell.recv_timeout(Duration::from_secs(30)).expect("somebody polls");
            release.push((give, near));
        }
        // timers are the driver's as well
        let (done, finished) = mpsc::channel();
        runtime.spawn(async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            done.send(Instant::now()).unwrap();
        });
        finished.recv_timeout(Duration::from_secs(30)).expect("timers fire");
        drop(release);
    }

    #[test]
    fn one_watch_for_each_runtime_with_workers_to_wake() {
        let single = Builder::new_multi_thread().worker_threads(1).build().unwrap();
        assert!(DriverWatch::over(single.handle()).unwrap().is_none());
        let current = Builder::new_current_thread().build().unwrap();
        assert!(DriverWatch::over(current.handle()).unwrap().is_none());
        let several = Builder::new_multi_thread().worker_threads(2).build().unwrap();
        let one = DriverWatch::over(several.handle()).unwrap().unwrap();
        let other = DriverWatch::over(several.handle()).unwrap().unwrap();
        assert!(Arc::ptr_eq(&one, &other));
        let weak = Arc::downgrade(&one);
        drop((one, other));
        assert_eq!(weak.strong_count(), 0);
    }
}
