//! Every example runs and prints the expected output.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use elbus_broker::{Broker, PluginDeclaration};
use std::{path::Path, process::Command};

/// Runs a program that contains a broker; returns its output.
fn run(program: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("example.sock");
    let out = run_at(program, &socket);
    assert!(!socket.exists(), "the socket is removed at the end");
    out
}

/// Runs a program that needs a broker; returns its output.
fn run_client(program: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("example.sock");
    let unix = PluginDeclaration::linked("unix", elbus_unix::plugin()).set("path", socket.to_str().unwrap());
    let _broker = Broker::builder().plugin(unix).start().unwrap();
    run_at(program, &socket)
}

fn run_at(program: &str, socket: &Path) -> String {
    let output = Command::new(program).arg(socket).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    out.into_owned()
}

#[test]
fn embed() {
    assert_eq!(run(env!("CARGO_BIN_EXE_embed")), "plant.sensor: temperature/boiler = 71.5\n");
}

#[test]
fn load() {
    let out = run(env!("CARGO_BIN_EXE_load"));
    let version = env!("CARGO_PKG_VERSION");
    assert!(out.contains(&format!("local: elbus-unix {version} from elbus_unix is started\n")), "{out}");
    assert!(
        out.contains(&format!("clients: elbus-inproc {version} from elbus_inproc is started\n")),
        "{out}"
    );
}

#[test]
fn clients() {
    for program in [env!("CARGO_BIN_EXE_client"), env!("CARGO_BIN_EXE_client_blocking")] {
        let expected = "plant.oven: temperature/oven = 21.5\n\
            180 degrees in 9 minutes\n\
            1000 degrees: rpc error -32602 (invalid parameters): 300 degrees are the most\n";
        assert_eq!(run_client(program), expected);
    }
}
