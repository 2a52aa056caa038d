//! Help, completions, man pages, usage errors, and errors for missing brokers and for peers that are not
//! brokers.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use portable_pty::{CommandBuilder, PtySize, native_pty_system};
use std::{
    io::{Read, Write},
    os::unix::net::UnixListener,
    process::Command,
};
use support::Bus;

const COMMANDS: [&str; 30] = [
    "",
    "broker",
    "broker info",
    "broker stats",
    "broker test",
    "broker clients",
    "broker nodes",
    "broker reload",
    "client",
    "client info",
    "client kick",
    "plugin",
    "plugin list",
    "plugin start",
    "plugin stop",
    "plugin reload",
    "listen",
    "send",
    "publish",
    "rpc",
    "rpc call",
    "rpc call0",
    "rpc notify",
    "rpc listen",
    "top",
    "benchmark",
    "completions",
    "man",
    "help",
    "help rpc call",
];

#[test]
fn every_command_has_help() {
    let bus = Bus::without_broker();
    for command in COMMANDS {
        let mut arguments: Vec<_> = command.split_whitespace().collect();
        if arguments.first() != Some(&"help") {
            arguments.push("--help");
        }
        let help = bus.output(&arguments);
        assert!(help.contains("Usage: elbus"), "{command}: {help}");
        assert!(help.contains("--addr"), "{command}: {help}");
        assert!(!help.contains('\x1b'), "no colours in a pipe");
    }
    assert!(bus.output(&["--version"]).starts_with("elbus 0."));
}

#[test]
fn completions_for_each_shell() {
    let bus = Bus::without_broker();
    for (shell, sign) in
        [("bash", "complete -F _elbus"), ("zsh", "#compdef elbus"), ("fish", "complete -c elbus")]
    {
        let script = bus.output(&["completions", shell]);
        for word in [sign, "client", "rpc", "no-reconnect", "json-params"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    // bash accepts its script
    std::fs::write(bus.path("script"), bus.output(&["completions", "bash"])).unwrap();
    let mut bash = Command::new("bash");
    let complete = "COMP_WORDS=(elbus br) COMP_CWORD=1 && _elbus elbus br elbus && echo ${COMPREPLY[@]}";
    bash.args(["--norc", "-c", &format!("source ./script && {complete}")]);
    let output = bash.current_dir(bus.folder.path()).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "broker\n");
}

#[test]
fn man_pages_for_every_command() {
    let bus = Bus::without_broker();
    let page = bus.output(&["man"]);
    assert!(page.contains(".TH elbus 1") && page.contains("\\-\\-timeout"), "{page}");
    let ended = bus.run(&["man", "new/folder"]);
    assert_eq!((ended.code, ended.stderr.as_str()), (0, "man pages written to new/folder\n"));
    let folder = bus.path("new/folder");
    for command in COMMANDS.iter().filter(|command| !command.starts_with("help")) {
        let mut name = vec!["elbus"];
        name.extend(command.split_whitespace());
        let path = folder.join(format!("{}.1", name.join("-")));
        let page =
            std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(page.contains(".SH SYNOPSIS"), "{command}");
    }
    // a symbolic link is replaced; its target is not changed
    let (page, target) = (folder.join("elbus-send.1"), bus.path("target"));
    std::fs::write(&target, "precious").unwrap();
    std::fs::remove_file(&page).unwrap();
    std::os::unix::fs::symlink(&target, &page).unwrap();
    assert_eq!(bus.run(&["man", "new/folder"]).code, 0);
    assert!(page.symlink_metadata().unwrap().is_file());
    assert_eq!(std::fs::read_to_string(&target).unwrap(), "precious");
    std::fs::write(bus.path("file"), "").unwrap();
    assert!(
        bus.failure(2, &["man", "file/folder"])
            .starts_with("error: cannot write man pages to \"file/folder\"")
    );
}

#[test]
fn usage_errors_are_one_line_with_exit_code_2() {
    let bus = Bus::without_broker();
    for (arguments, text) in [
        (&["listen", "--nothing"][..], "error: unexpected argument '--nothing' found; see --help"),
        (&["lisen"], "error: unrecognized subcommand 'lisen'; tip: "),
        (&["send"], "error: the following required arguments were not provided: <TARGET>"),
        (&["send", "a", "@missing"], "error: cannot read \"missing\": No such file or directory"),
        (&["send", "a", "text", "--msgpack"], "error: the payload is not JSON"),
        (&["--addr", "nonsense", "broker", "test"], "error: invalid value 'nonsense' for '--addr <ADDR>'"),
        (
            &["-n", ".me", "broker", "test"],
            "error: invalid value '.me' for '--name <NAME>': name begins with a dot",
        ),
        (
            &["--timeout", "0", "broker", "test"],
            "error: invalid value '0' for '--timeout <SECONDS>': must be",
        ),
        (&["completions", "tcsh"], "error: invalid value 'tcsh' for '<SHELL>'"),
        (
            &["listen", "--raw", "--json"],
            "{\"error\":{\"message\":\"the argument '--raw' cannot be used with '--json'",
        ),
    ] {
        let failure = bus.failure(2, arguments);
        assert!(failure.starts_with(text), "{failure}");
    }
    let ended = bus.run(&[]);
    assert_eq!(ended.code, 2);
    assert!(
        ended.stderr.contains("Usage: elbus") && ended.stdout.is_empty(),
        "without a command the help is shown"
    );
    let mut command = bus.command(&["broker", "test"]);
    let output = command.env("ELBUS_ADDR", "nonsense").output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        stderr.starts_with("error: ELBUS_ADDR=nonsense: \"nonsense\" is not a broker address"),
        "{stderr}"
    );
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn the_error_for_a_missing_broker_names_address_and_remedy() {
    let bus = Bus::without_broker();
    let all = [
        &["broker", "info"][..],
        &["client", "kick", "x"],
        &["plugin", "list"],
        &["listen"],
        &["send", "a", "x"],
        &["publish", "a", "x"],
        &["rpc", "call", "a", "m"],
        &["rpc", "call0", "a", "m"],
        &["rpc", "notify", "a", "x"],
        &["rpc", "listen"],
    ];
    for arguments in all {
        assert_eq!(
            bus.failure(1, arguments),
            format!(
                "error: no broker at {} (No such file or directory (os error 2)): start elbusd, or set its address with \
                 --addr or ELBUS_ADDR",
                bus.address()
            )
        );
    }
    let failure = bus.failure(1, &["--addr", "127.0.0.1:1", "broker", "test"]);
    assert!(failure.starts_with("error: no broker at 127.0.0.1:1 (Connection refused"), "{failure}");
}

#[test]
fn the_default_sockets_are_tried_without_an_address() {
    let bus = Bus::without_broker();
    for (variable, value) in [("ELBUS_ADDR", None), ("ELBUS_ADDR", Some(""))] {
        let mut command = bus.command(&["broker", "test"]);
        match value {
            Some(value) => command.env(variable, value),
            None => command.env_remove(variable),
        };
        let output = command.env("XDG_RUNTIME_DIR", bus.folder.path()).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        let missing = "(No such file or directory (os error 2))";
        let expected = format!("error: no broker at {} {missing}, ", bus.path("elbus.sock").display());
        assert!(stderr.starts_with(&expected), "{stderr}");
        // all default sockets, in their order, each with its reason
        let sockets = ["/run/elbus/bus.sock (", "/run/elbus.sock (", "/tmp/elbus.sock ("];
        let found: Vec<_> = sockets.iter().map(|socket| stderr.find(socket)).collect();
        assert!(found.iter().all(Option::is_some) && found.is_sorted(), "{stderr}");
        assert!(
            stderr.ends_with("): start elbusd, or set its address with --addr or ELBUS_ADDR\n"),
            "{stderr}"
        );
    }
    // an existing socket is tried even if nothing listens, and no other is
    drop(UnixListener::bind(bus.path("elbus.sock")).unwrap());
    let mut command = bus.command(&["broker", "test"]);
    let output = command.env_remove("ELBUS_ADDR").env("XDG_RUNTIME_DIR", bus.folder.path()).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        stderr.contains("elbus.sock (Connection refused (os error 111)), /run/elbus/bus.sock ("),
        "{stderr}"
    );
}

