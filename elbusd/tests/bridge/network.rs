//! The parts of a bridged bus: `nats-server` processes, and brokers that are nodes of it.

use rmpv::Value;
use std::{
    fs::{self, Permissions},
    io::Write,
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};
use tempfile::TempDir;

use crate::support::{
    daemon::{Daemon, folder},
    field, wait_until,
    wire::Wire,
};

/// The key of all nodes, unless a test has another one.
pub(crate) const KEY: &str = "the key of the nodes of these tests";

/// A `nats-server`. Killed when dropped.
pub(crate) struct NatsServer {
    child: Child,
    port: u16,
    arguments: Vec<String>,
    _folder: Option<Arc<TempDir>>,
}

/// Returns whether there is a `nats-server`; if not, says that the test tests nothing.
pub(crate) fn has_nats_server(test: &str) -> bool {
    let found = Command::new("nats-server").arg("--version").stdout(Stdio::null()).status();
    let is_there = found.is_ok_and(|status| status.success());
    if !is_there {
        // not captured with the test's output, so that the skipped test is visible
        _ = writeln!(std::io::stderr(), "SKIPPED, no nats-server here: {test}");
    }
    is_there
}

/// Returns a port that no other test uses. The kernel gives outgoing connections none of this range, so it is
/// free until the server listens, and while the server is restarted.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = std::process::id().wrapping_mul(97).wrapping_add(NEXT.fetch_add(1, Relaxed));
        let port = 20_000 + (number % 12_000) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

impl NatsServer {
    pub(crate) fn start() -> Self {
        Self::start_with(free_port(), &[], None)
    }

    /// Starts a server with a configuration file of this text.
    pub(crate) fn with_config(text: &str) -> Self {
        let folder = folder();
        let path = folder.path().join("nats.conf");
        fs::write(&path, text).unwrap();
        Self::start_with(free_port(), &["-c", path.to_str().unwrap()], Some(folder.clone()))
    }

    pub(crate) fn start_with(port: u16, more: &[&str], folder: Option<Arc<TempDir>>) -> Self {
        let mut arguments = vec!["-a".to_owned(), "127.0.0.1".to_owned(), "-p".to_owned(), port.to_string()];
        arguments.extend(more.iter().map(|word| (*word).to_owned()));
        let child = Self::spawn(&arguments);
        let server = NatsServer { child, port, arguments, _folder: folder };
        server.wait();
        server
    }

    fn spawn(arguments: &[String]) -> Child {
        let mut command = Command::new("nats-server");
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap()
    }

    fn wait(&self) {
        wait_until("nats-server listens", || TcpStream::connect(("127.0.0.1", self.port)).is_ok());
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Kills the server, without a chance to say anything.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts the server again, at the same port.
    pub(crate) fn restart(&mut self) {
        self.child = Self::spawn(&self.arguments);
        self.wait();
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// How a node is configured beyond its name and servers.
#[derive(Clone, Default)]
pub(crate) struct Options<'a> {
    pub(crate) key: Option<&'a str>,
    /// The bus; `plant` without it.
    pub(crate) bus: Option<&'a str>,
    /// Lines of the table of the plugin; without them, everything is exported and imported.
    pub(crate) bridge: Option<&'a str>,
    /// Further plugins.
    pub(crate) more: &'a str,
    /// Keys of the plugin `unix`.
    pub(crate) unix: &'a str,
}

/// What a node exports and imports if a test does not say otherwise.
pub(crate) const EVERYTHING: &str =
    "export = { names = ['*'], topics = ['#'] }\nimport = { names = ['*'], topics = ['#'] }\n";

/// Starts a broker that is a node.
pub(crate) fn node(name: &str, servers: &[String], options: &Options<'_>) -> Daemon {
    node_through(&[], name, servers, options)
}

/// As [`node`], through a program that executes it.
pub(crate) fn node_through(
    through: &[&str],
    name: &str,
    servers: &[String],
    options: &Options<'_>,
) -> Daemon {
    let folder = folder();
    let key = folder.path().join("key");
    fs::write(&key, options.key.unwrap_or(KEY)).unwrap();
    fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
    let text = config(name, servers, options);
    fs::write(folder.path().join("broker.toml"), text).unwrap();
    Daemon::start_through(through, folder, &["--config", "broker.toml"])
}

/// Returns the configuration of a node, whose key is in the file `key`.
pub(crate) fn config(name: &str, servers: &[String], options: &Options<'_>) -> String {
    let Options { bridge, bus, more, unix, .. } = options;
    let bus = bus.unwrap_or("plant");
    let bridge = bridge.unwrap_or(EVERYTHING);
    // the clients of these tests send no pings
    let unix = if unix.is_empty() { ", timeout_seconds = 120.0" } else { unix };
    format!(
        r#"
        [[plugin]]
        name = "local"
        library = "elbus_unix"
        config = {{ path = "bus.sock" {unix} }}
        [[plugin]]
        name = "rpc"
        library = "elbus_rpc"
        [[plugin]]
        name = "bridge"
        library = "elbus_nats"
        [plugin.config]
        servers = {servers:?}
        bus = "{bus}"
        node = "{name}"
        key_file = "key"
        {bridge}
        {more}
        "#
    )
}

/// Starts nodes and waits until each knows all others.
pub(crate) fn nodes<const N: usize>(names: [&str; N], server: &NatsServer) -> [Daemon; N] {
    let nodes = names.map(|name| node(name, &[server.url()], &Options::default()));
    for daemon in &nodes {
        wait_for_nodes(daemon, N - 1);
    }
    nodes
}

/// Returns `broker.nodes` of a broker.
pub(crate) fn node_list(client: &mut Wire) -> Vec<Value> {
    let list = client.control("broker.nodes", &[]).unwrap();
    field(&list, "nodes").as_array().unwrap().clone()
}

/// Waits until a broker is linked with this many nodes.
pub(crate) fn wait_for_nodes(daemon: &Daemon, count: usize) {
    let mut client = daemon.client("test.nodes");
    wait_until(&format!("{count} nodes"), || {
        let up = |node: &Value| field(node, "state").as_str() == Some("up");
        node_list(&mut client).iter().filter(|node| up(node)).count() == count
    });
}

/// Waits until a node has announced this many filters.
pub(crate) fn wait_for_filters(daemon: &Daemon, node: &str, count: u64) {
    let mut client = daemon.client("test.filters");
    wait_until(&format!("{count} filters of {node}"), || {
        let found =
            node_list(&mut client).into_iter().find(|status| field(status, "name").as_str() == Some(node));
        found.is_some_and(|status| field(&status, "filters").as_u64() == Some(count))
    });
}

/// Waits until a client of another node is registered.
pub(crate) fn wait_for_client(daemon: &Daemon, name: &str) {
    let mut client = daemon.client("test.clients");
    wait_until(name, || client.control("client.info", &[("name", name)]).is_ok());
}

/// Waits until no client of this name is registered.
pub(crate) fn wait_until_gone(daemon: &Daemon, name: &str) {
    let mut client = daemon.client("test.clients");
    wait_until(&format!("{name} is gone"), || client.control("client.info", &[("name", name)]).is_err());
}
