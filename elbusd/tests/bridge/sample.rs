//! The sample of `config/bridge`: two brokers become one bus.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use crate::{
    network::{KEY, NatsServer, has_nats_server, wait_for_client},
    support::daemon::{Daemon, folder},
};

/// Starts the broker of a sample with paths and addresses of this test.
fn start(name: &str, server: &NatsServer) -> Daemon {
    let source = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../config/bridge")).join(name);
    let folder = folder();
    let key = folder.path().join("plant.key");
    fs::write(&key, KEY).unwrap();
    fs::set_permissions(&key, PermissionsExt::from_mode(0o600)).unwrap();
    let text = fs::read_to_string(source).unwrap();
    for original in ["/run/elbus/bus.sock", "nats://10.0.0.1:4222", "/etc/elbus/plant.key"] {
        assert!(text.contains(original), "{name} does not contain {original}");
    }
    let text = text
        .replace("/run/elbus/bus.sock", "bus.sock")
        .replace("nats://10.0.0.1:4222", &server.url())
        .replace("/etc/elbus/plant.key", path(&key));
    fs::write(folder.path().join("broker.toml"), text).unwrap();
    Daemon::start_in(folder, &["--config", "broker.toml"])
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn the_sample_makes_one_bus_of_two_brokers() {
    if !has_nats_server("sample") {
        return;
    }
    let server = NatsServer::start();
    let (mill, press) = (start("mill.toml", &server), start("press.toml", &server));
    let (mut pump, mut panel) = (mill.client("plant.pump"), press.client("plant.panel"));
    wait_for_client(&press, "@mill.plant.pump");
    assert_eq!(panel.send("@mill.plant.pump", b"start"), 0x01);
    assert_eq!(pump.frame().payload(), b"start");
}
