//! A broker of a test's own: ours within the test's process, or the published `busrtd` where `ELBUS_BUSRTD` names it.
#![allow(dead_code, reason = "each test uses its part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should not")]

pub(crate) mod fake;

use elbus_broker::{Broker, PluginDeclaration};
use elbus_client::{Address, Client, ClientBuilder, Error, Frame, Frames};
use std::{
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// For what must happen, however busy the machine is.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Whose broker it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Elbus,
    Busrt,
}

impl Kind {
    /// How clients can come to it.
    pub(crate) fn ways(self) -> &'static [Way] {
        match self {
            Kind::Elbus => &[Way::Unix, Way::Tcp, Way::InProcess],
            Kind::Busrt => &[Way::Unix, Way::Tcp],
        }
    }
}

/// How a client comes to its broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Unix,
    Tcp,
    InProcess,
}

/// Brokers that are here: ours, and BUS/RT's where `ELBUS_BUSRTD` is the path of its broker.
pub(crate) fn kinds() -> Vec<Kind> {
    if std::env::var_os("ELBUS_BUSRTD").is_some() {
        vec![Kind::Elbus, Kind::Busrt]
    } else {
        eprintln!("ELBUS_BUSRTD is not set: not tested with BUS/RT's own broker");
        vec![Kind::Elbus]
    }
}

/// What must come, does.
pub(crate) async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("waited in vain: {what}"))
}

/// The next frame, which must come.
pub(crate) async fn next(frames: &mut Frames) -> Frame {
    soon("a frame", frames.next()).await.expect("frames have ended")
}

/// Waits until `ready` says so.
pub(crate) async fn wait_until(what: &str, mut ready: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !ready() {
        assert!(Instant::now() < until, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Settings of the stream plugins of our broker, where a test needs others than the defaults.
#[derive(Default)]
pub(crate) struct Limits {
    pub(crate) queue_bytes: Option<i64>,
    pub(crate) timeout_seconds: Option<f64>,
}

impl Limits {
    fn apply(&self, mut plugin: PluginDeclaration) -> PluginDeclaration {
        if let Some(bytes) = self.queue_bytes {
            plugin = plugin.set("queue_bytes", bytes);
        }
        if let Some(seconds) = self.timeout_seconds {
            plugin = plugin.set("timeout_seconds", seconds).set("stall_seconds", seconds * 0.8);
        }
        plugin
    }
}

/// A running broker; ends when dropped.
pub(crate) struct TestBroker {
    pub(crate) kind: Kind,
    folder: TempDir,
    limits: Limits,
    /// Of BUS/RT's broker, which does not choose one itself.
    tcp_port: u16,
    running: Option<Running>,
}

enum Running {
    Elbus(Box<Broker>),
    Busrt(Child),
}

impl TestBroker {
    /// Must be called within a runtime.
    pub(crate) fn start(kind: Kind) -> Self {
        Self::start_with(kind, Limits::default())
    }

    /// With limits, which only our broker has.
    pub(crate) fn start_with(kind: Kind, limits: Limits) -> Self {
        let folder = tempfile::Builder::new().prefix("elbus").tempdir().unwrap();
        let mut broker = TestBroker { kind, folder, limits, tcp_port: 0, running: None };
        broker.restart();
        broker
    }

    /// Starts again at the same path after [`kill`](Self::kill).
    pub(crate) fn restart(&mut self) {
        self.running = Some(match self.kind {
            Kind::Elbus => Running::Elbus(Box::new(self.start_elbus())),
            Kind::Busrt => Running::Busrt(self.start_busrt()),
        });
    }

    fn start_elbus(&self) -> Broker {
        let path = self.path();
        let unix =
            PluginDeclaration::linked("unix", elbus_unix::plugin()).set("path", path.to_str().unwrap());
        let tcp = PluginDeclaration::linked("tcp", elbus_tcp::plugin()).set("bind", "127.0.0.1:0");
        Broker::builder()
            .plugin(self.limits.apply(unix))
            .plugin(self.limits.apply(tcp))
            .plugin(PluginDeclaration::linked("inproc", elbus_inproc::plugin()))
            .plugin(PluginDeclaration::linked("rpc", elbus_rpc::plugin()))
            .plugin(PluginDeclaration::linked("announce", elbus_announce::plugin()))
            .start()
            .unwrap()
    }

    fn start_busrt(&mut self) -> Child {
        let path = self.path();
        let program = std::env::var_os("ELBUS_BUSRTD").unwrap();
        let until = Instant::now() + PATIENCE;
        loop {
            // somebody else may take the port meanwhile: then it ends, and another one is tried
            self.tcp_port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let tcp = format!("127.0.0.1:{}", self.tcp_port);
            let mut child = Command::new(&program)
                .args(["-B", path.to_str().unwrap(), "-B", &tcp, "--queue-size", "65536"])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            while child.try_wait().unwrap().is_none() {
                let unix = std::os::unix::net::UnixStream::connect(&path);
                if unix.is_ok() && std::net::TcpStream::connect(&tcp).is_ok() {
                    return child;
                }
                assert!(Instant::now() < until, "busrtd did not start");
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }

    /// Ends all connections at once and frees the address.
    pub(crate) fn kill(&mut self) {
        match self.running.take() {
            Some(Running::Elbus(broker)) => broker.stop(Duration::ZERO).wait(),
            Some(Running::Busrt(mut child)) => {
                child.kill().unwrap();
                child.wait().unwrap();
            }
            None => {}
        }
    }

    /// The UNIX socket.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("bus.sock")
    }

    /// Where it listens for TCP.
    pub(crate) fn tcp(&self) -> Address {
        match self.kind {
            Kind::Busrt => Address::Tcp(format!("127.0.0.1:{}", self.tcp_port)),
            Kind::Elbus => {
                let reports = self.embedded().plugins();
                let addresses = reports.iter().flat_map(|report| &report.status.addresses);
                addresses.filter_map(|address| address.strip_prefix("tcp:")).next().unwrap().parse().unwrap()
            }
        }
    }

    /// A client with the defaults.
    pub(crate) async fn connect(&self, way: Way, name: &str) -> (Client, Frames) {
        self.join(way, Client::builder(name)).await.unwrap()
    }

    /// A client as its builder says.
    pub(crate) async fn join(&self, way: Way, builder: ClientBuilder) -> Result<(Client, Frames), Error> {
        match way {
            Way::Unix => builder.connect(self.path()).await,
            Way::Tcp => builder.connect(self.tcp()).await,
            Way::InProcess => builder.connect_in_process(self.embedded().host()).await,
        }
    }

    /// The broker in this process, where it is ours.
    pub(crate) fn embedded(&self) -> &Broker {
        match &self.running {
            Some(Running::Elbus(broker)) => broker,
            _ => panic!("not in this process"),
        }
    }
}

impl Drop for TestBroker {
    fn drop(&mut self) {
        if let Some(Running::Busrt(child)) = &mut self.running {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
