//! TLS with a whole broker: messages arrive, untrusted peers are refused with a clear error, and resources
//! are released.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod certificates;
mod support;

use elbus_client::{
    Backoff, ConnectionEvent, Error, Qos, TlsConfig,
    blocking::{Client, ClientBuilder, Frames},
};
use elbus_testing::{attempts::with_growing_limits, authority::Authority};
use elbus_tls::{ClientFiles, dial};
use rcgen::SanType;
use serde::Deserialize;
use std::{
    io::{Read, Write},
    net::TcpStream,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};
use support::{
    PATIENCE,
    daemon::{Daemon, folder},
    wait_until,
    wire::{Frame, Wire},
};
use tempfile::TempDir;

/// A broker with a UNIX socket and a TLS port, and the authority of its certificates.
struct Plant {
    daemon: Daemon,
    authority: Authority,
    /// `host:port`.
    port: String,
}

impl Plant {
    /// Starts a broker; `tls` and `config` are added to the tables of the TLS port.
    fn new(config: &str, tls: &str) -> Self {
        let (folder, authority) = (folder(), Authority::new());
        authority.write(&folder.path().join("ca.pem"));
        authority.issue(folder.path(), "broker", "broker", vec![]);
        let daemon = start(folder, "127.0.0.1:0", config, tls);
        let port = daemon.address_of("tls:");
        Plant { daemon, authority, port }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.daemon.path(file)
    }

    fn config(&self) -> TlsConfig {
        TlsConfig::new().roots(self.path("ca.pem"))
    }

    fn builder(&self, name: &str) -> ClientBuilder {
        Client::builder(name).tls(self.config()).timeout(PATIENCE)
    }

    fn address(&self) -> String {
        format!("tls://{}", self.port)
    }

    fn client(&self, name: &str) -> (Client, Frames) {
        self.builder(name).connect(self.address()).unwrap()
    }

    /// Returns the number of open file descriptors of the broker.
    fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.daemon.pid())).unwrap().count()
    }
}

fn start(folder: Arc<TempDir>, bind: &str, config: &str, tls: &str) -> Daemon {
    let text = format!(
        "[[plugin]]\nname = 'local'\nlibrary = 'elbus_unix'\n[plugin.config]\npath = './bus.sock'\ntimeout_seconds = 600.0\n\
         [[plugin]]\nname = 'rpc'\nlibrary = 'elbus_rpc'\n\
         [[plugin]]\nname = 'network'\nlibrary = 'elbus_tcp'\n[plugin.config]\nbind = '{bind}'\n{config}\n\
         [plugin.config.tls]\ncertificate = 'broker.pem'\nkey = 'broker.key'\n{tls}\n"
    );
    std::fs::write(folder.path().join("broker.toml"), text).unwrap();
    Daemon::start_in(folder, &["--config", "broker.toml"])
}

fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|index| (((index + seed) * 2_654_435_761) >> 13) as u8).collect()
}

#[derive(Deserialize)]
struct Details {
    kind: String,
    certificate_names: Vec<String>,
}

fn details(daemon: &Daemon, name: &str) -> Details {
    let (client, _frames) = Client::connect(daemon.path("bus.sock").as_path(), "asks").unwrap();
    let params = std::collections::BTreeMap::from([("name", name)]);
    let details = client.call_as(".broker", "client.info", &params).unwrap();
    client.close().unwrap();
    details
}

