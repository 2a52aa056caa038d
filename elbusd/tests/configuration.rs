//! broker.toml and the command line: what is wrong is said with file, line, key, value and what would be right.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should not")]

mod support;

use support::daemon::{folder, refused_config, run_to_end};

#[test]
fn what_is_wrong_with_the_file() {
    for (text, expected) in [
        ("[broker\nname = 1", "broker.toml:1: "),
        ("[broker]\nnmae = \"x\"", "broker.toml:2: [broker]: nmae = \"x\": unknown key; known are "),
        (
            "[broker]\ncpu_latency_us = 2000000",
            "broker.toml:2: [broker]: cpu_latency_us = 2000000: 2000000 is above 1000000",
        ),
        (
            "[broker]\nname = 5",
            "broker.toml:2: [broker]: name = 5: invalid type: integer `5`, expected a string",
        ),
        (
            "[[plugin]]\nname = \"a\"\nlibrary = \"elbus_unix\"\nconfig = { path = \"a.sock\" }\n\
             [[plugin]]\nname = \"a\"\nlibrary = \"elbus_rpc\"",
            "broker.toml:6: plugin \"a\": name = \"a\": another plugin has this name already; names are unique",
        ),
        (
            "[[plugin]]\nname = \"a\"\nbuiltin = \"ubix\"",
            "broker.toml:3: plugin \"a\": builtin = \"ubix\": no such plugin",
        ),
        (
            "[[plugin]]\nname = \"a\"\nlibrary = \"elbus_unix\"\n[plugin.config]\npaht = \"x\"\npath = \"a.sock\"",
            "broker.toml:5: plugin \"a\": paht = \"x\": unknown key; known are ",
        ),
        (
            "[[plugin]]\nname = \"a\"\nlibrary = \"elbus_unix\"",
            "broker.toml:1: plugin \"a\": missing key `path`",
        ),
        (
            "[[plugin]]\nname = \"a\"\nbuiltin = \"unix\"\n[plugin.config]\npath = \"a.sock\"\nqueue_bytes = \"many\"",
            "broker.toml:6: plugin \"a\": queue_bytes = \"many\": invalid type: string \"many\", expected ",
        ),
        (
            "[[plugin]]\nname = \"a\"\nbuiltin = \"unix\"\n[plugin.config]\npath = \"a.sock\"\nmode = \"rw\"",
            "broker.toml:6: plugin \"a\": mode = \"rw\": ",
        ),
        (
            "[[plugin]]\nname = \"a\"\nbuiltin = \"unix\"\n[plugin.config]\npath = \"nowhere/a.sock\"",
            "broker.toml:5: plugin \"a\" could not start: path = \"nowhere/a.sock\": ",
        ),
        (
            "[[plugin]]\nname = \"a\"\nbuiltin = \"tcp\"\n[plugin.config]\nbind = \"127.0.0.1\"",
            "broker.toml:5: plugin \"a\": bind = \"127.0.0.1\": ",
        ),
        (
            "[[plugin]]\nname = \"a\"\nbuiltin = \"announce\"\nconfig = { x = 1 }",
            "broker.toml:4: plugin \"a\": x = 1: unknown key; this plugin takes no configuration",
        ),
    ] {
        let message = refused_config(text);
        assert!(message.starts_with(&format!("elbusd: {expected}")), "{text}\n{message}");
        assert_eq!(message.lines().count(), 1, "{message}");
    }
}

#[test]
fn a_port_in_use_names_line_and_address() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    for source in ["builtin = \"tcp\"", "library = \"elbus_tcp\""] {
        let text = format!(
            "[[plugin]]\nname = \"local\"\nbuiltin = \"unix\"\nconfig = {{ path = \"a.sock\" }}\n\
             [[plugin]]\nname = \"net\"\n{source}\n[plugin.config]\nbind = [\n  \"127.0.0.1:0\",\n  \"{address}\",\n]\n"
        );
        let message = refused_config(&text);
        assert!(message.starts_with("elbusd: broker.toml:"), "{message}");
        assert!(message.contains("plugin \"net\" could not start: bind"), "{message}");
        assert!(message.contains(&address.to_string()) && message.contains("in use"), "{message}");
    }
}

