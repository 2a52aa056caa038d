//! An `elbusd` process in its own folder.

use std::{
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::{Duration, Instant},
};
use tempfile::TempDir;

use super::{PATIENCE, wait_until, wire::Wire};

/// The sources of standard plugins. Tests that use it run with both.
pub(crate) const BOTH: [&str; 2] = ["library", "builtin"];

/// A running broker. Killed when dropped.
pub(crate) struct Daemon {
    pub(crate) folder: Arc<TempDir>,
    child: Child,
    log: Arc<Mutex<String>>,
    /// The thread that reads the log.
    reader: Option<JoinHandle<()>>,
    addresses: Vec<String>,
    /// The log, if it is not read.
    unread: Option<ChildStderr>,
}

/// The result of an `elbusd` that exits by itself.
pub(crate) struct Refused {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Creates a folder for one test.
pub(crate) fn folder() -> Arc<TempDir> {
    Arc::new(tempfile::Builder::new().prefix("elbus").tempdir().unwrap())
}

/// Returns a command for `elbusd`, run through the program `through` if it is not empty.
fn command(through: &[&str], folder: &Path, arguments: &[&str]) -> Command {
    let words = [through, &[env!("CARGO_BIN_EXE_elbusd")], arguments].concat();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).current_dir(folder).env_remove("RUST_LOG").env("XDG_RUNTIME_DIR", folder);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Returns a command that runs `elbusd` through a shell: `script` ends with `exec "$@"`, and can redirect
/// before.
pub(crate) fn through_shell(folder: &Path, script: &str, arguments: &[&str]) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", script, "sh", env!("CARGO_BIN_EXE_elbusd")]).args(arguments);
    shell.current_dir(folder).env_remove("RUST_LOG").env("XDG_RUNTIME_DIR", folder);
    shell.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    shell
}

/// Runs `elbusd`, which must exit by itself.
pub(crate) fn run_to_end(folder: &Path, arguments: &[&str]) -> Refused {
    let mut child = command(&[], folder, arguments).spawn().unwrap();
    let status = wait(&mut child);
    let (mut stdout, mut stderr) = (String::new(), String::new());
    child.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    Refused {
        status: status.unwrap_or_else(|| panic!("elbusd did not exit: {stdout}{stderr}")),
        stdout,
        stderr,
    }
}

/// Runs `elbusd` with a broker.toml of this text. It must fail and create no files. Returns stderr.
pub(crate) fn refused_config(text: &str) -> String {
    let folder = folder();
    std::fs::write(folder.path().join("broker.toml"), text).unwrap();
    let refused = run_to_end(folder.path(), &["--config", "broker.toml"]);
    assert!(!refused.status.success(), "{}", refused.stdout);
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["broker.toml"], "{}", refused.stderr);
    refused.stderr
}

fn wait(child: &mut Child) -> Option<ExitStatus> {
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    None
}

impl Daemon {
    /// Starts a broker with a UNIX socket and a TCP port, with plugins from libraries or linked in. Unless
    /// `more` has a timeout, it is long: the clients of tests do not ping by themselves, and a busy machine
    /// can take seconds for what the test does meanwhile.
    pub(crate) fn start(plugins: &str, more: &[&str]) -> Self {
        let arguments = ["--plugins", plugins, "--bind", "./bus.sock", "--bind", "127.0.0.1:0"];
        let timeout: &[&str] = if more.contains(&"--timeout") { &[] } else { &["--timeout", "600"] };
        Self::start_in(folder(), &[&arguments[..], timeout, more].concat())
    }

    /// Starts a broker with a broker.toml of this text.
    pub(crate) fn start_config(text: &str) -> Self {
        let folder = folder();
        std::fs::write(folder.path().join("broker.toml"), text).unwrap();
        Self::start_in(folder, &["--config", "broker.toml"])
    }

    /// Starts a broker in an existing folder, with any arguments.
    pub(crate) fn start_in(folder: Arc<TempDir>, arguments: &[&str]) -> Self {
        Self::start_through(&[], folder, arguments)
    }

    /// Starts a broker with at most `count` file descriptors.
    pub(crate) fn start_with_descriptors(count: u32, arguments: &[&str]) -> Self {
        let folder = folder();
        let shell = through_shell(folder.path(), &format!("ulimit -n {count} && exec \"$@\""), arguments);
        Self::start_command(folder, shell, true)
    }

    /// Starts a broker through a program that executes it.
    pub(crate) fn start_through(through: &[&str], folder: Arc<TempDir>, arguments: &[&str]) -> Self {
        let command = command(through, folder.path(), arguments);
        Self::start_command(folder, command, true)
    }