#[test]
fn many_and_long_messages_arrive_whole_in_both_directions() {
    let plant = Plant::new("", "");
    let (one, mut to_one) = plant.client("one");
    let (two, mut to_two) = plant.client("two");
    const COUNT: usize = 5000;
    let there = std::thread::spawn(move || {
        for number in 0..COUNT {
            one.send("two", pattern(number % 700, number), Qos::NO).unwrap();
        }
        one.send("two", pattern(5_000_000, 1), Qos::PROCESSED).unwrap();
        one
    });
    let back = std::thread::spawn(move || {
        for number in 0..COUNT {
            two.send("one", pattern(number % 900, number), Qos::PROCESSED).unwrap();
        }
        two.send("one", pattern(5_000_000, 2), Qos::NO).unwrap();
        two
    });
    for number in 0..COUNT {
        assert!(
            to_two.next_timeout(PATIENCE).unwrap().payload() == pattern(number % 700, number),
            "{number}"
        );
        assert!(
            to_one.next_timeout(PATIENCE).unwrap().payload() == pattern(number % 900, number),
            "{number}"
        );
    }
    assert!(to_two.next_timeout(PATIENCE).unwrap().payload() == pattern(5_000_000, 1));
    assert!(to_one.next_timeout(PATIENCE).unwrap().payload() == pattern(5_000_000, 2));
    let (one, two) = (there.join().unwrap(), back.join().unwrap());
    assert_eq!(details(&plant.daemon, "one").kind, "tls");
    // messages sent without acknowledgement before a close arrive
    one.send("two", pattern(3_000_000, 3), Qos::NO).unwrap();
    one.close().unwrap();
    assert!(to_two.next_timeout(PATIENCE).unwrap().payload() == pattern(3_000_000, 3));
    two.close().unwrap();
}

#[test]
fn untrusted_and_misnamed_servers_are_refused() {
    let plant = Plant::new("", "");
    Authority::new().write(&plant.path("other.pem"));
    let error = |tls: TlsConfig| match Client::builder("a").tls(tls).connect(plant.address()).err().unwrap() {
        Error::Tls { reason, .. } => reason,
        error => panic!("{error:?}"),
    };
    let unknown = error(TlsConfig::new().roots(plant.path("other.pem")));
    assert!(unknown.contains("invalid peer certificate"), "{unknown}");
    let other = error(plant.config().server_name("other.plant"));
    assert!(other.contains("not valid for name"), "{other}");
    let nowhere = error(TlsConfig::new().roots(plant.path("nowhere.pem")));
    assert!(nowhere.contains("nowhere.pem"), "{nowhere}");
    plant.daemon.wait_for_log("TLS handshake failed: received fatal alert");
}

#[test]
fn client_certificates_are_verified_and_their_names_are_known() {
    let plant = Plant::new("", "client_ca = 'ca.pem'");
    let error = plant.builder("nobody").connect(plant.address()).err().unwrap();
    assert!(
        matches!(&error, Error::Tls { reason, .. } if reason.contains("CertificateRequired")),
        "{error:?}"
    );
    plant.daemon.wait_for_log("TLS handshake failed: peer sent no certificates");

    let foreign = Authority::new();
    foreign.issue(plant.daemon.folder.path(), "foreign", "plc-1", vec![]);
    let tls = plant.config().identity(plant.path("foreign.pem"), plant.path("foreign.key"));
    let error = plant.builder("foreign").tls(tls).connect(plant.address()).err().unwrap();
    assert!(matches!(error, Error::Tls { .. }), "{error:?}");
    plant.daemon.wait_for_log("TLS handshake failed: invalid peer certificate");

    let names = vec![
        SanType::DnsName("plc-1.plant".try_into().unwrap()),
        SanType::URI("spiffe://plant/plc/1".try_into().unwrap()),
    ];
    plant.authority.issue(plant.daemon.folder.path(), "plc", "plc-1", names);
    let tls = plant.config().identity(plant.path("plc.pem"), plant.path("plc.key"));
    let (_client, _frames) = plant.builder("eva.plc-1").tls(tls).connect(plant.address()).unwrap();
    let details = details(&plant.daemon, "eva.plc-1");
    let names = ["cn:plc-1", "dns:plc-1.plant", "uri:spiffe://plant/plc/1"];
    assert_eq!(details.certificate_names, names);
}

#[test]
fn optional_client_certificates_can_be_omitted() {
    let plant = Plant::new("", "client_ca = 'ca.pem'\nclient_certificates = 'optional'");
    let (_client, _frames) = plant.client("nobody");
    assert_eq!(details(&plant.daemon, "nobody").certificate_names, Vec::<String>::new());
}

