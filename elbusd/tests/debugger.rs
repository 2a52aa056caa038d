//! A debugger attached to a broker with loaded libraries: it shows the code of plugins by name, the broker
//! continues, and a core file opens. Skipped without gdb.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};
use support::daemon::Daemon;

/// Time for gdb to read all symbols of a debug build on a busy machine.
const LIMIT: Duration = Duration::from_secs(180);

/// Returns what gdb prints within the limit.
fn gdb(output: &Path, arguments: &[&str]) -> String {
    let file = std::fs::File::create(output).unwrap();
    let mut child = Command::new("gdb")
        .args(["-nx", "-batch", "-iex", "set debuginfod enabled off"])
        .args(arguments)
        // a pipe without a writer, which gdb may open by mistake
        .stdin(Stdio::piped())
        .stdout(file.try_clone().unwrap())
        .stderr(file)
        .spawn()
        .unwrap();
    let end = Instant::now() + LIMIT;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > end {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("gdb hangs: {}", std::fs::read_to_string(output).unwrap());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    std::fs::read_to_string(output).unwrap()
}

#[test]
fn a_debugger_sees_loaded_plugins_and_opens_core_files() {
    if Command::new("gdb").arg("--version").stdout(Stdio::null()).status().is_err() {
        eprintln!("skipped: gdb is not installed");
        return;
    }
    let daemon = Daemon::start_config(
        "[[plugin]]\nname = \"local\"\nlibrary = \"elbus_unix\"\n\
         config = { path = \"bus.sock\", timeout_seconds = 600.0, workers = 1 }\n",
    );
    let mut client = daemon.client("a");
    let (pid, core) = (daemon.pid().to_string(), daemon.path("core").display().to_string());
    let dump = format!("generate-core-file {core}");
    let shown = gdb(
        &daemon.path("live"),
        &["-p", &pid, "-ex", "info sharedlibrary", "-ex", "thread apply all backtrace", "-ex", &dump],
    );
    if shown.contains("ptrace: Operation not permitted") {
        eprintln!("skipped: debuggers are not permitted to attach");
        return;
    }
    let library = shown.lines().find(|line| line.contains(&format!("/proc/{pid}/fd/"))).unwrap_or_default();
    assert!(library.contains("Yes"), "symbols of the library are read: {shown}");
    assert!(shown.contains("\"local\"") && shown.contains("tokio::runtime"), "{shown}");
    assert_eq!(client.send("a", b"x"), 0x01, "the broker continues");
    let folder = daemon.folder.clone();
    assert!(daemon.stop().0.success());
    let executable = env!("CARGO_BIN_EXE_elbusd");
    let shown = gdb(&folder.path().join("dead"), &["-ex", "info threads", executable, &core]);
    assert!(shown.contains("Thread") && shown.contains("LWP"), "{shown}");
}
