//! The FIFO server of ELBUS: lines of text, written into a named pipe by anybody with a shell, become messages
//! that `.broker` sends (section 9 of the protocol).
//!
//! It owns the life of an instance. It never routes, never answers (a FIFO has no way back), and never removes a
//! file that is not the FIFO it serves.
#![deny(unsafe_code)]

mod command;
mod complaint;
mod lines;
mod pipe;
mod server;
mod settings;
mod signal;

use elbus_plugin_api::{Config, Host, Plugin, PluginError, PluginThread, Status};
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
    server: Option<PluginThread>,
}

impl Plugin for Fifo {
    const ABOUT: &'static str = "takes commands as lines of text from a FIFO";

    fn create(host: Host, config: &Config) -> Result<Self, PluginError> {
        let settings = config.read::<Settings>()?.check()?;
        Ok(Fifo { host, settings, state: Mutex::default() })
    }

    fn start(&self) -> Result<(), PluginError> {
        let pipe = Pipe::open(&self.settings.path, self.settings.mode)
            .map_err(|error| PluginError::of_key("path", error.to_string()))?;
        let signal = Signal::new()
            .map_err(|error| PluginError::new(format!("no eventfd for {}: {error}", self.host.instance())))?;
        self.state.lock().open = Some((Arc::new(pipe), Arc::new(signal)));
        Ok(())
    }

    fn serve(&self) {
        let mut state = self.state.lock();
        let Some((pipe, signal)) = state.open.clone() else { return };
        let speaker = self.host.speaker();
        match server::spawn(&self.host, pipe, signal, speaker, self.settings.max_line_bytes) {
            Ok(server) => state.server = Some(server),
            Err(error) => tracing::error!(path = %self.settings.path.display(), %error, "fifo not served"),
        }
    }

    fn stop(&self, deadline: Duration) {
        let State { open, server } = std::mem::take(&mut *self.state.lock());
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
