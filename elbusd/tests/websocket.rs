//! The plugin `websocket` with a whole broker: tokens, access rules and reloads, and what other clients see.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use elbus_protocol::Op;
use elbus_testing::websocket::{ask, request};
use std::{net::TcpStream, path::Path};
use support::{
    PATIENCE,
    daemon::{BOTH, Daemon, folder, run_to_end},
    field,
    wire::{Frame, Wire},
};

/// Returns the address that the log says to use, with the token of this start.
fn start_url(daemon: &Daemon) -> String {
    daemon.wait_for_log("?token=");
    let log = daemon.log();
    let at = log.find("ws://").unwrap();
    log[at..].split('"').next().unwrap().to_owned()
}

/// Returns the response to an opening request with further header fields.
fn response(url: &str, fields: &str) -> String {
    let (host, path) = url.strip_prefix("ws://").unwrap().split_once('/').unwrap();
    let mut socket = TcpStream::connect(host).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    ask(&mut socket, &request(&format!("/{path}"), host, fields)).unwrap()
}

#[test]
fn a_client_is_remote_and_others_see_kind_address_and_messages() {
    for plugins in BOTH {
        let arguments = [
            "--plugins",
            plugins,
            "--bind",
            "ws://127.0.0.1:0/bus",
            "--bind",
            "./bus.sock",
            "--workers",
            "2",
        ];
        let daemon = Daemon::start_in(folder(), &arguments);
        let url = start_url(&daemon);
        let mut web = Wire::connect(&daemon, &url, "web");
        let mut local = daemon.client("local");
        web.subscribe(&["a/#"]);
        assert_eq!(local.acked(Op::Publish, "a/b", b"from local"), 1);
        let Frame::Data(_, sender, topic, payload, _) = web.frame() else { panic!("no publication") };
        assert_eq!((sender.as_str(), topic.as_str(), &payload[..]), ("local", "a/b", &b"from local"[..]));
        assert_eq!(web.send("local", b"from web"), 1);
        assert_eq!(local.frame().payload(), b"from web");

        let info = local.control("client.info", &[("name", "web")]).unwrap();
        assert_eq!(field(&info, "kind").as_str(), Some("websocket"));
        let list = local.control("client.list", &[]).unwrap();
        let clients = field(&list, "clients").as_array().unwrap();
        let entry = clients.iter().find(|client| field(client, "name").as_str() == Some("web")).unwrap();
        assert!(field(entry, "source").as_str().unwrap().starts_with("127.0.0.1:"), "{entry}");
        assert_eq!(field(entry, "port").as_str(), Some("127.0.0.1:0"));
        let denied = web.control("client.kick", &[("name", "local")]).unwrap_err();
        assert_eq!(denied.0, -32121, "administrative methods are local: {}", denied.1);
        assert!(local.control("client.kick", &[("name", "web")]).is_ok());
        web.wait_closed();
    }
}

#[test]
fn an_origin_of_pages_can_be_allowed_on_the_command_line() {
    let bind = "ws://127.0.0.1:0/bus?allowed_origins=http://127.0.0.1:8000";
    let daemon = Daemon::start_in(folder(), &["--plugins", "builtin", "--bind", bind]);
    let url = start_url(&daemon);
    for (origin, status) in [("http://127.0.0.1:8000", "101"), ("http://127.0.0.1:8001", "403")] {
        let response = response(&url, &format!("Origin: {origin}\r\n"));
        assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{origin}: {response}");
    }
}

/// Makes a token with the command line; returns it and the line for the file.
fn make_token(folder: &Path, name: &str) -> (String, String) {
    let made = run_to_end(folder, &["--make-token", name]);
    assert!(made.status.success(), "{}", made.stderr);
    let token = made.stderr.trim().rsplit(' ').next().unwrap().to_owned();
    assert!(token.starts_with("elbus_") && !made.stdout.contains(&token), "{}", made.stdout);
    (token, made.stdout)
}

