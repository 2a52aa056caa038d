//! The FIFO server of ELBUS: lines of text, written into a named pipe from a shell, become messages that
//! `.broker` sends (section 9 of the protocol). Access rules know the sender as `.fifo.INSTANCE`.
//!
//! It owns an instance. It never routes, never answers (a FIFO is one-way), and never removes a file other
//! than the FIFO it serves.
#![deny(unsafe_code)]

mod command;
mod lines;
mod pipe;
mod server;
mod settings;
mod signal;

use elbus_plugin_api::{Client, Config, Host, Plugin, PluginError, PluginThread, Status};
use parking_lot::Mutex;
use std::{sync::Arc, time::Duration};

pub use command::{Command, ParseError, parse};

use pipe::Pipe;
use settings::{Checked, Settings};
use signal::Signal;

/// How long the thread of a replaced FIFO can take to end.
const REPLACED_DEADLINE: Duration = Duration::from_secs(1);

/// One FIFO and the thread that reads it.
pub struct Fifo {
    host: Host,
    settings: Checked,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    open: Option<(Arc<Pipe>, Arc<Signal>)>,
    /// Present between `start` and `serve`.
    sender: Option<Client>,
    server: Option<PluginThread>,
}

impl Plugin for Fifo {
    const ABOUT: &'static str = "sends the requests written to a FIFO, one per line";

    fn create(host: Host, config: &Config) -> Result<Self, PluginError> {
        let settings = config.read::<Settings>()?.check()?;
        let (path, mode) = (settings.path.display(), format!("{:04o}", settings.mode));
        if settings.is_default_mode {
            tracing::warn!(%path, mode, "only the broker's user can write to the fifo: neither mode nor group is set");
        }
        if settings.mode & 0o002 != 0 {
            tracing::warn!(%path, mode, admin = settings.admin, "every user of this machine can write to the fifo");
        }
        Ok(Fifo { host, settings, state: Mutex::default() })
    }

    fn start(&self) -> Result<(), PluginError> {
        let state = self.open()?;
        *self.state.lock() = state;
        Ok(())
    }

    fn serve(&self) {
        if let Err(error) = self.spawn(&mut self.state.lock()) {
            tracing::error!(path = %self.settings.path.display(), %error, "fifo not served");
        }
    }

    fn stop(&self, deadline: Duration) {
        let state = std::mem::take(&mut *self.state.lock());
        state.end(deadline);
    }

    /// Creates a removed FIFO again: writers would create a regular file instead.
    fn refresh(&self) -> Result<(), PluginError> {
        let is_gone = |state: &State| state.open.as_ref().is_some_and(|(pipe, _)| !pipe.exists());
        if !is_gone(&self.state.lock()) {
            return Ok(());
        }
        tracing::warn!(path = %self.settings.path.display(), "fifo was removed; creating it again");
        let mut again = self.open()?;
        self.spawn(&mut again)?;
        let replaced = {
            let mut state = self.state.lock();
            if state.open.is_none() {
                again // stopped in the meantime
            } else {
                std::mem::replace(&mut *state, again)
            }
        };
        replaced.end(REPLACED_DEADLINE);
        Ok(())
    }

    fn status(&self) -> Status {
        let addresses = match &self.state.lock().open {
            Some((pipe, _)) => vec![format!("fifo:{}", pipe.path().display())],
            None => Vec::new(),
        };
        Status::new(addresses, "")
    }
}

impl Fifo {
    /// Opens the FIFO and what its thread needs.
    fn open(&self) -> Result<State, PluginError> {
        let Checked { path, mode, group, admin, .. } = &self.settings;
        let sender = self.host.system_sender("fifo", *admin).map_err(|code| {
            PluginError::new(format!("cannot create the sender for {}: {code}", self.host.instance()))
        })?;
        let pipe = Pipe::open(path, *mode, *group)
            .map_err(|error| PluginError::of_key("path", error.to_string()))?;
        let signal = Signal::new().map_err(|error| {
            PluginError::new(format!("cannot create an eventfd for {}: {error}", self.host.instance()))
        })?;
        Ok(State { open: Some((Arc::new(pipe), Arc::new(signal))), sender: Some(sender), server: None })
    }

    /// Starts the thread unless it is running.
    fn spawn(&self, state: &mut State) -> Result<(), PluginError> {
        let Some((pipe, signal)) = state.open.clone() else { return Ok(()) };
        let Some(sender) = state.sender.take() else { return Ok(()) };
        let Checked { max_line_bytes, admin, .. } = self.settings;
        let limits = server::Limits { max_line_bytes, admin };
        state.server = Some(server::spawn(&self.host, pipe, signal, sender, limits)?);
        Ok(())
    }
}

impl State {
    fn end(self, deadline: Duration) {
        let State { open: Some((pipe, signal)), server, .. } = self else { return };
        signal.stop();
        if server.is_some_and(|server| !server.ended_within(deadline)) {
            tracing::warn!(path = %pipe.path().display(), ?deadline, "thread of the fifo does not end");
        }
        pipe.remove();
    }
}

impl Drop for Fifo {
    /// Stops the thread, which would otherwise keep the pipe open.
    fn drop(&mut self) {
        self.stop(Duration::ZERO);
    }
}

elbus_plugin_api::export_plugin!(Fifo);
