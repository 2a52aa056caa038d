//! A broker's FIFO and local users: who can write to it, and what its writers cannot do.

use elbus_protocol::{FrameKind, Op, Qos};
use std::{
    os::unix::{fs::PermissionsExt, process::CommandExt},
    process::{Command, Stdio},
};

use crate::support::{
    daemon::{BOTH, Daemon},
    load::Load,
    plugin_source,
    wire::{Frame, Wire},
};

/// A user that is neither root nor the broker's.
const OTHER_USER: u32 = 65_534;

fn config(code: &str, fifo: &str, more: &str) -> String {
    let plugin = |name: &str| plugin_source(code, name);
    format!(
        "[[plugin]]\nname = \"local\"\n{}\nconfig = {{ path = \"bus.sock\" }}\n\
         [[plugin]]\nname = \"rpc\"\n{}\n[[plugin]]\nname = \"announce\"\n{}\n\
         [[plugin]]\nname = \"commands\"\n{}\nconfig = {{ path = \"commands\"{fifo} }}\n{more}",
        plugin("unix"),
        plugin("rpc"),
        plugin("announce"),
        plugin("fifo"),
    )
    .replace("ACL", &plugin("acl"))
}

/// Writes lines to the FIFO with a shell as a user. Returns whether that succeeded.
fn write_as(daemon: &Daemon, user: Option<u32>, lines: &str) -> bool {
    let mut shell = Command::new("sh");
    shell.args(["-c", "printf '%s' \"$1\" > \"$2\"", "sh", lines]).arg(daemon.path("commands"));
    shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).current_dir("/");
    if let Some(user) = user {
        shell.uid(user).gid(user);
    }
    shell.status().unwrap().success()
}

/// Returns the next message or publication; acknowledgements are skipped.
fn next(client: &mut Wire) -> (String, String, Vec<u8>) {
    let Frame::Data(kind, sender, topic, payload, _) = client.frame() else { panic!("an acknowledgement") };
    assert!(kind == FrameKind::Message || kind == FrameKind::Publish);
    (sender, topic, payload)
}

/// Returns another user if the test runs as root. Otherwise the test's own user is used, if that makes no
/// difference.
fn other_user() -> Option<u32> {
    rustix::process::geteuid().is_root().then_some(OTHER_USER)
}

fn open_folder_to_all_users(daemon: &Daemon) {
    std::fs::set_permissions(daemon.folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn another_user_cannot_write_into_a_fifo_of_the_default_mode() {
    let Some(user) = other_user() else {
        eprintln!("skipped: only root can become another user");
        return;
    };
    for code in BOTH {
        let daemon = Daemon::start_config(&config(code, "", ""));
        open_folder_to_all_users(&daemon);
        let load = Load::start(&daemon);
        let mut target = daemon.client("target");
        for _ in 0..20 {
            assert!(!write_as(&daemon, Some(user), "target forged\n"));
        }
        assert!(write_as(&daemon, None, "target genuine\n"));
        assert_eq!(next(&mut target), (".broker".to_owned(), String::new(), b"genuine".to_vec()));
        load.stop();
    }
}

#[test]
fn writers_of_a_fifo_cannot_administer_the_broker() {
    for code in BOTH {
        let daemon = Daemon::start_config(&config(code, ", mode = \"0622\"", ""));
        open_folder_to_all_users(&daemon);
        let load = Load::start(&daemon);
        let mut target = daemon.client("target");
        target.subscribe(&["own"]);
        let lines = ".broker :client.kick name=target\n.broker :plugin.stop name=local\n=.broker/warn forged\n\
                     .broker :no.such\ntarget last\n";
        assert!(write_as(&daemon, other_user(), lines));
        assert_eq!(
            next(&mut target),
            (".broker".to_owned(), String::new(), b"last".to_vec()),
            "no warning was published"
        );
        let denied = "control method denied: caller is not an administrator";
        daemon.wait_for_log(denied);
        daemon.wait_for_log("topics of the broker need `admin = true`");
        let log = daemon.log();
        assert!(log.contains(".fifo.commands") && !log.contains("kicked by"), "{log}");
        assert!(log.contains("every user of this machine can write to the fifo"), "{log}");
        load.stop();
    }
}

#[test]
fn a_fifo_with_admin_can_administer_the_broker() {
    let daemon = Daemon::start_config(&config("library", ", admin = true", ""));
    let mut target = daemon.client("target");
    assert!(write_as(&daemon, None, ".broker :client.kick name=target\n"));
    target.wait_closed();
}

/// Returns the number of the line of broker.toml with this text.
fn rules_line(daemon: &Daemon, text: &str) -> usize {
    let file = std::fs::read_to_string(daemon.path("broker.toml")).unwrap();
    1 + file.lines().position(|line| line == text).unwrap()
}

#[test]
fn access_rules_apply_to_a_fifo_under_its_instance_name() {
    let rules = "[[plugin]]\nname = \"access\"\nACL\n[plugin.config]\ndefault = \"deny\"\n\
                 [[plugin.config.client]]\nname = \".fifo.commands\"\nsend = [\"allow lamp.*\"]\n\
                 [[plugin.config.client]]\nname = \"*\"\nsend = [\"allow *\"]\n";
    let daemon = Daemon::start_config(&config("library", "", rules));
    let (mut lamp, mut plc) = (daemon.client("lamp.hall"), daemon.client("plc"));
    assert!(write_as(&daemon, None, "plc stop\n* stop\n=t stop\n.broker :test\nlamp.hall on\n"));
    assert_eq!(next(&mut lamp), (".broker".to_owned(), String::new(), b"on".to_vec()));
    plc.request(Op::Message, Qos::NO, "plc", "", b"own");
    assert_eq!(next(&mut plc).2, b"own", "no other message before it");
    // each once, with its rule: the line where the client's table starts
    let table = rules_line(&daemon, "name = \".fifo.commands\"") - 1;
    for (target, action) in [("plc", "send"), ("*", "broadcast"), ("t", "publish")] {
        let expected = format!("client=\".fifo.commands\" target=\"{target}\" place=\"broker.toml:{table}\"");
        daemon.wait_for_log(&expected);
        let lines: Vec<_> =
            daemon.log().lines().filter(|line| line.contains(&expected)).map(str::to_owned).collect();
        let denied = format!("action=\"{action}\" reason=denied");
        assert!(lines.len() == 1 && lines[0].contains(&denied), "{lines:?}");
    }
    assert!(!daemon.log().contains("line of the fifo not sent"), "{}", daemon.log());
    // also for several frames of one kind, since the writer gets no reply
    assert!(write_as(&daemon, None, "plc again\n"));
    daemon.wait_for_log("denied_before=1");
    let refused = Wire::raw(&daemon, &daemon.address()).greet(b".fifo.commands");
    assert_eq!(refused, 0x72, "its name cannot be registered");
}