#[test]
fn a_token_is_an_identity_and_a_removed_one_ends_its_connections() {
    let folder = folder();
    let (panel, panel_line) = make_token(folder.path(), "panel");
    let (other, other_line) = make_token(folder.path(), "other");
    let write = |lines: &[&String]| {
        let lines: Vec<_> = lines.iter().map(|line| line.as_str()).collect();
        std::fs::write(folder.path().join("tokens"), lines.concat()).unwrap();
    };
    write(&[&panel_line, &other_line]);
    let config = "[[plugin]]\nname = 'web'\nlibrary = 'elbus_websocket'\n[plugin.config]\nbind = '127.0.0.1:0'\n\
         path = '/bus'\ntokens_file = 'tokens'\ntoken_in_query = true\n\
         [[plugin]]\nname = 'local'\nlibrary = 'elbus_unix'\n[plugin.config]\n\
         path = './bus.sock'\ntimeout_seconds = 600.0\n\
         [[plugin]]\nname = 'rpc'\nlibrary = 'elbus_rpc'\n\
         [[plugin]]\nname = 'access'\nlibrary = 'elbus_acl'\n[plugin.config]\ndefault = 'deny'\n\
         [[plugin.config.client]]\nname = 'panel.*'\nwho = [{ token = 'panel' }]\nsubscribe = ['allow #']\n\
         [[plugin.config.client]]\nname = 'other'\nwho = [{ token = '{name}' }]\n\
         [[plugin.config.client]]\nname = 'admin'\ncall = ['allow *']\n";
    std::fs::write(folder.path().join("broker.toml"), config).unwrap();
    let daemon = Daemon::start_in(folder.clone(), &["--config", "broker.toml"]);
    let base = format!("ws:{}", daemon.address_of("ws:"));
    let url = |token: &str| format!("{base}?token={token}");

    let mut first = Wire::connect(&daemon, &url(&panel), "panel.1");
    let mut named = Wire::connect(&daemon, &url(&other), "other");
    for (token, name) in
        [(&other, "panel.2"), (&panel, "other"), (&panel, "elsewhere"), (&other, "panel.1%%0")]
    {
        assert_eq!(Wire::raw(&daemon, &url(token)).greet(name.as_bytes()), 0x79, "{name}");
    }
    // a secondary belongs to the same token
    let mut secondary = Wire::connect(&daemon, &url(&panel), "panel.1%%0");
    let mut admin = daemon.client("admin");
    let info = admin.control("client.info", &[("name", "panel.1")]).unwrap();
    assert_eq!(field(&info, "token").as_str(), Some("panel"));

    // a file with an error changes nothing
    std::fs::write(folder.path().join("tokens"), format!("{other_line}nonsense\n")).unwrap();
    let reply = admin.control("config.reload", &[]).unwrap();
    let errors = format!("{}", field(&reply, "errors"));
    assert!(errors.contains("web"), "{reply}");
    first.subscribe(&["a"]);

    write(&[&other_line]);
    admin.control("config.reload", &[]).unwrap();
    first.wait_closed();
    secondary.wait_closed();
    daemon.wait_for_log("its token has been removed (tokens_file)");
    named.ping();
    assert!(response(&url(&panel), "").starts_with("HTTP/1.1 401 "));
    assert!(admin.control("client.info", &[("name", "other")]).is_ok());
    // under a new name the same token is another identity
    write(&[&other_line.replace("other", "renamed")]);
    admin.control("config.reload", &[]).unwrap();
    named.wait_closed();
}

#[test]
fn a_broker_without_rules_and_tokens_needs_the_token_of_its_start() {
    let daemon = Daemon::start_in(folder(), &["--bind", "ws://127.0.0.1:0", "--bind", "./bus.sock"]);
    let url = start_url(&daemon);
    let (address, token) = url.split_once("?token=").unwrap();
    assert!(address.ends_with("/"), "{address}");
    for (fields, status) in [
        (String::new(), " 401 "),
        (format!("Authorization: Bearer {token}\r\n"), " 101 "),
        (format!("Sec-WebSocket-Protocol: elbus, elbus.token.{token}\r\n"), " 101 "),
        (format!("Cookie: elbus_token={token}\r\n"), " 101 "),
        (format!("Cookie: elbus_token={token}\r\nOrigin: http://evil.example\r\n"), " 403 "),
    ] {
        let response = response(address, &fields);
        assert!(response.contains(status), "{fields}: {response}");
    }
    let (_, log) = daemon.stop();
    assert_eq!(log.matches(token).count(), 1, "{log}");
}

#[test]
fn clients_that_only_access_rules_admitted_leave_with_the_rules() {
    let config = |rules: &str| {
        format!(
            "[[plugin]]\nname = 'web'\nlibrary = 'elbus_websocket'\n[plugin.config]\nbind = '127.0.0.1:0'\n\
             [[plugin]]\nname = 'local'\nlibrary = 'elbus_unix'\n[plugin.config]\n\
         path = './bus.sock'\ntimeout_seconds = 600.0\n\
             [[plugin]]\nname = 'rpc'\nlibrary = 'elbus_rpc'\n{rules}"
        )
    };
    let rules = "[[plugin]]\nname = 'access'\nlibrary = 'elbus_acl'\n[plugin.config]\ndefault = 'allow'\n";
    let daemon = Daemon::start_config(&config(rules));
    assert!(!daemon.log().contains("?token="), "{}", daemon.log());
    let base = format!("ws:{}", daemon.address_of("ws:"));
    let mut web = Wire::connect(&daemon, &base, "web");
    let mut admin = daemon.client("admin");
    std::fs::write(daemon.path("broker.toml"), config("")).unwrap();
    // the rules are removed with the first reload; the second one finds none
    admin.control("config.reload", &[]).unwrap();
    admin.control("config.reload", &[]).unwrap();
    web.wait_closed();
    assert!(response(&base, "").starts_with("HTTP/1.1 401 "));
    drop(Wire::connect(&daemon, &start_url(&daemon), "local only"));
    assert!(admin.control("config.reload", &[]).is_ok());
}
