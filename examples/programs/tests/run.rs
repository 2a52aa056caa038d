//! Every example runs and prints what it should.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should not")]

use std::process::Command;

fn run(program: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("example.sock");
    let output = Command::new(program).arg(&socket).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    assert!(!socket.exists(), "the socket is removed at the end");
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
