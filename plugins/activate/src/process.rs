//! The processes of services: starts them, waits for their end, and ends them. They outlive an instance
//! unless their service says otherwise, so the list belongs to the library.

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use std::{
    io,
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Child, Command, ExitStatus, Stdio},
    sync::Arc,
};

use crate::settings::{Definition, Program};

/// Where programs are searched that a service starts itself.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The processes of all instances that run. A leaf lock.
static RUNNING: Mutex<Vec<Arc<Process>>> = Mutex::new(Vec::new());

/// Called with how a process has ended.
pub(crate) type OnEnd = Box<dyn FnOnce(&str) + Send>;

/// A process of a service.
pub(crate) struct Process {
    definition: Definition,
    pid: Pid,
    /// A leaf lock. The process is reaped while it is held, so that no other process is signalled.
    state: Mutex<ProcessState>,
}

struct ProcessState {
    has_ended: bool,
    on_end: Option<OnEnd>,
}

impl Process {
    /// Starts a service.
    ///
    /// # Errors
    /// It cannot be started.
    pub(crate) fn start(definition: &Definition, on_end: OnEnd) -> io::Result<Arc<Process>> {
        let child = command(&definition.program).spawn()?;
        let pid = Pid::from_child(&child);
        let state = Mutex::new(ProcessState { has_ended: false, on_end: Some(on_end) });
        let process = Arc::new(Process { definition: definition.clone(), pid, state });
        RUNNING.lock().push(process.clone());
        let waited = process.clone();
        // not a thread of the instance: the process outlives it
        std::thread::Builder::new().name("service".to_owned()).spawn(move || waited.wait(child))?;
        Ok(process)
    }

    /// Returns the process that another instance has started for the same service and that still runs. It
    /// reports its end to this one.
    pub(crate) fn adopt(definition: &Definition, on_end: OnEnd) -> Option<Arc<Process>> {
        let running = RUNNING.lock();
        let process = running.iter().find(|process| process.definition == *definition)?.clone();
        drop(running);
        let mut state = process.state.lock();
        if state.has_ended {
            return None;
        }
        state.on_end = Some(on_end);
        drop(state);
        Some(process)
    }

    /// Returns whether it runs.
    pub(crate) fn is_running(&self) -> bool {
        !self.state.lock().has_ended
    }

    /// Returns the process id.
    pub(crate) fn id(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Asks it, and what it has started in its process group, to end.
    pub(crate) fn terminate(&self) {
        let state = self.state.lock();
        if !state.has_ended
            && let Err(error) = kill_process_group(self.pid, Signal::TERM)
        {
            let service = &self.definition.name;
            tracing::warn!(service, %error, "cannot terminate the process of a service");
        }
    }

    fn wait(self: Arc<Self>, mut child: Child) {
        // does not reap it
        while waitid(WaitId::Pid(self.pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)
            .is_err_and(|error| error == rustix::io::Errno::INTR)
        {}
        let mut state = self.state.lock();
        let how = match child.wait() {
            Ok(status) => ended(status),
            Err(error) => format!("was lost: {error}"),
        };
        state.has_ended = true;
        let on_end = state.on_end.take();
        drop(state);
        RUNNING.lock().retain(|process| !Arc::ptr_eq(process, &self));
        if let Some(on_end) = on_end {
            on_end(&how);
        }
    }
}

fn ended(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with status {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

fn command(program: &Program) -> Command {
    let mut command = match program {
        Program::Exec { command: line, user, group, directory, environment } => {
            let (program, arguments) =
                line.split_first().map_or(("", &[][..]), |(program, rest)| (program, rest));
            let mut command = Command::new(program);
            // nothing of the broker's environment: it can name sockets and files of the broker
            command.args(arguments).env_clear().env("PATH", PATH).envs(environment);
            if let Some(user) = user {
                command.uid(*user);
            }
            if let Some(group) = group {
                command.gid(*group);
            }
            command.current_dir(directory.as_deref().unwrap_or("/".as_ref()));
            command
        }
        Program::Unit(unit) => {
            let mut command = Command::new("systemctl");
            command.args(["start", "--", unit]);
            command
        }
    };
    // every other descriptor of the broker is closed on exec
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    command
}
