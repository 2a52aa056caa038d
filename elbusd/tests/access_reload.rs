//! Access rules while the plugins that set them are added and removed: nothing is allowed at any time that
//! neither the previous nor the new rules allow.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use support::{
    daemon::{BOTH, Daemon},
    names, plugin_source,
    wire::Wire,
};

const DENIED: u8 = 0x79;

fn config(code: &str, guards: &[&str]) -> String {
    let part = |name: &str, plugin: &str, config: &str| {
        format!("[[plugin]]\nname = \"{name}\"\n{}\n{config}\n", plugin_source(code, plugin))
    };
    let rules = "[plugin.config]\n[[plugin.config.client]]\nname = \"admin\"\ncall = [\"allow *\"]\n\
                 [[plugin.config.client]]\nname = \"*\"\nsend = [\"deny target\"]\n";
    let mut text = part("local", "unix", "config = { path = \"bus.sock\", timeout_seconds = 600.0 }")
        + &part("rpc", "rpc", "");
    text.extend(guards.iter().map(|name| part(name, "acl", rules)));
    text
}

#[test]
fn a_second_acl_instance_takes_over_without_a_gap() {
    for code in BOTH {
        let daemon = Daemon::start_config(&config(code, &["first"]));
        let (mut admin, mut hostile) = (daemon.client("admin"), daemon.client("hostile"));
        let mut target = daemon.client("target");
        let mut reload = |text: &str| {
            std::fs::write(daemon.path("broker.toml"), text).unwrap();
            admin.control("config.reload", &[]).unwrap()
        };
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let attack = scope.spawn(|| {
                let mut attempts = 0;
                while !ended.load(Ordering::Relaxed) {
                    assert_eq!(hostile.send("target", b"x"), DENIED, "after {attempts} attempts");
                    // a new sender has no cached decisions
                    if attempts % 20 == 0 {
                        assert_eq!(
                            Wire::connect(&daemon, &daemon.address(), "other").send("target", b"x"),
                            DENIED
                        );
                    }
                    attempts += 1;
                }
                attempts
            });
            for _ in 0..5 {
                let answer = reload(&config(code, &["first", "second"]));
                let errors = names(&answer, "errors");
                assert!(
                    errors.len() == 1 && errors[0].contains("plugin first has set access rules"),
                    "{errors:?}"
                );
                let answer = reload(&config(code, &["second"]));
                assert_eq!(
                    (names(&answer, "removed"), names(&answer, "recovered")),
                    (vec!["first".to_owned()], vec!["second".to_owned()])
                );
                assert_eq!(names(&answer, "errors"), [""; 0]);
                let answer = reload(&config(code, &["first"]));
                assert_eq!(
                    (names(&answer, "added"), names(&answer, "errors").len()),
                    (vec!["first".to_owned()], 0)
                );
            }
            ended.store(true, Ordering::Relaxed);
            assert!(attack.join().unwrap() > 5);
        });
        assert!(!daemon.log().contains("access rules removed"), "{}", daemon.log());

        // without the instance's plugin, its name keeps no rules in force
        reload(
            &config(code, &["first"])
                .replace(&plugin_source(code, "acl"), &plugin_source(code, "announce"))
                .replace(config(code, &["first"]).split(&plugin_source(code, "acl")).last().unwrap(), ""),
        );
        daemon.wait_for_log("access rules removed");
        // a busy machine can take so long that the client was disconnected as silent
        drop(target);
        target = daemon.client("target");
        assert_eq!(hostile.send("target", b"x"), 0x01);
        drop(target);
    }
}
