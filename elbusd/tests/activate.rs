//! Services that are started when a client sends to them: real processes, which register over a socket, exit,
//! crash, or never register.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use elbus_protocol::{Op, Qos};
use std::{path::Path, time::Duration};
use support::{
    daemon::{BOTH, Daemon, folder},
    field,
    wire::{Frame, Wire},
};

const OK: u8 = 0x01;
const NOT_REGISTERED: u8 = 0x71;
const DENIED: u8 = 0x79;
/// Tells a process of this test what to do as a service.
const ROLE: &str = "ELBUS_TEST_SERVICE";

/// Not a test, but a service: registers the name of its role and answers messages with what they ask for.
#[test]
fn as_a_service() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let (name, folder) = role.split_once('=').unwrap();
    let mut client = Wire::connect_from(Path::new(folder), "unix:bus.sock", name);
    loop {
        let frame = client.frame_within(Duration::from_secs(120));
        let Some(Frame::Data(_, sender, _, payload, _)) = frame else { std::process::exit(0) };
        let answer = match &*payload {
            b"pid" => std::process::id().to_string(),
            b"descriptors" => {
                let all = std::fs::read_dir("/proc/self/fd").unwrap();
                let mut targets: Vec<_> = all
                    .filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok())
                    .map(|target| target.display().to_string())
                    .collect();
                targets.sort();
                targets.join(" ")
            }
            b"environment" => std::env::vars().map(|(key, _)| key).collect::<Vec<_>>().join(" "),
            b"exit" => std::process::exit(0),
            other => String::from_utf8_lossy(other).into_owned(),
        };
        client.request(Op::Message, Qos::NO, &sender, "", answer.as_bytes());
    }
}

/// Returns the table of a service that registers `registers`.
fn service(folder: &Path, name: &str, registers: &str, more: &str) -> String {
    let program = std::env::current_exe().unwrap();
    let role = format!("{registers}={}", folder.display());
    format!(
        "[[plugin.config.service]]\nname = \"{name}\"\n\
         exec = [{program:?}, \"--exact\", \"as_a_service\", \"--nocapture\"]\n\
         environment = {{ {ROLE} = \"{role}\" }}\n{more}\n"
    )
}

/// Returns the table of a service that is a shell script.
fn script(name: &str, script: &str, more: &str) -> String {
    format!(
        "[[plugin.config.service]]\nname = \"{name}\"\nexec = [\"/bin/sh\", \"-c\", {script:?}]\n{more}\n"
    )
}

fn start(origin: &str, more: &str, services: impl Fn(&Path) -> String) -> Daemon {
    let library = if origin == "library" { "elbus_" } else { "" };
    let home = folder();
    let text = format!(
        "[[plugin]]\nname = \"local\"\n{origin} = \"{library}unix\"\nconfig = {{ path = \"bus.sock\", timeout_seconds = 600.0 }}\n\
         [[plugin]]\nname = \"rpc\"\n{origin} = \"{library}rpc\"\n{more}\
         [[plugin]]\nname = \"services\"\n{origin} = \"{library}activate\"\n[plugin.config]\n{}",
        services(home.path())
    );
    std::fs::write(home.path().join("broker.toml"), text).unwrap();
    Daemon::start_in(home, &["--config", "broker.toml"])
}

fn text(client: &mut Wire) -> String {
    String::from_utf8(client.frame().payload().to_vec()).unwrap()
}

/// Sends to a service, and returns its answer.
fn ask(client: &mut Wire, service: &str, question: &str) -> String {
    assert_eq!(client.send(service, question.as_bytes()), OK, "{question}");
    text(client)
}

fn status(client: &mut Wire, name: &str) -> rmpv::Value {
    client.control("activate.status", &[("name", name)]).unwrap()
}

fn problem(client: &mut Wire, name: &str) -> String {
    field(&status(client, name), "problem").as_str().unwrap_or_default().to_owned()
}

