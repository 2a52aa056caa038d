//! The control methods of `.broker`, over the wire (protocol section 7).
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use elbus_protocol::{FrameKind, Op, Qos, rpc};
use support::{
    daemon::{BOTH, Daemon},
    wire::{Frame, Wire},
};

fn text<'a>(map: &'a rmpv::Value, key: &str) -> &'a str {
    field(map, key).as_str().unwrap_or_else(|| panic!("{key} in {map}"))
}

fn field<'a>(map: &'a rmpv::Value, key: &str) -> &'a rmpv::Value {
    let found = map.as_map().unwrap().iter().find(|(k, _)| k.as_str() == Some(key));
    &found.unwrap_or_else(|| panic!("no {key} in {map}")).1
}

#[test]
fn control_methods_match_the_specification() {
    for plugins in BOTH {
        let daemon = Daemon::start(plugins, &[]);
        for (index, address) in daemon.addresses().into_iter().enumerate() {
            let name = format!("a.b{index}");
            let mut client = Wire::connect(&daemon, &address, &name);
            let _secondary = Wire::connect(&daemon, &address, &format!("{name}%%0"));
            assert_eq!(client.call(".broker", "test", b"").unwrap(), [0x81, 0xA2, 0x6F, 0x6B, 0xC3]);
            let info = client.control("info", &[]).unwrap();
            assert_eq!(text(&info, "version"), env!("CARGO_PKG_VERSION"));
            assert!(!text(&info, "author").is_empty());
            let stats = client.control("stats", &[]).unwrap();
            for key in ["uptime", "r_frames", "r_bytes", "w_frames", "w_bytes"] {
                assert!(field(&stats, key).is_u64(), "{key} in {stats}");
            }
            let health = client.control("health", &[]).unwrap();
            assert_eq!(text(&health, "name"), "elbus");
            assert!(field(&health, "clients").as_u64() >= Some(2), "{health}");
            assert_eq!(field(&health, "queued_bytes").as_u64(), Some(0), "nothing is queued");
            assert_eq!(field(&health, "max_queued_bytes").as_u64(), Some(1 << 30));
            let big = vec![7; 200_000];
            assert_eq!(client.call(".broker", "benchmark.test", &big).unwrap(), big);
            for (method, params, code) in [
                ("test", &b"\xc0"[..], -32602),
                ("info", b"\xc0", -32602),
                ("stats", b"\xc0", -32602),
                ("client.list", b"\xc1", -32700),
                ("nothing", b"", -32601),
                ("", b"", -32601),
            ] {
                let (got, _) = client.call(".broker", method, params).unwrap_err();
                assert_eq!(got, code, "{method}");
            }
            let list = client.control("client.list", &[]).unwrap();
            let names: Vec<_> = field(&list, "clients")
                .as_array()
                .unwrap()
                .iter()
                .map(|c| text(c, "name").to_owned())
                .collect();
            assert_eq!(names[0], ".broker", "sorted");
            assert!(names.contains(&name) && names.iter().all(|name| !name.contains("%%")), "{names:?}");
            let list = client.control("client.list", &[("filter", &format!("^{name}$"))]).unwrap();
            let me = &field(&list, "clients").as_array().unwrap()[0];
            assert_eq!(field(me, "instances").as_u64(), Some(2));
            for key in ["r_frames", "r_bytes", "w_frames", "w_bytes", "queue"] {
                assert!(field(me, key).is_u64(), "{key} in {me}");
            }
            if address.starts_with("unix:") {
                assert_eq!(text(me, "kind"), "local_ipc");
                assert!(field(me, "source").is_nil());
                assert_eq!(text(me, "port"), "./bus.sock");
                let details = client.control("client.info", &[("name", &name)]).unwrap();
                assert_eq!(field(&details, "pid").as_u64(), Some(u64::from(std::process::id())));
                assert_eq!(field(&details, "certificate_names").as_array(), Some(&vec![]));
            } else {
                assert_eq!(text(me, "kind"), "tcp");
                assert!(text(me, "source").starts_with("127.0.0.1:"));
                assert_eq!(text(me, "port"), "127.0.0.1:0");
            }
            assert_eq!(client.control("client.list", &[("filter", "(")]).unwrap_err().0, -32700);
        }
    }
}

