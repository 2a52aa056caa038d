//! Descriptors of rings that the kernel refuses to pass, because too many of the broker's user are in flight:
//! the client gets the answer without them, and uses the socket.
//!
//! The kernel exempts root, so the broker and a process that keeps descriptors in flight run as another user.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use elbus_client::{Client, Qos};
use elbus_testing::rings::{Refused, RingPeer};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use std::{
    io::{BufRead, BufReader, IoSlice, Read},
    mem::MaybeUninit,
    os::{
        fd::AsFd,
        unix::{net::UnixStream, process::CommandExt},
    },
    process::{Child, ChildStdout, Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
};
use support::{
    daemon::{self, Daemon, through_shell},
    field, wait_until,
    wire::Wire,
};

const OK: u8 = 0x01;
/// The user that the broker runs as: `nobody`.
const USER: u32 = 65_534;
/// The limit of file descriptors of the broker, which also limits those of its user that are in flight.
const DESCRIPTORS: usize = 200;
/// The most descriptors that one message can pass.
const IN_FLIGHT: usize = 253;
/// Set for the process that keeps descriptors in flight.
const KEEPER: &str = "ELBUS_TEST_DESCRIPTORS_IN_FLIGHT";

/// Not a test by itself: keeps descriptors in flight until its standard input ends.
#[test]
fn a_process_that_keeps_descriptors_in_flight() {
    if std::env::var_os(KEEPER).is_none() {
        return;
    }
    let (sender, _receiver) = UnixStream::pair().unwrap();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(IN_FLIGHT))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let passed = [sender.as_fd(); IN_FLIGHT];
    assert!(control.push(SendAncillaryMessage::ScmRights(&passed)));
    sendmsg(&sender, &[IoSlice::new(b"x")], &mut control, SendFlags::empty()).unwrap();
    println!("in flight");
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

/// Keeps descriptors of the user in flight until it is dropped.
struct InFlight {
    keeper: Child,
    /// Open, so that it can write to the end.
    _output: BufReader<ChildStdout>,
}

impl InFlight {
    fn start() -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "a_process_that_keeps_descriptors_in_flight", "--nocapture"]);
        command.env(KEEPER, "1").current_dir("/").uid(USER).gid(USER);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut keeper = command.spawn().unwrap();
        let mut output = BufReader::new(keeper.stdout.take().unwrap());
        let is_ready = output.by_ref().lines().map_while(Result::ok).any(|line| line.contains("in flight"));
        assert!(is_ready);
        InFlight { keeper, _output: output }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

/// The tests run one after the other: what is in flight belongs to the user of all of them.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Starts a broker with rings as another user. `None` if this user cannot.
fn start() -> Option<(Daemon, MutexGuard<'static, ()>)> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can start the broker as another user");
        return None;
    }
    let test = std::env::current_exe().unwrap();
    if let Err(error) = Command::new(&test).arg("--list").current_dir("/").uid(USER).gid(USER).output() {
        eprintln!("skipped: user {USER} cannot run {}: {error}", test.display());
        return None;
    }
    let folder = daemon::folder();
    let config = r#"
        [[plugin]]
        name = "local"
        builtin = "unix"
        config = { path = "bus.sock", mode = "0666", rings = true, ring_bytes = 65536, max_rings = 2 }
        [[plugin]]
        name = "rpc"
        builtin = "rpc"
    "#;
    std::fs::write(folder.path().join("broker.toml"), config).unwrap();
    std::os::unix::fs::chown(folder.path(), Some(USER), Some(USER)).unwrap();
    let script = format!("ulimit -n {DESCRIPTORS} && exec \"$@\"");
    let mut command = through_shell(folder.path(), &script, &["--config", "broker.toml"]);
    command.uid(USER).gid(USER);
    let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    Some((Daemon::start_command(folder, command, true), turn))
}

fn has_rings(witness: &mut Wire, name: &str) -> bool {
    field(&witness.control("client.info", &[("name", name)]).unwrap(), "rings").as_bool().unwrap()
}

#[test]
fn a_client_whose_descriptors_cannot_be_passed_gets_the_answer_alone_and_the_end() {
    let Some((daemon, _turn)) = start() else { return };
    let path = daemon.path("bus.sock");
    let mut witness = daemon.client("witness");
    let before = daemon.descriptors();
    let in_flight = InFlight::start();
    // more often than there are rings: none of them stays in use
    for _ in 0..5 {
        let mut wire = Wire::raw(&daemon, "unix:bus.sock");
        wire.write(&[0xEB, 1, 0x80, 1, 0, b'a']);
        assert_eq!(wire.read_exactly::<5>(), [0xEB, 1, 0, OK, OK]);
        wire.wait_closed();
        // its name is free as soon as it has seen the end
        let mut again = Wire::raw(&daemon, "unix:bus.sock");
        assert_eq!(again.greet(b"a"), OK);
        assert_eq!(witness.send("a", b"over the socket"), OK);
        assert_eq!(again.frame().payload(), b"over the socket");
        assert!(!has_rings(&mut witness, "a"));
        drop(again);
        wait_until("its name is free", || witness.send("a", b"") == 0x71);
    }
    drop(in_flight);
    let ringed = RingPeer::connect(&path, "a", 0);
    assert_ne!(ringed.as_ref().err(), Some(&Refused(0x75)), "rings are left");
    let mut ringed = Wire::of_rings(ringed.unwrap());
    assert!(has_rings(&mut witness, "a"));
    assert_eq!(ringed.send("witness", b"in a ring"), OK);
    assert_eq!(witness.frame().payload(), b"in a ring");
    drop(ringed);
    wait_until("all descriptors are closed", || daemon.descriptors() <= before);
}

#[test]
fn the_rust_client_uses_the_socket_if_descriptors_cannot_be_passed() {
    let Some((daemon, _turn)) = start() else { return };
    let mut witness = daemon.client("witness");
    let in_flight = InFlight::start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let path = daemon.path("bus.sock");
    runtime.block_on(async {
        let (client, mut frames) = Client::builder("rust").rings(true).connect(path.as_path()).await.unwrap();
        assert!(!has_rings(&mut witness, "rust"));
        client.send("witness", "over the socket", Qos::PROCESSED).await.unwrap();
        assert_eq!(witness.frame().payload(), b"over the socket");
        assert_eq!(witness.send("rust", b"back"), OK);
        assert_eq!(frames.next().await.unwrap().payload(), b"back");
    });
    drop(in_flight);
}
