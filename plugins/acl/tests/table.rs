//! The configuration of the plugin: the rules that it passes to the broker, and its errors.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use elbus_acl::Acl;
use elbus_plugin_api::{
    access::{AccessRules, Verdict},
    config::Limit,
    testing::FakeHost,
};

fn rules(table: &str) -> AccessRules {
    let host = FakeHost::new();
    let instance = host.create::<Acl>("access", table).unwrap();
    assert_eq!(host.access_rules(), None, "no rules before the start");
    instance.start().unwrap();
    host.access_rules().unwrap()
}

#[test]
fn rules_are_passed_with_users_and_groups_as_numbers() {
    let rules = rules(
        r#"
        default = "allow"
        [[client]]
        name = "plc.*"
        who = [{ user = "root", group = 0 }, { address = "10.1.2.3" }, { address = "fd00::/8", certificate = "{name}" }]
        send = ["allow core.*", "deny *"]
        publish = ["allow plc/{user}/#"]
        limits = { max_clients = 3 }
        [[client]]
        name = "*"
        who = [{ node = "mill" }]
        "#,
    );
    assert_eq!(rules.default, Verdict::Allow);
    assert!(rules.user_names.contains(&(0, "root".to_owned())));
    let plc = &rules.clients[0];
    assert_eq!((plc.who[0].uid, plc.who[0].group.as_ref().map(|(gid, _)| *gid)), (Some(0), Some(0)));
    assert_eq!(plc.who[1].address.unwrap().to_string(), "10.1.2.3/32");
    assert_eq!(plc.who[2].certificate.as_deref(), Some("{name}"));
    let send: Vec<_> = plc.send.iter().map(ToString::to_string).collect();
    assert_eq!(send, ["allow core.*", "deny *"]);
    assert_eq!(plc.limits.max_clients, Limit::new(3));
    assert_eq!((&*rules.clients[1].name, rules.clients[1].who[0].node.as_deref()), ("*", Some("mill")));
}

#[test]
fn limits_have_the_names_of_the_transports_keys_and_accept_the_old_ones() {
    let limits =
        |keys: &str| rules(&format!("[[client]]\nname = 'a'\nlimits = {{ {keys} }}")).clients[0].limits;
    let new = limits("max_clients = 1, max_filters = 2, max_filter_depth = 3, max_frame_bytes = 4");
    let old = limits("clients = 1, subscriptions = 2, filter_depth = 3, frame_bytes = 4");
    assert_eq!((new.max_clients, new.max_filters), (Limit::new(1), Limit::new(2)));
    assert_eq!((new.max_filter_depth, new.max_frame_bytes), (Limit::new(3), Limit::new(4)));
    assert_eq!(new, old);
}

#[test]
fn everything_is_denied_by_default() {
    let rules = rules("");
    assert_eq!((rules.default, rules.clients.len()), (Verdict::Deny, 0));
}

