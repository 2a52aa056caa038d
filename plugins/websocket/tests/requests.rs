//! Requests: what is refused and how, slow and hostile ones, origins, proxies and tokens.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use elbus_plugin_api::{access::AccessRules, testing::FakeHost};
use elbus_testing::{
    stream::{Bus, LONG, Peer, Stream},
    websocket::{Received, WebSocketPeer, ask, close_frame, frame, request},
};
use elbus_websocket::{WebSocket, make_token};
use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    path::Path,
    thread,
    time::{Duration, Instant},
};

const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

fn bus_of(rules: bool, settings: &str) -> Bus<WebSocketPeer> {
    let fake = FakeHost::new();
    if rules {
        fake.host("access").set_access_rules(&AccessRules::default()).unwrap();
    }
    let instance = fake.create::<WebSocket>("web", &format!("bind = '127.0.0.1:0'\n{settings}")).unwrap();
    Bus::over(fake, instance, WebSocketPeer::connect)
}

/// A transport whose clients need no token.
fn bus(settings: &str) -> Bus<WebSocketPeer> {
    bus_of(true, settings)
}

fn connect(bus: &Bus<WebSocketPeer>) -> TcpStream {
    let address = bus.instance.status().addresses[0].clone();
    let host = address.strip_prefix("ws://").unwrap().split('/').next().unwrap().to_owned();
    let socket = TcpStream::connect(host).unwrap();
    Stream::limit(&socket, LONG);
    socket
}

/// Sends a request; returns the status, 0 without a response, and the whole response.
fn respond(bus: &Bus<WebSocketPeer>, request: &str) -> (u16, String) {
    let mut socket = connect(bus);
    let mut response = ask(&mut socket, request).unwrap_or_default();
    let status = response.split(' ').nth(1).and_then(|text| text.parse().ok()).unwrap_or(0);
    if status != 101 {
        socket.read_to_string(&mut response).unwrap();
    }
    (status, response)
}

fn status(bus: &Bus<WebSocketPeer>, request: &str) -> u16 {
    respond(bus, request).0
}

/// Registers a client by a request; `None` if the request is refused.
fn register(bus: &Bus<WebSocketPeer>, request: &str, name: &str) -> Option<Peer<WebSocketPeer>> {
    let mut socket = connect(bus);
    let response = ask(&mut socket, request).unwrap();
    if !response.starts_with("HTTP/1.1 101 ") {
        return None;
    }
    let mut peer = Peer(WebSocketPeer::new(socket));
    assert_eq!(peer.introduce(name.as_bytes()), 1);
    Some(peer)
}

#[test]
fn every_refusal_has_its_status_and_affects_no_other_client() {
    let bus = bus("path = '/bus'");
    let mut other = bus.client("other");
    let good = request("/bus?x=y", "a", "");
    assert_eq!(status(&bus, &good), 101);
    // no compression, so nothing can expand
    let deflate = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";
    let (opened, response) = respond(&bus, &request("/bus", "a", deflate));
    assert!(opened == 101 && !response.to_lowercase().contains("extensions"), "{response}");
    let without = |field: &str| good.replace(field, "");
    for (text, expected) in [
        (good.replace("/bus", "/other"), 404),
        (good.replace("/bus", "/bus/"), 404),
        (good.replace("/bus", "//bus"), 404),
        (good.replace("GET", "POST"), 405),
        (good.replace("HTTP/1.1", "HTTP/1.0"), 400),
        (without("Upgrade: websocket\r\n"), 426),
        (good.replace("keep-alive, Upgrade", "close"), 426),
        (good.replace("Version: 13", "Version: 8"), 426),
        (without("Sec-WebSocket-Version: 13\r\n"), 426),
        (without(KEY), 400),
        (good.replace("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZQ=="), 400),
        (good.replace(KEY, &KEY.repeat(2)), 400),
        (without("Host: a\r\n"), 400),
        (request("/bus", "a\r\nHost: b", ""), 400),
        (request("/bus", "a", "Origin: http://a\r\nOrigin: http://a\r\n"), 400),
        (request("/bus", "a", "Authorization: Bearer a\r\nAuthorization: Bearer b\r\n"), 400),
        (request("/bus", "a", "Bad Name: x\r\n"), 400),
        (request("/bus", "a", "X: a\0b\r\n"), 400),
        (request("/bus", "a", &"X: y\r\n".repeat(100)), 431),
        (request("/bus", "a", &format!("X: {}\r\n", "y".repeat(9000))), 431),
        (request(&format!("/{}", "y".repeat(9000)), "a", ""), 431),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), 426),
        ("nonsense\r\n\r\n".to_owned(), 400),
        // a second request that a proxy can have taken for a part of the first
        (request("/bus", "a", "X: y\n\nGET /bus HTTP/1.1\r\n"), 400),
        (good.replace("\r\n", "\n") + "\r\n\r\n", 400),
        ("\r\n\r\n".to_owned(), 400),
    ] {
        let (status, response) = respond(&bus, &text);
        assert_eq!(status, expected, "{text:?}: {response}");
        assert!(response.contains("Connection: close\r\n") && response.ends_with('\n'), "{response}");
    }
    // the greeting of a client that takes this for another transport, and TLS
    assert_eq!(status(&bus, "\u{16}\u{3}\u{1}"), 0);
    other.send(&elbus_testing::stream::request(1, 0x12 | 64, b"x\0"));
    assert_eq!(other.frame(), elbus_testing::stream::ack(1, 1));
}