fn wait_until_left(client: &mut Wire, name: &str) {
    support::wait_until("it has left", || client.control("client.info", &[("name", name)]).is_err());
}

fn is_alive(pid: &str) -> bool {
    // a zombie is reaped at once
    Path::new("/proc").join(pid).exists()
}

#[test]
fn a_service_is_started_by_the_first_message_and_gets_it() {
    for origin in BOTH {
        let daemon = start(origin, "", |home| service(home, "plant.camera", "plant.camera", "stop = true"));
        let mut client = daemon.client("client");
        assert_eq!(ask(&mut client, "plant.camera", "hello"), "hello");
        // the plugin learns of the registration by an event
        support::wait_until("it is registered", || {
            field(&status(&mut client, "plant.camera"), "state").as_str() == Some("registered")
        });
        let found = status(&mut client, "plant.camera");
        assert_eq!(field(&found, "starts").as_u64(), Some(1));
        let pid = ask(&mut client, "plant.camera", "pid");
        assert_eq!(field(&found, "pid").as_u64().unwrap().to_string(), pid);
        // nothing of the broker's: its own socket and /proc/self/fd, and three times nothing
        let descriptors = ask(&mut client, "plant.camera", "descriptors");
        let others: Vec<_> = descriptors.split(' ').filter(|target| *target != "/dev/null").collect();
        assert!(
            others.len() <= 2 && others.iter().filter(|target| target.starts_with("socket:")).count() == 1,
            "{descriptors}"
        );
        let environment = ask(&mut client, "plant.camera", "environment");
        assert!(environment.split(' ').all(|key| [ROLE, "PATH"].contains(&key)), "{environment}");
        // it is started again when it is needed again, and ends with the plugin
        assert_eq!(client.send("plant.camera", b"exit"), OK);
        support::wait_until("it is reaped", || !is_alive(&pid));
        // what arrives before the broker has closed its connection is lost with it
        wait_until_left(&mut client, "plant.camera");
        let pid = ask(&mut client, "plant.camera", "pid");
        client.control("plugin.stop", &[("name", "services")]).unwrap();
        support::wait_until("it is terminated and reaped", || !is_alive(&pid));
        wait_until_left(&mut client, "plant.camera");
        assert_eq!(client.send("plant.camera", b"x"), NOT_REGISTERED);
    }
}

#[test]
fn a_service_survives_a_reload_that_does_not_change_it() {
    let daemon = start("library", "", |home| service(home, "s", "s", ""));
    let mut client = daemon.client("client");
    let pid = ask(&mut client, "s", "pid");
    client.control("plugin.reload", &[("name", "services")]).unwrap();
    assert_eq!(field(&status(&mut client, "s"), "pid").as_u64().unwrap().to_string(), pid);
    assert_eq!(ask(&mut client, "s", "pid"), pid);
    client.control("plugin.stop", &[("name", "services")]).unwrap();
    assert_eq!(ask(&mut client, "s", "pid"), pid, "stop is false");
    assert_eq!(client.send("s", b"exit"), OK);
    support::wait_until("it is reaped", || !is_alive(&pid));
}

#[test]
fn a_service_that_does_not_come_up_is_refused_with_a_reason() {
    let daemon = start("builtin", "", |home| {
        script("exits", "exit 3", "")
            + &script("crashes", "kill -SEGV $$", "")
            + &script("sleeps", "exec sleep 60", "start_seconds = 0.5")
            + &service(home, "misnamed", "another", "start_seconds = 2.0")
            + "[[plugin.config.service]]\nname = \"missing\"\nexec = [\"/nonexistent\"]\n"
            + "[[plugin.config.service]]\nname = \"unit\"\nunit = \"no-such.service\"\n"
    });
    let mut client = daemon.client("client");
    for (name, expected) in [
        ("exits", "/bin/sh exited with status 3 without registering"),
        ("crashes", "/bin/sh was killed by signal 11 without registering"),
        ("sleeps", "/bin/sh has not registered within 0.5 s (start_seconds)"),
        ("misnamed", "; registered meanwhile: another"),
        ("missing", "/nonexistent cannot be started: No such file"),
        ("unit", "systemctl start no-such.service "),
    ] {
        assert_eq!(client.send(name, b"x"), NOT_REGISTERED, "{name}");
        support::wait_until("it has a reason", || !problem(&mut client, name).is_empty());
        let problem = problem(&mut client, name);
        assert!(problem.contains(expected), "{name}: {problem}");
        daemon.wait_for_log(expected);
    }
    let unknown = client.control("activate.status", &[("name", "other")]).unwrap_err();
    assert!(unknown.1.contains("no service \"other\""), "{unknown:?}");
}

