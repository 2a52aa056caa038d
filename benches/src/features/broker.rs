//! The broker of a run, in a folder of its own: its process and its broker.toml.

use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs::{self, File},
    os::unix::net::UnixStream,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;

use super::Settings;
use crate::BoxError;

/// How long a broker may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(60);

/// The table of a plugin in broker.toml.
#[derive(Clone, Copy)]
pub(super) struct Table {
    pub(super) name: &'static str,
    /// Its library, without the prefix.
    pub(super) code: &'static str,
    pub(super) config: &'static str,
}

/// A process that is killed when it is dropped.
pub(super) struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A broker with a UNIX transport, RPC and some plugins.
pub(super) struct Broker {
    process: Process,
    folder: TempDir,
}

impl Broker {
    pub(super) fn start(settings: &Settings, plugins: &[Table]) -> Result<Self, BoxError> {
        let folder = tempfile::Builder::new().prefix("elbus-features-").tempdir()?;
        // the clients share the processors with the broker: however slow one is, nothing is dropped for it
        let mut text = "[broker]\nhold_budget_seconds = 3600\nshutdown_seconds = 60\n".to_owned();
        // a client that only reads for a long time is not disconnected
        let config = "path = \"bus.sock\"\ntimeout_seconds = 120.0";
        let transport = Table { name: "local", code: "unix", config };
        let rpc = Table { name: "rpc", code: "rpc", config: "" };
        for Table { name, code, config } in [&[transport, rpc], plugins].concat() {
            text += &format!(
                "[[plugin]]\nname = \"{name}\"\nlibrary = \"elbus_{code}\"\n[plugin.config]\n{config}\n"
            );
        }
        fs::write(folder.path().join("broker.toml"), text)?;
        Self::start_in(settings, folder)
    }

    fn start_in(settings: &Settings, folder: TempDir) -> Result<Self, BoxError> {
        let elbusd = settings.programs.join("elbusd");
        let child = Command::new(&elbusd)
            .args(["--quiet", "--log", "warn", "--config", "broker.toml"])
            .current_dir(&folder)
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(folder.path().join("log"))?)
            .spawn()
            .map_err(|error| format!("{}: {error}; build elbusd", elbusd.display()))?;
        let mut broker = Broker { process: Process(child), folder };
        let begin = Instant::now();
        while UnixStream::connect(broker.address()).is_err() {
            let status = broker.process.0.try_wait()?;
            if status.is_some() || begin.elapsed() > PATIENCE {
                let log = fs::read_to_string(broker.folder().join("log")).unwrap_or_default();
                return Err(format!("the broker does not listen ({status:?}): {}", log.trim()).into());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(broker)
    }

    /// Stops the broker as an operator does, and starts it again. Returns how long the start took.
    pub(super) fn restart(self, settings: &Settings) -> Result<(Self, Duration), BoxError> {
        let Broker { mut process, folder } = self;
        let pid = i32::try_from(process.0.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.ok_or("the broker has no process ID")?, Signal::TERM)?;
        process.0.wait()?;
        let begin = Instant::now();
        let broker = Self::start_in(settings, folder)?;
        Ok((broker, begin.elapsed()))
    }

    /// Starts `elbus monitor`, and returns once it gets records.
    pub(super) fn monitor(&self, settings: &Settings) -> Result<Process, BoxError> {
        let records = self.folder().join("records");
        let child = Command::new(settings.programs.join("elbus"))
            .args(["--addr", &self.address(), "--json", "monitor"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&records)?)
            .spawn()
            .map_err(|error| format!("elbus: {error}; build elbus-cli"))?;
        let mut process = Process(child);
        let begin = Instant::now();
        loop {
            let text = fs::read_to_string(&records)?;
            if text.contains("monitoring") {
                return Ok(process);
            }
            if process.0.try_wait()?.is_some() || begin.elapsed() > PATIENCE {
                return Err(format!("elbus monitor does not start: {}", text.trim()).into());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub(super) fn address(&self) -> String {
        self.folder().join("bus.sock").display().to_string()
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.0.id()
    }

    fn folder(&self) -> &Path {
        self.folder.path()
    }
}