#[test]
fn a_missing_file_and_wrong_arguments() {
    let folder = folder();
    let refused = run_to_end(folder.path(), &["--config", "nothing.toml"]);
    assert!(!refused.status.success());
    assert!(refused.stderr.contains("nothing.toml: cannot be read: No such file"), "{}", refused.stderr);
    for (arguments, expected) in [
        (&["--workers", "0"][..], "--workers"),
        (&["--timeout", "soon"], "--timeout"),
        (&["--config", "x", "--queue-bytes", "100000"], "--queue-bytes"),
        (&["--unknown"], "--unknown"),
        (&["--log", "a=b=c"], "--log"),
        (&["--log", "wibble"], "--log wibble: no such level"),
        (&["--bind", ""], "--bind"),
        (&["--bind", "nonsense"], "nonsense"),
    ] {
        let refused = run_to_end(folder.path(), arguments);
        assert!(!refused.status.success(), "{arguments:?}");
        assert!(refused.stderr.contains(expected), "{arguments:?}: {}", refused.stderr);
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn check_binds_nothing() {
    let folder = folder();
    let text = "[[plugin]]\nname = \"a\"\nlibrary = \"elbus_unix\"\nconfig = { path = \"a.sock\" }\n\
                [[plugin]]\nname = \"f\"\nlibrary = \"elbus_fifo\"\nconfig = { path = \"commands\" }\n\
                [[plugin]]\nname = \"t\"\nlibrary = \"elbus_tcp\"\nconfig = { bind = \"127.0.0.1:1\" }\n\
                [[plugin]]\nname = \"i\"\nlibrary = \"elbus_inproc\"\n";
    std::fs::write(folder.path().join("b.toml"), text).unwrap();
    let checked = run_to_end(folder.path(), &["--config", "b.toml", "--check"]);
    assert!(checked.status.success(), "{}", checked.stderr);
    assert_eq!(checked.stdout, "b.toml: ok\n");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

/// The samples in `config/` are right, and the full one documents every key that the standard plugins know.
#[test]
fn the_samples_are_right_and_complete() {
    let samples = concat!(env!("CARGO_MANIFEST_DIR"), "/../config");
    let folder = folder();
    let mut seen = 0;
    for entry in std::fs::read_dir(samples).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let checked = run_to_end(folder.path(), &["--check", "--config", &path.to_string_lossy()]);
            assert!(checked.status.success(), "{}", checked.stderr);
            seen += 1;
        }
    }
    assert!(seen >= 3);
    let full = std::fs::read_to_string(format!("{samples}/broker.toml")).unwrap();
    let known = |message: String| {
        let (_, list) = message.trim().split_once("known are ").unwrap_or_else(|| panic!("{message}"));
        list.split(", ").map(str::to_owned).collect::<Vec<_>>()
    };
    let mut keys = known(refused_config("[broker]\nunknown = 1"));
    for (plugin, required) in [
        ("unix", "path = \"a.sock\""),
        ("tcp", "bind = \"127.0.0.1:1\""),
        ("fifo", "path = \"f\""),
        ("inproc", ""),
        ("acl", ""),
    ] {
        let text = format!(
            "[[plugin]]\nname = \"x\"\nbuiltin = \"{plugin}\"\n[plugin.config]\n{required}\nunknown = 1"
        );
        keys.extend(known(refused_config(&text)));
    }
    for key in keys {
        let says = full.contains(&format!("{key} = ")) || full.contains(&format!("[plugin.config.{key}]"));
        assert!(says, "config/broker.toml says nothing of {key}");
    }
}
