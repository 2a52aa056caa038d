//! `elbus top` in a terminal, with a broker in this process.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/pty.rs"]
mod pty;
mod support;

use elbus_broker::PluginDeclaration;
use elbus_client::{Client, Qos};
use pty::Pty;
use rustix::process::Signal;
use serde::Deserialize;
use std::{process::Command, time::Duration};
use support::Bus;

#[derive(Deserialize)]
struct ClientList {
    clients: Vec<ClientEntry>,
}

#[derive(Deserialize)]
struct ClientEntry {
    name: String,
    r_frames: u64,
}

/// Starts a broker without announcements, which would be traffic on the screen.
fn start() -> Bus {
    let mut bus = Bus::without_broker();
    start_broker(&mut bus);
    bus
}

fn start_broker(bus: &mut Bus) {
    bus.start_with(|builder| builder.plugin(PluginDeclaration::linked("rpc", elbus_rpc::plugin())));
}

fn client(bus: &Bus, name: &str) -> Client {
    bus.client(name).0
}

/// Runs `elbus top`, which polls every 0.1 s under the name `viewer`.
fn run_top(bus: &Bus, columns: u16, lines: u16, more: &[&str]) -> Pty {
    let address = bus.address();
    let arguments = ["--addr", &address, "-n", "viewer", "top", "--interval", "0.1"];
    Pty::elbus(columns, lines, &[&arguments, more].concat())
}

/// Returns once the client named `viewer` has polled at least twice more.
fn wait_for_polls(bus: &Bus, client: &Client) {
    let frames = || {
        let list = bus.runtime.block_on(client.call_as::<ClientList>(".broker", "client.list", &()));
        let clients = list.unwrap().clients;
        clients.into_iter().find(|entry| entry.name == "viewer").unwrap().r_frames
    };
    // a poll is two to four calls
    let enough = frames() + 12;
    while frames() < enough {
        std::thread::yield_now();
    }
}

/// Returns the first column of the table's rows.
fn names(lines: &[String]) -> Vec<&str> {
    lines[4..lines.len() - 1].iter().filter_map(|line| line.split_whitespace().next()).collect()
}

#[test]
fn eighty_by_twenty_four_shows_broker_and_clients() {
    let bus = start();
    let _clients = [client(&bus, "plant.sensor"), client(&bus, "plant.display")];
    let mut top = run_top(&bus, 80, 24, &["--sort", "name"]);
    let lines = top.wait("all clients", |lines| lines[1].contains("clients 4"));
    assert!(lines[0].starts_with("elbus top  ") && lines[0].contains("up 00:00:"), "{}", lines[0]);
    assert!(lines[2].ends_with("sort NAME ▲"), "{}", lines[2]);
    for title in ["NAME", "KIND", "SOURCE", "PORT", "RX/S", "TX/S", "BYTES/S", "QUEUE", "INST"] {
        assert!(lines[3].contains(title), "{}", lines[3]);
    }
    assert_eq!(names(&lines), [".broker", "plant.display", "plant.sensor", "viewer"]);
    assert!(lines[5].contains("local_ipc") && lines[5].contains(".sock"), "{}", lines[5]);
    assert!(lines[23].starts_with("q quit") && lines[23].ends_with("1-4 of 4"), "{}", lines[23]);
    top.press("q");
    assert_eq!(top.finish(), (0, String::new()));
}

