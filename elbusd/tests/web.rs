//! What the plugin `web` collects, and what of it each caller sees.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use elbus_protocol::{
    Op, Qos,
    request::encode_request,
    rpc::{self, RpcFrame},
};
use rmpv::Value;
use std::thread;
use support::{
    daemon::{Daemon, folder},
    field, wait_until,
    web::{array, ask_web, host_of, start, start_token},
    wire::{Wire, numbered_frames},
};

/// Returns the sum of a series, and the number of the last value.
fn sum_of(history: &Value, series: &str) -> (u64, u64) {
    let values = array(field(history, "series"), series);
    (values.iter().filter_map(Value::as_u64).sum(), field(history, "newest").as_u64().unwrap())
}

#[test]
fn the_history_has_every_message_once() {
    const MESSAGES: u64 = 5000;
    let (daemon, _) = start("127.0.0.1:0");
    let mut client = daemon.client("client");
    for _ in 0..MESSAGES {
        client.request(Op::Message, Qos::NO, "nobody", "", &[0; 10]);
    }
    client.ping();
    let mut asked = 0;
    let mut history = |client: &mut Wire| {
        asked += 1;
        let history = ask_web(client, "web.history", 0);
        let (sum, newest) = sum_of(&history, "messages_in");
        (sum, newest, asked, history)
    };
    let (_, begun, before, _) = history(&mut client);
    // two measurements later, everything before is in the history
    let mut last = None;
    wait_until("two more values", || {
        let now = history(&mut client);
        let is_later = now.1 >= begun + 2;
        last = Some(now);
        is_later
    });
    let (sum, newest, asked, history) = last.unwrap();
    // the broker's replies count as well; that to the last call may have followed
    let expected = MESSAGES + 2 * before - 1..=MESSAGES + 2 * asked;
    assert!(expected.contains(&sum), "{sum} of {expected:?}");
    let values = array(field(&history, "series"), "clients");
    assert!(values.len() as u64 == newest && values.last().unwrap().as_u64() == Some(1), "{values:?}");
    let bytes = sum_of(&history, "bytes_in").0;
    assert!(bytes >= MESSAGES * 10, "{bytes}");
    let newer = ask_web(&mut client, "web.history", newest - 1);
    let (_, newest_now) = sum_of(&newer, "messages_in");
    assert_eq!(array(field(&newer, "series"), "refused").len() as u64, newest_now + 1 - newest);
}

#[test]
fn a_slow_receiver_is_the_first_of_the_clients_that_matter() {
    let daemon = Daemon::start_config(
        "[[plugin]]\nname = 'web'\nlibrary = 'elbus_web'\nconfig = { bind = '127.0.0.1:0' }\n\
         [[plugin]]\nname = 'rpc'\nlibrary = 'elbus_rpc'\n\
         [[plugin]]\nname = 'local'\nlibrary = 'elbus_unix'\n[plugin.config]\npath = './bus.sock'\n\
         queue_bytes = 65536\nstall_seconds = 50.0\ntimeout_seconds = 60.0\n",
    );
    let _slow = daemon.client("slow");
    let (sender, mut viewer) = (daemon.client("sender"), daemon.client("viewer"));
    let mut writer = sender.writer();
    let flood = thread::spawn(move || {
        let frames = numbered_frames(Op::Message, Qos::NO, "slow", 100, 1000);
        while writer.try_write(&frames) {}
    });
    let mut first = None;
    wait_until("it holds its sender", || {
        let top = viewer.control("web.top", &[]).unwrap();
        first = top.as_array().unwrap().first().cloned();
        first.as_ref().is_some_and(|entry| field(entry, "reason").as_str() == Some("holds_senders"))
    });
    let first = first.unwrap();
    assert_eq!(field(&first, "name").as_str(), Some("slow"), "{first}");
    // one sender is held all the time
    let held = field(&first, "value").as_f64().unwrap();
    assert!(held > 0.0 && held < 1.5, "{first}");
    let question = [("action", "send"), ("name", "viewer"), ("target", "slow")];
    let mut full = Vec::new();
    wait_until("its queue is explained", || {
        let answer = viewer.control("explain", &question).unwrap();
        full = array(&answer, "full").to_vec();
        !full.is_empty()
    });
    let of = |key: &str| field(&full[0], key).as_str().unwrap().to_owned();
    assert_eq!((of("client"), of("overflow")), ("slow".to_owned(), "block".to_owned()));
    wait_until("the history has it", || {
        let history = ask_web(&mut viewer, "web.history", 0);
        let last = |series: &str| array(field(&history, "series"), series).last().and_then(Value::as_f64);
        last("held_seconds") > Some(0.5) && last("queued_bytes") > Some(50_000.0)
    });
    drop(daemon);
    flood.join().unwrap();
}

