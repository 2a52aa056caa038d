//! What the tests of the command line share: a broker in the test's own process, and `elbus` run beside it as a person
//! would.
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

/// What a test waits for happens within this, or not at all.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A broker with a UNIX socket in a folder of its own.
pub(crate) struct Bus {
    // dropped before the runtime its plugins run on
    broker: Option<Broker>,
    pub(crate) runtime: Runtime,
    pub(crate) folder: TempDir,
}

impl Bus {
    /// With the standard plugins: UNIX socket and TCP, calls at `.broker`, announcements.
    pub(crate) fn start() -> Self {
        let mut bus = Bus::without_broker();
        bus.start_broker();
        bus
    }

    /// Nobody listens at the address yet.
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

    /// With a UNIX socket and whatever `add` adds.
    pub(crate) fn start_with(
        &mut self,
        add: impl FnOnce(elbus_broker::BrokerBuilder) -> elbus_broker::BrokerBuilder,
    ) {
        let _entered = self.runtime.enter();
        let local = PluginDeclaration::linked("local", elbus_unix::plugin()).set("path", self.address());
        self.broker = Some(add(Broker::builder().plugin(local)).start().unwrap());
    }

    pub(crate) fn broker(&self) -> &Broker {
        self.broker.as_ref().unwrap()
    }

    /// As if it were killed: connections end, nothing is announced to whoever waits for it.
    pub(crate) fn stop_broker(&mut self) {
        self.broker.take().unwrap().stop(Duration::ZERO).wait();
    }

    pub(crate) fn address(&self) -> String {
        self.path("bus.sock").to_str().unwrap().to_owned()
    }

    /// `host:port`.
    pub(crate) fn tcp_address(&self) -> String {
        self.address_of("tcp:")
    }

    /// `host:port` of an address of this kind.
    pub(crate) fn address_of(&self, kind: &str) -> String {
        let reports = self.broker.as_ref().unwrap().plugins();
        let mut addresses = reports.iter().flat_map(|report| report.status.addresses.clone());
        addresses.find_map(|address| Some(address.strip_prefix(kind)?.to_owned())).unwrap()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A client of the test itself.
    pub(crate) fn client(&self, name: &str) -> (Client, Frames) {
        self.runtime.block_on(Client::connect(self.address(), name)).unwrap()
    }

    /// `elbus` with these arguments; the address comes by the environment.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_elbus"));
        command.args(arguments).current_dir(self.folder.path()).env("ELBUS_ADDR", self.address());
        command.env_remove("NO_COLOR").env("TZ", "UTC").env("RUST_BACKTRACE", "1");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs it to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        self.run_with_input(arguments, b"")
    }

    /// Runs it to its end, with this on stdin.
    pub(crate) fn run_with_input(&self, arguments: &[&str], input: &[u8]) -> Ended {
        let mut child = self.command(arguments).stdin(Stdio::piped()).spawn().unwrap();
        let (mut stdin, input) = (child.stdin.take().unwrap(), input.to_vec());
        // it may end without having read all of it
        thread::spawn(move || _ = stdin.write_all(&input));
        let (stdout, stderr) =
            (read_all(child.stdout.take().unwrap()), read_all(child.stderr.take().unwrap()));
        let code = wait(&mut child);
        let stderr = String::from_utf8(stderr.recv().unwrap()).unwrap();
        Ended { code, stdout: stdout.recv().unwrap(), stderr }
    }

    /// What a run that succeeds prints.
    pub(crate) fn output(&self, arguments: &[&str]) -> String {
        self.run(arguments).succeeded()
    }

    /// The lines of a run that succeeds, as JSON.
    pub(crate) fn json(&self, arguments: &[&str]) -> Vec<Value> {
        let output = self.output(&[&["--json"], arguments].concat());
        output.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The one line on stderr of a run that ends with this code.
    pub(crate) fn failure(&self, code: i32, arguments: &[&str]) -> String {
        self.run(arguments).failed(code)
    }

    /// Starts what goes on and on, and waits until it listens.
    pub(crate) fn listen(&self, arguments: &[&str]) -> Running {
        let running = Running::start(self.command(arguments));
        let line = running.stderr_line();
        assert!(line.starts_with("listening at "), "{line}");
        running
    }

    /// The next frame that a client of the test gets.
    pub(crate) fn next(&self, frames: &mut Frames) -> Frame {
        let next = async { tokio::time::timeout(PATIENCE, frames.next()).await };
        self.runtime.block_on(next).expect("nothing arrived").expect("the connection ended")
    }
}

/// How a run ended.
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

    /// Exit code 0 and nothing on stderr; returns stdout.
    pub(crate) fn succeeded(self) -> String {
        assert_eq!((self.code, self.stderr.as_str()), (0, ""), "{}", self.text());
        self.text()
    }

    /// This exit code, nothing on stdout and one line on stderr, which is returned.
    pub(crate) fn failed(self, code: i32) -> String {
        assert_eq!((self.code, self.text().as_str()), (code, ""), "{}", self.stderr);
        let line = self.stderr.strip_suffix('\n').unwrap();
        assert!(line.trim_start_matches("{\"").starts_with("error") && !line.contains('\n'), "{line}");
        assert!(!line.contains("panicked"), "{line}");
        line.to_owned()
    }
}

fn read_all(mut source: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (tell, read) = channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        source.read_to_end(&mut bytes).unwrap();
        tell.send(bytes)
    });
    read
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

/// An `elbus` that goes on and on. Killed when dropped.
pub(crate) struct Running {
    child: Child,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
}

fn lines(source: impl Read + Send + 'static) -> Receiver<String> {
    let (tell, read) = channel();
    thread::spawn(move || {
        for line in BufReader::new(source).lines() {
            if tell.send(line.unwrap()).is_err() {
                break;
            }
        }
    });
    read
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let stdout = lines(child.stdout.take().unwrap());
        let stderr = lines(child.stderr.take().unwrap());
        Running { child, stdout, stderr }
    }

    /// One whose stdout somebody else reads, or nobody.
    pub(crate) fn attach(mut child: Child) -> Self {
        let (_, stdout) = channel();
        let stderr = lines(child.stderr.take().unwrap());
        Running { child, stdout, stderr }
    }

    /// The next line, which must be there without anything else happening: it has been flushed.
    pub(crate) fn line(&self) -> String {
        self.stdout.recv_timeout(PATIENCE).expect("no line on stdout")
    }

    /// As [`line`](Self::line), without the time in front.
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

    /// Waits for its end.
    pub(crate) fn code(mut self) -> i32 {
        wait(&mut self.child)
    }

    /// Waits for its end: the code, and the lines of both that nobody has read yet.
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
