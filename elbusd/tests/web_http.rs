//! The port of the plugin `web`: files, sign-in, hostile HTTP clients, and the command line that declares it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use elbus_protocol::Op;
use elbus_testing::websocket::{ask, request};
use rustix::process::{Resource, Rlimit};
use std::{
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
    thread,
    time::Duration,
};
use support::{
    PATIENCE,
    daemon::{Daemon, folder, run_to_end},
    field, wait_until,
    web::{array, connect, get, get_over, host_of, start, start_token},
    wire::Wire,
};

#[test]
fn the_page_and_the_client_are_served_with_strict_header_fields() {
    let (_daemon, host) = start("127.0.0.1:0");
    let page = get(&host, "/", "");
    let text = String::from_utf8(page.body.clone()).unwrap();
    assert!(page.status == 200 && text.starts_with("<!doctype html>"), "{} {text}", page.head);
    for expected in [
        "Content-Type: text/html; charset=utf-8\r\n",
        "Content-Security-Policy: default-src 'none'; script-src 'self'; ",
        "frame-ancestors 'none'",
        "X-Content-Type-Options: nosniff\r\n",
        "Referrer-Policy: no-referrer\r\n",
        "Cache-Control: no-cache\r\n",
        "Cross-Origin-Opener-Policy: same-origin\r\n",
    ] {
        assert!(page.head.contains(expected), "{expected}: {}", page.head);
    }
    assert!(!page.head.contains("unsafe-inline") && !page.head.contains("Set-Cookie"), "{}", page.head);
    assert_eq!(get(&host, "/page/index.html?x=y", "").body, page.body);
    let client = get(&host, "/elbus/index.js", "");
    assert!(client.head.contains("Content-Type: text/javascript; charset=utf-8\r\n"), "{}", client.head);
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../clients/javascript/src/index.js");
    assert_eq!(client.body, std::fs::read(source).unwrap(), "the client as it is");

    let version = client.head.split("ETag: ").nth(1).unwrap().split("\r\n").next().unwrap();
    // several requests over one connection
    let mut socket = connect(&host);
    let known = format!("If-None-Match: {version}\r\n");
    let again = get_over(&mut socket, "GET", "/elbus/index.js", &known);
    assert!(again.status == 304 && again.body.is_empty(), "{}", again.head);
    let head = get_over(&mut socket, "HEAD", "/elbus/index.js", "");
    assert!(head.status == 200 && head.head.contains("Content-Length: "), "{}", head.head);
    let last = get_over(&mut socket, "GET", "/", "Connection: close\r\n");
    assert_eq!((last.status, last.body), (200, page.body));
    assert_eq!(socket.read(&mut [0]).unwrap(), 0);
}

