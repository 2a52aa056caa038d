//! The brokers: where each is, how it is started for a comparison, what it can do. A broker that is started ends with its
//! [`Running`].

use std::{
    net::{TcpListener, TcpStream},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use super::{find_program, is_program, workloads::Load};
use crate::{
    Failure,
    driver::elbus,
    load::{Over, Scenario},
};

/// Which broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Loaded,
    Linked,
    Relay,
    Busrt,
    Nats,
    Redis,
    Mosquitto,
}

/// Ours, as it is usually run: what others are compared with.
pub(super) const OURS: &str = "elbus";

const ALL: [(Kind, &str); 7] = [
    (Kind::Loaded, OURS),
    (Kind::Linked, "elbus-builtin"),
    (Kind::Relay, "relay"),
    (Kind::Busrt, "busrt"),
    (Kind::Nats, "nats"),
    (Kind::Redis, "redis"),
    (Kind::Mosquitto, "mosquitto"),
];

/// A broker that is installed.
#[derive(Debug)]
pub(super) struct Contestant {
    kind: Kind,
    name: &'static str,
    program: PathBuf,
}

/// Brokers of these names, or all that are there.
pub(super) fn choose(names: &[String], programs: &Path) -> Result<Vec<Contestant>, Failure> {
    let known: Vec<_> = ALL.iter().map(|(_, name)| *name).collect();
    if let Some(name) = names.iter().find(|name| !known.contains(&name.as_str())) {
        return Err(format!("there is no broker {name}; there are {}", known.join(", ")).into());
    }
    let mut chosen = Vec::new();
    for (kind, name) in ALL {
        if !names.is_empty() && !names.iter().any(|wanted| wanted == name) {
            continue;
        }
        match kind.find(programs) {
            Some(program) => chosen.push(Contestant { kind, name, program }),
            None if names.is_empty() && !matches!(kind, Kind::Loaded | Kind::Linked | Kind::Relay) => {
                eprintln!("{name} is not installed: left out");
            }
            None => {
                return Err(format!(
                    "{name}: its program is neither in {} nor in PATH; build ours with \
                     `cargo build --release -p elbusd -p elbus-benches`",
                    programs.display()
                )
                .into());
            }
        }
    }
    Ok(chosen)
}

impl Kind {
    fn find(self, programs: &Path) -> Option<PathBuf> {
        let ours = |name: &str| Some(programs.join(name)).filter(|path| is_program(path));
        match self {
            Kind::Loaded | Kind::Linked => ours("elbusd"),
            Kind::Relay => ours("elbus-relay"),
            Kind::Busrt => find_program("ELBUS_BUSRTD", "busrtd"),
            Kind::Nats => find_program("ELBUS_NATS", "nats-server"),
            Kind::Redis => find_program("ELBUS_REDIS", "redis-server"),
            Kind::Mosquitto => find_program("ELBUS_MOSQUITTO", "mosquitto"),
        }
    }
}

impl Contestant {
    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    pub(super) fn over(&self) -> Over {
        match self.kind {
            Kind::Loaded | Kind::Linked | Kind::Busrt => Over::Elbus,
            Kind::Relay => Over::Relay,
            Kind::Nats => Over::Nats,
            Kind::Redis => Over::Redis,
            Kind::Mosquitto => Over::Mqtt,
        }
    }

    /// Whether it has what a load needs.
    pub(super) fn can_take(&self, load: &Load) -> bool {
        match load.scenario {
            Scenario::Broadcast | Scenario::Call => self.over() == Over::Elbus,
            Scenario::FanIn => self.kind != Kind::Relay,
            // the relay needs two descriptors for each, and busrtd loses what is said ahead in the handshake
            Scenario::Idle => !matches!(self.kind, Kind::Relay | Kind::Busrt),
            _ => true,
        }
    }

    /// What it says its version is.
    pub(super) fn version(&self) -> String {
        if self.kind == Kind::Busrt {
            // it has no such option, but tells clients
            let asked = self.start(false).and_then(|broker| elbus::ask_version(broker.address()));
            return asked.map_or_else(|_| "unknown".into(), |version| format!("busrtd {version}"));
        }
        let flag = if self.kind == Kind::Mosquitto { "-h" } else { "--version" };
        let said = Command::new(&self.program).arg(flag).stdin(Stdio::null()).output();
        let text = said.map(|said| String::from_utf8_lossy(&said.stdout).into_owned()).unwrap_or_default();
        let line = text.lines().next().filter(|line| !line.is_empty()).unwrap_or("unknown").trim();
        line.split_once(" sha=").map_or(line, |(version, _)| version).to_owned()
    }