#[test]
fn errors_in_the_table_are_found_before_the_start() {
    for (table, error) in [
        ("defaut = 'deny'", "defaut: unknown key; known are client, default"),
        ("default = 'maybe'", "default: unknown variant `maybe`, expected `allow` or `deny`"),
        ("[[client]]\nsend = []", "client[0]: missing key `name`, a mask of client names"),
        ("[[client]]\nname = 'a'\nsent = []", "client[0].sent: unknown field `sent`, expected one of"),
        (
            "[[client]]\nname = 'a'\nsend = ['b']",
            "client[0].send[0]: \"b\" is not a rule; expected \"allow PATTERN\"",
        ),
        ("[[client]]\nname = 'a'\npublish = ['allow x/{nme}']", "client[0].publish[0]: \"{nme}\" in "),
        ("[[client]]\nname = 'a'\nwho = []", "client[0].who: is empty, so no client could use the name"),
        ("[[client]]\nname = 'a'\nwho = [{}]", "client[0].who[0]: is empty; expected one or more of user"),
        (
            "[[client]]\nname = 'a'\nwho = [{ user = 'no such' }]",
            "client[0].who[0].user: no user \"no such\" in",
        ),
        (
            "[[client]]\nname = 'a'\nwho = [{ address = '10.0/8' }]",
            "client[0].who[0].address: \"10.0/8\" is not",
        ),
        ("[[client]]\nname = 'a'\nlimits = { clients = 0 }", "client[0].limits.clients: 0 is not at least 1"),
        (
            "[[client]]\nname = 'a'\nlimits = { max_filters = 0 }",
            "client[0].limits.max_filters: 0 is not at least 1; without the key there is no limit",
        ),
        (
            "[[client]]\nname = 'a'\nlimits = { clients = 1, max_clients = 2 }",
            "client[0].limits: duplicate field `max_clients`",
        ),
        (
            "[[client]]\nname = 'plc*'",
            "client[0].name: \"*\" in \"plc*\" is not a wildcard: write \"plc.*\", or",
        ),
        ("[[client]]\nname = '{name}'", "client[0].name: {name} in \"{name}\" has no meaning"),
        (
            "[[client]]\nname = 'a'\nsend = ['allow a', 'deny core.#']",
            "client[0].send[1]: \"#\" in \"core.#\" is not a wildcard: write \"core.*\", or \"core.{#}\" for",
        ),
        (
            "[[client]]\nname = 'a'\nsubscribe = ['deny secret/*']",
            "client[0].subscribe[0]: \"*\" in \"secret/*\" is not a wildcard: write \"secret/#\", or",
        ),
        (
            "[[client]]\nname = 'a'\nbroadcast = ['allow a.*.b']",
            "client[0].broadcast[0]: \"*\" in \"a.*.b\" matches all that follows",
        ),
        (
            "[[client]]\nname = 'a'\ncall = ['allow client*']",
            "client[0].call[0]: \"*\" in \"client*\" is not",
        ),
        (
            "[[client]]\nname = 'a'\nwho = [{ unit = 'plc' }]",
            "client[0].who[0].unit: \"plc\" is not the full name of a unit: write \"plc.service\"",
        ),
        (
            "[[client]]\nname = 'a'\nwho = [{ unit = 'plc*.service' }]",
            "client[0].who[0].unit: \"plc*.service\" is not the name of a unit, such as \"plc.service\"; there are no",
        ),
        (
            "[[client]]\nname = 'a'\nwho = [{ certificate = '{nme}' }]",
            "client[0].who[0].certificate: \"{nme}\" contains a brace that begins neither {name} nor {user}",
        ),
        (
            "[[client]]\nname = 'a'\nwho = [{ node = 'mill.*' }]",
            "client[0].who[0].node: \"mill.*\" is not the name of a node, such as \"mill\"; there are no wildcards",
        ),
        (
            "[[client]]\nname = 'a'\nwho = [{ node = 'mill', user = 'root' }]",
            "client[0].who[0]: has further keys beside `node`; of a client at another node, only the node",
        ),
        (
            "[[client]]\nname = 'a'\nlimits = { client = 1 }",
            "client[0].limits.client: unknown field `client`",
        ),
    ] {
        let found = FakeHost::new().create::<Acl>("access", table).err().unwrap().to_string();
        assert!(found.starts_with(error), "{table}: {found}");
    }
}

#[test]
fn a_list_has_at_most_a_thousand_rules() {
    let table = |count| {
        let rules: Vec<_> = (0..count).map(|n| format!("'allow x{n}'")).collect();
        format!("[[client]]\nname = 'a'\nsend = [{}]", rules.join(", "))
    };
    assert_eq!(rules(&table(1000)).clients[0].send.len(), 1000);
    let found = FakeHost::new().create::<Acl>("access", &table(1001)).err().unwrap().to_string();
    assert_eq!(found, "client[0].send: 1001 rules are more than 1000; use wildcards");
}

#[test]
fn a_character_in_braces_stands_for_itself() {
    let rules = rules("[[client]]\nname = 'what{?}'\nsend = ['allow plc{*}']\npublish = ['allow c{+}{+}/#']");
    let client = &rules.clients[0];
    assert_eq!((&*client.send[0].pattern, &*client.publish[0].pattern), ("plc{*}", "c{+}{+}/#"));
}
