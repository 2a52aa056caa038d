//! A broker for one test: ELBUS within the test's process, or the published `busrtd` if `ELBUS_BUSRTD` is its
//! path.
#![allow(dead_code, reason = "each test uses its part")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

pub(crate) mod fake_broker;

use elbus_broker::{Broker, PluginDeclaration};
use elbus_client::{Address, Client, ClientBuilder, Error, Frame, Frames};
use std::{
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// Time limit of waits, sufficient on a busy machine.
pub(crate) const TEST_TIMEOUT: Duration = Duration::from_secs(30);

/// The implementation of a broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BrokerKind {
    Elbus,
    Busrt,
}

impl BrokerKind {
    /// Returns the transports that it offers.
    pub(crate) fn transports(self) -> &'static [Transport] {
        match self {
            BrokerKind::Elbus => &[Transport::Unix, Transport::Tcp, Transport::InProcess],
            BrokerKind::Busrt => &[Transport::Unix, Transport::Tcp],
        }
    }
}

/// How a client connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Unix,
    Tcp,
    InProcess,
}

/// Returns the available brokers: ELBUS, and BUS/RT if `ELBUS_BUSRTD` is the path of its broker.
pub(crate) fn broker_kinds() -> Vec<BrokerKind> {
    if std::env::var_os("ELBUS_BUSRTD").is_some() {
        vec![BrokerKind::Elbus, BrokerKind::Busrt]
    } else {
        eprintln!("ELBUS_BUSRTD is not set: skipping the tests with BUS/RT's own broker");
        vec![BrokerKind::Elbus]
    }
}

/// Runs an attempt with a time limit, and again with a longer one if the machine was not punctual enough.
pub(crate) fn with_growing_limits<F: Future<Output = ()>>(first: Duration, attempt: impl Fn(Duration) -> F) {
    elbus_testing::attempts::with_growing_limits(first, |limit| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(attempt(limit));
    });
}

/// Waits for a future that must complete.
pub(crate) async fn in_time<F: Future>(what: &str, future: F) -> F::Output {
    tokio::time::timeout(TEST_TIMEOUT, future)
        .await
        .unwrap_or_else(|_| panic!("timed out waiting for: {what}"))
}

/// Returns the next frame, which must arrive.
pub(crate) async fn next(frames: &mut Frames) -> Frame {
    in_time("a frame", frames.next()).await.expect("frames have ended")
}

/// Waits until `ready` returns `true`.
pub(crate) async fn wait_until(what: &str, mut ready: impl FnMut() -> bool) {
    let until = Instant::now() + TEST_TIMEOUT;
    while !ready() {
        assert!(Instant::now() < until, "timed out waiting for: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Settings of the stream plugins of an ELBUS broker that differ from the defaults.
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
        // longer than the default: a busy machine can be late with a ping
        let seconds = self.timeout_seconds.unwrap_or(60.0);
        plugin.set("timeout_seconds", seconds).set("stall_seconds", seconds * 0.8)
    }
}

/// A running broker; ends when dropped.
pub(crate) struct TestBroker {
    pub(crate) kind: BrokerKind,
    folder: TempDir,
    limits: Limits,
    /// The port of a BUS/RT broker, which does not choose one itself.
    tcp_port: u16,
    running: Option<Running>,
}

enum Running {
    Elbus(Box<Broker>),
    Busrt(Child),
}

impl TestBroker {
    /// Starts a broker. Must be called within a runtime.
    pub(crate) fn start(kind: BrokerKind) -> Self {
        Self::start_with(kind, Limits::default())
    }

    /// Starts with limits, which only ELBUS has.
    pub(crate) fn start_with(kind: BrokerKind, limits: Limits) -> Self {
        let folder = tempfile::Builder::new().prefix("elbus").tempdir().unwrap();
        let mut broker = TestBroker { kind, folder, limits, tcp_port: 0, running: None };
        broker.restart();
        broker
    }

    /// Starts again at the same path after [`kill`](Self::kill).
    pub(crate) fn restart(&mut self) {
        self.running = Some(match self.kind {
            BrokerKind::Elbus => Running::Elbus(Box::new(self.start_elbus())),
            BrokerKind::Busrt => Running::Busrt(self.start_busrt()),
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
        let until = Instant::now() + TEST_TIMEOUT;
        loop {
            // another program can take the port meanwhile; then busrtd exits, and another port is tried
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

    /// Closes all connections at once and releases the address.
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

    /// Returns the path of the UNIX socket.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("bus.sock")
    }

    /// Returns the TCP address.
    pub(crate) fn tcp(&self) -> Address {
        match self.kind {
            BrokerKind::Busrt => Address::Tcp(format!("127.0.0.1:{}", self.tcp_port)),
            BrokerKind::Elbus => {
                let reports = self.embedded().plugins();
                let addresses = reports.iter().flat_map(|report| &report.status.addresses);
                addresses.filter_map(|address| address.strip_prefix("tcp:")).next().unwrap().parse().unwrap()
            }
        }
    }

    /// Connects a client with the defaults, except for a long timeout.
    pub(crate) async fn connect(&self, transport: Transport, name: &str) -> (Client, Frames) {
        self.connect_with(transport, Client::builder(name).timeout(TEST_TIMEOUT)).await.unwrap()
    }

    /// Connects a client with the settings of a builder.
    pub(crate) async fn connect_with(
        &self,
        transport: Transport,
        builder: ClientBuilder,
    ) -> Result<(Client, Frames), Error> {
        match transport {
            Transport::Unix => builder.connect(self.path()).await,
            Transport::Tcp => builder.connect(self.tcp()).await,
            Transport::InProcess => builder.connect_in_process(self.embedded().host()).await,
        }
    }

    /// Returns the broker in this process.
    pub(crate) fn embedded(&self) -> &Broker {
        match &self.running {
            Some(Running::Elbus(broker)) => broker,
            _ => panic!("the broker is not in this process"),
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
