//! The broker of a soak test, in a folder of its own: its process, its broker.toml, its log.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};
use tempfile::TempDir;

use super::Plan;
use crate::BoxError;

pub(super) struct BrokerFixture {
    child: Child,
    folder: TempDir,
    tcp_address: String,
    builtin: bool,
}

impl BrokerFixture {
    pub(super) fn start(plan: &Plan) -> Result<Self, BoxError> {
        let folder = tempfile::Builder::new().prefix("elbus-soak-").tempdir()?;
        fs::write(folder.path().join("broker.toml"), config(plan.builtin, false))?;
        let mut child = Command::new(&plan.elbusd)
            .args(["--config", "broker.toml"])
            .current_dir(&folder)
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(folder.path().join("log"))?)
            .spawn()
            .map_err(|error| {
                format!("{}: {error}; build elbusd or set its path (--elbusd)", plan.elbusd.display())
            })?;
        let stdout = child.stdout.take().ok_or("the broker has no output")?;
        let mut fixture = BrokerFixture { child, folder, tcp_address: String::new(), builtin: plan.builtin };
        let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
        for line in lines.by_ref() {
            if let Some(address) = line.trim().strip_prefix("listening on tcp:") {
                address.clone_into(&mut fixture.tcp_address);
            }
            if line.trim().starts_with("plugin ") {
                // the rest of the output must be read, or the pipe fills up
                std::thread::spawn(move || lines.for_each(drop));
                return Ok(fixture);
            }
        }
        fixture.stop(false);
        Err("the broker did not start".into())
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// An address of the broker: the UNIX socket for an even index, TCP for an odd one.
    pub(super) fn address(&self, index: usize) -> String {
        if index.is_multiple_of(2) {
            self.folder.path().join("bus.sock").to_string_lossy().into_owned()
        } else {
            self.tcp_address.clone()
        }
    }

    /// The folder of the broker, with its broker.toml.
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The contents of broker.toml, with or without additional plugins, for a reload.
    pub(super) fn config(&self, additional_plugins: bool) -> String {
        config(self.builtin, additional_plugins)
    }

    /// An error if the broker has ended.
    pub(super) fn error(&mut self) -> Option<BoxError> {
        let status = self.child.try_wait().ok()??;
        Some(format!("the broker has ended ({status})").into())
    }

    /// Stops the broker and removes its folder. If the test has failed, the folder stays and the path of
    /// the log is printed.
    pub(super) fn stop(self, passed: bool) {
        let BrokerFixture { mut child, mut folder, .. } = self;
        let _ = child.kill();
        let _ = child.wait();
        if !passed {
            folder.disable_cleanup(true);
            eprintln!("elbus-soak: the log of the broker is {}", folder.path().join("log").display());
        }
    }
}

fn config(builtin: bool, additional_plugins: bool) -> String {
    let plugin = |name: &str, code: &str, table: &str| {
        let code =
            if builtin { format!("builtin = \"{code}\"") } else { format!("library = \"elbus_{code}\"") };
        format!("[[plugin]]\nname = \"{name}\"\n{code}\n[plugin.config]\n{table}\n")
    };
    // the clients share the processors with the broker: however slow a receiver is, nothing is dropped for it
    let mut text = "[broker]\nhold_budget_seconds = 3600\n".to_owned();
    text += &plugin("local", "unix", "path = \"bus.sock\"\nqueue_bytes = 1000000");
    text += &plugin("network", "tcp", "bind = \"127.0.0.1:0\"\nqueue_bytes = 1000000");
    text += &plugin("rpc", "rpc", "");
    text += &plugin("announce", "announce", "");
    if additional_plugins {
        text += &plugin("additional", "unix", "path = \"additional.sock\"");
        let rules = "default = \"allow\"\n\
                     [[plugin.config.client]]\n\
                     name = \"soak.*\"\n\
                     subscribe = [\"deny forbidden/#\"]";
        text += &plugin("access", "acl", rules);
    }
    text
}