#[test]
fn the_log_distinguishes_plain_clients_on_tls_ports_and_the_reverse() {
    let plant = Plant::new("timeout_seconds = 0.3", "");
    // ELBUS clients wait for the greeting
    let mut silent = TcpStream::connect(&plant.port).unwrap();
    let source = silent.local_addr().unwrap();
    assert_eq!(silent.read(&mut [0; 9]).unwrap_or(0), 0);
    plant.daemon.wait_for_log("sent nothing, perhaps a plain client that waits for a greeting");
    assert!(plant.daemon.log().contains(&source.to_string()));
    let mut plain = TcpStream::connect(&plant.port).unwrap();
    plain.write_all(&[0xEB, 1, 0, 1, 0, b'x']).unwrap();
    assert_eq!(plain.read(&mut [0; 9]).unwrap_or(0), 0);
    plant.daemon.wait_for_log("sent no TLS, a plain client on a TLS port?");
    // in the middle of its first TLS record
    let mut halfway = TcpStream::connect(&plant.port).unwrap();
    halfway.write_all(&[0x16, 3, 1, 2, 0, 1]).unwrap();
    assert_eq!(halfway.read(&mut [0; 9]).unwrap_or(0), 0);
    plant.daemon.wait_for_log("no complete TLS handshake in time");

    let daemon = Daemon::start("library", &[]);
    let port = daemon.address_of("tcp:");
    let tls = TlsConfig::new().roots(plant.path("ca.pem"));
    let error = Client::builder("a").tls(tls).connect(format!("tls://{port}")).err().unwrap();
    assert!(matches!(error, Error::Tls { .. }), "{error:?}");
    daemon.wait_for_log("sent a TLS handshake to a port that has no TLS");
}

#[test]
fn silent_tls_clients_are_disconnected_and_pinging_ones_stay() {
    with_growing_limits(Duration::from_secs(1), silent_and_pinging);
}

fn silent_and_pinging(timeout: Duration) {
    let plant = Plant::new(&format!("timeout_seconds = {:?}", timeout.as_secs_f64()), "");
    let (pinging, _frames) =
        plant.builder("pinging").ping_interval(timeout / 20).connect(plant.address()).unwrap();
    let (silent, _other) = plant.builder("silent").ping_interval(PATIENCE).connect(plant.address()).unwrap();
    wait_until("the silent client is disconnected", || !silent.is_connected());
    plant.daemon.wait_for_log("no complete frame header in time");
    pinging.send("pinging", "still here", Qos::PROCESSED).unwrap();
    assert!(pinging.is_connected());
}

#[test]
fn every_disconnect_frees_the_name_and_a_kicked_client_sees_it() {
    let plant = Plant::new("", "");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut witness = Wire::connect(&plant.daemon, &plant.daemon.address(), "witness");
    for reset in [false, true] {
        let files = ClientFiles { roots: Some(plant.path("ca.pem")), identity: None };
        runtime.block_on(async {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            let stream = tokio::net::TcpStream::connect(&plant.port).await.unwrap();
            let mut stream = dial(&files.load().unwrap(), "127.0.0.1", stream).await.unwrap();
            // a message after the name, and an end without close_notify
            let message = [&[9, 0, 0, 0, 0x12, 12, 0, 0, 0][..], b"witness\0last"].concat();
            stream.write_all(&[&[0xEB, 1, 0, 4, 0][..], b"gone", &message].concat()).await.unwrap();
            let mut answer = [0; 5];
            stream.read_exact(&mut answer).await.unwrap();
            assert_eq!(answer, [0xEB, 1, 0, 1, 1]);
            if reset {
                let socket =
                    rustix::net::sockopt::set_socket_linger(stream.get_ref().0, Some(Duration::ZERO));
                socket.unwrap();
            }
            drop(stream);
        });
        assert!(
            matches!(witness.frame(), Frame::Data(_, sender, _, payload, _) if sender == "gone" && payload == b"last")
        );
        wait_until("the name is free", || witness.send("gone", b"") == 0x71);
    }

    let (kicked, mut frames) = plant.client("kicked");
    assert_eq!(witness.send("kicked", b"before"), 0x01);
    witness.control("client.kick", &[("name", "kicked")]).unwrap();
    assert_eq!(frames.next_timeout(PATIENCE).unwrap().payload(), b"before");
    assert!(frames.next().is_none());
    assert!(!kicked.is_connected());
    assert_eq!(witness.send("kicked", b""), 0x71);
}

