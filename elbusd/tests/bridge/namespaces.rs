//! Hosts as network namespaces: a real `nats-server` on one, a node on each of three others, and links
//! between them that go down in silence, are slow and lose packets.
//!
//! Needs the rights of root and `ip`; without them, these tests test nothing and say so. There is no delay by
//! `tc` here: not every kernel has it, and the proxy of other tests delays as well.

use std::{
    io::Write,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use crate::{
    network::{Options, has_nats_server, node_through, wait_for_client, wait_for_nodes, wait_until_gone},
    support::daemon::Daemon,
    traffic::{Account, Traffic},
};

/// The nodes, in the order of their addresses.
const NODES: [&str; 3] = ["mill", "press", "saw"];
/// The time within which a node without a link is lost: three heartbeats and one check take 4 s, the rest is
/// for a busy machine.
const BOUND: Duration = Duration::from_secs(10);
const PORT: &str = "4222";

/// The end of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    OfServer,
    OfNode,
}

/// The namespaces of a test. Removed when dropped, with the server.
struct Hosts {
    prefix: String,
    server: Option<Child>,
}

/// Runs a program, which must succeed.
fn run(program: &str, words: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(words).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("{program} {}: {text}", words.join(" "))) }
}

impl Hosts {
    /// Creates the namespaces and starts the server. `None` if that is not permitted here.
    fn new(test: &str) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        if !has_nats_server(test) {
            return None;
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut hosts = Hosts { prefix: format!("elbus-{}-{number}", std::process::id()), server: None };
        let (server, node) = (hosts.name("server"), hosts.name(NODES[0]));
        let permitted = run("ip", &["netns", "add", &server])
            .and_then(|()| run("ip", &["netns", "add", &node]))
            .and_then(|()| run("ip", &["netns", "exec", &server, "true"]))
            .and_then(|()| hosts.connect(0));
        if let Err(why) = permitted {
            // not captured with the test's output, so that the skipped test is visible
            _ = writeln!(std::io::stderr(), "SKIPPED, no network namespaces here: {test}: {}", why.trim());
            return None;
        }
        for (number, node) in NODES.iter().enumerate().skip(1) {
            run("ip", &["netns", "add", &hosts.name(node)]).unwrap();
            hosts.connect(number).unwrap();
        }
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &server, "nats-server", "-a", "0.0.0.0", "-p", PORT]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        hosts.server = Some(command.spawn().unwrap());
        Some(hosts)
    }

    /// Returns the name of a namespace.
    fn name(&self, host: &str) -> String {
        format!("{}-{host}", self.prefix)
    }

    /// Returns the namespace and the interface of an end of the link of a node.
    fn interface(&self, node: &str, end: End) -> (String, String) {
        match end {
            End::OfServer => (self.name("server"), node.to_owned()),
            End::OfNode => (self.name(node), "server".to_owned()),
        }
    }

    /// Creates the link between a node and the server.
    fn connect(&self, number: usize) -> Result<(), String> {
        let [(server, near), (host, far)] =
            [End::OfServer, End::OfNode].map(|end| self.interface(NODES[number], end));
        run(
            "ip",
            &["link", "add", &near, "netns", &server, "type", "veth", "peer", "name", &far, "netns", &host],
        )?;
        for (host, interface, last) in [(&server, &near, 1), (&host, &far, 2)] {
            let address = format!("10.77.{number}.{last}/30");
            run("ip", &["-n", host, "address", "add", &address, "dev", interface])?;
            run("ip", &["-n", host, "link", "set", interface, "up"])?;
            run("ip", &["-n", host, "link", "set", "lo", "up"])?;
        }
        Ok(())
    }

    /// Starts the nodes, and waits until each knows both others.
    fn start_nodes(&self) -> [Daemon; NODES.len()] {
        let mut number = 0;
        let nodes = NODES.map(|node| {
            let url = format!("nats://10.77.{number}.1:{PORT}");
            number += 1;
            let through = ["ip", "netns", "exec", &self.name(node)];
            node_through(&through, node, &[url], &Options::default())
        });
        nodes.iter().for_each(|node| wait_for_nodes(node, NODES.len() - 1));
        nodes
    }

    /// Takes the link of a node down at one end, or up again. Connections are not ended by it, but silent.
    fn set_link(&self, node: &str, end: End, state: &str) {
        let (host, interface) = self.interface(node, end);
        run("ip", &["-n", &host, "link", "set", &interface, state]).unwrap();
    }

    /// Limits the link of a node in both directions, by the words of `tc`.
    ///
    /// # Errors
    /// The kernel cannot.
    fn limit(&self, node: &str, words: &[&str]) -> Result<(), String> {
        for end in [End::OfServer, End::OfNode] {
            let (host, interface) = self.interface(node, end);
            let begin = ["-n", &host, "qdisc", "add", "dev", &interface, "root"];
            run("tc", &[&begin[..], words].concat())?;
        }
        Ok(())
    }

    /// Ends the limit.
    fn unlimit(&self, node: &str) {
        for end in [End::OfServer, End::OfNode] {
            let (host, interface) = self.interface(node, end);
            run("tc", &["-n", &host, "qdisc", "del", "dev", &interface, "root"]).unwrap();
        }
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        if let Some(server) = &mut self.server {
            _ = server.kill();
            _ = server.wait();
        }
        for host in NODES.into_iter().chain(["server"]) {
            // some are missing if they could not be created
            _ = run("ip", &["netns", "del", &self.name(host)]);
        }
    }
}

