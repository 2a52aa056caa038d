//! A configuration that changes constantly, beside clients of plugins that do not change.

use crate::support::{daemon::Daemon, field, level::Level, load::Load};

const RELOADS: usize = 100;

const ALWAYS: &str = "broker.reload_settle_seconds = 0.0\n\
                      [[plugin]]\nname = \"local\"\nlibrary = \"elbus_unix\"\nconfig = { path = \"bus.sock\", timeout_seconds = 600.0 }\n\
                      [[plugin]]\nname = \"network\"\nlibrary = \"elbus_tcp\"\nconfig = { bind = \"127.0.0.1:0\" }\n\
                      [[plugin]]\nname = \"rpc\"\nlibrary = \"elbus_rpc\"\n";

/// Returns the file after `number` changes, and whether it is valid.
fn file(number: usize) -> (String, bool) {
    let more = format!(
        "[[plugin]]\nname = \"more\"\nlibrary = \"elbus_unix\"\nconfig = {{ path = \"more-{}.sock\", timeout_seconds = 600.0 }}\n",
        number % 3
    );
    let rules = format!(
        "[[plugin]]\nname = \"access\"\nlibrary = \"elbus_acl\"\n[plugin.config]\ndefault = \"allow\"\n\
         [[plugin.config.client]]\nname = \"load.*\"\npublish = [\"deny forbidden/{number}\"]\nsubscribe = [\"allow #\"]\n"
    );
    let announce = "[[plugin]]\nname = \"announce\"\nlibrary = \"elbus_announce\"\n";
    let changes = match number % 5 {
        0 => [ALWAYS, &more, &rules].concat(),
        1 => [ALWAYS, announce, &rules].concat(),
        2 => [ALWAYS, &more].concat(),
        3 => [ALWAYS, &more, &rules, "[[plugin]]\nname = \"wrong\"\nlibrary = \"no_such\"\n"].concat(),
        _ => ALWAYS.to_owned(),
    };
    (changes, number % 5 != 3)
}

#[test]
fn a_hundred_reloads_do_not_affect_unchanged_plugins() {
    let daemon = Daemon::start_config(ALWAYS);
    let load = Load::start(&daemon);
    let mut operator = daemon.client("operator");
    let mut reload = |number: usize| {
        let (text, is_right) = file(number);
        std::fs::write(daemon.path("broker.toml"), text).unwrap();
        let answer = operator.control("config.reload", &[]);
        assert_eq!(answer.is_ok(), is_right, "{answer:?}");
        if let Ok(answer) = answer {
            assert_eq!(field(&answer, "errors").as_array(), Some(&vec![]), "{answer}");
            let unchanged = field(&answer, "unchanged").to_string();
            assert!(unchanged.starts_with("[\"local\", \"network\", \"rpc\""), "{unchanged}");
        }
    };
    // each kind once and back: libraries stay loaded
    (0..10).for_each(&mut reload);
    let level = Level::of(&daemon);
    for number in 0..RELOADS {
        reload(number);
        load.wait_for_more();
    }
    level.wait_for(&daemon);
    let counts = load.stop();
    assert!(counts.acknowledged > RELOADS as u32, "{counts:?}");
}
