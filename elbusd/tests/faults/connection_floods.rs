//! Clients that open connections at a high rate and send little or nothing. Other clients still register,
//! within a time limit.

use elbus_client::{TlsConfig, blocking::Client};
use elbus_protocol::handshake::encode_client_greeting;
use elbus_testing::authority::Authority;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};
use std::{
    collections::VecDeque,
    io::{Read, Write},
    net::{SocketAddr, SocketAddrV4, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crate::support::{
    PATIENCE,
    daemon::{Daemon, folder},
    wait_until,
    wire::Wire,
};

/// Connections that a flood keeps open. It drops older ones, as the broker evicts them.
const MAX_CONNECTIONS: usize = 400;
/// Pause between two connections of a flood: 400 per second, if the machine permits.
const PAUSE: Duration = Duration::from_micros(2500);
/// Clients that register during the flood.
const INNOCENTS: u32 = 40;
/// Time limit for each registration. Most take milliseconds.
const SOON: Duration = Duration::from_secs(10);
/// How many of them may need a second attempt: a busy machine can be slower than hundreds of connections.
const MAX_RETRIES: u32 = INNOCENTS / 8;

/// Connects from an address of this machine. Returns `None` if the broker refuses it.
fn connect_from(source: [u8; 4], to: &str) -> Option<TcpStream> {
    let to: SocketAddr = to.parse().unwrap();
    // fails for the ports of brokers of other tests
    let stream = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    bind(&stream, &SocketAddrV4::new(source.into(), 0)).unwrap();
    connect(&stream, &to).ok()?;
    Some(TcpStream::from(stream))
}

/// Connects repeatedly, sends fixed bytes, and reads nothing.
struct ConnectionFlood {
    stopping: Arc<AtomicBool>,
    count: Arc<AtomicU32>,
    thread: JoinHandle<()>,
}

impl ConnectionFlood {
    fn start(source: [u8; 4], to: &str, bytes: &[u8]) -> Self {
        let (stopping, count): (Arc<AtomicBool>, Arc<AtomicU32>) = Default::default();
        let (stop, counting, to, bytes) = (stopping.clone(), count.clone(), to.to_owned(), bytes.to_owned());
        let thread = std::thread::spawn(move || {
            let mut connections = VecDeque::new();
            while !stop.load(Ordering::Relaxed) {
                if let Some(mut stream) = connect_from(source, &to) {
                    let _ = stream.write_all(&bytes); // it may be evicted already
                    connections.push_back(stream);
                    counting.fetch_add(1, Ordering::Relaxed);
                }
                if connections.len() > MAX_CONNECTIONS {
                    connections.pop_front();
                }
                std::thread::sleep(PAUSE);
            }
        });
        let flood = ConnectionFlood { stopping, count, thread };
        wait_until("the flood has begun", || flood.count() >= 300);
        flood
    }

    fn count(&self) -> u32 {
        self.count.load(Ordering::Relaxed)
    }

    fn stop(self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
    }
}

fn daemon(config: &str) -> Daemon {
    Daemon::start_config(&format!(
        "[[plugin]]\nname = 'network'\nlibrary = 'elbus_tcp'\n[plugin.config]\nbind = '127.0.0.1:0'\n{config}\n"
    ))
}

/// Registers and drops one client after another. Returns the longest time a registration took.
fn longest(mut register: impl FnMut(&str) -> bool) -> Duration {
    let (mut longest, mut retries) = (Duration::ZERO, 0);
    for number in 0..INNOCENTS {
        let begin = Instant::now();
        while !register(&format!("c{number}")) {
            retries += 1;
            assert!(retries <= MAX_RETRIES, "{number} clients needed {retries} retries");
        }
        longest = longest.max(begin.elapsed());
        std::thread::sleep(Duration::from_millis(20));
    }
    longest
}

/// Returns whether a client from the tests' own address registers at the first attempt.
fn register(daemon: &Daemon, name: &str) -> bool {
    let mut stream = connect_from([127, 0, 0, 1], &daemon.address_of("tcp:")).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let hello = [&encode_client_greeting()[..], &[name.len() as u8, 0], name.as_bytes()].concat();
    let mut answer = [0; 5];
    stream.read_exact(&mut answer[..3]).is_ok()
        && stream.write_all(&hello).is_ok()
        && stream.read_exact(&mut answer[3..]).is_ok()
        && answer == [0xEB, 1, 0, 1, 1]
}

#[test]
fn a_flood_of_silent_connections_keeps_no_client_out() {
    let config = "max_clients = 100\nconnects_per_second = 50\nmax_pending = 256\ntimeout_seconds = 30";
    let daemon = daemon(config);
    let flood = ConnectionFlood::start([127, 0, 0, 1], &daemon.address_of("tcp:"), b"");
    let longest = longest(|name| register(&daemon, name));
    assert!(longest < SOON, "{longest:?} beside {} connections", flood.count());
    // the connections of the flood are limited, and so is the log
    assert!(daemon.descriptors() < 256 + 100, "{}", daemon.descriptors());
    flood.stop();
    assert!(daemon.log().matches("evicted before it registered").count() <= 40, "{}", daemon.log());
}

#[test]
fn a_flood_of_handshakes_without_a_name_keeps_no_other_address_out() {
    let daemon =
        daemon("max_clients = 100\nconnects_per_second = 50\nmax_pending = 100\ntimeout_seconds = 30");
    let bytes = [&encode_client_greeting()[..], &[9, 0, b'x']].concat();
    let flood = ConnectionFlood::start([127, 0, 0, 2], &daemon.address_of("tcp:"), &bytes);
    let longest = longest(|name| register(&daemon, name));
    assert!(longest < SOON, "{longest:?} beside {} connections", flood.count());
    flood.stop();
}

#[test]
fn an_address_that_occupies_max_clients_gives_way_to_another() {
    let daemon = daemon("max_clients = 20\nmax_source_share = 0.5");
    let port = daemon.address_of("tcp:");
    let register = |number: usize| {
        let mut stream = connect_from([127, 0, 0, 2], &port).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let name = format!("greedy{number:02}");
        stream.write_all(&[&encode_client_greeting()[..], &[8, 0], name.as_bytes()].concat()).unwrap();
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).unwrap();
        (answer[4], stream)
    };
    let (codes, mut greedy): (Vec<_>, Vec<_>) = (0..25).map(register).unzip();
    assert_eq!(codes, [&[1; 20][..], &[0x74; 5]].concat(), "a single address can use all places");
    daemon.wait_for_log("20 clients are registered already (max_clients)");
    // the last to register are evicted first, down to the address's share
    let mut others = Vec::new();
    for number in 0..10 {
        others.push(Wire::connect(&daemon, &daemon.address(), &format!("c{number}")));
        assert_eq!(greedy[19 - number].read(&mut [0; 64]).unwrap_or(0), 0, "evicted");
    }
    daemon.wait_for_log("its source has more than its share (max_source_share is 0.5)");
    assert_eq!(register(30).0, 0x74);
    let mut one_more = Wire::raw(&daemon, &daemon.address());
    assert_eq!(one_more.greet(b"one more"), 0x74, "both addresses use their shares");
    for (number, client) in others.iter_mut().enumerate() {
        assert_eq!(client.send(&format!("c{number}"), b"x"), 0x01);
        assert_eq!(client.send(&format!("greedy{number:02}"), b"x"), 0x01);
        assert_eq!(client.send(&format!("greedy{:02}", number + 10), b"x"), 0x71);
    }
    greedy.clear();
}

#[test]
fn floods_of_silent_connections_and_endless_handshakes_keep_no_tls_client_out() {
    let (folder, authority) = (folder(), Authority::new());
    authority.write(&folder.path().join("ca.pem"));
    authority.issue(folder.path(), "broker", "broker", vec![]);
    let text = "[[plugin]]\nname = 'network'\nlibrary = 'elbus_tcp'\n[plugin.config]\nbind = '127.0.0.1:0'\n\
                max_clients = 100\nmax_pending = 256\ntimeout_seconds = 30\n\
                [plugin.config.tls]\ncertificate = 'broker.pem'\nkey = 'broker.key'\n";
    std::fs::write(folder.path().join("broker.toml"), text).unwrap();
    let daemon = Daemon::start_in(folder, &["--config", "broker.toml"]);
    let port = daemon.address_of("tls:");
    // the start of a TLS handshake record, from the address of the other clients and from another address
    for (source, bytes) in [([127, 0, 0, 1], &b""[..]), ([127, 0, 0, 2], &[0x16, 3, 1, 2, 0][..])] {
        let flood = ConnectionFlood::start(source, &port, bytes);
        let longest = longest(|name| {
            let tls = TlsConfig::new().roots(daemon.path("ca.pem"));
            Client::builder(name).tls(tls).timeout(SOON).connect(format!("tls://{port}")).is_ok()
        });
        assert!(longest < SOON, "{longest:?} beside {} connections", flood.count());
        flood.stop();
    }
    daemon.wait_for_log("reason=evicted");
    let log = daemon.log();
    let is_eviction = |line: &&str| line.contains("connection ended") && line.contains("reason=evicted");
    let evictions = log.lines().filter(is_eviction).count();
    assert!((1..=40).contains(&evictions), "{log}");
}