#[test]
fn no_path_leads_out_of_the_page_and_nothing_can_be_changed() {
    let (daemon, host) = start("127.0.0.1:0");
    let mut local = daemon.client("local");
    for path in [
        "/etc/passwd",
        "/page/../../../etc/passwd",
        "/page/..%2f..%2fetc/passwd",
        "/page/%2e%2e/Cargo.toml",
        "/page//index.html",
        "/page/./index.html",
        "/page/",
        "/page",
        "/elbus/",
        "/elbus/../package.json",
        "/PAGE/index.html",
        "/favicon.ico",
        "//evil.example/",
        "http://evil.example/",
        "*",
        "/page/index.html\u{0}",
        "/bus",
    ] {
        let found = get(&host, path, "");
        assert!(found.status == 404 || found.status == 400, "{path:?}: {}", found.head);
        assert!(found.head.contains("X-Content-Type-Options: nosniff\r\n"), "{}", found.head);
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "CONNECT", "TRACE"] {
        let response = ask(&mut connect(&host), &format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n")).unwrap();
        assert!(response.starts_with("HTTP/1.1 405 "), "{method}: {response}");
    }
    // a body could be taken for another request
    for fields in [
        "Content-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Content-Length: 0\r\nContent-Length: 5\r\n",
    ] {
        assert_eq!(get(&host, "/", fields).status, 400, "{fields}");
        let upgrade = ask(&mut connect(&host), &request("/bus", &host, fields)).unwrap();
        assert!(upgrade.starts_with("HTTP/1.1 400 "), "{fields}: {upgrade}");
    }
    assert_eq!(ask(&mut connect(&host), "GET / HTTP/1.1\r\n\r\n").unwrap().split(' ').nth(1), Some("400"));
    local.ping();
}

#[test]
fn the_page_signs_in_with_the_token_of_the_start_and_from_its_own_origin() {
    let (daemon, host) = start("127.0.0.1:0");
    let token = start_token(&daemon);
    let offer = format!("Sec-WebSocket-Protocol: elbus, elbus.token.{token}\r\n");
    let open = |path: &str, fields: &str| {
        let response = ask(&mut connect(&host), &request(path, &host, fields)).unwrap();
        response.split(' ').nth(1).unwrap().parse::<u16>().unwrap()
    };
    assert_eq!(open("/bus", ""), 401);
    assert_eq!(open("/bus", &offer), 101);
    assert_eq!(open("/bus", &format!("{offer}Origin: http://{host}\r\n")), 101);
    assert_eq!(open("/", &offer), 404);
    for forged in ["http://evil.example", "https://evil.example", "null", "http://127.0.0.1:1", ""] {
        assert_eq!(open("/bus", &format!("{offer}Origin: {forged}\r\n")), 403, "{forged}");
        // nor with the cookie that a browser would send for a page of another site
        let cookie = format!("Cookie: elbus_token={token}\r\nOrigin: {forged}\r\n");
        assert_eq!(open("/bus", &cookie), 403, "{forged}");
    }
    let mut page = Wire::connect(&daemon, &format!("ws://{host}/bus?token={token}"), "web.page.1");
    assert_eq!(field(&page.control("web.history", &[]).unwrap(), "interval_ms").as_u64(), Some(1000));
    // the token is in the log, and only there
    let lines = page.control("log.recent", &[]).unwrap();
    let has_address = |text: &str| text.contains("/#token=");
    assert!(array(&lines, "lines").iter().any(|line| has_address(field(line, "text").as_str().unwrap())));
    wait_until("the address is an event", || {
        let events = page.control("web.events", &[]).unwrap();
        assert!(!events.to_string().contains(&token), "{events}");
        array(&events, "events").iter().any(|event| has_address(field(event, "text").as_str().unwrap()))
    });
    assert!(!lines.to_string().contains(&token), "{lines}");
    let plugins = page.control("plugin.list", &[]).unwrap();
    assert!(!plugins.to_string().contains(&token), "{plugins}");
    let (_, log) = daemon.stop();
    assert_eq!(log.matches(&token).count(), 1, "{log}");
}

/// What administers is the token of the start, presented on this machine, while there are no access rules.
#[test]
fn who_has_the_token_of_the_start_administers_and_no_other_page() {
    let plugins = "[[plugin]]\nname = 'local'\nlibrary = 'elbus_unix'\nconfig = { path = './bus.sock' }\n\
                   [[plugin]]\nname = 'rpc'\nlibrary = 'elbus_rpc'\n\
                   [[plugin]]\nname = 'websocket'\nlibrary = 'elbus_websocket'\nconfig = { bind = '127.0.0.1:0' }\n";
    let web = |keys: &str| {
        format!(
            "{plugins}[[plugin]]\nname = 'web'\nlibrary = 'elbus_web'\nconfig = {{ bind = '127.0.0.1:0'{keys} }}\n"
        )
    };
    let kick = |page: &mut Wire| page.control("client.kick", &[("name", "victim")]).map_err(|error| error.0);
    let daemon = Daemon::start_config(&web(""));
    let mut victim = daemon.client("victim");
    let token = start_token(&daemon);
    let url = format!("ws://{}/bus?token={token}", host_of(&daemon));
    let mut page = Wire::connect(&daemon, &url, "page");
    assert!(kick(&mut page).is_ok());
    victim.wait_closed();
    // the plugin websocket has a token of its own, in an address that programs show: its clients are remote
    daemon.wait_for_log("ws://");
    let log = daemon.log();
    let at = log.find("ws://").unwrap();
    let mut program = Wire::connect(&daemon, log[at..].split('"').next().unwrap(), "program");
    assert_eq!(kick(&mut program), Err(-32121));
    // with access rules the token admits nobody, and they decide about names that anybody could have
    let mut admin = daemon.client("admin");
    let rules = "[[plugin]]\nname = 'access'\nlibrary = 'elbus_acl'\n[plugin.config]\ndefault = 'allow'\n";
    std::fs::write(daemon.path("broker.toml"), web("") + rules).unwrap();
    admin.control("config.reload", &[]).unwrap();
    page.wait_closed();
    let mut page = Wire::connect(&daemon, &url, "page");
    assert_eq!(kick(&mut page), Err(-32121));
    drop(daemon);
    // a token of the file is an identity, and no administrator by itself
    let folder = folder();
    let made = elbus_websocket::make_token("operator").unwrap();
    std::fs::write(folder.path().join("tokens"), &made.line).unwrap();
    std::fs::set_permissions(folder.path().join("tokens"), PermissionsExt::from_mode(0o640)).unwrap();
    std::fs::write(folder.path().join("broker.toml"), web(", tokens_file = 'tokens', token_in_query = true"))
        .unwrap();
    let daemon = Daemon::start_in(folder, &["--config", "broker.toml"]);
    let url = format!("ws://{}/bus?token={}", host_of(&daemon), made.token);
    assert_eq!(kick(&mut Wire::connect(&daemon, &url, "page")), Err(-32121));
}

/// A client behind a proxy of this machine is not known to be of this machine.
#[test]
fn the_token_of_the_start_administers_over_a_direct_connection_only() {
    let (daemon, host) = start("127.0.0.1:0?trusted_proxies=127.0.0.1");
    let path = format!("/bus?token={}", start_token(&daemon));
    let mut local = daemon.client("local");
    for (fields, status) in [
        ("", "101"),
        ("X-Forwarded-For: 127.0.0.1\r\n", "101"),
        ("X-Forwarded-For: 198.51.100.1\r\n", "403"),
        ("X-Forwarded-For: 127.0.0.1, 198.51.100.1\r\n", "403"),
    ] {
        let response = ask(&mut connect(&host), &request(&path, &host, fields)).unwrap();
        assert_eq!(response.split(' ').nth(1), Some(status), "{fields}");
    }
    local.ping();
}

#[test]
fn hostile_http_clients_cost_nobody_else_anything() {
    let (daemon, host) = start("127.0.0.1:0?timeout_seconds=2&stall_seconds=1&max_pending=64");
    let mut local = daemon.client("local");
    local.subscribe(&["a"]);
    let huge = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "y".repeat(100_000));
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(1000));
    for (text, status) in
        [(huge, "431"), (many, "431"), (format!("GET /{} HTTP/1.1\r\n", "a".repeat(9000)), "431")]
    {
        let mut socket = connect(&host);
        // the broker may refuse it before all is written
        let _ = socket.write_all(text.as_bytes());
        let mut answer = String::new();
        let _ = socket.read_to_string(&mut answer);
        assert!(answer.is_empty() || answer.split(' ').nth(1) == Some(status), "{answer}");
    }
    // slow requests and idle connections, far more than there are places, and readers that stop in a response
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    rustix::process::setrlimit(Resource::Nofile, raised).unwrap();
    let connections = limit.maximum.map_or(10_000, |most| (most / 2).min(10_000));
    let mut flood = Vec::new();
    for number in 0..connections {
        let Ok(mut socket) = TcpStream::connect(&host) else { continue };
        let start: &[u8] = match number % 4 {
            0 => b"",
            1 => b"GET / HTTP/1.1\r\nHost: a\r\nX: ",
            2 => b"GET /elbus/client.js HTTP/1.1\r\nHost: a\r\n\r\n",
            _ => b"G",
        };
        let _ = socket.write_all(start);
        flood.push(socket);
        if number % 500 == 499 {
            assert_eq!(local.acked(Op::Publish, "a", b"x"), 1);
            local.forget_frames();
        }
    }
    // pages and clients still get through
    let mut attempts = 0;
    let page = loop {
        attempts += 1;
        let mut socket = connect(&host);
        match ask(&mut socket, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n") {
            Ok(head) if head.starts_with("HTTP/1.1 200 ") => break head,
            Ok(_) | Err(_) => assert!(attempts < 200, "no page during the flood"),
        }
    };
    assert!(page.contains("Content-Security-Policy"));
    let url = format!("ws://{host}/bus?token={}", start_token(&daemon));
    drop(Wire::connect(&daemon, &url, "page"));
    // each of them ends by itself
    for mut socket in flood {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let _ = socket.write_all(b"x");
        let mut rest = Vec::new();
        let ended = socket.read_to_end(&mut rest);
        assert!(
            ended.is_ok() || ended.unwrap_err().kind() != ErrorKind::WouldBlock,
            "a connection stays open"
        );
    }
    local.ping();
}

