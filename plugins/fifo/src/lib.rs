//! The FIFO server of ELBUS: lines of text, written into a named pipe from a shell, become messages that
//! `.broker` sends (section 9 of the protocol). Access rules know the sender as `.fifo.INSTANCE`.
//!
//! It owns the life of an instance. It never routes, never answers (a FIFO has no way back), and never
//! removes a file that is not the FIFO it serves.
#![deny(unsafe_code)]

mod command;
mod complaint;
mod lines;
mod pipe;
mod server;
mod settings;
mod signal;

use elbus_plugin_api::{Client, Config, Host, Plugin, PluginError, PluginThread, Status};
use parking_lot::Mutex;
use std::{sync::Arc, time::Duration};

pub use command::{Command, Wrong, parse};

use pipe::Pipe;
use settings::{Checked, Settings};
use signal::Signal;

/// One FIFO and the thread that reads it.
pub struct Fifo {
    host: Host,
    settings: Checked,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    open: Option<(Arc<Pipe>, Arc<Signal>)>,
    /// From `start` to `serve`.
    sender: Option<Client>,
    server: Option<PluginThread>,
}

impl Plugin for Fifo {
    const ABOUT: &'static str = "takes commands as lines of text from a FIFO";

    fn create(host: Host, config: &Config) -> Result<Self, PluginError> {
        let settings = config.read::<Settings>()?.check()?;
        let (path, mode) = (settings.path.display(), format!("{:04o}", settings.mode));
        if settings.is_default_mode {
            tracing::warn!(%path, mode, "neither mode nor group is set: only the user of the broker may write into the fifo");
        }
        if settings.mode & 0o002 != 0 {
            tracing::warn!(%path, mode, admin = settings.admin, "every user of this machine may write into the fifo");
        }
        Ok(Fifo { host, settings, state: Mutex::default() })
    }

    fn start(&self) -> Result<(), PluginError> {
        let Checked { path, mode, group, admin, .. } = &self.settings;
        let sender = self
            .host
            .system_sender("fifo", *admin)
            .map_err(|code| PluginError::new(format!("no sender for {}: {code}", self.host.instance())))?;
        let pipe = Pipe::open(path, *mode, *group)
            .map_err(|error| PluginError::of_key("path", error.to_string()))?;
        let signal = Signal::new()
            .map_err(|error| PluginError::new(format!("no eventfd for {}: {error}", self.host.instance())))?;
        let open = Some((Arc::new(pipe), Arc::new(signal)));
        *self.state.lock() = State { open, sender: Some(sender), server: None };
        Ok(())
    }

    fn serve(&self) {
        let mut state = self.state.lock();
        let Some((pipe, signal)) = state.open.clone() else { return };
        let Some(sender) = state.sender.take() else { return };
        let Checked { max_line_bytes, admin, .. } = self.settings;
        match server::spawn(&self.host, pipe, signal, sender, server::Limits { max_line_bytes, admin }) {
            Ok(server) => state.server = Some(server),
            Err(error) => tracing::error!(path = %self.settings.path.display(), %error, "fifo not served"),
        }
    }

    fn stop(&self, deadline: Duration) {
        let State { open, server, .. } = std::mem::take(&mut *self.state.lock());
        let Some((pipe, signal)) = open else { return };
        signal.stop();
        if server.is_some_and(|server| !server.ended_within(deadline)) {
            tracing::warn!(path = %pipe.path().display(), ?deadline, "the thread of the fifo is late to end");
        }
        pipe.remove();
    }

    fn status(&self) -> Status {
        let addresses = match &self.state.lock().open {
            Some((pipe, _)) => vec![format!("fifo:{}", pipe.path().display())],
            None => Vec::new(),
        };
        Status { addresses, detail: String::new() }
    }
}

impl Drop for Fifo {
    /// A thread that still reads would hold the pipe open for ever.
    fn drop(&mut self) {
        self.stop(Duration::ZERO);
    }
}

elbus_plugin_api::export_plugin!(Fifo);
