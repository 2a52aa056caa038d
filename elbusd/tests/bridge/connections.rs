//! How nodes connect, and what they do if they cannot: no server, wrong credentials, wrong keys, names that
//! are taken.

use crate::{
    network::{
        KEY, NatsServer, Options, config, free_port, has_nats_server, node, nodes, wait_for_client,
        wait_for_nodes,
    },
    support::{
        daemon::{Daemon, folder, run_to_end},
        field, plugin, wait_until,
    },
};
use std::{fs, io::Write, net::TcpStream, os::unix::fs::PermissionsExt};

fn detail(daemon: &Daemon) -> String {
    let mut client = daemon.client("test.detail");
    field(&plugin(&mut client, "bridge").unwrap(), "detail").as_str().unwrap().to_owned()
}

#[test]
fn a_broker_serves_without_a_server_and_joins_once_there_is_one() {
    if !has_nats_server("no server") {
        return;
    }
    let port = free_port();
    let url = format!("nats://127.0.0.1:{port}");
    let mill = node("mill", std::slice::from_ref(&url), &Options::default());
    mill.wait_for_log("cannot connect to NATS; trying again");
    let (mut a, _b) = (mill.client("a"), mill.client("b"));
    assert_eq!(a.send("b", b"local"), 0x01, "local traffic does not need the bridge");
    assert!(detail(&mill).starts_with("not connected: 127.0.0.1:"), "{}", detail(&mill));
    let _server = NatsServer::start_with(port, &[], None);
    let press = node("press", &[url], &Options::default());
    wait_for_nodes(&mill, 1);
    wait_for_client(&press, "@mill.a");
    wait_until("the state is right", || detail(&mill).starts_with("connected to 127.0.0.1:"));
}

#[test]
fn wrong_credentials_are_reported_and_right_ones_used() {
    if !has_nats_server("credentials") {
        return;
    }
    let server = NatsServer::with_config("authorization { user: bridge, password: secret }\n");
    let bridge = |password: &str| {
        let folder = folder();
        let path = folder.path().join("password");
        fs::write(&path, format!("{password}\n")).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        let keys = format!("user = 'bridge'\npassword_file = '{}'\n", path.display());
        (folder, keys)
    };
    let (_wrong_folder, wrong) = bridge("wrong");
    let mill = node("mill", &[server.url()], &Options { bridge: Some(&wrong), ..Options::default() });
    mill.wait_for_log("authorization violation");
    wait_until("the state names it", || detail(&mill).contains("authorization violation"));
    let (_right_folder, right) = bridge("secret");
    let press = node("press", &[server.url()], &Options { bridge: Some(&right), ..Options::default() });
    press.wait_for_log("connected to NATS");
}

#[test]
fn a_server_that_does_not_take_the_longest_batch_is_refused_with_its_limit() {
    if !has_nats_server("max_payload") {
        return;
    }
    let server = NatsServer::with_config("max_payload: 150000\n");
    let mill = node("mill", &[server.url()], &Options::default());
    mill.wait_for_log("cannot connect to NATS; trying again");
    let expected = "max_payload of the server is 150000 bytes; a bridge needs ";
    wait_until("the state names the limit", || detail(&mill).contains(expected));
}

#[test]
fn a_message_that_the_client_of_nats_cannot_read_ends_the_connection_which_is_made_again() {
    if !has_nats_server("unreadable message") {
        return;
    }
    let server = NatsServer::start();
    let [mill, press] = nodes(["mill", "press"], &server);
    wait_for_nodes(&mill, 1);
    let mut stranger = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
    // a header that is not UTF-8
    let text = b"CONNECT {\"verbose\":false,\"headers\":true}\r\nHPUB plant.all 18 19\r\nNATS/1.0\r\na: \xff\r\n\r\nx\r\n";
    stranger.write_all(text).unwrap();
    for daemon in [&mill, &press] {
        daemon.wait_for_log("connection to NATS lost");
    }
    wait_until("the connections are made again", || {
        [&mill, &press].iter().all(|daemon| detail(daemon).starts_with("connected to "))
    });
    let (mut from, mut to) = (mill.client("from"), press.client("to"));
    wait_for_client(&mill, "@press.to");
    assert_eq!(from.send("@press.to", b"x"), 0x01);
    assert_eq!(to.frame().payload(), b"x");
}