#[test]
fn a_reader_that_takes_no_response_holds_nobody() {
    let (daemon, host) = start("127.0.0.1:0");
    let mut local = daemon.client("local");
    let slow: Vec<_> = (0..8)
        .map(|_| {
            let host = host.clone();
            thread::spawn(move || {
                let mut socket = connect(&host);
                // requests without reading: their responses wait in the socket, and the connection ends
                let mut sent = 0;
                while socket.write_all(b"GET /elbus/client.js HTTP/1.1\r\nHost: a\r\n\r\n").is_ok() {
                    sent += 1;
                    if sent % 1000 == 0 {
                        thread::sleep(Duration::from_millis(1));
                    }
                    assert!(sent < 10_000_000, "endless");
                }
            })
        })
        .collect();
    for _ in 0..20 {
        assert_eq!(get(&host, "/", "").status, 200);
        local.ping();
    }
    slow.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(get(&host, "/", "").status, 200);
}

#[test]
fn without_its_library_the_page_is_refused_with_the_way_to_get_it() {
    // elsewhere, so that no library is next to it
    let elbusd = std::path::Path::new(env!("CARGO_BIN_EXE_elbusd"));
    let folder = tempfile::tempdir_in(elbusd.parent().unwrap()).unwrap();
    let alone = folder.path().join("elbusd");
    std::fs::hard_link(elbusd, &alone).unwrap();
    for arguments in [&["--web"][..], &["--web", "127.0.0.1:0", "--check"]] {
        let run = Command::new(&alone)
            .args(arguments)
            .current_dir(folder.path())
            .env("XDG_RUNTIME_DIR", folder.path())
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&run.stderr).into_owned();
        assert!(!run.status.success() && stderr.contains("libelbus_web.so"), "{stderr}");
        assert!(stderr.contains("cargo build --release -p elbus-web"), "{stderr}");
    }
}

