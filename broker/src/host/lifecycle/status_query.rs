//! Queries an instance's status without blocking for long. Owns the last answer and the time of the open
//! query.

use elbus_plugin_api::{
    Status,
    abi::{FromRaw, InstanceObject},
};
use parking_lot::Mutex;
use std::{
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use crate::callbacks::{self, Callback};

/// Time limit for an answer.
const STATUS_TIMEOUT: Duration = Duration::from_secs(1);

/// The last status of an instance, and the open query. The number is the owner that was queried.
#[derive(Default)]
pub(super) struct StatusQuery(Mutex<(u32, Arc<OpenQuestion>)>);

#[derive(Default)]
struct OpenQuestion {
    /// When the unanswered query was made. A leaf lock.
    since: Mutex<Option<Instant>>,
    /// A leaf lock.
    last: Mutex<Status>,
}

impl StatusQuery {
    /// Queries the status of an instance in a thread of its own. Returns the last status if it does not
    /// answer in time, or has not answered the previous query yet.
    pub(super) fn ask(&self, object: Option<Arc<InstanceObject>>, name: &str, owner: u32) -> Status {
        let Some(object) = object else { return Status::default() };
        let question = self.question_to(owner);
        {
            let mut since = question.since.lock();
            if since.is_some() {
                drop(since);
                return question.last.lock().clone();
            }
            *since = Some(Instant::now());
        }
        let (answered, (done, returned)) = (question.clone(), mpsc::channel::<()>());
        let body = move || {
            let _done = done;
            let status = callbacks::for_caller(owner, Callback::Status, "the broker", || object.status());
            *answered.last.lock() = Status::from_raw(status);
            *answered.since.lock() = None;
        };
        let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(body);
        if spawned.is_err() {
            *question.since.lock() = None;
        }
        _ = returned.recv_timeout(STATUS_TIMEOUT);
        question.last.lock().clone()
    }

    /// Returns whether the instance has not answered a query in time. A query that another thread has just
    /// made does not count.
    pub(super) fn is_overdue(&self, owner: u32) -> bool {
        self.question_to(owner).since.lock().is_some_and(|since| since.elapsed() >= STATUS_TIMEOUT)
    }

    /// Returns the query to the instance with this owner: a query to a previous one may never be answered.
    fn question_to(&self, owner: u32) -> Arc<OpenQuestion> {
        let mut current = self.0.lock();
        if current.0 != owner {
            *current = (owner, Arc::default());
        }
        current.1.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use abi_stable::{sabi_trait::TD_Opaque, std_types::RResult};
    use elbus_plugin_api::abi::{RawInstance, RawInstance_TO, RawPluginError, RawStatus};

    /// Signals that it was queried, and answers when it is released.
    struct Slow {
        asked: mpsc::Sender<()>,
        released: Mutex<mpsc::Receiver<()>>,
    }

    impl RawInstance for Slow {
        fn start(&self) -> RResult<(), RawPluginError> {
            RResult::ROk(())
        }
        fn serve(&self) {}
        fn stop(&self, _: u64) {}
        fn status(&self) -> RawStatus {
            _ = self.asked.send(());
            _ = self.released.lock().recv();
            RawStatus::default()
        }
        fn refresh(&self) -> RResult<(), RawPluginError> {
            RResult::ROk(())
        }
    }

    #[test]
    fn a_question_that_another_thread_has_just_asked_is_not_overdue() {
        let owner = 1_000_003;
        let ((asked, was_asked), (release, released)) = (mpsc::channel(), mpsc::channel());
        let slow = Slow { asked, released: Mutex::new(released) };
        let object = Arc::new(RawInstance_TO::from_value(slow, TD_Opaque));
        let query = StatusQuery::default();
        std::thread::scope(|scope| {
            let other = scope.spawn(|| query.ask(Some(object.clone()), "slow", owner));
            was_asked.recv().unwrap();
            query.ask(Some(object.clone()), "slow", owner);
            assert!(!query.is_overdue(owner), "just asked");
            other.join().unwrap();
        });
        assert!(query.is_overdue(owner), "the query is not answered in time");
        release.send(()).unwrap();
        while query.question_to(owner).since.lock().is_some() {
            std::thread::yield_now();
        }
        assert!(!query.is_overdue(owner));
    }
}
