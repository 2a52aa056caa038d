//! Ten thousand connections that are opened and dropped.

use elbus_protocol::handshake::{encode_client_greeting, encode_client_name};

use crate::support::{daemon::Daemon, level::Level, load::Load, wait_until, wire::Wire};

/// Per address.
const CONNECTIONS: usize = 5000;
const WAYS: usize = 7;

/// Opens a connection and drops it in one of several ways.
fn open_and_drop(daemon: &Daemon, address: &str, number: usize) {
    let mut client = Wire::raw(daemon, address);
    let own = format!("passing.{address}.{number}");
    let name = encode_client_name(&own).unwrap();
    match number % WAYS {
        0 => {}
        1 => _ = client.read_exactly::<3>(),
        2 => client.write(&encode_client_greeting()[..2]),
        3 => client.write(&[&encode_client_greeting()[..], &name[..4]].concat()),
        // does not wait for the reply, so it may or may not be registered
        4 => client.write(&[&encode_client_greeting()[..], &name].concat()),
        5 => assert_eq!(client.greet(own.as_bytes()), 0x01),
        _ => {
            assert_eq!(client.greet(own.as_bytes()), 0x01);
            // to itself, without reading
            client.write(&[7, 0, 0, 0, 0x12, 200, 0, 0, 0]);
            client.reset();
        }
    }
}

#[test]
fn ten_thousand_dropped_connections_leak_nothing() {
    let daemon = Daemon::start("library", &["--log", "warn"]);
    let load = Load::start(&daemon);
    let addresses = daemon.addresses();
    for address in &addresses {
        (0..WAYS).for_each(|number| open_and_drop(&daemon, address, number));
    }
    let level = Level::of(&daemon);
    std::thread::scope(|scope| {
        for address in &addresses {
            let daemon = &daemon;
            scope.spawn(move || (0..CONNECTIONS).for_each(|number| open_and_drop(daemon, address, number)));
        }
    });
    load.wait_for_more();
    level.wait_for(&daemon);
    let mut witness = daemon.client("witness");
    wait_until("all of them have left", || {
        !witness.control("client.list", &[]).unwrap().to_string().contains("passing")
    });
    load.stop();
}