#[test]
fn the_built_in_default_prints_how_to_see_the_page() {
    let hint = |arguments: &[&str]| {
        let folder = folder();
        let mut broker = Command::new(env!("CARGO_BIN_EXE_elbusd"))
            .args(arguments)
            .current_dir(folder.path())
            .env("XDG_RUNTIME_DIR", folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(broker.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut hint = lines.skip_while(|line| !line.starts_with("see it at work in a browser"));
        let (_, address) = (hint.next(), hint.next());
        broker.kill().unwrap();
        broker.wait().unwrap();
        address.unwrap()
    };
    assert_eq!(hint(&[]), "  elbusd --web 127.0.0.1:7780");
    let of_page = hint(&["--web", "127.0.0.1:0", "--bind", "./bus.sock"]);
    assert!(of_page.starts_with("  http://127.0.0.1:") && of_page.ends_with("/#token=..."), "{of_page}");
}

#[test]
fn the_command_line_declares_the_page_and_checks_its_address() {
    let folder = folder();
    let checked = run_to_end(folder.path(), &["--web", "--check"]);
    assert!(checked.status.success(), "{}", checked.stderr);
    for (arguments, expected) in [
        (&["--web", "nonsense", "--check"][..], "bind"),
        (&["--web", "127.0.0.1:7780?path=/x", "--check"], "path: unknown key"),
        (&["--web", "--bind", "127.0.0.1:7780", "--check"], "uses it as well"),
    ] {
        let refused = run_to_end(folder.path(), arguments);
        assert!(!refused.status.success() && refused.stderr.contains(expected), "{}", refused.stderr);
    }
    // beside a file, and after a reload
    std::fs::write(folder.path().join("broker.toml"), "[[plugin]]\nname = 'rpc'\nlibrary = 'elbus_rpc'\n")
        .unwrap();
    let arguments = ["--config", "broker.toml", "--web", "127.0.0.1:0", "--bind", "./bus.sock"];
    let daemon = Daemon::start_in(folder, &arguments);
    let host = host_of(&daemon);
    assert!(daemon.client("a").control("config.reload", &[]).is_ok());
    assert_eq!(get(&host, "/", "").status, 200);
}
