//! Clients that make a denied call and leave immediately, or lose their name to another client: nothing is
//! executed, and no reply reaches the next owner of the name.

use elbus_protocol::{Op, Qos, request::encode_request, rpc};
use std::time::Duration;

use crate::support::{
    daemon::{BOTH, Daemon},
    level::Level,
    load::Load,
    plugin_source, rounds, wait_until,
    wire::{Frame, Wire},
};

/// Remote clients can administer here, so only the rules deny the calls.
fn config(code: &str, broker: &str, rules: &str) -> String {
    let plugin = |name: &str| plugin_source(code, name);
    format!(
        "[broker]\n{broker}\n[[plugin]]\nname = \"local\"\n{}\nconfig = {{ path = \"bus.sock\", timeout_seconds = 600.0 }}\n\
         [[plugin]]\nname = \"network\"\n{}\nconfig = {{ bind = \"127.0.0.1:0\" }}\n\
         [[plugin]]\nname = \"rpc\"\n{}\n{rules}",
        plugin("unix"),
        plugin("tcp"),
        plugin("rpc"),
    )
    .replace("ACL", &plugin("acl"))
}

const RULES: &str = "[[plugin]]\nname = \"access\"\nACL\n[plugin.config]\ndefault = \"allow\"\n\
                     [[plugin.config.client]]\nname = \"hostile.*\"\ncall = [\"deny *\"]\n";

/// Returns `count` calls of a method about the client `target`, each with its own id, in one buffer.
fn calls(method: &str, target: &str, count: u32) -> Vec<u8> {
    let map = rmpv::Value::Map(vec![("name".into(), target.into())]);
    let (mut params, mut out) = (Vec::new(), Vec::new());
    rmpv::encode::write_value(&mut params, &map).unwrap();
    for id in 1..=count {
        let call = rpc::encode_request(id, method, &params).unwrap();
        encode_request(&mut out, id, Op::Message, Qos::NO, ".broker", "", &call).unwrap();
    }
    out
}

#[test]
fn a_denied_kick_has_no_effect_after_its_caller_has_left() {
    for code in BOTH {
        let daemon = Daemon::start_config(&config(code, "remote_admin = true", RULES));
        let load = Load::start(&daemon);
        let mut target = daemon.client("target");
        let level = Level::of(&daemon);
        for round in 0..rounds(200, 5000) {
            let addresses = daemon.addresses();
            let address = &addresses[round % addresses.len()];
            let mut hostile = Wire::connect(&daemon, address, &format!("hostile.{round}"));
            hostile.write(&calls("client.kick", "target", 1 + round as u32 % 3));
            if round % 2 == 0 {
                hostile.reset();
            }
            if round % 50 == 0 {
                assert_eq!(target.send("target", b"still here"), 0x01);
                target.frame();
            }
        }
        level.wait_for(&daemon);
        assert_eq!(target.send("target", b"still here"), 0x01, "it was not kicked");
        target.frame();
        let kicked = daemon.log().matches("kicked by").count();
        assert_eq!(kicked, 0, "{}", daemon.log());
        // the same call by a client that is allowed to make it
        daemon.client("admin").control("client.kick", &[("name", "target")]).unwrap();
        target.wait_closed();
        load.stop();
    }
}

#[test]
fn a_taken_over_name_inherits_no_rights_and_no_replies() {
    let daemon = Daemon::start_config(&config("library", "", ""));
    let addresses = daemon.addresses();
    let (local, network) = (&addresses[0], &addresses[1]);
    let mut target = daemon.client("target");
    for round in 0..rounds(100, 3000) {
        // the hostile client's call is queued behind slow calls until a local client owns its name
        let mut remote = Wire::connect(&daemon, network, "shared");
        let mut out = calls("client.info", "target", 20);
        out.extend(calls("client.kick", "target", 1));
        remote.write(&out);
        drop(remote);
        let mut owner = Wire::connect(&daemon, local, "shared");
        // the reply to this call follows all earlier ones
        let own = owner.control("client.info", &[("name", "shared")]).unwrap();
        assert_eq!(crate::support::field(&own, "name").as_str(), Some("shared"));
        owner.request(Op::Message, Qos::NO, "shared", "", b"last");
        match owner.frame() {
            Frame::Data(_, sender, _, payload, _) if sender == "shared" => assert_eq!(payload, b"last"),
            other => panic!("a reply for another client in round {round}: {other:?}"),
        }
        assert_eq!(target.send("nobody", b""), 0x71, "still registered");
    }
    wait_until("all calls are dropped or answered", || daemon.log().contains("control method denied"));
    assert!(target.frame_within(Duration::from_millis(1)).is_none());
    assert!(!daemon.log().contains("kicked by"), "{}", daemon.log());
}
