//! Shared by the tests of the command line: a broker in the test's process, and `elbus` as a child process.
#![allow(dead_code, reason = "each test file uses some of it")]

use elbus_broker::{Broker, PluginDeclaration};
use elbus_client::{Client, Frame, Frames};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::{
    io::{BufRead, BufReader, Read, Write},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

/// The time after which a test gives up waiting.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A broker with a UNIX socket in its own folder.
pub(crate) struct Bus {
    // dropped before the runtime its plugins run on
    broker: Option<Broker>,
    pub(crate) runtime: Runtime,
    pub(crate) folder: TempDir,
}

impl Bus {
    /// Starts a broker with UNIX socket, TCP, RPC and announcements.
    pub(crate) fn start() -> Self {
        let mut bus = Bus::without_broker();
        bus.start_broker();
        bus
    }

    /// Creates the folder; nothing listens at the address yet.
    pub(crate) fn without_broker() -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let folder = tempfile::Builder::new().prefix("elbus").tempdir().unwrap();
        Bus { broker: None, runtime, folder }
    }

    pub(crate) fn start_broker(&mut self) {
        self.start_with(|builder| {
            builder
                .plugin(PluginDeclaration::linked("tcp", elbus_tcp::plugin()).set("bind", "127.0.0.1:0"))
                .plugin(PluginDeclaration::linked("rpc", elbus_rpc::plugin()))
                .plugin(PluginDeclaration::linked("announce", elbus_announce::plugin()))
        });
    }

    /// Starts a broker with a UNIX socket and the plugins that `add` adds.
    pub(crate) fn start_with(
        &mut self,
        add: impl FnOnce(elbus_broker::BrokerBuilder) -> elbus_broker::BrokerBuilder,
    ) {
        let _entered = self.runtime.enter();
        let local = PluginDeclaration::linked("local", elbus_unix::plugin());
        let local = local.set("path", self.address()).set("rings", true);
        self.broker = Some(add(Broker::builder().plugin(local)).start().unwrap());
    }

    pub(crate) fn broker(&self) -> &Broker {
        self.broker.as_ref().unwrap()
    }

    /// Stops the broker without draining queues.
    pub(crate) fn stop_broker(&mut self) {
        self.broker.take().unwrap().stop(Duration::ZERO).wait();
    }

    pub(crate) fn address(&self) -> String {
        self.path("bus.sock").to_str().unwrap().to_owned()
    }

    /// Returns the `host:port` of the TCP transport.
    pub(crate) fn tcp_address(&self) -> String {
        self.address_of("tcp:")
    }

    /// Returns the `host:port` of the address that starts with `kind`.
    pub(crate) fn address_of(&self, kind: &str) -> String {
        let reports = self.broker.as_ref().unwrap().plugins();
        let mut addresses = reports.iter().flat_map(|report| report.status.addresses.clone());
        addresses.find_map(|address| Some(address.strip_prefix(kind)?.to_owned())).unwrap()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Connects a client in the test's process.
    pub(crate) fn client(&self, name: &str) -> (Client, Frames) {
        self.runtime.block_on(Client::connect(self.address(), name)).unwrap()
    }

    /// Waits until this number of sessions monitors the broker.
    pub(crate) fn wait_for_sessions(&self, count: usize) {
        let (client, _frames) = self.client("sessions");
        let until = Instant::now() + PATIENCE;
        loop {
            let list = self.runtime.block_on(client.call(".broker", "monitor.list", "")).unwrap();
            let list = rmpv::decode::read_value(&mut &list[..]).unwrap();
            if list["sessions"].as_array().unwrap().len() == count {
                return self.runtime.block_on(client.close());
            }
            assert!(Instant::now() < until, "{list}");
        }
    }

    /// Returns a command that runs `elbus` with these arguments and the address in its environment.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_elbus"));
        command.args(arguments).current_dir(self.folder.path()).env("ELBUS_ADDR", self.address());
        command.env_remove("NO_COLOR").env("TZ", "UTC").env("RUST_BACKTRACE", "1");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs `elbus` until it exits.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        self.run_with_input(arguments, b"")
    }

    /// Runs `elbus` with this stdin until it exits.
    pub(crate) fn run_with_input(&self, arguments: &[&str], input: &[u8]) -> Ended {
        let mut child = self.command(arguments).stdin(Stdio::piped()).spawn().unwrap();
        let (mut stdin, input) = (child.stdin.take().unwrap(), input.to_vec());
        // it may exit before it has read everything
        thread::spawn(move || _ = stdin.write_all(&input));
        let (stdout, stderr) =
            (read_all(child.stdout.take().unwrap()), read_all(child.stderr.take().unwrap()));
        let code = wait(&mut child);
        let stderr = String::from_utf8(stderr.recv().unwrap()).unwrap();
        Ended { code, stdout: stdout.recv().unwrap(), stderr }
    }

    /// Returns the stdout of a run that succeeds.
    pub(crate) fn output(&self, arguments: &[&str]) -> String {
        self.run(arguments).succeeded()
    }

    /// Returns the JSON lines of a run that succeeds.
    pub(crate) fn json(&self, arguments: &[&str]) -> Vec<Value> {
        let output = self.output(&[&["--json"], arguments].concat());
        output.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Returns the line on stderr of a run that exits with this code.
    pub(crate) fn failure(&self, code: i32, arguments: &[&str]) -> String {
        self.run(arguments).failed(code)
    }

    /// Starts a command that listens, and waits until it does.
    pub(crate) fn listen(&self, arguments: &[&str]) -> Running {
        let running = Running::start(self.command(arguments));
        let line = running.stderr_line();
        assert!(line.starts_with("listening at "), "{line}");
        running
    }

    /// Returns the next frame of a client of the test.
    pub(crate) fn next(&self, frames: &mut Frames) -> Frame {
        let next = async { tokio::time::timeout(PATIENCE, frames.next()).await };
        self.runtime.block_on(next).expect("nothing arrived").expect("the connection ended")
    }
}

/// The result of a run.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Ended {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.stdout.clone()).unwrap()
    }

    /// Checks for exit code 0 and an empty stderr, and returns stdout.
    pub(crate) fn succeeded(self) -> String {
        assert_eq!((self.code, self.stderr.as_str()), (0, ""), "{}", self.text());
        self.text()
    }

    /// Checks for this exit code and an empty stdout, and returns the only line on stderr.
    pub(crate) fn failed(self, code: i32) -> String {
        assert_eq!((self.code, self.text().as_str()), (code, ""), "{}", self.stderr);
        let line = self.stderr.strip_suffix('\n').unwrap();
        assert!(line.trim_start_matches("{\"").starts_with("error") && !line.contains('\n'), "{line}");
        assert!(!line.contains("panicked"), "{line}");
        line.to_owned()
    }
}