#[test]
fn a_peer_that_is_not_a_broker_is_reported() {
    let bus = Bus::without_broker();
    let listener = UnixListener::bind(bus.address()).unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"220 mail ready\r\n").unwrap();
        _ = stream.read_to_end(&mut Vec::new());
        listener
    });
    let failure = bus.failure(1, &["broker", "test"]);
    assert!(failure.contains(" is not an ELBUS broker: it "), "{failure}");
    assert!(failure.ends_with("check --addr or ELBUS_ADDR"), "{failure}");

    // and a listener that sends nothing
    let _listener = server.join().unwrap();
    let failure = bus.failure(1, &["--timeout", "0.2", "broker", "test"]);
    assert!(failure.starts_with("error: timed out: connecting to "), "{failure}");
    assert!(failure.ends_with("set a longer --timeout"), "{failure}");
}

#[test]
fn a_taken_name_is_an_error() {
    let bus = Bus::start();
    let _owner = bus.client("taken");
    for arguments in [&["listen", "-n", "taken"][..], &["-n", "taken", "broker", "test"]] {
        assert_eq!(
            bus.failure(1, arguments),
            "error: name taken: another client is registered as \"taken\": choose another with --name, or omit --name"
        );
    }
    let failure = bus.failure(1, &["-n", "nobody%%1", "broker", "test"]);
    assert!(failure.contains("its primary client is not registered"), "{failure}");
}

/// Returns what `elbus` writes to a terminal.
fn in_terminal(bus: &Bus, arguments: &[&str], variables: &[(&str, &str)]) -> String {
    let pair = native_pty_system().openpty(PtySize::default()).unwrap();
    let mut command = CommandBuilder::new(env!("CARGO_BIN_EXE_elbus"));
    command.args(arguments);
    command.env_remove("NO_COLOR");
    command.env("ELBUS_ADDR", bus.address());
    variables.iter().for_each(|(name, value)| command.env(name, value));
    let mut reader = pair.master.try_clone_reader().unwrap();
    let mut child = pair.slave.spawn_command(command).unwrap();
    drop(pair.slave);
    let mut written = Vec::new();
    // ends with an error once no process has the terminal open
    _ = reader.read_to_end(&mut written);
    assert!(child.wait().unwrap().success());
    String::from_utf8(written).unwrap()
}

#[test]
fn colours_are_for_terminals_and_can_be_disabled() {
    let bus = Bus::start();
    let clients = ["broker", "clients"];
    assert!(in_terminal(&bus, &clients, &[]).contains("\x1b[1mNAME"));
    assert!(!in_terminal(&bus, &clients, &[("NO_COLOR", "1")]).contains('\x1b'));
    assert!(!in_terminal(&bus, &["--json", "broker", "clients"], &[]).contains('\x1b'));
    let pretty = in_terminal(&bus, &["rpc", "call", ".broker", "test"], &[]);
    assert_eq!(pretty, "{\r\n  \"ok\": true\r\n}\r\n");
}