/// Returns whether everything was delivered.
fn is_complete(account: &Account) -> bool {
    account.count(0x01) == account.codes.len()
}

#[test]
fn every_message_is_accounted_for_although_the_link_of_a_host_is_silent() {
    let Some(hosts) = Hosts::new("silent links") else { return };
    let [mill, press, saw] = &hosts.start_nodes();
    let traffic = |from, to, of| Traffic::between(from, to, of, (64, 100));
    let to_mill =
        [traffic(("press", press), ("mill", mill), ".a"), traffic(("saw", saw), ("mill", mill), ".b")];
    let of_mill = traffic(("mill", mill), ("press", press), ".c");
    let others = traffic(("saw", saw), ("press", press), ".d");
    for (end, is_short) in [(End::OfServer, true), (End::OfServer, false), (End::OfNode, false)] {
        to_mill.iter().chain([&of_mill, &others]).for_each(|traffic| traffic.wait_for(300));
        hosts.set_link("mill", end, "down");
        let down = Instant::now();
        if is_short {
            // shorter than the time in which a node is lost
            std::thread::sleep(Duration::from_millis(700));
        } else {
            wait_until_gone(press, to_mill[0].target());
            wait_until_gone(saw, to_mill[1].target());
            wait_until_gone(mill, of_mill.target());
            let took = down.elapsed();
            assert!(took < BOUND, "{took:?}");
            others.wait_for(300);
        }
        hosts.set_link("mill", end, "up");
        wait_for_client(press, to_mill[0].target());
        wait_for_client(saw, to_mill[1].target());
        wait_for_client(mill, of_mill.target());
    }
    to_mill.iter().chain([&of_mill, &others]).for_each(|traffic| traffic.wait_for(300));
    let [from_press, from_saw] = to_mill;
    for (traffic, node) in [(from_press, press), (from_saw, saw), (of_mill, mill)] {
        let account = traffic.end(node);
        assert!(account.count(0x71) > 0, "a message to a node that is away is refused");
    }
    let account = others.end(saw);
    assert!(is_complete(&account), "the link of another host is not theirs");
}

#[test]
fn a_slow_link_that_loses_packets_loses_no_message() {
    let Some(hosts) = Hosts::new("slow links") else { return };
    let [mill, press, _saw] = &hosts.start_nodes();
    let traffic = |from, to, of| Traffic::between(from, to, of, (32, 1000));
    let both =
        [traffic(("press", press), ("mill", mill), ".a"), traffic(("mill", mill), ("press", press), ".b")];
    // 125 kB/s; the second queue is shorter than a batch, so that packets are lost
    for queue in [["burst", "32k", "latency", "50ms"], ["burst", "3k", "limit", "6k"]] {
        if let Err(why) = hosts.limit("mill", &[&["tbf", "rate", "1mbit"][..], &queue].concat()) {
            _ = writeln!(std::io::stderr(), "SKIPPED, no token bucket here: slow links: {}", why.trim());
            break;
        }
        both.iter().for_each(|traffic| traffic.wait_for(300));
        hosts.unlimit("mill");
    }
    let [to_mill, of_mill] = both;
    for (traffic, node) in [(to_mill, press), (of_mill, mill)] {
        let account = traffic.end(node);
        assert!(is_complete(&account), "a slow link is not a lost one");
    }
}

#[test]
fn much_that_is_on_its_way_over_a_slow_link_ends_no_link() {
    let Some(hosts) = Hosts::new("bulk over slow links") else { return };
    let [mill, press, saw] = &hosts.start_nodes();
    if let Err(why) = hosts.limit("mill", &["tbf", "rate", "1mbit", "burst", "32k", "latency", "50ms"]) {
        _ = writeln!(std::io::stderr(), "SKIPPED, no token bucket here: bulk: {}", why.trim());
        return;
    }
    // a megabyte, which takes eight seconds; others have little to say over the same link
    let bulk = [
        Traffic::between(("press", press), ("mill", mill), ".a", (64, 16_000)),
        Traffic::between(("mill", mill), ("press", press), ".b", (64, 16_000)),
    ];
    let light = Traffic::between(("saw", saw), ("mill", mill), ".c", (4, 100));
    bulk.iter().for_each(|traffic| traffic.wait_for(60));
    light.wait_for(10);
    hosts.unlimit("mill");
    let [to_mill, of_mill] = bulk;
    for (traffic, node) in [(to_mill, press), (of_mill, mill), (light, saw)] {
        assert!(is_complete(&traffic.end(node)), "a slow link is not a lost one");
    }
}