fn read_all(mut source: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        source.read_to_end(&mut bytes).unwrap();
        sender.send(bytes)
    });
    receiver
}

fn wait(child: &mut Child) -> i32 {
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code().unwrap_or_else(|| panic!("it was killed: {status}"));
        }
        thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    panic!("it did not end");
}

/// A running `elbus`. Killed when dropped.
pub(crate) struct Running {
    child: Child,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
}

fn lines(source: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in BufReader::new(source).lines() {
            if sender.send(line.unwrap()).is_err() {
                break;
            }
        }
    });
    receiver
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let stdout = lines(child.stdout.take().unwrap());
        let stderr = lines(child.stderr.take().unwrap());
        Running { child, stdout, stderr }
    }

    /// Takes over a process without reading its stdout.
    pub(crate) fn attach(mut child: Child) -> Self {
        let (_, stdout) = channel();
        let stderr = lines(child.stderr.take().unwrap());
        Running { child, stdout, stderr }
    }

    /// Returns the next line of stdout, which must have been flushed.
    pub(crate) fn line(&self) -> String {
        self.stdout.recv_timeout(PATIENCE).expect("no line on stdout")
    }

    /// As [`line`](Self::line), without the leading time.
    pub(crate) fn shown(&self) -> String {
        let line = self.line();
        let (time, rest) = line.split_once(' ').unwrap();
        assert!(time.len() == 12 && time.as_bytes()[2] == b':' && time.as_bytes()[8] == b'.', "{line}");
        rest.to_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.line()).unwrap()
    }

    pub(crate) fn stderr_line(&self) -> String {
        self.stderr.recv_timeout(PATIENCE).expect("no line on stderr")
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for the exit, and returns the code.
    pub(crate) fn code(mut self) -> i32 {
        wait(&mut self.child)
    }

    /// Waits for the exit, and returns the code and the remaining lines of stdout and stderr.
    pub(crate) fn ended(mut self) -> (i32, Vec<String>, Vec<String>) {
        let code = wait(&mut self.child);
        (code, self.stdout.iter().collect(), self.stderr.iter().collect())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}
