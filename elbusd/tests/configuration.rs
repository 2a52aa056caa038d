//! broker.toml and the command line: errors name file, line, key and value, and what is expected.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use rustix::{fs::Mode, process::Signal};
use support::{
    daemon::{Daemon, folder, refused_config, run_to_end, through_shell},
    field, plugin,
    wire::Wire,
};

#[test]
fn errors_in_the_file_name_line_and_remedy() {
    for (text, expected) in [
        ("[broker\nname = 1", "broker.toml:1: "),
        ("[broker]\nnmae = \"x\"", "broker.toml:2: [broker]: nmae = \"x\": unknown key; known are "),
        (
            "[broker]\ncpu_latency_us = 2000000",
            "broker.toml:2: [broker]: cpu_latency_us = 2000000: 2000000 is not at most 1000000",
        ),
        (
            "[broker]\nname = 5",
            "broker.toml:2: [broker]: name = 5: expected a string, found integer 5; write it in quotes: \"5\"",
        ),
        (
            "[[plugin]]\nname = \"a\"\nlibrary = \"elbus_unix\"\nconfig = { path = \"a.sock\" }\n\
             [[plugin]]\nname = \"a\"\nlibrary = \"elbus_rpc\"",
            "broker.toml:6: plugin \"a\": name = \"a\": another plugin already has this name; names are unique",
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
            "broker.toml:6: plugin \"a\": queue_bytes = \"many\": expected a whole number of 0 or more, found string \"many\"",
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
fn a_missing_file_and_invalid_arguments_are_errors() {
    let folder = folder();
    let refused = run_to_end(folder.path(), &["--config", "nothing.toml"]);
    assert!(!refused.status.success());
    assert!(refused.stderr.contains("nothing.toml: cannot be read: No such file"), "{}", refused.stderr);
    rustix::fs::mkfifoat(rustix::fs::CWD, folder.path().join("fifo"), Mode::RUSR).unwrap();
    for (path, kind) in [("/dev/zero", "device"), ("fifo", "pipe"), (".", "directory")] {
        for arguments in [&["--config", path][..], &["--config", path, "--check"]] {
            let refused = run_to_end(folder.path(), arguments);
            let expected = format!("{path}: cannot be read: it is a {kind}, must be a regular file");
            assert!(!refused.status.success() && refused.stderr.contains(&expected), "{}", refused.stderr);
        }
    }
    std::fs::remove_file(folder.path().join("fifo")).unwrap();
    std::fs::File::create(folder.path().join("long")).unwrap().set_len(1 << 40).unwrap();
    let refused = run_to_end(folder.path(), &["--config", "long", "--check"]);
    assert!(refused.stderr.contains("long: exceeds 16777216 bytes"), "{}", refused.stderr);
    std::fs::remove_file(folder.path().join("long")).unwrap();
    for (arguments, expected) in [
        (&["--workers", "0"][..], "--workers"),
        (&["--timeout", "soon"], "--timeout"),
        (&["--config", "x", "--queue-bytes", "100000"], "--queue-bytes"),
        (&["--unknown"], "--unknown"),
        (&["--log", "a=b=c"], "--log"),
        (&["--log", "wibble"], "invalid log level \"wibble\" in --log: expected off, "),
        (&["--bind", ""], "--bind"),
        (&["--bind", "nonsense"], "nonsense"),
        (&["--bind", "unix:@bus"], "sockets without a file (abstract ones) are not supported"),
        (&["--bind", "@bus"], "sockets without a file (abstract ones) are not supported"),
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

/// The samples in `config/` are valid, and the full one documents every key of the standard plugins.
#[test]
fn the_sample_files_are_valid_and_complete() {
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
        ("validate", "rule = [{ filters = [\"a\"], format = \"json\" }]"),
    ] {
        let text = format!(
            "[[plugin]]\nname = \"x\"\nbuiltin = \"{plugin}\"\n[plugin.config]\n{required}\nunknown = 1"
        );
        keys.extend(known(refused_config(&text)));
    }
    for key in keys {
        let documented =
            full.contains(&format!("{key} = ")) || full.contains(&format!("[plugin.config.{key}]"));
        assert!(documented, "config/broker.toml does not document {key}");
    }
}

#[test]
fn check_reports_all_errors_at_once() {
    let folder = folder();
    let text = "[broker]\nplugin_dirs = [\"nowhere\"]\nnmae = \"x\"\nmax_filters = 0\n\
        [[plugin]]\nname = \"a\"\nbuiltin = \"unix\"\n[plugin.config]\npath = \"missing/a.sock\"\n\
        group = \"no-such-group\"\nmode = 660\nqueue_bytes = -1\npaht = 1\n\
        [[plugin]]\nname = \"b\"\nlibrary = \"elbus_unix\"\n[plugin.config]\npath = \"./b.sock\"\n\
        [[plugin]]\nname = \"c\"\nbuiltin = \"unix\"\n[plugin.config]\npath = \"b.sock\"\n\
        [[plugin]]\nname = \"t\"\nbuiltin = \"tcp\"\n[plugin.config]\nbind = [\"127.0.0.1:7777\", \"0.0.0.0:7777\"]\n\
        [[plugin]]\nname = \"r\"\nlibrary = \"elbus_nothing\"\n\
        [[plugin]]\nname = \"r\"\nbuiltin = \"rpc\"\n\
        [[plugin]]\nname = \"m\"\nlibrary = \"elbus_unix\"\n[plugin.config]\npaht = \"m.sock\"\nqueue_bytes = -1\nqueu = 1\n\
        [[plugin]]\nnmae = \"n\"\nlibrary = 8\n";
    std::fs::write(folder.path().join("b.toml"), text).unwrap();
    let checked = run_to_end(folder.path(), &["--config", "b.toml", "--check"]);
    assert_eq!(checked.status.code(), Some(1));
    for (line, expected) in [
        (2, "[broker]: plugin_dirs[0] = \"nowhere\": folder nowhere does not exist"),
        (3, "[broker]: nmae = \"x\": unknown key; known are "),
        (4, "[broker]: max_filters = 0: 0 is not at least 1"),
        (9, "plugin \"a\": path = \"missing/a.sock\": folder "),
        (10, "plugin \"a\": group = \"no-such-group\": no group \"no-such-group\" in /etc/group"),
        (11, "plugin \"a\": mode = 660: expected a string, found integer 660; write it in quotes: \"660\""),
        (12, "plugin \"a\": queue_bytes = -1: expected a whole number of 0 or more, found integer -1"),
        (13, "plugin \"a\": paht = 1: unknown key; known are "),
        (23, "plugin \"c\": path = \"b.sock\": plugin \"b\" uses it as well"),
        (28, "plugin \"t\": bind[1] = \"0.0.0.0:7777\": plugin \"t\" uses it as well"),
        (31, "plugin \"r\": library = \"elbus_nothing\": libelbus_nothing.so not found"),
        (33, "plugin \"r\": name = \"r\": another plugin already has this name; names are unique"),
        (39, "plugin \"m\": paht = \"m.sock\": unknown key; did you mean path?"),
        (40, "plugin \"m\": queue_bytes = -1: expected a whole number of 0 or more, found integer -1"),
        (41, "plugin \"m\": queu = 1: unknown key; known are "),
        (43, "plugin \"?\": nmae = \"n\": unknown key; did you mean name?"),
        (44, "plugin \"?\": library = 8: expected a string, found integer 8"),
    ] {
        let expected = format!("elbusd: b.toml:{line}: {expected}");
        let found = checked.stderr.lines().filter(|line| line.starts_with(&expected)).count();
        assert_eq!(found, 1, "{expected}\n{}", checked.stderr);
    }
    assert_eq!(checked.stderr.lines().count(), 17, "{}", checked.stderr);
    for (text, expected) in [
        ("", "b.toml: the file declares no plugin"),
        ("# nothing\n[broker]\nname = \"x\"\n", "b.toml: the file declares no plugin"),
        (
            "[[plugin]]\nname = \"a\"\nmode = 0660",
            "b.toml:3: a number cannot begin with 0; write permissions",
        ),
        ("[plugin]\nname = \"a\"", "must be a list of tables: write [[plugin]] with two brackets"),
    ] {
        std::fs::write(folder.path().join("b.toml"), text).unwrap();
        let checked = run_to_end(folder.path(), &["--config", "b.toml", "--check"]);
        assert!(!checked.status.success() && checked.stderr.contains(expected), "{text}: {}", checked.stderr);
        assert_eq!(checked.stderr.lines().count(), 1, "{}", checked.stderr);
    }
    // all errors of one table, at any depth, with their lines in the file
    let text = "[[plugin]]\nname = \"rules\"\nbuiltin = \"acl\"\n[plugin.config]\ndefualt = \"deny\"\n\
        [[plugin.config.client]]\nname = \"plc*\"\n\
        [[plugin.config.client]]\nname = \"a\"\nwho = [{ user = \"no such\" }, { address = \"10.0/8\" }]\n\
        sned = []\nsend = [\n\"b\",\n\"allow x.{nme}\",\n\"deny c.#\",\n]\nlimits = { max_clients = 0, client = 1 }\n\
        [[plugin.config.client]]\nsend = 5\npublish = []\n";
    std::fs::write(folder.path().join("b.toml"), text).unwrap();
    let checked = run_to_end(folder.path(), &["--config", "b.toml", "--check"]);
    for (line, expected) in [
        (5, "defualt = \"deny\": unknown key; known are client, default"),
        (7, "client[0].name = \"plc*\": \"*\" in \"plc*\" is not a wildcard"),
        (10, "client[1].who[0].user = \"no such\": no user \"no such\" in /etc/passwd"),
        (10, "client[1].who[1].address = \"10.0/8\": \"10.0/8\" is not an address"),
        (11, "client[1].sned = []: unknown field `sned`"),
        (13, "client[1].send[0] = \"b\": \"b\" is not a rule; expected \"allow PATTERN\""),
        (14, "client[1].send[1] = \"allow x.{nme}\": "),
        (15, "client[1].send[2] = \"deny c.#\": \"#\" in \"c.#\" is not a wildcard"),
        (17, "client[1].limits.max_clients = 0: 0 is not at least 1"),
        (17, "client[1].limits.client = 1: unknown field `client`"),
        (18, "client[2]: missing key `name`"),
        (19, "client[2].send = 5: expected a list, [...]"),
    ] {
        let expected = format!("elbusd: b.toml:{line}: plugin \"rules\": {expected}");
        let found = checked.stderr.lines().filter(|line| line.starts_with(&expected)).count();
        assert_eq!(found, 1, "{expected}\n{}", checked.stderr);
    }
    assert_eq!(checked.stderr.lines().count(), 12, "{}", checked.stderr);
    // the service manager creates folders below /run
    let text = "[[plugin]]\nname = \"a\"\nbuiltin = \"unix\"\n[plugin.config]\npath = \"/run/no-such-folder/a.sock\"\n";
    std::fs::write(folder.path().join("b.toml"), text).unwrap();
    let checked = run_to_end(folder.path(), &["--config", "b.toml", "--check"]);
    assert!(checked.status.success() && checked.stderr.contains("does not exist yet"), "{}", checked.stderr);
}

#[test]
fn check_reports_changed_defaults() {
    let folder = folder();
    let plugin = "[[plugin]]\nname = \"a\"\nbuiltin = \"tcp\"\n[plugin.config]\nbind = \"127.0.0.1:1\"\n";
    let check = |broker: &str, more: &str| {
        std::fs::write(folder.path().join("b.toml"), format!("[broker]\n{broker}{plugin}{more}")).unwrap();
        let checked = run_to_end(folder.path(), &["--config", "b.toml", "--check"]);
        assert!(checked.status.success(), "{}", checked.stderr);
        checked.stderr
    };
    let all = check("", "");
    for key in [
        "hold_budget_seconds = 8",
        "max_name_bytes = 1024",
        "max_topic_bytes = 65535",
        "max_filters = 100000",
    ] {
        assert!(all.contains(key), "{key}: {all}");
    }
    let some = check("may_hold = [\"plc.*\"]\nmax_name_bytes = 65535\n", "");
    assert!(
        some.contains("max_topic_bytes = ") && !some.contains("hold_budget") && !some.contains("max_name"),
        "{some}"
    );
    let set = "hold_budget_seconds = 8\nmax_name_bytes = 1024\nmax_topic_bytes = 65535\nmax_filters = 5\n\
               filter_memory_bytes = 1000000\ntotal_filter_memory_bytes = 1000000\nmax_complex_segments = 16384\n";
    assert_eq!(check(set, ""), "");
    assert!(check("max_filters = 1000000\n", "").contains("may be reached before max_filters"));
    let clients = check(set, "max_clients = 10\n");
    assert!(clients.contains("at most half of max_clients") && clients.contains("b.toml:14"), "{clients}");
}

#[test]
fn check_reports_missing_dependencies_of_plugins() {
    let server = "[[plugin]]\nname = \"server\"\nlibrary = \"elbus_serving\"\n";
    let expected = "elbusd: b.toml:1: plugin \"server\" requires the plugin elbus-inproc, which is not declared; add a \
                    [[plugin]] with library = \"elbus_inproc\" or, linked into this program, builtin = \"inproc\"\n";
    let folder = folder();
    std::fs::write(folder.path().join("b.toml"), server).unwrap();
    for check in [&["--config", "b.toml", "--check"][..], &["--config", "b.toml"]] {
        let refused = run_to_end(folder.path(), check);
        assert_eq!((refused.status.code(), &*refused.stderr), (Some(1), expected));
    }
    for code in ["library = \"elbus_inproc\"", "builtin = \"inproc\""] {
        let text = format!("[[plugin]]\nname = \"clients\"\n{code}\n{server}");
        std::fs::write(folder.path().join("b.toml"), text).unwrap();
        let checked = run_to_end(folder.path(), &["--config", "b.toml", "--check"]);
        assert!(checked.status.success(), "{}", checked.stderr);
    }
    // a reload that removes a dependency changes nothing
    let transport =
        "[[plugin]]\nname = \"local\"\nbuiltin = \"unix\"\n[plugin.config]\npath = \"bus.sock\"\n";
    let text = format!("[broker]\nreload_settle_seconds = 0.0\n{transport}");
    let inproc = "[[plugin]]\nname = \"clients\"\nbuiltin = \"inproc\"\n";
    let daemon = Daemon::start_config(&format!("{text}{inproc}{server}"));
    std::fs::write(daemon.path("broker.toml"), format!("{text}{server}")).unwrap();
    daemon.signal(Signal::HUP);
    daemon.wait_for_log(
        "reload failed error=broker.toml:8: plugin \"server\" requires the plugin elbus-inproc",
    );
    assert_eq!(
        daemon.client("a").send("server", b"x"),
        0x01,
        "the plugin and its client are still registered"
    );
}

#[test]
fn a_library_that_requires_more_than_before_is_not_reloaded() {
    let home = folder();
    let executable = std::env::current_exe().unwrap();
    let library = home.path().join("libit.so");
    let copy = |name: &str| {
        std::fs::remove_file(&library).ok();
        std::fs::copy(executable.parent().unwrap().join(name), &library).unwrap();
    };
    copy("libelbus_faulty.so");
    let text = "[[plugin]]\nname = \"local\"\nbuiltin = \"unix\"\nconfig = { path = \"bus.sock\" }\n\
                [[plugin]]\nname = \"rpc\"\nbuiltin = \"rpc\"\n\
                [[plugin]]\nname = \"it\"\nlibrary = \"./libit.so\"\nrestart = \"never\"\n";
    std::fs::write(home.path().join("broker.toml"), text).unwrap();
    let daemon = Daemon::start_in(home, &["--config", "broker.toml"]);
    let mut client = daemon.client("operator");
    let state =
        |client: &mut Wire| field(&plugin(client, "it").unwrap(), "state").as_str().unwrap().to_owned();
    copy("libelbus_serving.so");
    let (_, refused) = client.control("plugin.reload", &[("name", "it")]).unwrap_err();
    assert!(refused.contains("plugin \"it\" requires the plugin elbus-inproc"), "{refused}");
    assert_eq!(state(&mut client), "started", "the instance of the previous build continues");
    client.control("plugin.stop", &[("name", "it")]).unwrap();
    let (_, refused) = client.control("plugin.start", &[("name", "it")]).unwrap_err();
    assert!(refused.contains("plugin \"it\" requires the plugin elbus-inproc"), "{refused}");
    assert_eq!(state(&mut client), "failed");
    copy("libelbus_faulty.so");
    client.control("plugin.start", &[("name", "it")]).unwrap();
    assert_eq!(state(&mut client), "started");
}

#[test]
fn an_invalid_rust_log_does_not_prevent_the_start() {
    for (level, warned) in [("", false), ("wibble", true), ("a=b=c", true), ("debug", false)] {
        let folder = folder();
        let mut command = through_shell(folder.path(), "exec \"$@\"", &["--bind", "unix:bus"]);
        command.env("RUST_LOG", level);
        let daemon = Daemon::start_command(folder, command, true);
        drop(daemon.client("a"));
        let (status, log) = daemon.stop();
        assert!(status.success());
        assert_eq!(log.contains("RUST_LOG is ignored default=\"info\" error=invalid log "), warned, "{log}");
        assert!(log.contains("shutting down"), "{log}");
    }
}

/// The command line accepts the address that the broker prints as a hint.
#[test]
fn the_hint_names_a_usable_address() {
    let folder = folder();
    for (bind, hint) in
        [("unix:bus", "unix:bus"), ("unix:./b.sock", "./b.sock"), ("unix:it's", "unix:it'\\''s")]
    {
        let mut command = through_shell(folder.path(), "exec \"$@\"", &["--bind", bind]);
        let mut child = command.spawn().unwrap();
        let lines = std::io::BufReader::new(child.stdout.take().unwrap());
        let expected = format!("  elbus --addr '{hint}' listen -t '#'");
        let found = std::io::BufRead::lines(lines).map_while(Result::ok).any(|line| line == expected);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(found, "{expected}");
        assert!(matches!(hint.replace("'\\''", "'").parse(), Ok(elbus_client::Address::Unix(_))));
    }
}
