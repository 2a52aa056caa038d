//! Addresses: several at once, addresses in use, the port chosen for port 0, and the addresses reported for
//! clients.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use elbus_plugin_api::testing::FakeHost;
use elbus_tcp::Tcp;
use elbus_testing::stream::{Bus, LONG, Peer, Stream};
use std::net::{SocketAddr, TcpListener, TcpStream};

fn connect(address: &str) -> TcpStream {
    TcpStream::connect(address.strip_prefix("tcp:").unwrap()).unwrap()
}

fn has_ipv6() -> bool {
    TcpListener::bind("[::1]:0").is_ok()
}

#[test]
fn two_addresses_serve_one_instance() {
    let fake = FakeHost::new();
    let instance = fake.create::<Tcp>("network", "bind = ['127.0.0.1:0', '127.0.0.2:0']").unwrap();
    let bus = Bus::over(fake, instance, connect);
    let addresses = bus.instance.status().addresses;
    assert_eq!(addresses.len(), 2);
    for (address, (name, port)) in addresses.iter().zip([("a", "127.0.0.1:0"), ("b", "127.0.0.2:0")]) {
        let stream = connect(address);
        Stream::limit(&stream, LONG);
        let local: SocketAddr = stream.local_addr().unwrap();
        assert_ne!(stream.peer_addr().unwrap().port(), 0);
        let mut peer = Peer(stream);
        assert_eq!(peer.introduce(name.as_bytes()), 1);
        let info = bus.fake.client_info(name).unwrap();
        assert_eq!((info.kind.as_str(), info.port.as_deref()), ("tcp", Some(port)));
        assert_eq!((info.source, info.credentials), (Some(local.to_string()), None));
    }
}

#[test]
fn a_port_in_use_is_named_and_no_address_stays_bound() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken_at = taken.local_addr().unwrap().to_string();
    // a free port chosen by the system; no other test binds 127.0.0.3
    let free = TcpListener::bind("127.0.0.3:0").unwrap().local_addr().unwrap();
    let fake = FakeHost::new();
    let config = format!("bind = ['{free}', '{taken_at}']");
    let instance = fake.create::<Tcp>("network", &config).unwrap();
    let error = instance.start().unwrap_err();
    assert_eq!(error.key, "bind");
    assert!(error.message.starts_with(&format!("cannot listen on {taken_at:?}: ")), "{error}");
    assert!(instance.status().addresses.is_empty());
    TcpListener::bind(free).unwrap();
}

#[test]
fn a_port_is_free_again_after_stop() {
    let fake = FakeHost::new();
    let mut config = "bind = '127.0.0.4:0'".to_owned();
    for _ in 0..3 {
        let instance = fake.create::<Tcp>("network", &config).unwrap();
        let bus = Bus::over(fake.clone(), instance, connect);
        let address = bus.instance.status().addresses[0].clone();
        let mut client = bus.client("a");
        bus.instance.stop(LONG);
        client.rest();
        let address = address.strip_prefix("tcp:").unwrap();
        assert!(TcpStream::connect(address).is_err(), "nobody listens");
        config = format!("bind = '{address}'");
    }
}

#[test]
fn ipv4_and_ipv6_can_use_the_same_port() {
    if !has_ipv6() {
        eprintln!("skipped: no IPv6 on this machine");
        return;
    }
    let fake = FakeHost::new();
    let instance = fake.create::<Tcp>("network", "bind = '[::]:0'").unwrap();
    let bus = Bus::over(fake, instance, connect);
    let six: SocketAddr = bus.instance.status().addresses[0].strip_prefix("tcp:").unwrap().parse().unwrap();
    // it does not take the same port of the other family
    let config = format!("bind = '0.0.0.0:{}'", six.port());
    let four = bus.fake.create::<Tcp>("other", &config).unwrap();
    four.start().unwrap();
    let stream = TcpStream::connect(("::1", six.port())).unwrap();
    Stream::limit(&stream, LONG);
    let local = stream.local_addr().unwrap().to_string();
    assert_eq!(Peer(stream).introduce(b"six"), 1);
    bus.wait_gone("six");
    assert!(local.starts_with("[::1]:"));
    four.stop(LONG);
}

#[test]
fn names_are_resolved() {
    let fake = FakeHost::new();
    let instance = fake.create::<Tcp>("network", "bind = 'localhost:0'\nno_delay = false").unwrap();
    let bus = Bus::over(fake, instance, connect);
    let _client = bus.client("a");
    assert_eq!(bus.fake.client_info("a").unwrap().port.as_deref(), Some("localhost:0"));
    let fake = FakeHost::new();
    let instance = fake.create::<Tcp>("network", "bind = 'no-such-host.invalid:1'").unwrap();
    assert_eq!(instance.start().unwrap_err().key, "bind");
}

#[test]
fn wrong_values_name_their_key() {
    let fake = FakeHost::new();
    for (config, key) in [
        ("bind = 'nonsense'", "bind"),
        ("bind = []", "bind"),
        ("bind = 7777", "bind"),
        ("bind = '127.0.0.1:0'\nkeep_alive_seconds = 40000", "keep_alive_seconds"),
        ("bind = '127.0.0.1:0'\nstall_seconds = 9", "stall_seconds"),
        ("bind = '127.0.0.1:0'\noverflow = 'explode'", "overflow"),
        ("bind = '127.0.0.1:0'\nnodelay = true", "nodelay"),
    ] {
        assert_eq!(fake.create::<Tcp>("network", config).err().unwrap().key, key, "{config}");
    }
}