#[test]
fn tls_connections_release_their_file_descriptors() {
    let plant = Plant::new("", "");
    let _first = plant.client("first");
    let before = plant.descriptors();
    for round in 0..10 {
        let clients: Vec<_> = (0..20).map(|number| plant.client(&format!("c{round}.{number}"))).collect();
        assert!(plant.descriptors() >= before + 60, "a connection and a socket pair for each client");
        drop(clients);
        wait_until("descriptors are closed", || plant.descriptors() <= before);
    }
}

#[test]
fn tls_clients_reconnect_to_a_restarted_broker() {
    let plant = Plant::new("", "");
    let port = plant.port.clone();
    let backoff =
        Backoff::new().first_delay(Duration::from_millis(5)).max_delay(Duration::from_millis(50)).jitter(0.5);
    let (client, mut frames) = plant.builder("back").reconnect(backoff).connect(plant.address()).unwrap();
    client.add_filters("t/+").unwrap();
    let mut events = client.events();
    let folder = plant.daemon.folder.clone();
    drop(plant);
    let daemon = start(folder, &port, "", "");
    while !matches!(events.next_timeout(PATIENCE).unwrap(), ConnectionEvent::Connected) {}
    // after the subscriptions, which the client has restored
    client.round_trip().unwrap();
    let mut witness = Wire::connect(&daemon, &daemon.address(), "witness");
    witness.request(elbus_protocol::Op::Publish, Qos::NO, "t/1", "", b"again");
    assert_eq!(frames.next_timeout(PATIENCE).unwrap().payload(), b"again");
}

#[test]
fn a_reconnecting_tls_client_gets_its_name() {
    let plant = Plant::new("", "");
    let (witness, mut frames) = plant.client("witness");
    for number in 0..50u32 {
        let (client, _frames) = plant.client("again");
        client.send("witness", number.to_le_bytes().to_vec(), Qos::NO).unwrap();
        client.close().unwrap();
        assert_eq!(frames.next_timeout(PATIENCE).unwrap().payload(), number.to_le_bytes());
    }
    witness.close().unwrap();
}

#[test]
fn queued_messages_arrive_when_the_broker_stops() {
    let plant = Plant::new("", "");
    let (_client, mut frames) =
        plant.builder("reader").queue_bytes(100_000).connect(plant.address()).unwrap();
    let mut witness = Wire::connect(&plant.daemon, &plant.daemon.address(), "witness");
    let payload = pattern(5_000_000, 7);
    assert_eq!(witness.send("reader", &payload), 0x01);
    let reading =
        std::thread::spawn(move || (frames.next_timeout(PATIENCE).unwrap(), frames.next().is_none()));
    let (status, log) = plant.daemon.stop();
    assert!(status.success(), "{log}");
    let (frame, ended) = reading.join().unwrap();
    assert!(frame.payload() == payload && ended);
}

#[test]
fn check_reports_an_invalid_certificate() {
    let folder = folder();
    let authority = Authority::new();
    authority.issue(folder.path(), "broker", "broker", vec![]);
    let text = "[[plugin]]\nname = 'network'\nlibrary = 'elbus_tcp'\n[plugin.config]\nbind = '127.0.0.1:0'\n\
                [plugin.config.tls]\ncertificate = 'broker.pem'\nkey = 'nowhere.key'\n";
    std::fs::write(folder.path().join("broker.toml"), text).unwrap();
    let refused = support::daemon::run_to_end(folder.path(), &["--config", "broker.toml", "--check"]);
    assert!(!refused.status.success());
    let key = "broker.toml:8: plugin \"network\": tls.key = 'nowhere.key': cannot read \"nowhere.key\"";
    assert!(refused.stderr.contains(key), "{}", refused.stderr);
}