#[test]
fn a_request_that_trickles_ends_in_time_and_costs_others_nothing() {
    let bus = bus("timeout_seconds = 0.5\nmax_pending = 8");
    let half = "GET / HTTP/1.1\r\nHost: a\r\n";
    let start = Instant::now();
    // more half requests than slots, each sending on
    let flood: Vec<_> = (0..32)
        .map(|_| {
            let mut socket = connect(&bus);
            socket.write_all(half.as_bytes()).unwrap();
            thread::spawn(move || {
                let mut answer = String::new();
                while start.elapsed() < Duration::from_secs(3) && socket.write_all(b"X: y\r\n").is_ok() {
                    thread::sleep(Duration::from_millis(20));
                }
                let _ = socket.read_to_string(&mut answer);
                answer
            })
        })
        .collect();
    for number in 0..20 {
        drop(bus.client(&format!("client{number}")));
    }
    let answers: Vec<_> = flood.into_iter().map(|client| client.join().unwrap()).collect();
    assert!(start.elapsed() < Duration::from_secs(3), "all have ended: {:?}", start.elapsed());
    assert!(answers.iter().all(|answer| answer.is_empty() || answer.starts_with("HTTP/1.1 408 ")));
    // alone, it learns why
    let mut socket = connect(&bus);
    socket.write_all(half.as_bytes()).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("(timeout_seconds is 0.5)"), "{answer}");
    bus.wait("an empty table", |_| bus.instance.status().detail.contains(" 0 not registered yet"));
}

#[test]
fn pages_of_other_origins_are_refused() {
    for origins in ["['https://panel.plant', 'http://localhost:5173']", "'https://panel.plant'"] {
        only_listed_origins_are_allowed(&bus(&format!("allowed_origins = {origins}")));
    }
}

fn only_listed_origins_are_allowed(bus: &Bus<WebSocketPeer>) {
    let with = |host: &str, origin: &str| status(bus, &request("/", host, &format!("Origin: {origin}\r\n")));
    assert_eq!(with("127.0.0.1:80", "http://127.0.0.1"), 101);
    assert_eq!(with("127.0.0.1:8080", "https://panel.plant"), 101);
    for (host, origin) in [
        ("127.0.0.1", "https://evil.example"),
        ("127.0.0.1", "http://panel.plant"),
        ("127.0.0.1", "null"),
        ("127.0.0.1", ""),
        // no token is needed here, so the attacker's name must not count as the server's
        ("evil.example", "http://evil.example"),
    ] {
        assert_eq!(with(host, origin), 403, "{origin:?} at {host}");
    }
}

