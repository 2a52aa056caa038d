//! The brokers: where their programs are, how they are started for a comparison, and which workloads they
//! support. A started broker ends with its [`RunningBroker`].

use std::{
    net::{TcpListener, TcpStream},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;

use super::workloads::Workload;
use crate::{
    BoxError,
    driver::{self, elbus},
    load::{Protocol, Scenario},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BrokerKind {
    /// ELBUS with plugins loaded from libraries.
    ElbusLibraries,
    /// ELBUS with the plugins that are linked in.
    ElbusBuiltin,
    /// ELBUS with plugins loaded from libraries, whose clients have rings of this size in bytes.
    ElbusRings(u32),
    Relay,
    Busrt,
    Nats,
    Redis,
    Mosquitto,
}

/// The broker that all others are compared with.
pub(super) const ELBUS: &str = "elbus";
/// The upper limit for a broker.
pub(super) const RELAY: &str = "relay";

/// ELBUS with rings of shared memory.
pub(super) const RINGS: &str = "rings";
/// The same with larger rings.
pub(super) const LARGE_RINGS: &str = "rings-1m";

const ALL: [(BrokerKind, &str); 9] = [
    (BrokerKind::ElbusLibraries, ELBUS),
    (BrokerKind::ElbusBuiltin, "elbus-builtin"),
    (BrokerKind::ElbusRings(512 * 1024), RINGS),
    (BrokerKind::ElbusRings(1024 * 1024), LARGE_RINGS),
    (BrokerKind::Relay, RELAY),
    (BrokerKind::Busrt, "busrt"),
    (BrokerKind::Nats, "nats"),
    (BrokerKind::Redis, "redis"),
    (BrokerKind::Mosquitto, "mosquitto"),
];

/// An installed broker.
#[derive(Debug)]
pub(super) struct Broker {
    kind: BrokerKind,
    name: &'static str,
    program: PathBuf,
}

/// Selects the brokers of these names, or all that are installed.
pub(super) fn select(names: &[String], programs: &Path) -> Result<Vec<Broker>, BoxError> {
    let known: Vec<_> = ALL.iter().map(|(_, name)| *name).collect();
    if let Some(name) = names.iter().find(|name| !known.contains(&name.as_str())) {
        return Err(format!("unknown broker {name}: expected one of {}", known.join(", ")).into());
    }
    let mut selected = Vec::new();
    for (kind, name) in ALL {
        if !names.is_empty() && !names.iter().any(|selected| selected == name) {
            continue;
        }
        match kind.find_program(programs) {
            Some(program) => selected.push(Broker { kind, name, program }),
            None if names.is_empty() && !kind.is_own() => {
                eprintln!("{name} is not installed: skipped");
            }
            None => {
                return Err(format!(
                    "{name}: the program is neither in {} nor in PATH; build elbusd and elbus-relay with \
                     `cargo build --release -p elbusd -p elbus-benches`",
                    programs.display()
                )
                .into());
            }
        }
    }
    Ok(selected)
}

impl BrokerKind {
    /// Whether its program is built from this repository.
    fn is_own(self) -> bool {
        matches!(
            self,
            BrokerKind::ElbusLibraries
                | BrokerKind::ElbusBuiltin
                | BrokerKind::ElbusRings(_)
                | BrokerKind::Relay
        )
    }

    fn find_program(self, programs: &Path) -> Option<PathBuf> {
        let own = |name: &str| Some(programs.join(name)).filter(|path| path.is_file());
        match self {
            BrokerKind::ElbusLibraries | BrokerKind::ElbusBuiltin | BrokerKind::ElbusRings(_) => {
                own("elbusd")
            }
            BrokerKind::Relay => own("elbus-relay"),
            BrokerKind::Busrt => find_installed("ELBUS_BUSRTD", "busrtd"),
            BrokerKind::Nats => find_installed("ELBUS_NATS", "nats-server"),
            BrokerKind::Redis => find_installed("ELBUS_REDIS", "redis-server"),
            BrokerKind::Mosquitto => find_installed("ELBUS_MOSQUITTO", "mosquitto"),
        }
    }
}

/// Finds a program by an environment variable, else in PATH.
fn find_installed(variable: &str, name: &str) -> Option<PathBuf> {
    if let Some(path) = std::env::var_os(variable).filter(|path| !path.is_empty()) {
        return Some(path.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Debian installs servers in a folder that is not in the PATH of users
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    folders.map(|folder| folder.join(name)).find(|path| path.is_file())
}

impl Broker {
    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    pub(super) fn protocol(&self) -> Protocol {
        match self.kind {
            BrokerKind::ElbusLibraries
            | BrokerKind::ElbusBuiltin
            | BrokerKind::ElbusRings(_)
            | BrokerKind::Busrt => Protocol::Elbus,
            BrokerKind::Relay => Protocol::Relay,
            BrokerKind::Nats => Protocol::Nats,
            BrokerKind::Redis => Protocol::Redis,
            BrokerKind::Mosquitto => Protocol::Mqtt,
        }
    }

    /// Whether it has what a workload needs.
    pub(super) fn supports(&self, workload: &Workload) -> bool {
        match (workload.scenario, self.kind) {
            // the relay needs two file descriptors per client, and clients with rings three and more; busrtd
            // loses what is sent ahead in the handshake
            (Scenario::Idle, BrokerKind::Relay | BrokerKind::ElbusRings(_) | BrokerKind::Busrt) => false,
            (_, BrokerKind::ElbusRings(_)) if workload.tcp => false,
            _ => workload.plan(self.protocol(), "", Duration::ZERO).validate().is_ok(),
        }
    }

    /// The version that it reports.
    pub(super) fn version(&self) -> String {
        if self.kind == BrokerKind::Busrt {
            // it has no option for that, but reports its version to clients
            let version = self.start(false).and_then(|broker| elbus::broker_version(broker.address()));
            return version.map_or_else(|_| "unknown".into(), |version| format!("busrtd {version}"));
        }
        let option = if self.kind == BrokerKind::Mosquitto { "-h" } else { "--version" };
        let output = Command::new(&self.program).arg(option).stdin(Stdio::null()).output();
        let text =
            output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        let line = text.lines().next().filter(|line| !line.is_empty()).unwrap_or("unknown").trim();
        line.split_once(" sha=").map_or(line, |(version, _)| version).to_owned()
    }

    /// How its settings differ from its defaults, for the report.
    pub(super) fn settings(&self) -> &'static str {
        match self.kind {
            BrokerKind::ElbusLibraries => "plugins loaded from libraries",
            BrokerKind::ElbusBuiltin => "the same plugins, linked in",
            BrokerKind::ElbusRings(bytes) if bytes > 512 * 1024 => "as `rings`, of 1 MiB",
            BrokerKind::ElbusRings(_) => "as `elbus`, but clients have rings of shared memory, of 512 KiB",
            BrokerKind::Relay => "passes on bytes without parsing them: the upper limit",
            BrokerKind::Busrt => "queues of 65,536 frames, because it disconnects clients with a full queue",
            BrokerKind::Nats => "TCP, because it has no UNIX sockets",
            BrokerKind::Redis => "PUBLISH and SUBSCRIBE, no persistence, unlimited subscriber buffers",
            BrokerKind::Mosquitto => "MQTT 3.1.1, QoS 0, unlimited queues, no persistence",
        }
    }

    fn has_unix_sockets(&self) -> bool {
        self.kind != BrokerKind::Nats
    }

    pub(super) fn start(&self, tcp: bool) -> Result<RunningBroker, BoxError> {
        let folder = tempfile::Builder::new().prefix("elbus-compare-").tempdir()?;
        let address = if tcp || !self.has_unix_sockets() {
            let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
            format!("127.0.0.1:{port}")
        } else {
            folder.path().join("bus.sock").display().to_string()
        };
        let mut command = Command::new(&self.program);
        self.set_arguments(&mut command, &address, folder.path())?;
        let asks_for_rings = matches!(self.kind, BrokerKind::ElbusRings(_));
        let stderr = std::fs::File::create(folder.path().join("stderr"))?;
        command.current_dir(folder.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
        let child = command.spawn().map_err(|error| format!("{}: {error}", self.program.display()))?;
        let mut running = RunningBroker { child, address, folder };
        running.wait_until_listening()?;
        if asks_for_rings {
            running.address.push_str("?rings");
        }
        Ok(running)
    }

    fn set_arguments(&self, command: &mut Command, address: &str, folder: &Path) -> Result<(), BoxError> {
        let port = address.rsplit_once(':').filter(|_| !driver::is_path(address)).map(|(_, port)| port);
        let elbus = ["--quiet", "--log", "warn", "--bind", address, "--plugins"];
        match self.kind {
            BrokerKind::ElbusLibraries => command.args(elbus).arg("library"),
            BrokerKind::ElbusBuiltin => command.args(elbus).arg("builtin"),
            BrokerKind::ElbusRings(bytes) => {
                let keys = format!("{address}?rings=true&ring_bytes={bytes}");
                command
                    .args(elbus.map(|argument| if argument == address { keys.as_str() } else { argument }));
                command.arg("library")
            }
            BrokerKind::Relay => command.arg(address),
            BrokerKind::Busrt => command.args(["--queue-size", "65536", "-B", address]),
            BrokerKind::Nats => command.args(["-a", "127.0.0.1", "-p", port.unwrap_or_default()]),
            BrokerKind::Redis => {
                command.args(["--save", "", "--appendonly", "no", "--maxclients", "20000"]);
                command.args(["--client-output-buffer-limit", "pubsub 0 0 0"]);
                match port {
                    Some(port) => command.args(["--bind", "127.0.0.1", "--port", port]),
                    None => command.args(["--port", "0", "--unixsocket", address]),
                }
            }
            BrokerKind::Mosquitto => {
                let listener = match port {
                    Some(port) => format!("{port} 127.0.0.1"),
                    None => format!("0 {address}"),
                };
                let file = folder.join("mosquitto.conf");
                let text = format!(
                    "listener {listener}\nallow_anonymous true\npersistence false\nmax_queued_messages 0\n\
                     set_tcp_nodelay true\nuser root\nlog_type error\n"
                );
                std::fs::write(&file, text)?;
                command.arg("-c").arg(file)
            }
        };
        Ok(())
    }
}

/// The process of a broker, which is killed on drop.
pub(super) struct RunningBroker {
    child: Child,
    address: String,
    folder: TempDir,
}

impl RunningBroker {
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn wait_until_listening(&mut self) -> Result<(), BoxError> {
        let begin = Instant::now();
        loop {
            let listening = match driver::is_path(&self.address) {
                true => UnixStream::connect(&self.address).is_ok(),
                false => TcpStream::connect(&self.address).is_ok(),
            };
            if listening {
                // the figures should not include what it does while it starts
                std::thread::sleep(Duration::from_millis(100));
                return Ok(());
            }
            let status = self.child.try_wait()?;
            if status.is_some() || begin.elapsed() > Duration::from_secs(10) {
                let stderr = std::fs::read_to_string(self.folder.path().join("stderr")).unwrap_or_default();
                let what = status
                    .map_or("did not listen within 10 s".to_owned(), |status| format!("ended ({status})"));
                return Err(format!("the broker {what}: {}", stderr.trim()).into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for RunningBroker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::compare::workloads;

    #[test]
    fn errors_name_unknown_and_missing_brokers() {
        let programs = Path::new("/nonexistent");
        let unknown = select(&["rabbit".into()], programs).unwrap_err().to_string();
        assert!(unknown.contains("rabbit") && unknown.contains("busrt"), "{unknown}");
        let missing = select(&[ELBUS.into()], programs).unwrap_err().to_string();
        assert!(missing.contains("/nonexistent"), "{missing}");
    }

    #[test]
    fn brokers_run_the_workloads_that_they_support() {
        let supports = |kind, name: &str| {
            let workloads = workloads::select(&[name.to_owned()], false).unwrap();
            Broker { kind, name: "", program: PathBuf::new() }.supports(&workloads[0])
        };
        for kind in [BrokerKind::Busrt, BrokerKind::Nats, BrokerKind::Redis, BrokerKind::Mosquitto] {
            for name in ["topics-128", "topics-128-own", "targets-8", "8-writers-128-topics", "fan-in-4"] {
                assert!(supports(kind, name), "{kind:?} {name}");
            }
        }
        for name in ["topics-128-own", "targets-8", "8-writers-128-topics", "topics-128-qos1", "call"] {
            assert!(!supports(BrokerKind::Relay, name), "{name}");
        }
        for (kind, supported) in
            [(BrokerKind::Busrt, true), (BrokerKind::Redis, true), (BrokerKind::Nats, false)]
        {
            assert_eq!(supports(kind, "topics-128-qos1"), supported, "{kind:?}");
        }
        assert!(supports(BrokerKind::Relay, "topics-128") && !supports(BrokerKind::Nats, "broadcast-8"));
        assert!(!supports(BrokerKind::Busrt, "idle-10000") && supports(BrokerKind::Nats, "idle-10000"));
        let rings = BrokerKind::ElbusRings(524_288);
        assert!(supports(rings, "topic-100") && supports(rings, "call"));
        assert!(!supports(rings, "tcp-1-1") && !supports(rings, "idle-10000"));
    }
}
