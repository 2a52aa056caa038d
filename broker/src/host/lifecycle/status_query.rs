//! Queries an instance's status and figures without blocking for long. Owns the last answer and the time of
//! the open query.

use elbus_plugin_api::{
    Figure, MAX_FIGURES, Status,
    abi::{FromRaw, InstanceObject},
};
use parking_lot::{Condvar, Mutex};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::callbacks::{self, Callback};

/// Time limit for an answer.
const STATUS_TIMEOUT: Duration = Duration::from_secs(1);

/// The last status of an instance, and the open query.
pub(super) struct StatusQuery {
    /// Time limit for an answer.
    limit: Duration,
    /// The owner that was queried last.
    question: Mutex<(u32, Arc<OpenQuestion>)>,
}

impl Default for StatusQuery {
    fn default() -> Self {
        StatusQuery { limit: STATUS_TIMEOUT, question: Mutex::default() }
    }
}

#[derive(Default)]
struct OpenQuestion {
    /// A leaf lock.
    state: Mutex<State>,
    /// Notified of each answer.
    answered: Condvar,
}

#[derive(Default)]
struct State {
    /// When the unanswered query was made.
    since: Option<Instant>,
    /// The last answer; `None` before the first one.
    last: Option<(Status, Vec<Figure>)>,
    answers: u64,
}

impl OpenQuestion {
    /// Waits for an answer while `is_needed`, until the open query has lasted `limit`. Returns the last
    /// answer.
    fn wait(&self, limit: Duration, is_needed: impl Fn(&State) -> bool) -> (Status, Vec<Figure>) {
        let mut state = self.state.lock();
        while let Some(since) = state.since
            && is_needed(&state)
        {
            let left = limit.saturating_sub(since.elapsed());
            if left.is_zero() {
                break;
            }
            self.answered.wait_for(&mut state, left);
        }
        state.last.clone().unwrap_or_default()
    }
}

/// Ends a query, also if the instance panics.
struct Asked(Arc<OpenQuestion>);

impl Drop for Asked {
    fn drop(&mut self) {
        self.0.state.lock().since = None;
        self.0.answered.notify_all();
    }
}

impl StatusQuery {
    /// Queries the status and the figures of an instance in a thread of its own. Returns the last ones if it
    /// does not answer in time, or has not answered the previous query yet. Blocks for at most a second.
    pub(super) fn ask(
        &self,
        object: Option<Arc<InstanceObject>>,
        name: &str,
        owner: u32,
    ) -> (Status, Vec<Figure>) {
        let Some(object) = object else { return Default::default() };
        let question = self.question_to(owner);
        let answers;
        {
            let mut state = question.state.lock();
            if state.since.is_some() {
                drop(state);
                // nothing is known of an instance before its first answer
                return question.wait(self.limit, |state| state.last.is_none());
            }
            state.since = Some(Instant::now());
            answers = state.answers;
        }
        let asked = Asked(question.clone());
        let body = move || {
            let status = callbacks::for_caller(owner, Callback::Status, "the broker", || object.status());
            let figures = callbacks::for_caller(owner, Callback::Figures, "the broker", || object.figures());
            let figures = figures.into_iter().take(MAX_FIGURES).map(Figure::from_raw).collect();
            let mut state = asked.0.state.lock();
            state.last = Some((Status::from_raw(status), figures));
            state.answers += 1;
        };
        // a thread that cannot be started drops the query, which ends it
        _ = std::thread::Builder::new().name(name.to_owned()).spawn(body);
        question.wait(self.limit, |state| state.answers == answers)
    }

    /// Returns whether the instance has not answered a query in time. A query that another thread has just
    /// made does not count.
    pub(super) fn is_overdue(&self, owner: u32) -> bool {
        let since = self.question_to(owner).state.lock().since;
        since.is_some_and(|since| since.elapsed() >= self.limit)
    }

    /// Returns the query to the instance with this owner: a query to a previous one may never be answered.
    fn question_to(&self, owner: u32) -> Arc<OpenQuestion> {
        let mut current = self.question.lock();
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
    use std::sync::mpsc;

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
            RawStatus { detail: "answered".into(), ..RawStatus::default() }
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
        let mut query = StatusQuery { limit: Duration::from_secs(600), ..StatusQuery::default() };
        std::thread::scope(|scope| {
            let other = scope.spawn(|| query.ask(Some(object.clone()), "slow", owner));
            was_asked.recv().unwrap();
            assert!(!query.is_overdue(owner), "just asked");
            release.send(()).unwrap();
            other.join().unwrap();
        });
        let wait_for_end = |query: &StatusQuery| {
            while query.question_to(owner).state.lock().since.is_some() {
                std::thread::yield_now();
            }
        };
        wait_for_end(&query);
        query.limit = Duration::from_millis(1);
        query.ask(Some(object.clone()), "slow", owner);
        assert!(query.is_overdue(owner), "the query is not answered in time");
        release.send(()).unwrap();
        wait_for_end(&query);
        assert!(!query.is_overdue(owner));
    }

    #[test]
    fn all_who_ask_before_the_first_answer_get_it() {
        let owner = 1_000_004;
        let ((asked, was_asked), (release, released)) = (mpsc::channel(), mpsc::channel());
        let slow = Slow { asked, released: Mutex::new(released) };
        let object = Arc::new(RawInstance_TO::from_value(slow, TD_Opaque));
        let query = StatusQuery { limit: Duration::from_secs(600), ..StatusQuery::default() };
        std::thread::scope(|scope| {
            let first = scope.spawn(|| query.ask(Some(object.clone()), "slow", owner));
            was_asked.recv().unwrap();
            let other = scope.spawn(|| query.ask(Some(object.clone()), "slow", owner));
            // the other one asks itself if it comes too late
            (0..2).for_each(|_| release.send(()).unwrap());
            for (status, _) in [first.join().unwrap(), other.join().unwrap()] {
                assert_eq!(status.detail, "answered");
            }
        });
    }
}