    /// Starts a broker by any command. Its log is read only if `reads_log`.
    pub(crate) fn start_command(folder: Arc<TempDir>, mut command: Command, reads_log: bool) -> Self {
        let mut child = command.spawn().unwrap();
        let log: Arc<Mutex<String>> = Arc::default();
        let writing = log.clone();
        let (read, unread) = child.stderr.take().map_or((None, None), |stderr| {
            if reads_log { (Some(stderr), None) } else { (None, Some(stderr)) }
        });
        let reader = std::thread::spawn(move || {
            let Some(stderr) = read else { return };
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut log = writing.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        let mut addresses = Vec::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        loop {
            let Some(line) = stdout.next() else {
                let status = child.wait();
                panic!("elbusd did not start: {status:?} {}", log.lock().unwrap());
            };
            if let Some(address) = line.trim().strip_prefix("listening on ") {
                addresses.push(address.to_owned());
            } else if line.trim().starts_with("plugin ") {
                break;
            }
        }
        std::thread::spawn(move || stdout.for_each(drop));
        Daemon { folder, child, log, reader: Some(reader), addresses, unread }
    }

    /// Sets the only address from now on, as it is reached from the clients' network.
    pub(crate) fn reached_at(&mut self, address: &str) {
        self.addresses = vec![address.to_owned()];
    }

    /// Returns the addresses that start with `unix:` or `tcp:`.
    pub(crate) fn addresses(&self) -> Vec<String> {
        let stream = |address: &&String| address.starts_with("unix:") || address.starts_with("tcp:");
        self.addresses.iter().filter(stream).cloned().collect()
    }

    /// Returns the `host:port` of the first address of this kind, such as `tcp:`.
    pub(crate) fn address_of(&self, kind: &str) -> String {
        self.addresses.iter().find_map(|address| address.strip_prefix(kind)).unwrap().to_owned()
    }

    /// Returns the first UNIX address, else the first TCP address.
    pub(crate) fn address(&self) -> String {
        self.addresses().into_iter().next().unwrap()
    }

    /// Returns a path in the broker's folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Returns a registered client at the first address.
    pub(crate) fn client(&self, name: &str) -> Wire {
        Wire::connect(self, &self.address(), name)
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Waits for a log line that contains this text.
    pub(crate) fn wait_for_log(&self, text: &str) {
        wait_until(&format!("{text:?} in the log"), || self.log().contains(text));
    }

    /// Waits until the log has this text `count` times. Fails if it has it more often.
    pub(crate) fn wait_for_log_times(&self, text: &str, count: usize) {
        let logged = || self.log().matches(text).count();
        wait_until(&format!("{text:?} {count} times in the log"), || logged() >= count);
        assert_eq!(logged(), count, "{text:?}: {}", self.log());
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.pid() as i32).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Sends SIGTERM and waits for the exit.
    pub(crate) fn stop(self) -> (ExitStatus, String) {
        self.signal(rustix::process::Signal::TERM);
        self.wait_end()
    }

    /// Waits for the exit.
    pub(crate) fn wait_end(mut self) -> (ExitStatus, String) {
        let status = wait(&mut self.child).unwrap_or_else(|| panic!("elbusd did not exit: {}", self.log()));
        // the last lines may not have been read yet
        self.reader.take().unwrap().join().unwrap();
        (status, self.log())
    }

    /// Returns the number of open file descriptors.
    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }

    /// Returns the number of threads.
    pub(crate) fn threads(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap().count()
    }

    /// Returns the user and system time used so far, with a resolution of 10 ms.
    pub(crate) fn cpu_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        let after_name = stat.rsplit(')').next().unwrap();
        let ticks = after_name.split_whitespace().skip(11).take(2).map(|n| n.parse::<u64>().unwrap());
        Duration::from_millis(ticks.sum::<u64>() * 10)
    }

    /// Reads the log of a broker that has exited and whose log was not read.
    pub(crate) fn unread_log(stderr: Option<ChildStderr>) -> Vec<u8> {
        let mut bytes = Vec::new();
        stderr.unwrap().read_to_end(&mut bytes).unwrap();
        bytes
    }

    pub(crate) fn take_unread(&mut self) -> Option<ChildStderr> {
        self.unread.take()
    }

    /// Returns the resident memory in KiB.
    pub(crate) fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Daemon {
    /// Prints the log if the test has failed.
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("log of the broker in {:?}:\n{}", self.folder.path(), self.log());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