#[test]
fn a_service_that_crashes_in_a_loop_is_not_started_for_ever() {
    let daemon = start("library", "", |home| {
        script("loops", &format!("echo x >> {}/starts", home.display()), "restart_limit = 3")
    });
    let mut client = daemon.client("client");
    for _ in 0..20 {
        assert_eq!(client.send("loops", b"x"), NOT_REGISTERED);
    }
    assert_eq!(std::fs::read_to_string(daemon.path("starts")).unwrap().lines().count(), 3);
    let problem = problem(&mut client, "loops");
    assert!(problem.contains("after 3 starts (restart_limit): /bin/sh exited with status 0"), "{problem}");
    daemon.wait_for_log_times("service is not started", 1);
}

#[test]
fn only_a_client_that_may_send_to_it_starts_a_service() {
    let rules = "[[plugin]]\nname = \"access\"\nlibrary = \"elbus_acl\"\n\
                 [[plugin.config.client]]\nname = \"stranger\"\nsend = [\"allow other\"]\n\
                 [[plugin.config.client]]\nname = \"*\"\nsend = [\"allow *\"]\ncall = [\"allow *\"]\n";
    let daemon =
        start("library", rules, |home| script("s", &format!("touch {}/started", home.display()), ""));
    let (mut stranger, mut client) = (daemon.client("stranger"), daemon.client("client"));
    assert_eq!(stranger.send("s", b"x"), DENIED);
    assert!(!daemon.path("started").exists());
    assert_eq!(client.send("s", b"x"), NOT_REGISTERED);
    assert!(daemon.path("started").exists());
}

#[test]
fn a_table_with_errors_is_refused_with_the_key() {
    for (table, expected) in [
        ("", "expected 1 to 64 [[plugin.config.service]]"),
        ("[[plugin.config.service]]\nname = \"s\"", "missing key `exec` or `unit`"),
        (
            "[[plugin.config.service]]\nname = \"s\"\nexec = [\"/a\"]\nunit = \"b\"",
            "expected either exec or unit, not both",
        ),
        ("[[plugin.config.service]]\nname = \"s\"\nexec = [\"a\"]", "absolute path"),
        ("[[plugin.config.service]]\nname = \"s.*\"\nunit = \"b\"", "without wildcards"),
        ("[[plugin.config.service]]\nname = \"s\"\nunit = \"b\"\nuser = \"root\"", "those of the unit file"),
        ("[[plugin.config.service]]\nname = \"s\"\nunit = \"b\"\nstart_seconds = 61.0", "start_seconds"),
        ("[[plugin.config.service]]\nname = \"s\"\nunit = \"b\"\nrestart_limit = 0", "restart_limit"),
        (
            "[[plugin.config.service]]\nname = \"s\"\nunit = \"b\"\n\
             [[plugin.config.service]]\nname = \"s\"\nunit = \"c\"",
            "broker.toml:8: plugin \"services\": service[1].name = \"s\": is defined twice",
        ),
    ] {
        let text = format!("[[plugin]]\nname = \"services\"\nlibrary = \"elbus_activate\"\n{table}\n");
        let refused = support::daemon::refused_config(&text);
        assert!(refused.contains(expected), "{table}: {refused}");
        // without consequences of what is left out to find further errors
        assert_eq!(refused.matches("plugin \"services\"").count(), 1, "{table}: {refused}");
    }
}