    /// How it is started, for the record: what differs from its defaults.
    pub(super) fn settings(&self) -> &'static str {
        match self.kind {
            Kind::Loaded => "plugins loaded from libraries",
            Kind::Linked => "the same plugins, linked in",
            Kind::Relay => "passes on bytes and looks at none: the limit",
            Kind::Busrt => "queues of 65,536 frames, as it closes clients whose queue is full",
            Kind::Nats => "TCP, as it has no UNIX socket",
            Kind::Redis => "PUBLISH and SUBSCRIBE, nothing saved, no limit for the buffers of subscribers",
            Kind::Mosquitto => "MQTT 3.1.1, QoS 0, queues without limit, nothing saved",
        }
    }

    fn has_unix_sockets(&self) -> bool {
        self.kind != Kind::Nats
    }

    pub(super) fn start(&self, tcp: bool) -> Result<Running, Failure> {
        let folder = Folder::new()?;
        let address = if tcp || !self.has_unix_sockets() {
            let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
            format!("127.0.0.1:{port}")
        } else {
            folder.0.join("bus.sock").display().to_string()
        };
        let mut command = Command::new(&self.program);
        self.arguments(&mut command, &address, &folder.0)?;
        let errors = std::fs::File::create(folder.0.join("errors"))?;
        command.current_dir(&folder.0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors);
        let child = command.spawn().map_err(|error| format!("{}: {error}", self.program.display()))?;
        let mut running = Running { child, address, folder };
        running.wait_until_it_listens()?;
        Ok(running)
    }

    fn arguments(&self, command: &mut Command, address: &str, folder: &Path) -> Result<(), Failure> {
        let port = address.rsplit_once(':').filter(|_| !address.contains('/')).map(|(_, port)| port);
        match self.kind {
            Kind::Loaded => {
                command.args(["--quiet", "--log", "warn", "--plugins", "library", "--bind", address])
            }
            Kind::Linked => {
                command.args(["--quiet", "--log", "warn", "--plugins", "builtin", "--bind", address])
            }
            Kind::Relay => command.arg(address),
            Kind::Busrt => command.args(["--queue-size", "65536", "-B", address]),
            Kind::Nats => command.args(["-a", "127.0.0.1", "-p", port.unwrap_or_default()]),
            Kind::Redis => {
                command.args([
                    "--save",
                    "",
                    "--appendonly",
                    "no",
                    "--client-output-buffer-limit",
                    "pubsub 0 0 0",
                    "--maxclients",
                    "20000",
                ]);
                match port {
                    Some(port) => command.args(["--bind", "127.0.0.1", "--port", port]),
                    None => command.args(["--port", "0", "--unixsocket", address]),
                }
            }
            Kind::Mosquitto => {
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

/// A folder that is removed with what is in it.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self, Failure> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("elbus-compare-{}-{number}", std::process::id()));
        std::fs::create_dir(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Folder(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A broker that runs. Ends when it is dropped.
pub(super) struct Running {
    child: Child,
    address: String,
    folder: Folder,
}

impl Running {
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn wait_until_it_listens(&mut self) -> Result<(), Failure> {
        let begin = Instant::now();
        loop {
            let listens = match self.address.contains('/') {
                true => UnixStream::connect(&self.address).is_ok(),
                false => TcpStream::connect(&self.address).is_ok(),
            };
            if listens {
                // what it does at the beginning should not be part of the figures
                std::thread::sleep(Duration::from_millis(100));
                return Ok(());
            }
            let ended = self.child.try_wait()?;
            if ended.is_some() || begin.elapsed() > Duration::from_secs(10) {
                let said = std::fs::read_to_string(self.folder.0.join("errors")).unwrap_or_default();
                let how =
                    ended.map_or("did not listen within 10 s".to_owned(), |how| format!("ended with {how}"));
                return Err(format!("the broker {how}: {}", said.trim()).into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_and_missing_brokers_are_said() {
        let nowhere = Path::new("/nonexistent");
        let unknown = choose(&["rabbit".into()], nowhere).map(|_| ()).unwrap_err().to_string();
        assert!(unknown.contains("rabbit") && unknown.contains("busrt"), "{unknown}");
        let missing = choose(&[OURS.into()], nowhere).map(|_| ()).unwrap_err().to_string();
        assert!(missing.contains("/nonexistent"), "{missing}");
    }
}
