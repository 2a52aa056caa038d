//! Failed plugins: they are restarted after a delay, unless restarts are disabled.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use support::{daemon::Daemon, field, is_started, plugin, wire::Wire};

const LOCAL: &str = "[[plugin]]\nname = \"local\"\nlibrary = \"elbus_unix\"\n[plugin.config]\npath = \"bus.sock\"\ntimeout_seconds = 600.0\n\
                     [[plugin]]\nname = \"rpc\"\nlibrary = \"elbus_rpc\"\n";

fn bad(more: &str) -> String {
    let head = "[[plugin]]\nname = \"bad\"\nlibrary = \"elbus_faulty\"\n";
    format!("{LOCAL}{head}{more}\n[plugin.config]\nclient = \"bad.client\"\npanic_in = \"method\"\n")
}

fn text(plugin: &rmpv::Value, key: &str) -> String {
    field(plugin, key).as_str().unwrap_or("").to_owned()
}

fn restarts(client: &mut Wire, name: &str) -> u64 {
    field(&plugin(client, name).unwrap(), "restarts").as_u64().unwrap()
}

#[test]
fn an_instance_whose_in_process_clients_ended_is_restarted() {
    let daemon = Daemon::start_config(
        "[[plugin]]\nname = \"local\"\nlibrary = \"elbus_unix\"\nconfig = { path = \"bus.sock\", timeout_seconds = 600.0 }\n\
         [[plugin]]\nname = \"rpc\"\nlibrary = \"elbus_rpc\"\n\
         [[plugin]]\nname = \"inproc\"\nlibrary = \"elbus_inproc\"\n\
         [[plugin]]\nname = \"it\"\nlibrary = \"elbus_faulty\"\nconfig = { local = \"it.client\" }\n",
    );
    let mut client = daemon.client("a");
    assert_eq!(client.send("it.client", b"x"), 0x01);
    client.control("plugin.reload", &[("name", "inproc")]).unwrap();
    daemon.wait_for_log("its in-process clients were disconnected");
    support::wait_until("the instance is restarted", || client.send("it.client", b"x") == 0x01);
    assert_eq!(restarts(&mut client, "it"), 1);
    let (status, log) = daemon.stop();
    assert!(status.success() && log.matches("in-process clients were disconnected").count() == 1, "{log}");
}

#[test]
fn a_plugin_that_panics_is_restarted() {
    let daemon = Daemon::start_config(&bad(""));
    let mut client = daemon.client("a");
    for round in 1..=2 {
        let (_, why) = client.call(".broker", "bad.try", b"").unwrap_err();
        assert!(why.contains("method panics as configured"), "{why}");
        let listed = plugin(&mut client, "bad").unwrap();
        // on a busy machine, it may have been restarted already
        if text(&listed, "state") == "failed" {
            assert!(text(&listed, "why").contains("method panics as configured"), "{listed}");
            let left = field(&listed, "next_attempt").as_u64().unwrap();
            assert!(left <= round, "{listed}");
        }
        support::wait_until("the plugin is restarted", || {
            is_started(&mut client, "bad") && restarts(&mut client, "bad") == round
        });
        assert_eq!(client.send("bad.client", b"x"), 0x01, "the plugin serves");
    }
    daemon.wait_for_log("restarting failed plugin");
}

#[test]
fn a_plugin_without_restarts_stays_failed() {
    let daemon = Daemon::start_config(&bad("restart = \"never\""));
    let mut client = daemon.client("a");
    client.call(".broker", "bad.try", b"").unwrap_err();
    let listed = plugin(&mut client, "bad").unwrap();
    assert_eq!(text(&listed, "state"), "failed");
    assert!(field(&listed, "next_attempt").is_nil(), "{listed}");
    client.control("plugin.start", &[("name", "bad")]).unwrap();
    assert!(is_started(&mut client, "bad"));
}

#[test]
fn stopping_a_plugin_cancels_its_restarts_until_it_is_started() {
    let text_of = |config: &str| {
        let head = "[[plugin]]\nname = \"late\"\nlibrary = \"elbus_unix\"\n";
        format!("{LOCAL}{head}[plugin.config]\n{config}\n")
    };
    let folder = support::daemon::folder();
    std::fs::create_dir(folder.path().join("sub")).unwrap();
    std::fs::write(folder.path().join("broker.toml"), text_of("path = \"sub/late.sock\"")).unwrap();
    let daemon = Daemon::start_in(folder, &["--config", "broker.toml"]);
    let mut client = daemon.client("a");
    // the folder to bind in does not exist
    client.control("plugin.stop", &[("name", "late")]).unwrap();
    std::fs::remove_dir(daemon.path("sub")).unwrap();
    let (_, why) = client.control("plugin.start", &[("name", "late")]).unwrap_err();
    assert!(why.contains("folder sub does not exist"), "{why}");
    let listed = plugin(&mut client, "late").unwrap();
    assert!(field(&listed, "next_attempt").is_u64() || restarts(&mut client, "late") > 0, "{listed}");
    support::wait_until("a restart was attempted and failed", || restarts(&mut client, "late") > 0);
    client.control("plugin.stop", &[("name", "late")]).unwrap();
    let listed = plugin(&mut client, "late").unwrap();
    assert!(field(&listed, "next_attempt").is_nil(), "{listed}");
    std::fs::create_dir(daemon.path("sub")).unwrap();
    client.control("plugin.start", &[("name", "late")]).unwrap();
    drop(Wire::connect(&daemon, "unix:sub/late.sock", "b"));
}

#[test]
fn a_failed_start_is_retried_until_it_succeeds() {
    let folder = support::daemon::folder();
    std::fs::create_dir(folder.path().join("sub")).unwrap();
    let late = "[[plugin]]\nname = \"late\"\nbuiltin = \"unix\"\n[plugin.config]\npath = \"sub/late.sock\"\n";
    std::fs::write(folder.path().join("broker.toml"), [LOCAL, late].concat()).unwrap();
    let daemon = Daemon::start_in(folder, &["--config", "broker.toml"]);
    let mut client = daemon.client("a");
    client.control("plugin.stop", &[("name", "late")]).unwrap();
    std::fs::remove_dir(daemon.path("sub")).unwrap();
    client.control("plugin.start", &[("name", "late")]).unwrap_err();
    std::fs::create_dir(daemon.path("sub")).unwrap();
    support::wait_until("the plugin is started", || is_started(&mut client, "late"));
    drop(Wire::connect(&daemon, "unix:sub/late.sock", "b"));
}
