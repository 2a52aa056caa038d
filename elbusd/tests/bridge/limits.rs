//! Limits between nodes, and brokers that are nodes of several buses.

use elbus_protocol::{FrameKind, Op};

use crate::{
    network::{
        EVERYTHING, NatsServer, Options, has_nats_server, node, node_list, wait_for_client, wait_for_filters,
        wait_for_nodes, wait_until_gone,
    },
    support::{field, wait_until, wire::Frame},
};

#[test]
fn names_beyond_the_limit_are_left_out_and_the_limit_is_logged() {
    if !has_nats_server("too many names") {
        return;
    }
    let server = NatsServer::start();
    let exporting = "export = { names = ['plant.*'] }\nimport = { names = ['@mill.*'] }\n";
    let limited = format!("{exporting}max_names = 20\n");
    let mill = node("mill", &[server.url()], &Options { bridge: Some(exporting), ..Options::default() });
    let press = node("press", &[server.url()], &Options { bridge: Some(&limited), ..Options::default() });
    wait_for_nodes(&press, 1);
    let names: Vec<_> = (0..60).map(|number| format!("plant.{number}")).collect();
    let _clients: Vec<_> = names.iter().map(|name| mill.client(name)).collect();
    press.wait_for_log("too many names; the rest is left out (max_names)");
    let mut witness = press.client("witness");
    let mut reached = 0;
    wait_until("as many as the limit are known", || {
        reached = names
            .iter()
            .filter(|name| match witness.send(&format!("@mill.{name}"), b"x") {
                0x01 => true,
                0x71 => false,
                code => panic!("{code:#x}"),
            })
            .count();
        assert!(reached <= 20, "{reached}");
        reached == 20
    });
    wait_until("the state of the node is right", || {
        field(&node_list(&mut witness)[0], "clients").as_u64() == Some(20)
    });
    let log = press.log();
    let line = log.lines().find(|line| line.contains("(max_names)")).unwrap();
    assert!(line.contains("limit=20") && line.contains("node=\"mill\""), "{line}");

    // the own limit of a node
    let _more: Vec<_> = names.iter().map(|name| press.client(name)).collect();
    wait_until("its own limit is logged", || {
        let log = press.log();
        let mut lines = log.lines().filter(|line| line.contains("(max_names)"));
        lines.any(|line| line.contains("node=\"\"") && line.contains("limit=20"))
    });
}

#[test]
fn beyond_its_limit_a_node_asks_for_all_topics_that_it_imports() {
    if !has_nats_server("too many filters") {
        return;
    }
    let server = NatsServer::start();
    let exporting = "export = { topics = ['sensors/#'] }\nmax_filters = 20\n";
    let importing = "import = { topics = ['sensors/#'] }\nmax_filters = 1000\n";
    let mill = node("mill", &[server.url()], &Options { bridge: Some(exporting), ..Options::default() });
    let press = node("press", &[server.url()], &Options { bridge: Some(importing), ..Options::default() });
    wait_for_nodes(&mill, 1);
    let (mut publisher, mut many, mut one) =
        (mill.client("publisher"), press.client("many"), press.client("one"));
    let filters: Vec<_> = (0..1000).map(|number| format!("sensors/line/{number:04}")).collect();
    let filters: Vec<&str> = filters.iter().map(String::as_str).collect();
    many.subscribe(&filters);
    // the limit of the other node is lower, which only it knows
    wait_for_filters(&mill, "press", 20);
    mill.wait_for_log("(max_filters)");
    let log = mill.log();
    let line = log.lines().find(|line| line.contains("(max_filters)")).unwrap();
    assert!(line.contains("too many filters of a node; the rest is left out"), "{line}");
    assert!(line.contains("node=\"press\"") && line.contains("limit=20"), "{line}");
    // 8 KiB and more change at once
    one.subscribe(&["sensors/one"]);
    press.wait_for_log("too many filters; all imported topics are requested (max_filters)");
    wait_for_filters(&mill, "press", 1);
    assert_eq!(publisher.acked(Op::Publish, "sensors/one", b"1"), 0x01);
    assert_eq!(publisher.acked(Op::Publish, "sensors/line/0999", b"2"), 0x01);
    assert_eq!((one.frame().payload(), many.frame().payload()), (&b"1"[..], &b"2"[..]));
    assert_eq!(one.filters(Op::Unsubscribe, &["sensors/one"]), 0x01);
    assert_eq!(many.filters(Op::Unsubscribe, &filters[10..]), 0x01);
    wait_for_filters(&mill, "press", 10);
    assert_eq!(publisher.acked(Op::Publish, "sensors/line/0009", b"3"), 0x01);
    assert_eq!(many.frame().payload(), b"3");
}