#[test]
fn a_forged_address_is_not_believed() {
    let fields = "X-Forwarded-For: 203.0.113.9, 198.51.100.7\r\nX-Real-IP: 203.0.113.9\r\n\
                  Forwarded: for=203.0.113.9\r\n";
    let direct = bus("");
    let _client = register(&direct, &request("/", "a", fields), "a").unwrap();
    let source = direct.fake.client_info("a").unwrap().source.unwrap();
    assert!(source.starts_with("127.0.0.1:") && !source.ends_with(":0"), "{source}");

    let proxied = bus("trusted_proxies = '127.0.0.0/8'"); // one text, as on a command line
    let _client = register(&proxied, &request("/", "a", fields), "a").unwrap();
    assert_eq!(proxied.fake.client_info("a").unwrap().source.as_deref(), Some("198.51.100.7:0"));
    let repeated = request("/", "a", "X-Forwarded-For: 10.0.0.1\r\nX-Forwarded-For: 198.51.100.8\r\n");
    let _client = register(&proxied, &repeated, "b").unwrap();
    assert_eq!(proxied.fake.client_info("b").unwrap().source.as_deref(), Some("198.51.100.8:0"));
    assert_eq!(status(&proxied, &request("/", "a", "X-Forwarded-For: unknown\r\n")), 400);
}

#[test]
fn clients_behind_a_proxy_are_sources_of_their_own() {
    let bus = bus("trusted_proxies = ['127.0.0.1']\nmax_clients = 2\nmax_source_share = 0.5");
    let from = |address: &str| request("/", "a", &format!("X-Forwarded-For: {address}\r\n"));
    let mut first = register(&bus, &from("198.51.100.1"), "a").unwrap();
    let mut second = register(&bus, &from("198.51.100.1"), "b").unwrap();
    // the other source gets its share, at the expense of the newest client of the first
    let _third = register(&bus, &from("198.51.100.2"), "c").unwrap();
    second.rest();
    assert_eq!(second.0.closed.as_ref().unwrap().0, 1008, "{:?}", second.0.closed);
    first.send(&[0; 9]);
    bus.wait_gone("b");
}

#[test]
fn without_tokens_and_rules_only_this_machine_is_served_and_only_with_the_token_of_the_start() {
    let bus = bus_of(false, "trusted_proxies = ['127.0.0.2']");
    let wrong = make_token("wrong").unwrap().token;
    for (fields, expected) in [
        (String::new(), 401),
        (format!("Authorization: Bearer {wrong}\r\n"), 401),
        (format!("Cookie: elbus_token={wrong}\r\n"), 401),
        (format!("Sec-WebSocket-Protocol: elbus, elbus.token.{wrong}\r\n"), 401),
        // has come through a proxy, so it is not known to be of this machine
        ("X-Forwarded-For: 127.0.0.1\r\n".to_owned(), 403),
        ("Forwarded: for=127.0.0.1\r\n".to_owned(), 403),
        ("Via: 1.1 proxy\r\n".to_owned(), 403),
        ("X-Forwarded-Proto: http\r\n".to_owned(), 403),
        ("x-real-ip: 127.0.0.1\r\n".to_owned(), 403),
    ] {
        assert_eq!(status(&bus, &request("/", "127.0.0.1", &fields)), expected, "{fields}");
    }
    assert_eq!(status(&bus, &request(&format!("/?token={wrong}"), "127.0.0.1", "")), 401);
    let behind = bus_of(false, "trusted_proxies = ['127.0.0.1']");
    assert_eq!(status(&behind, &request("/", "a", "X-Forwarded-For: 198.51.100.1\r\n")), 403);
    assert_eq!(status(&behind, &request("/", "a", "X-Forwarded-For: 127.0.0.1\r\n")), 401);
}

fn write_tokens(path: &Path, lines: &[&str]) {
    fs::write(path, lines.join("\n")).unwrap();
    fs::set_permissions(path, PermissionsExt::from_mode(0o640)).unwrap();
}