/// What several callers see of the same traffic.
const RULES: &str = "
[[plugin]]
name = 'web'
library = 'elbus_web'
config = { bind = '127.0.0.1:0' }
[[plugin]]
name = 'local'
library = 'elbus_unix'
config = { path = './bus.sock' }
[[plugin]]
name = 'rpc'
library = 'elbus_rpc'
[[plugin]]
name = 'access'
library = 'elbus_acl'
[plugin.config]
default = 'deny'
[[plugin.config.client]]
name = 'admin'
call = ['allow *']
[[plugin.config.client]]
name = 'operator'
call = ['allow web.*', 'allow client.list']
subscribe = ['allow open/#']
[[plugin.config.client]]
name = 'guest'
call = ['allow web.*']
[[plugin.config.client]]
name = 'stranger'
call = ['allow test']
[[plugin.config.client]]
name = 'plc'
publish = ['allow #']
send = ['allow *']
call = ['allow web.*']
[[plugin.config.client]]
name = 'other'
send = ['allow *']
";

/// Returns the edges of `web.map` as texts.
fn edges(client: &mut Wire) -> Vec<String> {
    let map = client.control("web.map", &[]).unwrap();
    let text = |edge: &Value, key: &str| field(edge, key).as_str().unwrap().to_owned();
    let edge = |edge: &Value| format!("{} {} {}", text(edge, "from"), text(edge, "kind"), text(edge, "to"));
    let mut all: Vec<_> = array(&map, "edges").iter().map(edge).collect();
    all.sort();
    all
}

