//! The broker of a soak, in a folder of its own: its process, its broker.toml, its log.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use super::Plan;
use crate::Failure;

pub(super) struct House {
    child: Child,
    pub(super) folder: PathBuf,
    tcp: String,
    builtin: bool,
}

impl House {
    pub(super) fn open(plan: &Plan) -> Result<Self, Failure> {
        let folder = std::env::temp_dir().join(format!("elbus-soak-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("broker.toml"), config(plan.builtin, false))?;
        let mut child = Command::new(&plan.elbusd)
            .args(["--config", "broker.toml"])
            .current_dir(&folder)
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(folder.join("log"))?)
            .spawn()
            .map_err(|error| {
                format!("{} (--elbusd): {error}; build it, or say where it is", plan.elbusd.display())
            })?;
        let stdout = child.stdout.take().ok_or("the broker has no output")?;
        let mut house = House { child, folder, tcp: String::new(), builtin: plan.builtin };
        let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
        for line in lines.by_ref() {
            if let Some(address) = line.trim().strip_prefix("listening on tcp:") {
                address.clone_into(&mut house.tcp);
            }
            if line.trim().starts_with("plugin ") {
                // what it says later is not waited for
                std::thread::spawn(move || lines.for_each(drop));
                return Ok(house);
            }
        }
        Err(format!("the broker did not start: see {}", house.folder.join("log").display()).into())
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where clients connect: in turns by UNIX socket and TCP.
    pub(super) fn address(&self, turn: usize) -> String {
        if turn.is_multiple_of(2) {
            self.folder.join("bus.sock").to_string_lossy().into_owned()
        } else {
            self.tcp.clone()
        }
    }

    /// A broker.toml of what runs, with other plugins or without them: what a reload is to find.
    pub(super) fn config_with(&self, another: bool) -> String {
        config(self.builtin, another)
    }

    /// Whether it has ended by itself.
    pub(super) fn failure(&mut self) -> Option<Failure> {
        let status = self.child.try_wait().ok()??;
        Some(format!("the broker has ended ({status}): see {}", self.folder.join("log").display()).into())
    }

    /// Ends the broker. The folder goes, unless somebody may want to look at the log.
    pub(super) fn close(mut self, good: bool) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if good {
            let _ = fs::remove_dir_all(&self.folder);
        } else {
            eprintln!("elbus-soak: the broker's log is {}", self.folder.join("log").display());
        }
    }
}

fn config(builtin: bool, another: bool) -> String {
    let plugin = |name: &str, code: &str, table: &str| {
        let code =
            if builtin { format!("builtin = \"{code}\"") } else { format!("library = \"elbus_{code}\"") };
        format!("[[plugin]]\nname = \"{name}\"\n{code}\n[plugin.config]\n{table}\n")
    };
    let mut text = plugin("local", "unix", "path = \"bus.sock\"\nqueue_bytes = 1000000");
    text += &plugin("network", "tcp", "bind = \"127.0.0.1:0\"\nqueue_bytes = 1000000");
    text += &plugin("rpc", "rpc", "");
    text += &plugin("announce", "announce", "");
    if another {
        text += &plugin("another", "unix", "path = \"another.sock\"");
        let rules = "default = \"allow\"\n[[plugin.config.client]]\nname = \"soak.*\"\nsubscribe = [\"deny forbidden/#\"]";
        text += &plugin("access", "acl", rules);
    }
    text
}