#[test]
fn a_broker_can_be_a_node_of_two_buses() {
    if !has_nats_server("two buses") {
        return;
    }
    let server = NatsServer::start();
    let second = format!(
        "[[plugin]]\nname = 'second'\nlibrary = 'elbus_nats'\n[plugin.config]\nservers = [{:?}]\n\
         bus = 'line'\nnode = 'mill'\nkey_file = 'key'\n{EVERYTHING}",
        server.url()
    );
    let mill = node("mill", &[server.url()], &Options { more: &second, ..Options::default() });
    let press = node("press", &[server.url()], &Options::default());
    let saw = node("saw", &[server.url()], &Options { bus: Some("line"), ..Options::default() });
    let (mut middle, mut panel, mut blade) =
        (mill.client("middle"), press.client("panel"), saw.client("blade"));
    for (daemon, name) in
        [(&press, "@mill.middle"), (&saw, "@mill.middle"), (&mill, "@press.panel"), (&mill, "@saw.blade")]
    {
        wait_for_client(daemon, name);
    }
    assert_eq!(panel.send("@mill.middle", b"of the press"), 0x01);
    assert_eq!(blade.send("@mill.middle", b"of the saw"), 0x01);
    let mut senders = [(); 2].map(|()| match middle.frame() {
        Frame::Data(FrameKind::Message, sender, ..) => sender,
        other => panic!("{other:?}"),
    });
    senders.sort();
    assert_eq!(senders, ["@press.panel", "@saw.blade"]);
    for (name, client) in [("@press.panel", &mut panel), ("@saw.blade", &mut blade)] {
        assert_eq!(middle.send(name, b"answer"), 0x01);
        assert_eq!(client.frame().payload(), b"answer");
    }

    // one hop: neither names nor publications of one bus reach the other one
    assert_eq!(panel.send("@saw.blade", b"x"), 0x71);
    assert_eq!(panel.send("@mill.@saw.blade", b"x"), 0x71);
    panel.subscribe(&["orders/#"]);
    middle.subscribe(&["orders/#"]);
    wait_for_filters(&mill, "press", 1);
    wait_for_filters(&saw, "mill", 1);
    assert_eq!(blade.acked(Op::Publish, "orders/saw", b"x"), 0x01);
    assert_eq!(middle.frame().payload(), b"x");
    assert_eq!(middle.acked(Op::Publish, "orders/mill", b"y"), 0x01);
    assert_eq!(panel.frame().payload(), b"y", "the first publication has not come here");

    // each has its method, and one ends without the other
    let mut witness = mill.client("witness");
    for (method, node) in [("broker.nodes", "press"), ("broker.nodes.line", "saw")] {
        let list = witness.control(method, &[]).unwrap();
        let nodes = field(&list, "nodes").as_array().unwrap();
        let names: Vec<_> = nodes.iter().map(|status| field(status, "name").as_str().unwrap()).collect();
        assert_eq!(names, [node], "{method}");
    }
    witness.control("plugin.stop", &[("name", "second")]).unwrap();
    wait_until_gone(&mill, "@saw.blade");
    wait_until_gone(&saw, "@mill.middle");
    assert_eq!(panel.send("@mill.middle", b"still there"), 0x01);
}
