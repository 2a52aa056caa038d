//! All services of an instance: answers for the name resolver at once, and leaves the work to one thread,
//! which starts processes, watches their time, and ends waits.

use elbus_plugin_api::hooks::{Hook, Resolution};
use parking_lot::Mutex;
use serde::Serialize;
use std::{
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use crate::{
    process::Process,
    service::{Decision, Service, State},
    settings::{Definition, Program},
};

/// Work of the thread.
pub(crate) enum Task {
    Start(usize),
    Ended { service: usize, how: String },
}

/// The services, and the thread that works for them.
pub(crate) struct Services {
    /// Held briefly, with no other lock. Nothing is started while it is held.
    entries: Mutex<Vec<Entry>>,
    tasks: mpsc::Sender<Task>,
    /// The resolver's hook, once it is added. Locked alone.
    pub(crate) hook: Mutex<Option<Arc<Hook>>>,
}

struct Entry {
    service: Service,
    process: Option<Arc<Process>>,
    /// It is to be started once its previous process has ended.
    starts_again: bool,
}

/// The answer of `activate.status`.
#[derive(Serialize)]
pub(crate) struct ServiceStatus {
    name: String,
    state: &'static str,
    /// The id of its process, if this broker has started it.
    pid: Option<u32>,
    /// Starts in the last minute.
    starts: usize,
    /// Why it did not come up the last time.
    problem: Option<String>,
}

impl Services {
    pub(crate) fn new(definitions: Vec<Definition>) -> (Arc<Self>, mpsc::Receiver<Task>) {
        let (tasks, received) = mpsc::channel();
        let entry =
            |definition| Entry { service: Service::new(definition), process: None, starts_again: false };
        let entries = Mutex::new(definitions.into_iter().map(entry).collect());
        (Arc::new(Services { entries, tasks, hook: Mutex::default() }), received)
    }

    /// Takes over the processes that an earlier instance has started for the same services.
    pub(crate) fn adopt(self: &Arc<Self>) {
        let definitions: Vec<_> =
            self.entries.lock().iter().map(|entry| entry.service.definition.clone()).collect();
        for (index, definition) in definitions.iter().enumerate() {
            let process = Process::adopt(definition, self.on_end(index));
            if let Some(entry) = self.entries.lock().get_mut(index) {
                entry.process = process;
            }
        }
    }

    /// Returns the names of the services.
    pub(crate) fn names(&self) -> Vec<String> {
        self.entries.lock().iter().map(|entry| entry.service.definition.name.clone()).collect()
    }

    /// Answers about a message to a service that is not registered. Does not block.
    pub(crate) fn resolve(&self, name: &str) -> Resolution {
        let (now, mut refused) = (Instant::now(), None);
        let mut entries = self.entries.lock();
        let found = entries.iter_mut().enumerate().find(|(_, entry)| entry.service.definition.name == name);
        let Some((index, entry)) = found else { return Resolution::Unknown };
        let resolution = match entry.service.request(now) {
            Decision::Wait(time) => Resolution::WaitUpTo(time),
            Decision::Start(time) => {
                _ = self.tasks.send(Task::Start(index));
                Resolution::WaitUpTo(time)
            }
            Decision::Refuse { is_new } => {
                refused = entry.service.problem.clone().filter(|_| is_new);
                Resolution::Unknown
            }
        };
        drop(entries);
        if let Some(reason) = refused {
            tracing::warn!(service = name, reason, "service is not started");
        }
        resolution
    }

    /// A client has registered.
    pub(crate) fn registered(&self, client: &str) {
        self.entries.lock().iter_mut().for_each(|entry| entry.service.registered(client));
    }

    /// A client has left.
    pub(crate) fn left(&self, client: &str) {
        self.entries.lock().iter_mut().for_each(|entry| entry.service.left(client));
    }

    /// Returns the status of a service.
    pub(crate) fn status(&self, name: &str) -> Option<ServiceStatus> {
        let now = Instant::now();
        let mut entries = self.entries.lock();
        let Entry { service, process, .. } =
            entries.iter_mut().find(|entry| entry.service.definition.name == name)?;
        let state = match service.state {
            State::Idle => "idle",
            State::Starting { .. } => "starting",
            State::Registered => "registered",
        };
        let pid = process.as_ref().filter(|process| process.is_running()).map(|process| process.id());
        let (starts, problem) = (service.recent_starts(now), service.problem.clone());
        Some(ServiceStatus { name: name.to_owned(), state, pid, starts, problem })
    }

    /// Does the work until the instance ends.
    pub(crate) fn work(self: &Arc<Self>, tasks: &mpsc::Receiver<Task>, is_stopping: impl Fn() -> bool) {
        while !is_stopping() {
            let due = self.entries.lock().iter().filter_map(|entry| entry.service.due()).min();
            // the instance stops within a second
            let idle = Duration::from_millis(200);
            let time = due.map_or(idle, |due| due.saturating_duration_since(Instant::now()).min(idle));
            match tasks.recv_timeout(time) {
                Ok(Task::Start(index)) => self.start(index),
                Ok(Task::Ended { service, how }) => self.ended(service, &how),
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            }
            self.check();
        }
    }

    /// Terminates the processes of services that end with the instance.
    pub(crate) fn stop(&self) {
        let entries = self.entries.lock();
        let ending = entries.iter().filter(|entry| entry.service.definition.stop);
        let ending: Vec<_> = ending.filter_map(|entry| entry.process.clone()).collect();
        drop(entries);
        ending.iter().for_each(|process| process.terminate());
    }

    fn on_end(self: &Arc<Self>, service: usize) -> crate::process::OnEnd {
        let tasks = self.tasks.clone();
        Box::new(move |how| _ = tasks.send(Task::Ended { service, how: how.to_owned() }))
    }

    fn start(self: &Arc<Self>, index: usize) {
        let definition = {
            let mut entries = self.entries.lock();
            let Some(entry) = entries.get_mut(index) else { return };
            // one that runs has left, or is being terminated
            entry.starts_again = entry.process.as_ref().is_some_and(|process| process.is_running());
            if entry.starts_again {
                return;
            }
            entry.service.definition.clone()
        };
        let (service, program) = (&definition.name, definition.program.title());
        match Process::start(&definition, self.on_end(index)) {
            Ok(process) => {
                tracing::info!(service, program, pid = process.id(), "service started");
                if let Some(entry) = self.entries.lock().get_mut(index) {
                    entry.process = Some(process);
                }
            }
            Err(error) => {
                let problem = match &definition.program {
                    Program::Exec { .. } => format!("{program} cannot be started: {error}"),
                    Program::Unit(unit) => format!("systemctl start {unit} cannot be run: {error}"),
                };
                let problem = self.entries.lock().get_mut(index).map(|entry| entry.service.fail(problem));
                self.give_up(service, problem);
            }
        }
    }

    fn ended(self: &Arc<Self>, index: usize, how: &str) {
        let mut entries = self.entries.lock();
        let Some(entry) = entries.get_mut(index) else { return };
        if entry.process.as_ref().is_some_and(|process| process.is_running()) {
            return; // another one was started
        }
        entry.process = None;
        if std::mem::take(&mut entry.starts_again) && entry.service.due().is_some() {
            drop(entries);
            return self.start(index);
        }
        // `systemctl start` ends when the unit runs, which registers by itself
        let is_unit = matches!(entry.service.definition.program, Program::Unit(_));
        if is_unit && how == "exited with status 0" {
            return;
        }
        let (name, problem) = (entry.service.definition.name.clone(), entry.service.ended(how));
        drop(entries);
        self.give_up(&name, problem);
    }

    /// Gives up services whose time is over.
    fn check(&self) {
        let now = Instant::now();
        let mut late = Vec::new();
        for entry in self.entries.lock().iter_mut() {
            if let Some(problem) = entry.service.check(now) {
                // otherwise it would never be started again
                late.push((entry.service.definition.name.clone(), problem, entry.process.clone()));
            }
        }
        for (name, problem, process) in late {
            if let Some(process) = process {
                process.terminate();
            }
            self.give_up(&name, Some(problem));
        }
    }

    /// Reports why a service did not come up, and refuses the messages that wait for it.
    fn give_up(&self, service: &str, problem: Option<String>) {
        let Some(reason) = problem else { return };
        tracing::warn!(service, reason, "service did not come up");
        let hook = self.hook.lock().clone();
        if let Some(hook) = hook {
            hook.end_wait(service);
        }
    }
}
