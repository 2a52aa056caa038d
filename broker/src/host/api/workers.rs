//! Workers of plugins, such as threads and runtimes, that can be asked whether they respond. Owns the query;
//! the caller decides what a missing answer means.

use abi_stable::{sabi_trait::TD_Opaque, std_types::RArc};
use elbus_plugin_api::abi::{RawNotifier, RawNotifier_TO, WorkerObject};
use parking_lot::Mutex;
use std::{
    sync::{
        Arc,
        mpsc::{self, Sender},
    },
    time::{Duration, Instant},
};

use crate::callbacks::{self, Callback};

/// The workers of all instances.
#[derive(Default)]
pub(crate) struct Workers(Mutex<Vec<Worker>>);

#[derive(Clone)]
struct Worker {
    owner: u32,
    what: String,
    object: Arc<WorkerObject>,
}

#[derive(Clone)]
struct Answer {
    index: usize,
    to: Sender<usize>,
}

impl RawNotifier for Answer {
    fn notify(&self) {
        // an error means that the answer is too late
        _ = self.to.send(self.index);
    }
}

impl Workers {
    /// Adds a worker of an instance.
    pub(crate) fn add(&self, owner: u32, what: &str, object: WorkerObject) {
        self.0.lock().push(Worker { owner, what: what.to_owned(), object: Arc::new(object) });
    }

    /// Removes the workers of an instance.
    pub(crate) fn remove_owner(&self, owner: u32) {
        let removed: Vec<_> = self.0.lock().extract_if(.., |worker| worker.owner == owner).collect();
        drop(removed); // runs code of the plugin: outside the lock
    }

    /// Asks all workers at once and returns those that do not answer within `timeout`.
    pub(crate) fn unresponsive(&self, timeout: Duration) -> Vec<String> {
        let workers = self.0.lock().clone();
        let (to, answers) = mpsc::channel();
        for (index, worker) in workers.iter().enumerate() {
            let answer = RawNotifier_TO::from_ptr(RArc::new(Answer { index, to: to.clone() }), TD_Opaque);
            callbacks::for_caller(worker.owner, Callback::Ask, "the broker", || worker.object.ask(answer));
        }
        drop(to);
        let end = Instant::now() + timeout;
        let mut silent: Vec<_> = workers.into_iter().map(Some).collect();
        while silent.iter().any(Option::is_some) {
            let Ok(index) = answers.recv_timeout(end.saturating_duration_since(Instant::now())) else {
                break;
            };
            if let Some(worker) = silent.get_mut(index) {
                *worker = None;
            }
        }
        let silent = silent.into_iter().flatten();
        silent.map(|worker| format!("{} of {}", worker.what, callbacks::owner_name(worker.owner))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use elbus_plugin_api::abi::{NotifierObject, RawWorker, RawWorker_TO};

    struct Answers(bool);

    impl RawWorker for Answers {
        fn ask(&self, answer: NotifierObject) {
            if self.0 {
                answer.notify();
            }
        }
    }

    #[test]
    fn workers_that_do_not_answer_are_named() {
        let workers = Workers::default();
        callbacks::set_owner_name(2_000_001, "tcp");
        callbacks::set_owner_name(2_000_002, "unix");
        let add = |owner, answers| {
            workers.add(owner, "runtime", RawWorker_TO::from_value(Answers(answers), TD_Opaque));
        };
        add(2_000_001, true);
        assert!(workers.unresponsive(Duration::from_secs(30)).is_empty());
        add(2_000_002, false);
        assert_eq!(workers.unresponsive(Duration::from_millis(100)), ["runtime of unix"]);
        workers.remove_owner(2_000_002);
        assert!(workers.unresponsive(Duration::from_secs(30)).is_empty());
    }
}
