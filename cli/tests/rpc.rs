//! `elbus rpc`: calls, notifications, and answering calls.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use elbus_client::{Bytes, Call, Client, Notification, RpcError, RpcHandler};
use elbus_protocol::BROKER_NAME;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::sync::mpsc::{Receiver, Sender, channel};
use support::{Bus, PATIENCE};

/// Answers with its parameters, an error, or never, and records everything that arrives.
struct Server {
    received: Sender<(String, Vec<u8>)>,
}

impl RpcHandler for Server {
    async fn call(&self, call: Call) -> Result<Bytes, RpcError> {
        self.received.send((call.method().to_owned(), call.params().to_vec())).unwrap();
        match call.method() {
            "echo" => Ok(call.params().clone()),
            "fail" => Err(RpcError::new(42, "it is\ntoo \x1b[31mhot")),
            "never" => std::future::pending().await,
            _ => Err(RpcError::method_not_found()),
        }
    }

    async fn notification(&self, notification: Notification) {
        self.received.send(("(notification)".to_owned(), notification.payload().to_vec())).unwrap();
    }
}

/// Returns a client that answers calls, and the channel of what it receives.
fn serve(bus: &Bus) -> (Client, Receiver<(String, Vec<u8>)>) {
    let (sender, received) = channel();
    let (client, _frames) = bus.client("server");
    let entered = bus.runtime.enter();
    client.serve(Server { received: sender }).unwrap();
    drop(entered);
    (client, received)
}

#[test]
fn json_parameters_keep_their_type_and_other_parameters_are_text() {
    let bus = Bus::start();
    let _server = serve(&bus);
    let call = ["--json", "rpc", "call", "server", "echo"];
    let echo = |arguments: &[&str]| -> Value {
        serde_json::from_str(&bus.output(&[&call[..], arguments].concat())).unwrap()
    };
    let result =
        echo(&["n=-3", "f=1.5", "yes=true", "nil=null", "l=[1,\"a\"]", "m={\"a\":1}", "s=\"12\"", "t=a=b"]);
    assert_eq!(result["encoding"], "msgpack");
    assert_eq!(
        result["result"],
        json!({"n": -3, "f": 1.5, "yes": true, "nil": null, "l": [1, "a"], "m": {"a": 1}, "s": "12", "t": "a=b"})
    );
    assert_eq!(echo(&[]), json!({"result": null, "encoding": "empty", "bytes": 0}));
    assert_eq!(echo(&["--json-params", "[1,{\"k\":2}]"])["result"], json!([1, {"k": 2}]));
    assert_eq!(echo(&["--raw-params", "plain"])["result"], "plain");
    std::fs::write(bus.path("file"), b"\x91\xc4\x02\xff\x00").unwrap();
    assert_eq!(echo(&["--raw-params", "@file"])["result"], json!([{"$bytes": "ff00"}]));
    let ended = bus.run_with_input(&[&call[..], &["--json-params", "-"]].concat(), b"{\"k\": \"v\"}");
    assert_eq!(ended.succeeded(), "{\"result\":{\"k\":\"v\"},\"encoding\":\"msgpack\",\"bytes\":5}\n");
}

#[test]
fn results_are_printed_as_text_or_raw_bytes() {
    let bus = Bus::start();
    let _server = serve(&bus);
    let echo = |arguments: &[&str]| bus.run(&[&["rpc", "call", "server", "echo"], arguments].concat());
    assert_eq!(echo(&["b=1", "a=x"]).succeeded(), "{\"b\":1,\"a\":\"x\"}\n", "one line in a pipe");
    assert_eq!(echo(&["--raw-params", "two\nlines\x1b[2J\n"]).succeeded(), "two\nlines\\x1b[2J\n");
    assert_eq!(echo(&[]).succeeded(), "");
    std::fs::write(bus.path("file"), vec![0xff; 5000]).unwrap();
    let dump = echo(&["--raw-params", "@file"]).succeeded();
    assert_eq!(dump.lines().count(), 4096 / 16);
    assert!(dump.ends_with("|................| ... 904 more bytes\n"), "{dump}");
    assert_eq!(echo(&["--raw-params", "@file", "--max-bytes", "0"]).succeeded().lines().count(), 313);
    assert_eq!(echo(&["--raw-params", "@file", "--raw"]).stdout, vec![0xff; 5000]);
    assert_eq!(
        echo(&["--raw-params", "12345678", "--max-bytes", "5"]).succeeded(),
        "12345 ... 3 more bytes\n"
    );
}