#[test]
fn a_token_can_be_presented_in_each_place_and_is_never_sent_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens");
    let (made, other) = (make_token("panel").unwrap(), make_token("other").unwrap());
    write_tokens(&path, &[&made.line]);
    let file = format!("tokens_file = '{}'", path.display());
    let bus = bus_of(false, &file);
    let token = &made.token;
    for (fields, expected) in [
        (format!("Authorization: Bearer {token}\r\n"), 101),
        (format!("authorization: bearer  {token}\r\n"), 101),
        (format!("Authorization: Basic eDp5\r\nCookie: a=b; elbus_token={token}\r\n"), 101),
        (format!("Sec-WebSocket-Protocol: elbus, elbus.token.{token}\r\n"), 101),
        (format!("Sec-WebSocket-Protocol: elbus\r\nSec-WebSocket-Protocol: elbus.token.{token}\r\n"), 101),
        // a page of the same name may connect: the token protects
        (format!("Origin: http://bus.plant\r\nCookie: elbus_token={token}\r\n"), 101),
        (format!("Origin: http://evil.example\r\nCookie: elbus_token={token}\r\n"), 403),
        (format!("Authorization: Bearer {}\r\nCookie: elbus_token={token}\r\n", other.token), 401),
        (format!("Authorization: Bearer {}\r\n", made.line), 401),
        (format!("Authorization: Bearer {}\r\n", token.to_uppercase()), 401),
        (format!("Cookie: x_elbus_token={token}\r\n"), 401),
        ("Sec-WebSocket-Protocol: elbus, elbus.token.\r\n".to_owned(), 401),
        (String::new(), 401),
    ] {
        let (status, response) = respond(&bus, &request("/", "bus.plant", &fields));
        assert_eq!(status, expected, "{fields}");
        assert!(!response.contains("elbus_"), "{response}");
        let has_chosen = response.contains("Sec-WebSocket-Protocol: elbus\r\n");
        assert_eq!(has_chosen, expected == 101 && fields.contains("Protocol: elbus"), "{response}");
        assert_eq!(response.contains("WWW-Authenticate: Bearer"), expected == 401, "{response}");
    }
    let in_query = request(&format!("/?a=b&token={token}"), "a", "");
    let (status, response) = respond(&bus, &in_query);
    assert!(status == 401 && response.contains("(token_in_query)"), "{response}");
    let allowed = bus_of(false, &format!("{file}\ntoken_in_query = true\ntoken_cookie = 't'"));
    let client = register(&allowed, &in_query, "a");
    assert_eq!(allowed.fake.client_info("a").unwrap().token.as_deref(), Some("panel"));
    drop(client);
    assert!(register(&allowed, &request("/", "a", &format!("Cookie: t={token}\r\n")), "b").is_some());
}

#[test]
fn a_removed_token_ends_its_connections_and_a_file_that_others_can_change_is_ignored() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens");
    let (one, two) = (make_token("one").unwrap(), make_token("two").unwrap());
    write_tokens(&path, &[&one.line, &two.line]);
    let bus = bus_of(false, &format!("tokens_file = '{}'", path.display()));
    let with = |token: &str| request("/", "a", &format!("Authorization: Bearer {token}\r\n"));
    let mut first = register(&bus, &with(&one.token), "first").unwrap();
    let mut second = register(&bus, &with(&two.token), "second").unwrap();
    // half a connection: it has been admitted and has not registered
    let mut opened = connect(&bus);
    assert!(ask(&mut opened, &with(&one.token)).unwrap().starts_with("HTTP/1.1 101 "));

    write_tokens(&path, &[&two.line]);
    fs::set_permissions(&path, PermissionsExt::from_mode(0o666)).unwrap();
    let error = bus.instance.refresh().unwrap_err();
    assert!(error.key == "tokens_file" && error.message.contains("set mode 0640"), "{error}");
    fs::remove_file(&path).unwrap();
    assert!(bus.instance.refresh().unwrap_err().message.contains("No such file"));
    assert_eq!(status(&bus, &with(&one.token)), 101, "the previous file is in use");

    write_tokens(&path, &[&two.line]);
    bus.instance.refresh().unwrap();
    first.rest();
    assert_eq!(first.0.closed, Some((1008, "closed by the broker".to_owned())));
    let mut rest = vec![];
    let _ = opened.write_all(&close_frame(1000));
    opened.read_to_end(&mut rest).unwrap();
    assert_eq!(status(&bus, &with(&one.token)), 401);
    second.send(&[0; 9]);
    assert_eq!(bus.fake.clients(), ["second"]);
    let detail = bus.instance.status().detail;
    assert!(detail.ends_with(", 1 tokens"), "{detail}");
}