#[test]
fn rates_are_shown_for_sender_and_receiver() {
    let bus = start();
    let (sensor, _display) = (client(&bus, "sensor"), client(&bus, "display"));
    bus.runtime.spawn(async move {
        while sensor.send("display", vec![0_u8; 1000], Qos::PROCESSED).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    let mut top = run_top(&bus, 80, 24, &["--sort", "rx"]);
    let is_rate = |cell: &str| cell != "0" && cell != "-";
    let is_busy = |line: &str| {
        // from the right: instances, queue, bytes, frames to and from the client
        let cells: Vec<&str> = line.split_whitespace().rev().collect();
        cells.len() > 5 && is_rate(cells[4]) && is_rate(cells[2])
    };
    top.wait("the sender in the first row", |lines| lines[4].starts_with("sensor") && is_busy(&lines[4]));
    top.wait("totals", |lines| lines[1].split_once(" in ").is_some_and(|(_, rates)| is_rate(&rates[..1])));
    top.press("q");
    assert_eq!(top.finish().0, 0);
}

#[test]
fn the_order_changes_with_the_keys() {
    let bus = start();
    let (_a, _b) = (client(&bus, "aaa"), client(&bus, "bbb"));
    let mut top = run_top(&bus, 80, 24, &["--sort", "name", "--filter", "LOCAL_ipc"]);
    top.wait("by name", |lines| names(lines) == ["aaa", "bbb", "viewer"]);
    top.press("r");
    top.wait("reversed", |lines| {
        names(lines) == ["viewer", "bbb", "aaa"] && lines[2].ends_with("sort NAME ▼")
    });
    top.press("s");
    top.wait_text("sort KIND ▲");
    top.press("<<");
    top.wait("the last column", |lines| lines[2].ends_with("sort INST ▼"));
    top.press(">");
    top.wait("the first column again", |lines| {
        names(lines) == ["aaa", "bbb", "viewer"] && lines[2].ends_with("sort NAME ▲")
    });
    // Ctrl-C
    top.press("\x03");
    assert_eq!(top.finish(), (0, String::new()));
}

#[test]
fn a_filter_applies_while_it_is_typed_and_can_be_kept_or_cleared() {
    let bus = start();
    let _clients = [client(&bus, "plant.sensor"), client(&bus, "plant.display")];
    let mut top = run_top(&bus, 80, 24, &[]);
    top.wait_text("clients 4");
    top.press("/Plant.D");
    let wanted = |lines: &[String]| lines[2].starts_with("filter: Plant.D_  (1 of 4)");
    assert_eq!(names(&top.wait("the filter", wanted)), ["plant.display"]);
    top.press("\r");
    top.wait("the filter kept", |lines| lines[2].starts_with("filter: Plant.D  (1 of 4)"));
    top.press("/");
    top.wait_text("Esc clear");
    top.press("\x7f\x7f");
    top.wait("a shorter one", |lines| names(lines).len() == 2 && lines[2].starts_with("filter: Plant_"));
    top.press("\x1b");
    top.wait("no filter", |lines| names(lines).len() == 4 && !lines[2].contains("filter"));
    // without a filter, Esc quits
    top.press("\x1b");
    assert_eq!(top.finish(), (0, String::new()));
}

#[test]
fn a_paused_screen_is_frozen_until_it_is_resumed() {
    let bus = start();
    let mut top = run_top(&bus, 80, 24, &["--sort", "name"]);
    top.wait_text("clients 2");
    top.press("p");
    top.wait_text("PAUSED");
    let late = client(&bus, "late");
    wait_for_polls(&bus, &late);
    let lines = top.lines();
    assert!(lines[1].contains("clients 2") && lines[2].contains("PAUSED"), "{lines:?}");
    top.press("r");
    top.wait("the frozen rows reversed", |lines| names(lines) == ["viewer", ".broker"]);
    top.press(" ");
    top.wait("the newest rows", |lines| {
        names(lines) == ["viewer", "late", ".broker"] && !lines[2].contains("PAUSED")
    });
    top.press("q");
    assert_eq!(top.finish().0, 0);
}

#[test]
fn long_lists_scroll() {
    let bus = start();
    let _clients: Vec<Client> = (0..30).map(|n| client(&bus, &format!("c{n:02}"))).collect();
    let mut top = run_top(&bus, 80, 15, &["--sort", "name"]);
    let at = |first: &'static str, range: &'static str| {
        move |lines: &[String]| names(lines).first() == Some(&first) && lines[14].ends_with(range)
    };
    top.wait("the first page", at(".broker", "1-10 of 32"));
    for (keys, first, range) in [
        ("\x1b[B", "c00", "2-11 of 32"),
        ("\x1b[6~", "c10", "12-21 of 32"),
        ("\x1b[F", "c21", "23-32 of 32"),
        ("\x1b[A", "c20", "22-31 of 32"),
        ("\x1b[5~", "c10", "12-21 of 32"),
        ("\x1b[H", ".broker", "1-10 of 32"),
    ] {
        top.press(keys);
        top.wait(range, at(first, range));
    }
    top.press("q");
    assert_eq!(top.finish().0, 0);
}

#[test]
fn the_screen_follows_the_size_of_the_terminal() {
    let bus = start();
    let mut top = run_top(&bus, 80, 24, &[]);
    top.wait_text("clients 2");
    top.resize(120, 40);
    let pid = std::process::id().to_string();
    let mine = Client::builder("mine").rings(true).connect(bus.address());
    let _client = bus.runtime.block_on(mine).unwrap();
    let lines = top.wait("more columns", |lines| {
        lines.len() == 40
            && lines[39].starts_with("q quit")
            && lines.iter().any(|line| line.starts_with("mine ") && line.contains(&format!("{pid} yes")))
    });
    assert!(lines[3].contains("PID RINGS") && lines[3].contains("TX B/S"), "{}", lines[3]);
    top.resize(40, 10);
    let lines = top.wait("fewer columns", |lines| lines[9].ends_with("1-3 of 3"));
    assert!(lines[3].ends_with("QUEUE") && !lines[3].contains("KIND"), "{}", lines[3]);
    // not narrower than the prompt on the other screen, which the emulator would cut
    for (columns, rows) in [(12, 1), (15, 30), (200, 2)] {
        top.resize(columns, rows);
    }
    top.resize(80, 24);
    top.wait("as at first", |lines| lines[3].ends_with("INST") && lines[23].ends_with("1-3 of 3"));
    top.press("q");
    assert_eq!(top.finish().0, 0);
}

#[test]
fn help_opens_and_closes() {
    let bus = start();
    let mut top = run_top(&bus, 80, 24, &[]);
    top.wait_text("clients 2");
    top.press("?");
    top.wait_text("reverse the order");
    top.press("x");
    top.wait("it closed", |lines| lines.iter().all(|line| !line.contains("reverse the order")));
    top.press("q");
    assert_eq!(top.finish().0, 0);
}

#[test]
fn the_terminal_is_restored_after_a_signal() {
    let bus = start();
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let top = run_top(&bus, 80, 24, &[]);
        top.wait_text("clients 2");
        top.signal(signal);
        assert_eq!(top.finish(), (0, String::new()), "{signal:?}");
    }
}

#[test]
fn top_reconnects_to_a_restarted_broker() {
    let mut bus = start();
    let first = client(&bus, "first");
    let mut top = run_top(&bus, 80, 24, &["--sort", "name"]);
    top.wait_text("clients 3");
    drop(first);
    bus.stop_broker();
    let lines = top.wait("the loss", |lines| lines[2].starts_with("reconnecting in "));
    assert!(lines.iter().any(|line| line.starts_with("viewer")), "the old rows stay: {lines:?}");
    start_broker(&mut bus);
    let _second = client(&bus, "second");
    top.wait("its clients", |lines| {
        names(lines) == [".broker", "second", "viewer"] && !lines[2].contains("reco")
    });
    bus.stop_broker();
    top.wait("the loss", |lines| lines[2].starts_with("reconnecting in "));
    top.press("q");
    assert_eq!(top.finish(), (0, String::new()));
}

#[test]
fn control_characters_in_names_do_not_reach_the_terminal() {
    let bus = start();
    let _named = client(&bus, "escape\x1b[2J\x07\u{9b}1m");
    let _wide = client(&bus, "日本語の名前がとても長い場合はどうなりますか");
    let mut top = run_top(&bus, 80, 24, &["--sort", "name"]);
    let lines = top.wait_text("clients 4");
    assert_eq!(names(&lines)[..2], [".broker", r"escape\x1b[2J\x07\u{9b}1m"], "{lines:?}");
    let wide = lines.iter().find(|line| line.starts_with("日本語")).unwrap();
    assert!(wide.contains('…') && wide.contains(" local_ipc "), "{wide}");
    top.press("q");
    let bytes = String::from_utf8_lossy(&top.bytes()).into_owned();
    assert!(!bytes.contains('\x07') && !bytes.contains('\u{9b}'));
    assert_eq!(top.finish().0, 0);
}

#[test]
fn without_a_broker_the_terminal_is_not_changed() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = folder.path().join("none.sock");
    let top = Pty::elbus(200, 24, &["--addr", nowhere.to_str().unwrap(), "top"]);
    top.wait_text("no broker at");
    let bytes = top.bytes();
    assert!(!bytes.windows(7).any(|window| window == b"\x1b[?1049"), "no alternate screen");
    let (code, left) = top.finish();
    assert_eq!((code, left.trim_end().lines().count()), (1, 1), "{left}");
}

#[test]
fn without_a_terminal_the_error_names_an_alternative() {
    let bus = start();
    let mut command = Command::new(env!("CARGO_BIN_EXE_elbus"));
    let output = command.args(["--addr", &bus.address(), "top"]).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0));
    assert!(stderr.contains("terminal") && stderr.contains("broker clients"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}
