//! One service: whether it is started, and why it did not come up. Decides; starts and logs nothing.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use crate::settings::{Definition, Program};

/// The time in which `restart_limit` counts starts.
const RESTART_WINDOW: Duration = Duration::from_secs(60);
/// Names of other clients that are remembered during a start.
const MAX_OTHERS: usize = 3;

pub(crate) struct Service {
    pub(crate) definition: Definition,
    starts: VecDeque<Instant>,
    pub(crate) state: State,
    /// Why it did not come up the last time.
    pub(crate) problem: Option<String>,
    /// Clients that registered during its start: one of them may be the service under another name.
    others: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Idle,
    /// Must register until then.
    Starting {
        until: Instant,
    },
    Registered,
}

/// What happens to a message to a service that is not registered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It is started, and the message waits.
    Start(Duration),
    /// It is being started, and the message waits.
    Wait(Duration),
    /// It is not started any more; whether this is new.
    Refuse { is_new: bool },
}

impl Service {
    pub(crate) fn new(definition: Definition) -> Self {
        Service { definition, starts: VecDeque::new(), state: State::Idle, problem: None, others: Vec::new() }
    }

    /// Returns the number of starts in the last minute.
    pub(crate) fn recent_starts(&mut self, now: Instant) -> usize {
        while self.starts.front().is_some_and(|start| now.saturating_duration_since(*start) >= RESTART_WINDOW)
        {
            self.starts.pop_front();
        }
        self.starts.len()
    }

    /// Decides about a message to it.
    pub(crate) fn request(&mut self, now: Instant) -> Decision {
        if let State::Starting { until } = self.state
            && now < until
        {
            return Decision::Wait(until - now);
        }
        let limit = self.definition.restart_limit;
        if self.recent_starts(now) >= limit {
            self.state = State::Idle;
            let reason = self.problem.take().unwrap_or_else(|| "it has left".to_owned());
            let is_new = !reason.starts_with("not started");
            self.problem = Some(match is_new {
                true => format!(
                    "not started again within a minute after {limit} starts (restart_limit): {reason}"
                ),
                false => reason,
            });
            return Decision::Refuse { is_new };
        }
        self.starts.push_back(now);
        self.others.clear();
        self.state = State::Starting { until: now + self.definition.start_limit };
        Decision::Start(self.definition.start_limit)
    }

    /// A client has registered.
    pub(crate) fn registered(&mut self, client: &str) {
        if client == self.definition.name {
            (self.state, self.problem) = (State::Registered, None);
        } else if matches!(self.state, State::Starting { .. }) && self.others.len() < MAX_OTHERS {
            self.others.push(client.to_owned());
        }
    }

    /// The service has left.
    pub(crate) fn left(&mut self, client: &str) {
        if client == self.definition.name && self.state == State::Registered {
            self.state = State::Idle;
        }
    }

    /// Its program has ended. Returns why it did not come up, if it was being started.
    pub(crate) fn ended(&mut self, how: &str) -> Option<String> {
        if !matches!(self.state, State::Starting { .. }) {
            return None;
        }
        Some(self.fail(match &self.definition.program {
            Program::Exec { .. } => format!("{} {how} without registering", self.definition.program.title()),
            // that of the unit is in its journal
            Program::Unit(unit) => format!("systemctl start {unit} {how}: see systemctl status {unit}"),
        }))
    }

    /// It could not be started at all.
    pub(crate) fn fail(&mut self, problem: String) -> String {
        self.state = State::Idle;
        self.problem = Some(problem.clone());
        problem
    }

    /// Returns why it did not come up, if its time is over.
    pub(crate) fn check(&mut self, now: Instant) -> Option<String> {
        let State::Starting { until } = self.state else { return None };
        if now < until {
            return None;
        }
        let (title, limit) = (self.definition.program.title(), self.definition.start_limit.as_secs_f64());
        let mut problem = format!("{title} has not registered within {limit} s (start_seconds)");
        if !self.others.is_empty() {
            problem += &format!("; registered meanwhile: {}", self.others.join(", "));
        }
        Some(self.fail(problem))
    }

    /// Returns when [`check`](Self::check) is due.
    pub(crate) fn due(&self) -> Option<Instant> {
        match self.state {
            State::Starting { until } => Some(until),
            State::Idle | State::Registered => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Program;

    fn service() -> Service {
        Service::new(Definition {
            name: "s".into(),
            program: Program::Unit("s.service".into()),
            start_limit: Duration::from_secs(10),
            restart_limit: 2,
            stop: false,
        })
    }

    #[test]
    fn it_is_started_once_and_messages_wait_for_the_rest_of_its_time() {
        let (mut service, now) = (service(), Instant::now());
        assert_eq!(service.request(now), Decision::Start(Duration::from_secs(10)));
        assert_eq!(service.request(now + Duration::from_secs(4)), Decision::Wait(Duration::from_secs(6)));
        service.registered("s");
        assert_eq!((service.state, service.due()), (State::Registered, None));
        service.left("other");
        assert_eq!(service.state, State::Registered);
        service.left("s");
        assert_eq!(service.ended("exited with status 0"), None, "after it had registered");
        assert_eq!(service.request(now), Decision::Start(Duration::from_secs(10)));
    }

    #[test]
    fn a_service_that_ends_or_does_not_register_in_time_has_a_reason() {
        let (mut service, now) = (service(), Instant::now());
        service.request(now);
        let problem = service.ended("exited with status 3");
        let expected = "systemctl start s.service exited with status 3: see systemctl status s.service";
        assert_eq!(problem.as_deref(), Some(expected));
        service.request(now);
        service.registered("misspelt");
        assert_eq!(service.check(now + Duration::from_secs(9)), None);
        let problem = service.check(now + Duration::from_secs(10)).unwrap_or_default();
        assert!(problem.contains("within 10 s (start_seconds); registered meanwhile: misspelt"), "{problem}");
        assert_eq!(service.problem, Some(problem));
    }

    #[test]
    fn a_service_is_started_so_often_in_a_minute_only() {
        let (mut service, now) = (service(), Instant::now());
        for _ in 0..2 {
            assert!(matches!(service.request(now), Decision::Start(_)));
            service.ended("crashed");
        }
        assert_eq!(service.request(now), Decision::Refuse { is_new: true });
        assert_eq!(service.request(now), Decision::Refuse { is_new: false });
        let problem = service.problem.clone().unwrap_or_default();
        assert!(
            problem.contains("after 2 starts (restart_limit): systemctl start s.service crashed"),
            "{problem}"
        );
        assert!(matches!(service.request(now + RESTART_WINDOW), Decision::Start(_)));
    }
}
