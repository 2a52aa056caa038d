//! How a node and its server authenticate themselves to each other: TLS, tokens, and credentials of `nsc`. A
//! broker that is refused serves its local clients, and uses what its files contain later.

use elbus_protocol::Op;
use elbus_testing::authority::Authority;
use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use crate::{
    network::{EVERYTHING, NatsServer, Options, has_nats_server, node, wait_for_client, wait_for_nodes},
    support::{
        daemon::{Daemon, folder},
        field, plugin, wait_until,
    },
};

/// Writes a file that only its owner can read.
fn write_secret(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
}

fn detail(daemon: &Daemon) -> String {
    let mut client = daemon.client("test.detail");
    field(&plugin(&mut client, "bridge").unwrap(), "detail").as_str().unwrap().to_owned()
}

/// Starts a node with further keys of the plugin.
fn node_with(name: &str, server: &NatsServer, keys: &str) -> Daemon {
    node(name, &[server.url()], &Options { bridge: Some(keys), ..Options::default() })
}

/// Waits until the log and the state say why there is no connection; local clients are served.
fn wait_until_refused(daemon: &Daemon, why: &str) {
    daemon.wait_for_log("cannot connect to NATS; trying again");
    wait_until(&format!("{why:?} in the state"), || {
        let detail = detail(daemon);
        detail.starts_with("not connected: ") && detail.to_lowercase().contains(why)
    });
    assert!(daemon.log().to_lowercase().contains(why), "{why:?}");
    let (mut a, _b) = (daemon.client("a"), daemon.client("b"));
    assert_eq!(a.send("b", b"local"), 0x01);
}

#[test]
fn tls_verifies_the_server_and_shows_it_a_certificate() {
    if !has_nats_server("TLS") {
        return;
    }
    let files = folder();
    let path = |name: &str| files.path().join(name).to_str().unwrap().to_owned();
    let (authority, other) = (Authority::new(), Authority::new());
    authority.write(&files.path().join("ca.pem"));
    other.write(&files.path().join("changing.pem"));
    for name in ["server", "node"] {
        authority.issue(files.path(), name, name, vec![]);
    }
    let server = NatsServer::with_config(&format!(
        "tls {{ cert_file: {:?}, key_file: {:?}, ca_file: {:?}, verify: true }}\n",
        path("server.pem"),
        path("server.key"),
        path("ca.pem")
    ));
    let keys = |ca: &str, more: &str| format!("[plugin.config.tls]\nca = {:?}\n{more}", path(ca));
    let identity = format!("certificate = {:?}\nkey = {:?}\n", path("node.pem"), path("node.key"));
    let mill = node_with("mill", &server, &keys("ca.pem", &identity));
    mill.wait_for_log("connected to NATS");

    // the server does not know a node without a certificate, and the node does not know another server
    let stranger = node_with("saw", &server, &keys("ca.pem", ""));
    let press = node_with("press", &server, &keys("changing.pem", &identity));
    wait_until_refused(&press, "certificate");
    wait_until_refused(&stranger, "");
    assert!(!press.log().contains("connected to NATS") && !stranger.log().contains("connected to NATS"));

    // tried again with the files as they are then
    authority.write(&files.path().join("changing.pem"));
    press.wait_for_log("connected to NATS");
    wait_for_nodes(&mill, 1);
}

#[test]
fn a_token_is_read_for_each_connection() {
    if !has_nats_server("tokens") {
        return;
    }
    let server = NatsServer::with_config("authorization { token: \"a secret token\" }\n");
    let files = folder();
    let path = |name: &str| files.path().join(name);
    write_secret(&path("right"), "a secret token\n");
    write_secret(&path("wrong"), "another token\n");
    let keys = |name: &str| format!("token_file = {:?}\n", path(name));
    let mill = node_with("mill", &server, &keys("right"));
    mill.wait_for_log("connected to NATS");
    let press = node_with("press", &server, &keys("wrong"));
    wait_until_refused(&press, "authorization violation");
    assert!(!press.log().contains("another token") && !mill.log().contains("a secret token"));
    write_secret(&path("wrong"), "a secret token");
    press.wait_for_log("connected to NATS");
}

#[test]
fn credentials_of_nsc_are_used_and_wrong_ones_reported() {
    if !has_nats_server("credentials of nsc") {
        return;
    }
    let source = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bridge/nsc"));
    let text = |name: &str| fs::read_to_string(source.join(name)).unwrap();
    let server = NatsServer::with_config(&text("server.conf"));
    let files = folder();
    let keys = |name: &str| {
        let path = files.path().join(name);
        write_secret(&path, &text(name));
        format!("credentials = {path:?}\n")
    };
    let mill = node_with("mill", &server, &keys("mill.creds"));
    mill.wait_for_log("connected to NATS");
    // the seed of another user than the JWT
    let press = node_with("press", &server, &keys("other_seed.creds"));
    wait_until_refused(&press, "authorization violation");
}

/// Returns the configuration of a server in the documentation, without TLS, and with this password.
fn documented_server(password: &str) -> String {
    let text = include_str!("../../../docs/bridging.md");
    let block = text.split("    host: 0.0.0.0\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let lines = block.lines().filter(|line| !line.trim_start().starts_with("tls "));
    lines.map(|line| line.replace("\"..\"", &format!("{password:?}")) + "\n").collect()
}

#[test]
fn the_documented_permissions_suffice() {
    if !has_nats_server("documented permissions") {
        return;
    }
    let server = NatsServer::with_config(&documented_server("secret"));
    let files = folder();
    let password = files.path().join("password");
    write_secret(&password, "secret\n");
    let start = |name: &str| {
        let login = format!("user = {name:?}\npassword_file = {password:?}\nmirror = ['sensors/#']\n");
        node_with(name, &server, &format!("{login}{EVERYTHING}"))
    };
    let (mill, press) = (start("mill"), start("press"));
    let (mut from, mut to) = (mill.client("from"), press.client("to"));
    wait_for_client(&mill, "@press.to");
    assert_eq!(from.acked(Op::Publish, "sensors/a", b"mirrored"), 0x01);
    assert_eq!(from.send("@press.to", b"x"), 0x01);
    assert_eq!(to.frame().payload(), b"x");
    for daemon in [&mill, &press] {
        let log = daemon.log();
        assert!(!log.contains("NATS server reports an error"), "{log}");
    }
}