#[test]
fn reloads_while_clients_connect_affect_only_those_whose_token_goes() {
    let folder = tempfile::tempdir().unwrap();
    let (path, next) = (folder.path().join("tokens"), folder.path().join("next"));
    let (stays, goes) = (make_token("stays").unwrap(), make_token("goes").unwrap());
    write_tokens(&path, &[&stays.line, &goes.line]);
    let bus = bus_of(false, &format!("tokens_file = '{}'", path.display()));
    let with = |token: &str| request("/", "a", &format!("Authorization: Bearer {token}\r\n"));
    let mut old = register(&bus, &with(&stays.token), "old").unwrap();
    thread::scope(|scope| {
        let reloading = scope.spawn(|| {
            for round in 0..100 {
                let lines = [&*stays.line, &*goes.line];
                write_tokens(&next, &lines[..2 - round % 2]);
                fs::rename(&next, &path).unwrap();
                bus.instance.refresh().unwrap();
            }
        });
        let mut number = 0;
        while !reloading.is_finished() {
            number += 1;
            let mut client = register(&bus, &with(&stays.token), &format!("new{number}")).unwrap();
            client.send(&elbus_testing::stream::request(1, 0x12 | 64, b"x\0"));
            assert_eq!(client.frame(), elbus_testing::stream::ack(1, 1));
            // with the other token everything but a stay is possible
            let mut socket = connect(&bus);
            let response = ask(&mut socket, &with(&goes.token)).unwrap();
            assert!(
                response.starts_with("HTTP/1.1 101 ") || response.starts_with("HTTP/1.1 401 "),
                "{response}"
            );
        }
    });
    assert_eq!(status(&bus, &with(&goes.token)), 401);
    old.send(&elbus_testing::stream::request(1, 0x12 | 64, b"x\0"));
    assert_eq!(old.frame(), elbus_testing::stream::ack(1, 1));
    assert!(bus.fake.failures().is_empty());
}

#[test]
fn wrong_values_name_their_key() {
    let fake = FakeHost::new();
    for (config, key) in [
        ("bind = 'nonsense'", "bind"),
        ("bind = '127.0.0.1:0'\npath = 'bus'", "path"),
        ("bind = '127.0.0.1:0'\npath = '/a?b'", "path"),
        ("bind = '127.0.0.1:0'\nallowed_origins = ['*']", "allowed_origins[0]"),
        ("bind = '127.0.0.1:0'\ntrusted_proxies = ['x']", "trusted_proxies[0]"),
        ("bind = '127.0.0.1:0'\ntrusted_proxies = 5", "trusted_proxies"),
        ("bind = '127.0.0.1:0'\ntokens_file = '/nowhere/tokens'", "tokens_file"),
        ("bind = '127.0.0.1:0'\ntoken_cookie = 'a b'", "token_cookie"),
        ("bind = '127.0.0.1:0'\nkeep_alive_seconds = 40000", "keep_alive_seconds"),
        ("bind = '127.0.0.1:0'\nmax_message = 1", "max_message"),
    ] {
        assert_eq!(fake.create::<WebSocket>("web", config).err().unwrap().key, key, "{config}");
    }
}

#[test]
fn violations_close_only_their_client_with_a_code() {
    let bus = bus("");
    let mut other = bus.client("other");
    let mut unmasked = frame(0x82, b"x");
    unmasked[1] &= 0x7F;
    for (wire, code) in [
        (frame(0x81, b"text"), 1003),
        (unmasked, 1002),
        (frame(0xC2, b"x"), 1002),
        (frame(0x83, b""), 1002),
        (frame(0x89, &[0; 126]), 1002),
        (frame(0x80, b"x"), 1002),
        (frame(0x89, b"").repeat(2000), 1008),
        (frame(0x82, b"").repeat(2000), 1008),
        (frame(0x82, &[0x3F; 9]), 1008), // of the protocol in the messages
    ] {
        let mut bad = bus.client("bad");
        // the connection may end before all is written
        let _ = bad.0.socket.write_all(&wire);
        let end = loop {
            match bad.0.receive() {
                Ok(Received::Data(_) | Received::Pong(_)) => {}
                Ok(end) => break end,
                Err(error) => panic!("{:?}: {error}", &wire[..2]),
            }
        };
        let Received::Close(received, reason) = end else { panic!("no close frame after {:?}", &wire[..2]) };
        assert!(received == code && !reason.is_empty(), "{received} {reason:?} after {:?}", &wire[..2]);
        drop(bad);
        bus.wait_gone("bad");
        other.send(&elbus_testing::stream::request(1, 0x12 | 64, b"x\0"));
        assert_eq!(other.frame(), elbus_testing::stream::ack(1, 1));
    }
    assert!(bus.fake.failures().is_empty());
}