#[test]
fn a_permissions_violation_is_reported() {
    if !has_nats_server("permissions") {
        return;
    }
    let server = NatsServer::with_config(
        "authorization { users: [{ user: bridge, password: secret, permissions: { publish: \"plant.all\", subscribe: \"plant.>\" } }] }\n",
    );
    let folder = folder();
    let path = folder.path().join("password");
    fs::write(&path, "secret").unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    let keys = format!("user = 'bridge'\npassword_file = '{}'\n", path.display());
    let options = Options { bridge: Some(&keys), ..Options::default() };
    let (mill, _press) = (node("mill", &[server.url()], &options), node("press", &[server.url()], &options));
    mill.wait_for_log("NATS server reports an error");
    wait_until("the state names it", || detail(&mill).to_lowercase().contains("permissions violation"));
}

#[test]
fn a_node_with_another_key_is_a_stranger() {
    if !has_nats_server("wrong key") {
        return;
    }
    let server = NatsServer::start();
    let [mill, press] = nodes(["mill", "press"], &server);
    let stranger =
        node("saw", &[server.url()], &Options { key: Some("another key, as long"), ..Options::default() });
    let _client = stranger.client("client");
    stranger.wait_for_log("joined the bus");
    for daemon in [&mill, &press, &stranger] {
        daemon.wait_for_log("messages without the key of the bus were dropped");
    }
    let mut witness = mill.client("witness");
    assert!(witness.control("client.info", &[("name", "@saw.client")]).is_err());
    assert_eq!(witness.send("@saw.client", b"x"), 0x71);
    wait_for_nodes(&mill, 1);
}

#[test]
fn the_second_node_of_a_name_stays_local_until_the_name_is_free() {
    if !has_nats_server("duplicate node") {
        return;
    }
    let server = NatsServer::start();
    let [mill, press] = nodes(["mill", "press"], &server);
    let _first = mill.client("first");
    wait_for_client(&press, "@mill.first");
    let second = node("mill", &[server.url()], &Options::default());
    let _second = second.client("second");
    second.wait_for_log("another node of the bus has this name; this one stays local");
    assert!(detail(&second).contains("another node has the name of this one"), "{}", detail(&second));
    let mut witness = press.client("witness");
    assert_eq!(witness.send("@mill.second", b"x"), 0x71);
    assert_eq!(witness.send("@mill.first", b"x"), 0x01);
    mill.stop();
    wait_for_client(&press, "@mill.second");
}

#[test]
fn a_second_bridge_to_the_same_bus_is_refused() {
    let folder = folder();
    let key = folder.path().join("key");
    fs::write(&key, KEY).unwrap();
    fs::set_permissions(&key, PermissionsExt::from_mode(0o600)).unwrap();
    let second = r#"
        [[plugin]]
        name = "second"
        library = "elbus_nats"
        config = { servers = ["nats://127.0.0.1:1"], bus = "plant", node = "other", key_file = "key" }
    "#;
    let options = Options { more: second, ..Options::default() };
    let text = config("mill", &["nats://127.0.0.1:1".to_owned()], &options);
    fs::write(folder.path().join("broker.toml"), text).unwrap();
    let refused = run_to_end(folder.path(), &["--config", "broker.toml"]);
    assert!(!refused.status.success());
    let expected = "another instance already bridges the bus \"plant\": a broker is one node of a bus";
    assert!(refused.stderr.contains(expected), "{}", refused.stderr);
}