#[test]
fn errors_of_a_call_have_their_code() {
    let bus = Bus::start();
    let _server = serve(&bus);
    assert_eq!(bus.failure(1, &["rpc", "call", "server", "nothing"]), "error -32601: method not found");
    assert_eq!(bus.failure(1, &["rpc", "call", BROKER_NAME, "nothing"]), "error -32601: method not found");
    assert_eq!(bus.failure(1, &["rpc", "call", "server", "fail"]), "error 42: it is too \\x1b[31mhot");
    assert_eq!(
        bus.failure(1, &["rpc", "call", "nobody", "echo"]),
        "error: no client is registered as \"nobody\": elbus broker clients lists the registered clients"
    );
    let failure = bus.failure(1, &["--timeout", "0.2", "rpc", "call", "server", "never"]);
    assert!(failure.starts_with("error: timed out: "), "{failure}");
    assert!(failure.contains("within 0.2 s") && failure.ends_with("set a longer --timeout"), "{failure}");
}

#[test]
fn invalid_parameters_are_not_sent() {
    let bus = Bus::start();
    let (_client, received) = serve(&bus);
    let refused =
        |arguments: &[&str]| bus.failure(2, &[&["rpc", "call", "server", "echo"], arguments].concat());
    assert_eq!(
        refused(&["k"]),
        "error: invalid parameter \"k\": expected KEY=VALUE, or a single JSON value such as 150 or '\"on\"'"
    );
    assert_eq!(refused(&["k=1", "k=2"]), "error: parameter k is given twice");
    assert!(refused(&["k=[1,"]).starts_with("error: parameter k: [1, is not valid JSON"));
    assert!(refused(&["--json-params", "{"]).starts_with("error: --json-params is not JSON"));
    assert!(
        refused(&["--raw-params", "@nothing"]).starts_with("error: cannot read \"nothing\": No such file")
    );
    bus.run(&["rpc", "call", "server", "echo"]).succeeded();
    assert_eq!(received.try_iter().collect::<Vec<_>>(), [("echo".to_owned(), vec![])]);
}

#[test]
fn call0_and_notify_arrive() {
    let bus = Bus::start();
    let (_client, received) = serve(&bus);
    let next = || received.recv_timeout(PATIENCE).unwrap();
    bus.run(&["rpc", "call0", "server", "never", "k=1"]).succeeded();
    assert_eq!(next(), ("never".to_owned(), b"\x81\xa1k\x01".to_vec()));
    bus.run(&["rpc", "call0", "server", "fail", "--qos", "no"]).succeeded();
    assert_eq!(next(), ("fail".to_owned(), vec![]));
    bus.run(&["rpc", "notify", "server", "news"]).succeeded();
    assert_eq!(next(), ("(notification)".to_owned(), b"news".to_vec()));
    bus.run_with_input(&["rpc", "notify", "server", "--qos", "realtime"], b"\0").succeeded();
    assert_eq!(next(), ("(notification)".to_owned(), b"\0".to_vec()));
    for arguments in [&["rpc", "call0", "nobody", "m"], &["rpc", "notify", "nobody", "x"]] {
        assert!(bus.failure(1, arguments).starts_with("error: no client is registered as \"nobody\""));
    }
}

#[test]
fn rpc_listen_prints_calls_and_answers_them() {
    let bus = Bus::start();
    let listen = bus.listen(&["-n", "server", "rpc", "listen", "-t", "a/#"]);
    assert_eq!(bus.output(&["-n", "me", "rpc", "call", "server", "method", "k=[1]"]), "");
    assert_eq!(listen.shown(), "call me method {\"k\":[1]}");
    bus.run(&["-n", "me", "rpc", "call", "server", "bare"]).succeeded();
    assert_eq!(listen.shown(), "call me bare (empty)");
    bus.run(&["-n", "me", "rpc", "call0", "server", "quick"]).succeeded();
    assert_eq!(listen.shown(), "call0 me quick (empty)");
    bus.run(&["-n", "me", "rpc", "notify", "server", "news"]).succeeded();
    assert_eq!(listen.shown(), "notification me news");
    bus.run(&["-n", "me", "publish", "a/b", "x"]).succeeded();
    assert_eq!(listen.shown(), "publish me a/b x");
    listen.signal(Signal::INT);
    assert_eq!(listen.ended(), (0, vec![], vec![]));
}

#[test]
fn rpc_listen_prints_json_objects() {
    let bus = Bus::start();
    let listen = bus.listen(&["-n", "server", "--json", "rpc", "listen", "--count", "2"]);
    bus.run(&["-n", "me", "rpc", "call", "server", "method", "k=1"]).succeeded();
    bus.run(&["-n", "me", "rpc", "notify", "server", "news"]).succeeded();
    let without_time = |mut line: Value| {
        line.as_object_mut().unwrap().remove("time").unwrap();
        line
    };
    assert_eq!(
        without_time(listen.json()),
        json!({"kind": "call", "realtime": false, "sender": "me", "method": "method", "params": {"k": 1},
               "encoding": "msgpack", "bytes": 4})
    );
    assert_eq!(
        without_time(listen.json()),
        json!({"kind": "notification", "realtime": false, "sender": "me", "payload": "news", "encoding": "text",
               "bytes": 4})
    );
    assert_eq!(listen.ended(), (0, vec![], vec![]));
}
