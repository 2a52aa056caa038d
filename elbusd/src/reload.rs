//! Reloads broker.toml on SIGHUP and for the control method `config.reload`, one reload at a time. Owns
//! reading the file and reporting the result; the broker library applies the changes.

use elbus_broker::{Broker, ConfigFile, Reloaded};
use elbus_plugin_api::{Call, CallError, Code, Method};
use elbus_protocol::rpc::{INTERNAL_ERROR, INVALID_PARAMS};
use parking_lot::Mutex;
use serde::Serialize;
use std::sync::{Arc, Weak, mpsc};
use tokio::runtime::Handle;

use crate::{
    arguments::Arguments,
    builder, builtin_plugins,
    notify::ServiceNotifier,
    process::{ProcessSettings, cpu_latency::CpuLatency},
};

/// The maximum length of the status, which a service manager shows in one line.
const MAX_STATUS_CHARS: usize = 400;
/// How often the file can change while a reload waits for it.
const SETTLE_ATTEMPTS: usize = 10;

/// Reloads the file of the command line.
pub(crate) struct Reloader {
    arguments: Arguments,
    broker: Weak<Broker>,
    /// The program's runtime, if plugins are linked in.
    runtime: Option<Handle>,
    notify: ServiceNotifier,
    cpu_latency: Arc<CpuLatency>,
    /// Held during a reload: a further one reads the file afterwards.
    reloading: Mutex<()>,
}

/// The result of `config.reload`.
#[derive(Serialize)]
struct Answer {
    added: Vec<String>,
    removed: Vec<String>,
    restarted: Vec<String>,
    unchanged: Vec<String>,
    recovered: Vec<String>,
    refreshed: Vec<String>,
    /// Errors of plugins that could not start or reread their files, with file and line.
    errors: Vec<String>,
}

impl Reloader {
    pub(crate) fn new(
        arguments: Arguments,
        broker: &Arc<Broker>,
        runtime: Option<Handle>,
        notify: ServiceNotifier,
        cpu_latency: Arc<CpuLatency>,
    ) -> Arc<Self> {
        let broker = Arc::downgrade(broker);
        Arc::new(Reloader { arguments, broker, runtime, notify, cpu_latency, reloading: Mutex::new(()) })
    }

    /// Adds the control method `config.reload`.
    pub(crate) fn add_method(self: &Arc<Self>, broker: &Broker) {
        let method = Method::new("config.reload")
            .params("none")
            .about("reloads broker.toml: plugins are added, removed or restarted as needed")
            .slow()
            .admin();
        let this = self.clone();
        let added = broker.host().add_method(&method, move |call: &Call<'_>| this.answer(call));
        if let Err(error) = added {
            tracing::error!(%error, "cannot add the control method config.reload");
        }
    }

    fn answer(&self, call: &Call<'_>) -> Result<Vec<u8>, CallError> {
        if !call.params.is_empty() {
            return Err(CallError::new(INVALID_PARAMS, "config.reload takes no parameters"));
        }
        let answer = self.reload().map_err(|error| CallError::new(Code::Other.rpc_code(), error))?;
        rmp_serde::to_vec_named(&answer).map_err(|error| CallError::new(INTERNAL_ERROR, error.to_string()))
    }

    /// Starts the thread that reloads on a signal, so that a reload does not delay other signals. The
    /// returned function requests a reload. Requests during a reload cause one more after it.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(crate) fn on_signal(self: &Arc<Self>) -> std::io::Result<impl Fn() + use<>> {
        let (request, requests) = mpsc::sync_channel(1);
        let this = self.clone();
        let body = move || {
            while requests.recv().is_ok() {
                // the result has been logged
                _ = this.reload();
            }
        };
        std::thread::Builder::new().name("reload".to_owned()).spawn(body)?;
        Ok(move || _ = request.try_send(()))
    }

    fn reload(&self) -> Result<Answer, String> {
        let _reloading = self.reloading.lock();
        let broker = self.broker.upgrade().ok_or("the broker is shutting down")?;
        self.notify.reloading();
        let reloaded = self.change(&broker).inspect_err(|error| tracing::error!(%error, "reload failed"));
        self.notify.ready(&status_after(status(&broker), &reloaded));
        reloaded
    }