#[test]
fn each_caller_sees_what_its_rules_let_it_learn_anyway() {
    let daemon = Daemon::start_config(RULES);
    let [mut admin, mut operator, mut guest, mut stranger, mut plc] =
        ["admin", "operator", "guest", "stranger", "plc"].map(|name| daemon.client(name));
    let mut other = daemon.client("other");
    for method in ["web.history", "web.top", "web.map", "web.calls", "web.events"] {
        assert_eq!(stranger.control(method, &[]).unwrap_err().0, -32121, "{method}");
        assert!(guest.control(method, &[]).is_ok(), "{method}");
    }
    // the traffic is observed from the first request on
    wait_until("the traffic is observed", || {
        assert_eq!(plc.acked(Op::Publish, "open/a/b", b"1"), 1);
        plc.acked(Op::Publish, "secret/a/b", b"1");
        plc.request(Op::Message, Qos::NO, "other", "", b"hello");
        edges(&mut guest);
        edges(&mut admin).iter().any(|edge| edge == "plc message other")
    });
    let all = edges(&mut admin);
    for edge in ["plc message other", "plc topic open/a/#", "plc topic secret/a/#", "guest rpc .broker"] {
        assert!(all.iter().any(|other| other == edge), "{edge}: {all:?}");
    }
    let of_operator: Vec<_> =
        edges(&mut operator).into_iter().filter(|edge| edge.starts_with("plc")).collect();
    assert_eq!(of_operator, ["plc topic open/a/#"]);
    assert!(edges(&mut guest).iter().all(|edge| edge.starts_with("guest rpc")), "{:?}", edges(&mut guest));
    assert!(edges(&mut plc).contains(&"plc message other".to_owned()));

    // a call that fails: the text of its error is part of a message
    let call = rpc::encode_request(7, "method", b"").unwrap();
    assert_eq!(plc.send("other", &call), 1);
    while !matches!(rpc::decode_rpc(other.frame().payload()), Ok(RpcFrame::Request { call_id: 7, .. })) {}
    assert_eq!(other.send("plc", &rpc::encode_error(7, -5, b"a secret")), 1);
    let errors = |client: &mut Wire| {
        let calls = client.control("web.calls", &[]).unwrap();
        let error = |call: &Value| {
            format!("{} {} {}", field(call, "target"), field(call, "method"), field(call, "error"))
        };
        array(&calls, "errors").iter().map(error).filter(|text| text.contains("method")).collect::<Vec<_>>()
    };
    let expected = [r#""other" "method" "-5: a secret""#.to_owned()];
    wait_until("the error is listed", || errors(&mut admin) == expected);
    assert_eq!(errors(&mut plc), expected);
    assert!(errors(&mut operator).is_empty() && errors(&mut guest).is_empty());

    // who sends most
    let top = |client: &mut Wire| -> Vec<String> {
        let top = client.control("web.top", &[]).unwrap();
        top.as_array()
            .unwrap()
            .iter()
            .map(|entry| field(entry, "name").as_str().unwrap().to_owned())
            .collect()
    };
    wait_until("plc sends most", || {
        for _ in 0..100 {
            plc.request(Op::Publish, Qos::NO, "open/a", "", b"x");
        }
        plc.ping();
        top(&mut operator).first().is_some_and(|first| first == "plc")
    });
    assert!(top(&mut guest).iter().all(|name| name == "guest"));

    // what has happened
    drop(stranger);
    let subjects = |client: &mut Wire, kind: &str| -> Vec<String> {
        let events = ask_web(client, "web.events", 0);
        let of_kind =
            array(&events, "events").iter().filter(|event| field(event, "kind").as_str() == Some(kind));
        of_kind.map(|event| field(event, "subject").as_str().unwrap().to_owned()).collect()
    };
    wait_until("the stranger has left", || subjects(&mut operator, "disconnect") == ["stranger"]);
    assert!(subjects(&mut operator, "connect").contains(&"admin".to_owned()));
    assert_eq!(subjects(&mut guest, "connect"), ["guest"]);
    assert!(subjects(&mut guest, "disconnect").is_empty());
    assert!(subjects(&mut operator, "plugin").is_empty());
    wait_until("a reload and its warning", || {
        admin.control("config.reload", &[]).unwrap();
        !subjects(&mut admin, "reload").is_empty()
    });
    assert!(subjects(&mut operator, "reload").is_empty() && subjects(&mut operator, "log").is_empty());
    let newest = field(&ask_web(&mut admin, "web.events", 0), "newest").as_u64().unwrap();
    assert!(array(&ask_web(&mut admin, "web.events", newest + 100), "events").is_empty());
}

#[test]
fn without_rules_every_client_sees_the_traffic_and_only_local_ones_its_contents() {
    let addresses = ["--web", "127.0.0.1:0", "--bind", "./bus.sock", "--bind", "127.0.0.1:0"];
    let daemon = Daemon::start_in(folder(), &addresses);
    let url = format!("ws://{}/bus?token={}", host_of(&daemon), start_token(&daemon));
    // the token of the start makes a page local
    let mut page = Wire::connect(&daemon, &url, "web.page.1");
    let mut remote = Wire::connect(&daemon, &format!("tcp:{}", daemon.address_of("tcp:")), "remote");
    let [mut local, mut a, mut b] = ["local", "a", "b"].map(|name| daemon.client(name));
    wait_until("the traffic is observed", || {
        a.request(Op::Message, Qos::NO, "b", "", b"hello");
        edges(&mut remote).contains(&"a message b".to_owned())
    });
    b.forget_frames();
    assert_eq!(a.send("b", &rpc::encode_request(7, "method", b"").unwrap()), 1);
    assert_eq!(b.send("a", &rpc::encode_error(7, -5, b"a secret")), 1);
    let error = |client: &mut Wire| {
        let calls = client.control("web.calls", &[]).unwrap();
        array(&calls, "errors").first().map(|call| field(call, "error").as_str().unwrap().to_owned())
    };
    wait_until("the error is listed", || error(&mut local).as_deref() == Some("-5: a secret"));
    assert_eq!(error(&mut page).as_deref(), Some("-5: a secret"));
    assert_eq!(error(&mut remote).as_deref(), Some("-5"));
    let has_log = |client: &mut Wire| {
        let events = ask_web(client, "web.events", 0);
        array(&events, "events").iter().any(|event| field(event, "kind").as_str() == Some("log"))
    };
    // the token of the start is logged as a warning
    wait_until("the log is read", || has_log(&mut local));
    assert!(has_log(&mut page) && !has_log(&mut remote));
}

#[test]
fn warnings_of_the_log_are_for_administrators() {
    let daemon = Daemon::start_config(RULES);
    let (mut admin, mut guest) = (daemon.client("admin"), daemon.client("guest"));
    let logged = |client: &mut Wire| {
        let events = ask_web(client, "web.events", 0);
        let is_denial = |event: &Value| {
            field(event, "kind").as_str() == Some("log") && field(event, "level").as_str() == Some("warn")
        };
        array(&events, "events").iter().any(is_denial)
    };
    // denied, which the log has
    assert_eq!(guest.acked(Op::Publish, "secret", b"x"), 0x79);
    assert!(guest.control("client.kick", &[("name", "admin")]).is_err());
    wait_until("the denial is an event", || logged(&mut admin));
    assert!(!logged(&mut guest));
    assert_eq!(guest.control("log.recent", &[]).unwrap_err().0, -32121);
    let lines = admin.control("log.recent", &[]).unwrap();
    assert!(
        array(&lines, "lines").iter().any(|line| field(line, "level").as_str() == Some("warn")),
        "{lines}"
    );
    // neither the method nor the page fills the log by asking
    let newest = field(&lines, "newest").as_u64();
    assert_eq!(
        field(&admin.control("log.recent", &[("plugin", "nothing")]).unwrap(), "newest").as_u64(),
        newest
    );
}

/// The largest answers for the smallest questions, by a client that reads none of them.
#[test]
fn a_flood_of_calls_delays_nobody_and_takes_no_more_memory_than_a_queue() {
    let (daemon, _) = start("127.0.0.1:0");
    let mut other = daemon.client("other");
    // events to answer with
    for number in 0..1000 {
        drop(daemon.client(&format!("visitor.{number}")));
    }
    wait_until("all are events", || {
        field(&ask_web(&mut other, "web.events", 0), "missed").as_u64() > Some(900)
    });
    let before = daemon.memory();
    let flooders: Vec<_> = (0..4)
        .map(|number| {
            let client = daemon.client(&format!("flooder.{number}"));
            let mut writer = client.writer();
            let flood = thread::spawn(move || {
                let mut frames = Vec::new();
                for id in 1..2000 {
                    let method = ["web.events", "web.history", "web.map", "web.calls"][id as usize % 4];
                    let call = rpc::encode_request(id, method, b"").unwrap();
                    encode_request(&mut frames, 0, Op::Message, Qos::NO, ".broker", "", &call).unwrap();
                }
                while writer.try_write(&frames) {}
            });
            (client, flood)
        })
        .collect();
    let mut most = 0;
    for _ in 0..support::rounds(50, 1000) {
        assert!(ask_web(&mut other, "web.history", 0).is_map());
        assert_eq!(other.acked(Op::Publish, "a", b"x"), 1);
        most = most.max(daemon.memory());
    }
    // the queues of the flooders, and what a call holds while it is answered
    let limit = before + 4 * 3 * 8 * 1024;
    assert!(most < limit, "{before} KiB have become {most}");
    drop(daemon);
    for (client, flood) in flooders {
        drop(client);
        flood.join().unwrap();
    }
}

/// Memory by which the broker may grow while clients come and go, in KiB.
const MAX_GROWTH: u64 = 6 * 1024;

/// A day in fast motion: 10,000 clients register, publish, call and leave while two pages are open.
#[test]
fn memory_stays_while_ten_thousand_clients_come_and_go() {
    const ROUNDS: usize = 100;
    const CLIENTS: usize = 100;
    let (daemon, host) = start("127.0.0.1:0");
    let url = format!("ws://{host}/bus?token={}", start_token(&daemon));
    let mut pages: Vec<_> =
        (0..2).map(|number| Wire::connect(&daemon, &url, &format!("web.page.{number}"))).collect();
    let mut answering = daemon.client("service");
    let mut settled = 0;
    for round in 0..ROUNDS {
        let mut clients: Vec<_> =
            (0..CLIENTS).map(|number| daemon.client(&format!("plant.{round}.{number}"))).collect();
        for (number, client) in clients.iter_mut().enumerate() {
            client.subscribe(&[&format!("line/{round}/{number}/#")]);
            assert_eq!(client.acked(Op::Publish, &format!("line/{round}/{number}/value"), &[7; 100]), 1);
            let call = rpc::encode_request(number as u32 + 1, "method", &[7; 100]).unwrap();
            assert_eq!(client.send("service", &call), 1);
            let name = format!("plant.{round}.{number}");
            assert_eq!(answering.send(&name, &rpc::encode_error(number as u32 + 1, -5, &[b'x'; 100])), 1);
        }
        answering.forget_frames();
        for page in &mut pages {
            for method in ["web.top", "web.map", "web.calls"] {
                page.control(method, &[]).unwrap();
            }
            for method in ["web.history", "web.events"] {
                ask_web(page, method, 0);
            }
        }
        drop(clients);
        // every table of the plugin is full by then
        if round == ROUNDS / 2 {
            settled = daemon.memory();
        }
    }
    wait_until("memory stays", || daemon.memory() <= settled + MAX_GROWTH);
    let events = ask_web(&mut pages[0], "web.events", 0);
    assert!(array(&events, "events").len() <= 1000 && field(&events, "missed").as_u64() > Some(10_000));
    assert!(array(&pages[0].control("web.map", &[]).unwrap(), "edges").len() <= 500);
}
