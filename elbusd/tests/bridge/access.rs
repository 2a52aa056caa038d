//! Access rules for clients of other nodes, and what a name that is taken does.

use elbus_protocol::Op;

use crate::{
    network::{NatsServer, Options, has_nats_server, node, wait_for_client, wait_for_nodes, wait_until_gone},
    support::{field, wait_until},
};

#[test]
fn rules_decide_by_the_node_what_its_clients_can_do() {
    if !has_nats_server("access rules") {
        return;
    }
    let server = NatsServer::start();
    let more = r#"
        [[plugin]]
        name = "access"
        library = "elbus_acl"
        [plugin.config]
        default = "allow"
        [[plugin.config.client]]
        name = "@press.*"
        who = [{ node = "press" }]
        send = ["allow open", "deny *"]
        publish = ["allow sensors/#"]
        [[plugin.config.client]]
        name = "@*"
        who = [{ user = "root" }]
        [[plugin.config.client]]
        name = "@saw.*"
        who = [{ user = "root" }]
        [[plugin.config.client]]
        name = "*"
        send = ["allow *"]
        publish = ["allow #"]
        subscribe = ["allow #"]
        call = ["allow *"]
    "#
    .replace(
        "[[plugin.config.client]]\n        name = \"@*\"\n        who = [{ user = \"root\" }]\n        ",
        "",
    );
    let mill = node("mill", &[server.url()], &Options { more: &more, ..Options::default() });
    let press = node("press", &[server.url()], &Options::default());
    let saw = node("saw", &[server.url()], &Options::default());
    wait_for_nodes(&mill, 2);
    let (mut open, _closed) = (mill.client("open"), mill.client("closed"));
    let mut panel = press.client("panel");
    wait_for_client(&press, "@mill.open");
    wait_for_client(&press, "@mill.closed");
    wait_for_client(&mill, "@press.panel");
    assert_eq!(panel.send("@mill.open", b"x"), 0x01);
    assert_eq!(panel.send("@mill.closed", b"x"), 0x79, "the far broker decides");
    open.subscribe(&["#"]);
    open.forget_frames();
    let _blade = saw.client("blade");
    mill.wait_for_log("client of another node is not registered: its name is taken or denied");
    let mut witness = mill.client("witness");
    assert_eq!(witness.send("@saw.blade", b"x"), 0x71);
    assert_eq!(panel.acked(Op::Publish, "sensors/a", b"x"), 0x01);
}

#[test]
fn rules_that_a_reload_changes_remove_and_admit_clients_of_other_nodes() {
    if !has_nats_server("reloaded rules") {
        return;
    }
    let server = NatsServer::start();
    let rules = |who: &str| {
        format!(
            "[[plugin]]\nname = 'access'\nlibrary = 'elbus_acl'\n[plugin.config]\ndefault = 'allow'\n\
             [[plugin.config.client]]\nname = '@press.*'\nwho = [{{ node = '{who}' }}]\n"
        )
    };
    let allowing = rules("press");
    let mill = node("mill", &[server.url()], &Options { more: &allowing, ..Options::default() });
    let press = node("press", &[server.url()], &Options::default());
    let _panel = press.client("panel");
    wait_for_client(&mill, "@press.panel");
    let mut operator = mill.client("operator");
    let path = mill.path("broker.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("node = 'press'", "node = 'saw'")).unwrap();
    operator.control("config.reload", &[]).unwrap();
    wait_until_gone(&mill, "@press.panel");
    std::fs::write(&path, text).unwrap();
    operator.control("config.reload", &[]).unwrap();
    wait_for_client(&mill, "@press.panel");
}

#[test]
fn a_local_client_keeps_its_name_and_the_remote_one_follows() {
    if !has_nats_server("taken names") {
        return;
    }
    let server = NatsServer::start();
    let mill = node("mill", &[server.url()], &Options::default());
    let mut local = mill.client("@press.panel");
    let press = node("press", &[server.url()], &Options::default());
    let mut panel = press.client("panel");
    mill.wait_for_log("client of another node is not registered: its name is taken or denied");
    let mut witness = mill.client("witness");
    assert_eq!(witness.send("@press.panel", b"local"), 0x01);
    assert_eq!(local.frame().payload(), b"local");
    drop(local);
    wait_until("the remote client has the name", || {
        let info = witness.control("client.info", &[("name", "@press.panel")]);
        info.is_ok_and(|info| field(&info, "node").as_str() == Some("press"))
    });
    assert_eq!(witness.send("@press.panel", b"remote"), 0x01);
    assert_eq!(panel.frame().payload(), b"remote");
}