    /// Returns the file to apply: immediately if it removes no plugin, otherwise once it has been unchanged
    /// for `reload_settle_seconds`. An editor that truncates a file before it writes therefore removes no
    /// plugins.
    fn settled(
        &self,
        broker: &Broker,
        (mut file, mut settings): Read,
        read: impl Fn() -> Result<Read, String>,
    ) -> Result<Read, String> {
        let settle = broker.settings().reload_settle();
        let running: Vec<_> = broker.plugins().into_iter().map(|report| report.name).collect();
        for _ in 0..SETTLE_ATTEMPTS {
            let from_file = |name: &String| broker.location_of(name, "").is_some();
            if !file.declares_plugins() && running.iter().any(from_file) {
                return Err("the file declares no plugins; a reload does not remove all of them".to_owned());
            }
            let builder = builder::broker_builder(&self.arguments, Some(&file));
            let names = builder.plugin_names();
            let removed: Vec<_> = running.iter().filter(|name| !names.contains(&name.as_str())).collect();
            if removed.is_empty() || settle.is_zero() {
                return Ok((file, settings));
            }
            tracing::info!(
                ?removed,
                settle_seconds = settle.as_secs_f64(),
                "reload would remove plugins; waiting until the file is unchanged"
            );
            std::thread::sleep(settle);
            let (again, new_settings) = read()?;
            if again.has_same_text(&file) {
                return Ok((file, settings));
            }
            (file, settings) = (again, new_settings);
        }
        Err(format!("the file keeps changing (reload_settle_seconds = {})", settle.as_secs_f64()))
    }

    fn change(&self, broker: &Broker) -> Result<Answer, String> {
        let Some(path) = &self.arguments.config else {
            return Err("there is no file to reload: the broker was started without --config".to_owned());
        };
        tracing::info!(file = %path.display(), "reloading");
        let (file, settings) = self.settled(broker, read(path)?, || read(path))?;
        let builder = builder::broker_builder(&self.arguments, Some(&file));
        // plugins that are linked in share the runtime of those at the start
        let _entered = self.runtime.as_ref().map(Handle::enter);
        let reloaded = broker.reload(builder).map_err(|error| file.locate(&error).to_string())?;
        self.cpu_latency.set(settings.cpu_latency_us);
        let Reloaded { added, removed, restarted, unchanged, recovered, refreshed, errors, .. } = reloaded;
        // the broker has logged them
        let errors: Vec<_> = errors.iter().map(|error| file.locate(error).to_string()).collect();
        tracing::info!(?added, ?removed, ?restarted, ?recovered, unchanged = unchanged.len(), "reloaded");
        Ok(Answer { added, removed, restarted, unchanged, recovered, refreshed, errors })
    }
}

/// Returns the broker's status after a reload, in one line of limited length.
fn status_after(status: String, reloaded: &Result<Answer, String>) -> String {
    let text = match reloaded {
        Ok(Answer { errors, .. }) => match errors.first() {
            None => return status,
            Some(error) => format!("{status}; reloaded with {} errors: {error}", errors.len()),
        },
        Err(error) => format!("{status}; reload failed, the previous configuration is in force: {error}"),
    };
    text.chars().take(MAX_STATUS_CHARS).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A file, and the program's keys in it.
type Read = (ConfigFile, ProcessSettings);

fn read(path: &std::path::Path) -> Result<Read, String> {
    ConfigFile::read_with(path, &builtin_plugins::linked_plugins()).map_err(|error| error.to_string())
}

/// Returns the broker's status in one line.
pub(crate) fn status(broker: &Broker) -> String {
    let reports = broker.plugins();
    let failed: Vec<_> =
        reports.iter().filter(|report| report.state.as_str() == "failed").map(|r| r.name.as_str()).collect();
    if failed.is_empty() {
        format!("serving, {} plugins", reports.len())
    } else {
        // a name can be any text, and the notification consists of lines
        let failed = failed.join(", ").replace(char::is_control, " ");
        format!("serving, {} plugins, failed: {failed}", reports.len())
    }
}