#[test]
fn one_frame_of_any_length_is_a_stream() {
    let bus = bus("max_frame_bytes = 1000");
    let mut client = bus.client("a");
    // a single frame that announces exabytes, in which frames of the protocol follow
    let header = [&[0x82, 0xFF][..], &i64::MAX.to_be_bytes(), &[0; 4]].concat();
    client.0.socket.write_all(&header).unwrap();
    for number in 0..2000 {
        let message = elbus_testing::stream::request(number, 0x12 | 64, &[&b"x\0"[..], &[7; 900]].concat());
        client.0.socket.write_all(&message).unwrap();
        assert_eq!(client.frame(), elbus_testing::stream::ack(number, 1));
    }
}

#[test]
fn the_end_of_a_connection_has_a_close_frame() {
    let bus = bus("timeout_seconds = 0.3");
    // silent
    let mut silent = bus.client("silent");
    silent.rest();
    let (code, reason) = silent.0.closed.clone().unwrap();
    assert!(code == 1008 && reason.contains("(timeout_seconds is 0.3)"), "{code} {reason}");
    // kicked
    let mut kicked = bus.client("kicked");
    bus.fake.close("kicked", "by operator x");
    kicked.rest();
    assert_eq!(kicked.0.closed, Some((1008, "closed by the broker".to_owned())));
    // leaves: the code is repeated, after the acknowledgement
    let mut leaving = bus.client("leaving");
    leaving.0.socket.write_all(&frame(0x82, &elbus_testing::stream::request(1, 0x12 | 64, b"x\0"))).unwrap();
    leaving.0.socket.write_all(&close_frame(1001)).unwrap();
    assert_eq!(leaving.rest(), elbus_testing::stream::ack(1, 1));
    assert_eq!(leaving.0.closed, Some((1001, String::new())));
    // leaves without a close frame
    drop(bus.client("gone"));
    bus.wait_gone("gone");
    // the broker stops
    let mut present = bus.client("present");
    let pinging = present.0.socket.try_clone().unwrap();
    let stopping = thread::spawn(move || {
        present.rest();
        present.0.closed
    });
    (&pinging).write_all(&frame(0x82, &[0; 9])).unwrap();
    bus.instance.stop(LONG);
    assert_eq!(stopping.join().unwrap(), Some((1001, "the broker stops".to_owned())));
}

#[test]
fn a_client_that_sends_pings_and_reads_nothing_is_silent_and_stalls() {
    let bus = bus("timeout_seconds = 0.5");
    let mut client = bus.client("a");
    let start = Instant::now();
    // each with data between, so that only silence ends it: half a header of the protocol is no sign of life
    let wire = [frame(0x89, &[1; 125]), frame(0x8A, b"x")].concat();
    loop {
        match client.0.socket.write_all(&wire) {
            Ok(()) => thread::sleep(Duration::from_millis(25)),
            Err(error) => {
                let kinds = [ErrorKind::BrokenPipe, ErrorKind::ConnectionReset, ErrorKind::WouldBlock];
                assert!(kinds.contains(&error.kind()), "{error}");
                break;
            }
        }
        assert!(start.elapsed() < LONG / 2, "pings keep it connected");
    }
    bus.wait_gone("a");
}

#[test]
fn a_flood_of_handshakes_costs_other_clients_nothing() {
    let bus = bus("max_pending = 16\ntimeout_seconds = 60");
    let mut other = bus.client("other");
    let address = bus.instance.status().addresses[0].clone();
    let host = address.strip_prefix("ws://").unwrap().trim_end_matches('/').to_owned();
    let flooding = thread::spawn(move || {
        let mut open = vec![];
        for number in 0..400 {
            let Ok(mut socket) = TcpStream::connect(&host) else { continue };
            let sent = match number % 3 {
                0 => "",
                1 => "GET / HTTP/1.1\r\n",
                // complete, and then silent
                _ => &request("/", "a", ""),
            };
            let _ = socket.write_all(sent.as_bytes());
            open.push(socket);
        }
        open
    });
    for number in 0..50 {
        other.send(&elbus_testing::stream::request(number, 0x12 | 64, b"x\0"));
        assert_eq!(other.frame(), elbus_testing::stream::ack(number, 1));
    }
    let open = flooding.join().unwrap();
    drop(bus.client("new"));
    assert!(bus.instance.status().detail.contains(" connections refused"));
    drop(open);
    bus.wait("few connections", |_| bus.instance.status().detail.contains(" 0 not registered yet"));
    assert!(bus.fake.failures().is_empty());
}