#[test]
fn messages_that_are_not_calls_are_accepted_and_ignored() {
    let daemon = Daemon::start("library", &[]);
    let mut client = daemon.client("a");
    for payload in
        [&b""[..], b"\x00note", b"\x11\x01\0\0\0reply", b"\x77nonsense", b"\x01\x01", b"\x01\x01\0\0\0no NUL"]
    {
        assert_eq!(client.send(".broker", payload), 0x01);
    }
    let without_reply = rpc::encode_request(0, "test", b"").unwrap();
    assert_eq!(client.send(".broker", &without_reply), 0x01);
    assert_eq!(client.acked(Op::Broadcast, ".broker", b"x"), 0x01);
    let mut not_text = vec![1, 9, 0, 0, 0];
    not_text.extend_from_slice(b"\xff\0");
    client.request(Op::Message, Qos::NO, ".broker", "", &not_text);
    let Frame::Data(FrameKind::Message, sender, _, payload, _) = client.frame() else { panic!("no reply") };
    assert_eq!(sender, ".broker");
    assert!(matches!(rpc::decode_rpc(&payload), Ok(rpc::RpcFrame::Error { call_id: 9, code: -32114, .. })));
}

#[test]
fn replies_to_real_time_calls_are_real_time() {
    let daemon = Daemon::start("library", &[]);
    let mut client = daemon.client("a");
    let call = rpc::encode_request(5, "test", b"").unwrap();
    for (qos, expected) in [(Qos::NO, false), (Qos::REALTIME, true)] {
        client.request(Op::Message, qos, ".broker", "", &call);
        let Frame::Data(.., realtime) = client.frame() else { panic!("no reply") };
        assert_eq!(realtime, expected);
    }
}

#[test]
fn remote_clients_cannot_change_the_broker() {
    let daemon = Daemon::start("library", &[]);
    let addresses = daemon.addresses();
    let mut remote = Wire::connect(&daemon, &addresses[1], "remote");
    let mut local = Wire::connect(&daemon, &addresses[0], "local");
    for method in ["client.kick", "plugin.stop", "plugin.start", "plugin.reload"] {
        let (code, why) = remote.control(method, &[("name", "local")]).unwrap_err();
        assert_eq!(code, -32000 - 0x79, "{method}");
        assert!(why.contains("remote_admin"), "{why}");
    }
    assert!(remote.control("plugin.list", &[]).is_ok());
    local.control("client.kick", &[("name", "remote")]).unwrap();
    remote.wait_closed();
    daemon.wait_for_log("client.kick");
    assert!(local.control("client.kick", &[("name", "nobody")]).unwrap_err().1.contains("nobody"));
}

#[test]
fn plugins_can_be_stopped_started_and_reloaded() {
    let daemon = Daemon::start("library", &[]);
    let addresses = daemon.addresses();
    let mut local = Wire::connect(&daemon, &addresses[0], "local");
    let state = |local: &mut Wire, name: &str| {
        let list = local.control("plugin.list", &[]).unwrap();
        let plugins = field(&list, "plugins").as_array().unwrap().clone();
        let plugin = plugins.iter().find(|p| text(p, "name") == name).unwrap_or_else(|| panic!("{list}"));
        text(plugin, "state").to_owned()
    };
    let mut remote = Wire::connect(&daemon, &addresses[1], "remote");
    assert_eq!(state(&mut local, "tcp-2"), "started");
    local.control("plugin.stop", &[("name", "tcp-2")]).unwrap();
    remote.wait_closed();
    assert_eq!(state(&mut local, "tcp-2"), "stopped");
    assert_eq!(local.send("remote", b"x"), 0x71);
    assert!(local.control("plugin.start", &[("name", "unix")]).unwrap_err().1.contains("already started"));
    local.control("plugin.start", &[("name", "tcp-2")]).unwrap();
    assert_eq!(state(&mut local, "tcp-2"), "started");
    local.control("plugin.reload", &[("name", "announce")]).unwrap();
    let (_, why) = local.control("plugin.reload", &[("name", "nothing")]).unwrap_err();
    assert!(why.contains("nothing") && why.contains("announce"), "{why}");
    // the transport of this call
    local.control("plugin.reload", &[("name", "rpc")]).ok();
    support::wait_until("rpc is back", || {
        let call = rpc::encode_request(77, "test", b"").unwrap();
        local.request(Op::Message, Qos::PROCESSED, ".broker", "", &call);
        matches!(local.frame(), Frame::Ack(_, 0x01)) || matches!(local.frame(), Frame::Ack(_, 0x01))
    });
}
