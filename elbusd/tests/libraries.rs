//! Plugin libraries, valid and invalid: invalid ones are refused with a precise error, and one that fails
//! later does not affect others.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::path::{Path, PathBuf};
use support::{
    daemon::{Daemon, folder, refused_config},
    wire::{Frame, Wire},
};

/// Returns the path where cargo has put a library that these tests depend on: beside their own executable.
fn built(name: &str) -> PathBuf {
    let executable = std::env::current_exe().unwrap();
    executable.parent().unwrap().join(format!("lib{name}.so"))
}

fn refused_library(path: &Path) -> String {
    let text = format!("[[plugin]]\nname = \"it\"\nlibrary = {:?}\n", path.display().to_string());
    let message = refused_config(&text);
    assert!(message.starts_with("elbusd: broker.toml:3: plugin \"it\": library = "), "{message}");
    assert!(message.lines().count() <= 2 && message.len() < 1000, "a few lines: {message}");
    message
}

#[test]
fn files_that_are_not_plugins_are_refused() {
    let folder = folder();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let good = std::fs::read(built("elbus_faulty")).unwrap();
    let libc = std::fs::read_to_string("/proc/self/maps").unwrap();
    let libc =
        libc.lines().filter_map(|line| line.split_whitespace().last()).find(|path| path.contains("libc.so"));
    let fifo = folder.path().join("fifo.so");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RUSR).unwrap();
    let mut other_machine = good.clone();
    other_machine[18] = 8;
    for (path, why) in [
        (folder.path().join("missing.so"), "No such file"),
        (file("empty.so", b""), "the file is empty"),
        (file("text.so", b"this is not a library\n"), "no ELF file"),
        (file("cut.so", &good[..good.len() / 2]), "cut off"),
        (file("head.so", &good[..100]), "cut off"),
        (file("machine.so", &other_machine), "another processor"),
        (libc.unwrap().into(), "not an ELBUS plugin"),
        (env!("CARGO_BIN_EXE_elbusd").into(), "a program"),
        (folder.path().to_owned(), "not a regular file"),
        (fifo, "not a regular file"),
    ] {
        let message = refused_library(&path);
        assert!(message.contains(why), "{}: {message}", path.display());
    }
    let unknown = refused_config("[[plugin]]\nname = \"it\"\nlibrary = \"elbus_nothing\"\n");
    assert!(unknown.contains("libelbus_nothing.so not found in "), "{unknown}");
    assert!(unknown.contains("plugin_dirs"), "{unknown}");
    // as after `cargo install`: a program without the libraries
    let folder = support::daemon::folder();
    let alone = folder.path().join("elbusd");
    std::fs::copy(env!("CARGO_BIN_EXE_elbusd"), &alone).unwrap();
    let text = "[[plugin]]\nname = \"it\"\nlibrary = \"elbus_unix\"\nconfig = { path = \"a.sock\" }\n";
    std::fs::write(folder.path().join("broker.toml"), text).unwrap();
    let output = std::process::Command::new(&alone)
        .args(["--config", "broker.toml"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(message.contains("it is linked into this program: builtin = \"unix\""), "{message}");
    // files beside an installed program are not its libraries
    let deps = folder.path().join("deps");
    std::fs::create_dir(&deps).unwrap();
    std::fs::copy(built("elbus_unix"), deps.join("libelbus_unix.so")).unwrap();
    let output = std::process::Command::new(&alone)
        .args(["--config", "broker.toml"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(message.contains("libelbus_unix.so not found in "), "{message}");
    let output = std::process::Command::new(&alone).arg("--check").output().unwrap();
    assert!(output.status.success(), "the default falls back to the linked-in plugin");
}

#[test]
fn truncated_libraries_are_refused() {
    let good = std::fs::read(built("elbus_faulty")).unwrap();
    let folder = folder();
    let path = folder.path().join("cut.so");
    let text = format!("[[plugin]]\nname = \"it\"\nlibrary = {:?}\n", path.display().to_string());
    std::fs::write(folder.path().join("broker.toml"), text).unwrap();
    for part in 1..20 {
        std::fs::write(&path, &good[..good.len() * part / 20]).unwrap();
        let refused = support::daemon::run_to_end(folder.path(), &["--config", "broker.toml", "--check"]);
        assert_eq!(refused.status.code(), Some(1), "{part}/20: {}", refused.stderr);
    }
    std::fs::write(&path, &good).unwrap();
    let fine = support::daemon::run_to_end(folder.path(), &["--config", "broker.toml", "--check"]);
    assert!(fine.status.success(), "{}", fine.stderr);
}

/// Returns the library with its manifest changed, of the same length.
fn with_record(from: &str, to: &str) -> (std::sync::Arc<tempfile::TempDir>, PathBuf) {
    let mut bytes = std::fs::read(built("elbus_faulty")).unwrap();
    assert_eq!(from.len(), to.len());
    let owner = bytes.windows(from.len()).position(|window| window == from.as_bytes());
    let at = owner.unwrap_or_else(|| panic!("{from:?} is not in the record"));
    bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    let folder = folder();
    let path = folder.path().join("changed.so");
    std::fs::write(&path, bytes).unwrap();
    (folder, path)
}

#[test]
fn libraries_of_other_builds_are_refused() {
    let api = elbus_plugin_api::manifest::API;
    let (_folder, path) = with_record(&format!("\napi={api}\n"), "\napi=9.9\n");
    let message = refused_library(&path);
    assert!(
        message.contains(&format!("was built for plugin API 9.9, this broker has {api}; update the broker"))
    );
    let (_folder, path) = with_record("\npanic=unwind\n", "\npanic=abort!\n");
    assert!(refused_library(&path).contains("a panic in it would end the broker"));
    let (_folder, path) =
        with_record("\nentry=elbus_plugin_elbus_faulty\n", "\nentry=elbus_plugin_elbus_faulti\n");
    assert!(refused_library(&path).contains("lacks the symbol elbus_plugin_elbus_faulti"));
    let message = refused_library(&built("elbus_foreign"));
    assert!(
        message.contains("its layout differs from this broker's (") && message.contains("rebuild it"),
        "{message}"
    );
    assert!(message.contains("create"), "the message names the difference: {message}");
}

#[test]
fn a_plugin_that_fails_to_start_ends_the_start() {
    for (config, line, why) in [
        ("fail_in = \"create\"", Some(5), "fail_in = \"create\": create fails as configured"),
        ("fail_in = \"start\"", None, "could not start: start fails as configured"),
        ("panic_in = \"create\"", None, "panic in create: create panics as configured, at "),
        ("panic_in = \"start\"", None, "panic in start: start panics as configured, at "),
        ("fail_in = 5", Some(5), "fail_in = 5: expected a string, found integer 5"),
        (
            "failin = \"x\"",
            Some(5),
            "failin = \"x\": unknown key; known are abort_in, client, clients, defers, fail_in, hang_in, intercepts, late, linger_in, local, loop_in, panic_in",
        ),
    ] {
        let text =
            format!("[[plugin]]\nname = \"it\"\nlibrary = \"elbus_faulty\"\n[plugin.config]\n{config}\n");
        let message = refused_config(&text);
        assert!(message.contains("plugin \"it\"") && message.contains(why), "{message}");
        if let Some(line) = line {
            assert!(message.contains(&format!("broker.toml:{line}: ")), "{message}");
        }
    }
}

const SOCKET: &str = "[[plugin]]\nname = \"local\"\nlibrary = \"elbus_unix\"\n[plugin.config]\npath = \"bus.sock\"\ntimeout_seconds = 600.0\n\
                      [[plugin]]\nname = \"rpc\"\nlibrary = \"elbus_rpc\"\n\
                      [[plugin]]\nname = \"announce\"\nlibrary = \"elbus_announce\"\n";

/// Returns the table of a plugin that stays failed; `recovery.rs` tests restarts.
fn faulty(name: &str, config: &str) -> String {
    format!(
        "[[plugin]]\nname = \"{name}\"\nlibrary = \"elbus_faulty\"\nrestart = \"never\"\n[plugin.config]\n{config}\n"
    )
}

fn state(client: &mut Wire, plugin: &str) -> String {
    let list = client.control("plugin.list", &[]).unwrap();
    let plugins = list.as_map().unwrap()[0].1.as_array().unwrap().clone();
    let field = |plugin: &rmpv::Value, key: &str| {
        let map = plugin.as_map().unwrap();
        map.iter().find(|(k, _)| k.as_str() == Some(key)).map(|(_, v)| v.clone()).unwrap()
    };
    let found = plugins.iter().find(|p| field(p, "name").as_str() == Some(plugin)).unwrap();
    format!("{} {}", field(found, "state").as_str().unwrap(), field(found, "why"))
}

#[test]
fn a_panic_in_a_callback_fails_only_its_instance() {
    for place in ["deliver", "flush", "method", "event"] {
        let text = [
            SOCKET,
            &faulty("bad", &format!("client = \"bad.client\"\npanic_in = \"{place}\"")),
            &faulty("good", "client = \"good.client\""),
        ];
        let daemon = Daemon::start_config(&text.concat());
        let mut client = daemon.client("a");
        match place {
            "method" => {
                let (_, why) = client.call(".broker", "bad.try", b"").unwrap_err();
                assert!(why.contains("method panics as configured"), "{why}");
            }
            "event" => drop(daemon.client("somebody")),
            _ => _ = client.send("bad.client", b"x"),
        }
        support::wait_until("the plugin has failed", || state(&mut client, "bad").starts_with("failed"));
        let why = state(&mut client, "bad");
        assert!(
            why.contains(&format!("{place} panics as configured, at elbusd/tests/plugins/faulty")),
            "{why}"
        );
        daemon.wait_for_log(&format!("{place} panics as configured"));
        support::wait_until("its clients are unregistered", || client.send("bad.client", b"x") == 0x71);
        // the other instance of the same library and all other clients continue
        assert_eq!(client.send("good.client", b"x"), 0x01);
        assert!(state(&mut client, "good").starts_with("started"));
        assert!(client.call(".broker", "good.try", b"").is_ok());
        assert_eq!(client.send("a", b"x"), 0x01);
        assert_eq!(client.frame().payload(), b"x");
        let (status, log) = daemon.stop();
        assert!(status.success(), "{log}");
    }
}

#[test]
fn a_plugin_that_hangs_or_panics_while_stopping_does_not_prevent_the_exit() {
    for config in ["hang_in = \"stop\"", "panic_in = \"stop\"", "panic_in = \"drop\""] {
        let daemon = Daemon::start_config(&[SOCKET, &faulty("bad", config)].concat());
        let folder = daemon.folder.clone();
        let (status, log) = daemon.stop();
        assert!(status.success(), "{config}: {log}");
        assert!(log.contains("bad"), "{config}: {log}");
        assert!(!folder.path().join("bus.sock").exists());
    }
}

#[test]
fn one_library_serves_two_instances() {
    let text = "[[plugin]]\nname = \"one\"\nlibrary = \"elbus_unix\"\nconfig = { path = \"one.sock\" }\n\
                [[plugin]]\nname = \"two\"\nlibrary = \"libelbus_unix.so\"\nconfig = { path = \"two.sock\" }\n";
    let daemon = Daemon::start_config(text);
    assert_eq!(daemon.addresses(), ["unix:one.sock", "unix:two.sock"]);
    let mut one = Wire::connect(&daemon, "unix:one.sock", "one");
    let mut two = Wire::connect(&daemon, "unix:two.sock", "two");
    assert_eq!(one.send("two", b"across"), 0x01);
    assert_eq!(two.frame().payload(), b"across");
}

#[test]
fn a_third_party_plugin_is_loaded_from_a_plugin_folder() {
    let folder = folder();
    let plugins = folder.path().join("plugins");
    std::fs::create_dir(&plugins).unwrap();
    std::fs::copy(built("last_value"), plugins.join("liblast_value.so")).unwrap();
    let own = "[broker]\nplugin_dirs = [\"plugins\"]\n[[plugin]]\nname = \"last\"\nlibrary = \"last_value\"\n\
               restart = \"never\"\n[plugin.config]\nfilters = [\"sensors/#\"]\n";
    std::fs::write(folder.path().join("broker.toml"), [own, SOCKET].concat()).unwrap();
    let daemon = Daemon::start_in(folder.clone(), &["--config", "broker.toml"]);
    let mut client = daemon.client("a");
    let topic: &[_] = &[("topic", "sensors/t")];
    let last = |client: &mut Wire| {
        let answer = client.control("last.get", topic).unwrap();
        support::field(&answer, "payload").as_str().map(str::to_owned)
    };
    assert_eq!(client.control("last.get", topic).unwrap_err().0, -32001);
    assert_eq!(client.acked(elbus_protocol::Op::Publish, "sensors/t", b"21.5"), 0x01);
    assert_eq!(last(&mut client).as_deref(), Some("21.5"));

    // overwriting a loaded file has no effect, and a reload of an invalid file is refused
    std::fs::write(plugins.join("liblast_value.so"), b"nonsense").unwrap();
    assert_eq!(last(&mut client).as_deref(), Some("21.5"));
    let (_, why) = client.control("plugin.reload", &[("name", "last")]).unwrap_err();
    assert!(why.contains("no ELF file"), "{why}");
    assert!(state(&mut client, "last").starts_with("started"));
    let whole = std::fs::read(built("last_value")).unwrap();
    std::fs::write(plugins.join("liblast_value.so"), &whole[..whole.len() / 2]).unwrap();
    let (_, why) = client.control("plugin.reload", &[("name", "last")]).unwrap_err();
    assert!(why.contains("cut off"), "{why}");
    assert_eq!(last(&mut client).as_deref(), Some("21.5"), "the previous instance continues");
    std::fs::copy(built("last_value"), plugins.join("liblast_value.so")).unwrap();
    client.control("plugin.reload", &[("name", "last")]).unwrap();
    assert_eq!(client.control("last.get", topic).unwrap_err().0, -32001, "the new instance has no value");
}

#[test]
fn a_reload_replaces_the_instance() {
    let daemon = Daemon::start_config(&[SOCKET, &faulty("it", "client = \"it.client\"")].concat());
    let mut client = daemon.client("a");
    client.control("plugin.reload", &[("name", "it")]).unwrap();
    assert_eq!(client.send("it.client", b"x"), 0x01);
    client.control("plugin.stop", &[("name", "it")]).unwrap();
    client.control("plugin.reload", &[("name", "it")]).unwrap();
    assert_eq!(client.send("it.client", b"x"), 0x01, "a stopped plugin starts");
    let listed = support::plugin(&mut client, "it").unwrap();
    let path = support::field(&listed, "path").as_str().unwrap().to_owned();
    assert_eq!(Path::new(&path), built("elbus_faulty"), "{listed}");
    assert!(support::field(&listed, "loaded_seconds").is_u64(), "{listed}");
    let build = support::field(&listed, "build").as_str().unwrap();
    assert!(build.bytes().all(|byte| byte.is_ascii_hexdigit()), "{listed}");
    client.control("plugin.reload", &[("name", "rpc")]).unwrap();
    let (_, why) = client.control("plugin.reload", &[("name", "nothing")]).unwrap_err();
    assert!(why.contains("no plugin \"nothing\""), "{why}");
}

#[test]
fn a_library_that_ends_its_process_is_refused_before_the_broker_loads_it() {
    let message = refused_config(&[SOCKET, &faulty("it", "abort_in = \"create\"")].concat());
    let why = "creating an instance of it ended the probe process by signal 6 (SIGABRT)";
    assert!(message.contains("plugin \"it\": library = ") && message.contains(why), "{message}");
}

#[test]
fn files_that_other_users_can_change_are_not_loaded_as_root() {
    use std::os::unix::fs::PermissionsExt;
    let folder = folder();
    let path = folder.path().join("libit.so");
    std::fs::copy(built("elbus_faulty"), &path).unwrap();
    let text = |broker: &str| format!("{broker}[[plugin]]\nname = \"it\"\nlibrary = \"./libit.so\"\n");
    let check = |text: String| {
        std::fs::write(folder.path().join("broker.toml"), text).unwrap();
        support::daemon::run_to_end(folder.path(), &["--config", "broker.toml", "--check"])
    };
    let mode = |mode: u32| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    mode(0o755);
    let fine = check(text(""));
    assert!(fine.status.success() && !fine.stderr.contains("other users"), "{}", fine.stderr);
    mode(0o666);
    let is_root = rustix::process::geteuid().is_root();
    let found = check(text(""));
    let why = "writable by everybody (mode 0666)";
    assert!(found.status.success() != is_root && found.stderr.contains(why), "{}", found.stderr);
    let allowed = check(text("broker.allow_untrusted_plugin_files = true\n"));
    let warned = "plugin file can be changed by other users";
    assert!(allowed.status.success() && allowed.stderr.contains(warned), "{}", allowed.stderr);
    if is_root {
        mode(0o755);
        std::os::unix::fs::chown(&path, Some(65534), None).unwrap();
        let found = check(text(""));
        assert!(
            !found.status.success() && found.stderr.contains("belongs to user 65534"),
            "{}",
            found.stderr
        );
        std::os::unix::fs::chown(&path, Some(0), None).unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let found = check(text(""));
        assert!(
            !found.status.success() && found.stderr.contains("its folder is writable"),
            "{}",
            found.stderr
        );
    }
}

#[test]
fn a_panic_in_a_thread_of_a_plugin_names_it() {
    let text =
        [SOCKET, &faulty("it", "panic_in = \"task\""), &faulty("other", "panic_in = \"method\"")].concat();
    let folder = folder();
    std::fs::write(folder.path().join("broker.toml"), text).unwrap();
    let mut command = support::daemon::through_shell(
        folder.path(),
        "RUST_BACKTRACE=1 exec \"$@\"",
        &["--config", "broker.toml"],
    );
    command.env_remove("RUST_BACKTRACE");
    let daemon = Daemon::start_command(folder, command, true);
    let mut client = daemon.client("a");
    client.call(".broker", "it.try", b"").unwrap();
    // no instance is named, since it could be either of two
    daemon.wait_for_log("panic outside a callback: panicked at elbusd/tests/plugins/faulty/src/lib.rs");
    daemon.wait_for_log("thread=of its own library=\"elbus_faulty\"");
    daemon.wait_for_log("backtrace: ");
    client.control("plugin.stop", &[("name", "other")]).unwrap();
    client.call(".broker", "it.try", b"").unwrap();
    daemon.wait_for_log("library=\"elbus_faulty\" plugin=\"it\"");
    client.control("plugin.start", &[("name", "other")]).unwrap();
    client.call(".broker", "other.try", b"").unwrap_err();
    daemon.wait_for_log("plugin=\"other\"");
}

#[test]
fn a_fatal_signal_names_the_library() {
    let daemon = Daemon::start_config(&[SOCKET, &faulty("it", "abort_in = \"method\"")].concat());
    let mut client = daemon.client("a");
    let call = elbus_protocol::rpc::encode_request(1, "it.try", b"").unwrap();
    client.request(elbus_protocol::Op::Message, elbus_protocol::Qos::NO, ".broker", "", &call);
    let (status, log) = daemon.wait_end();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(6), "{log}");
    let line = log.lines().find(|line| line.starts_with("fatal signal SIGABRT ")).unwrap_or_default();
    assert!(line.contains("elbus-faulty 0.") && line.contains("libelbus_faulty.so) offset=0x"), "{log}");
    let daemon = Daemon::start_config(SOCKET);
    daemon.signal(rustix::process::Signal::SEGV);
    let (status, log) = daemon.wait_end();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(11), "{log}");
    assert!(log.contains("fatal signal SIGSEGV outside the plugin libraries"), "{log}");
}

#[test]
fn log_lines_of_plugins_obey_the_filter_of_the_broker() {
    for (filter, seen) in [("info", true), ("warn", false), ("info,elbus_faulty=off", false)] {
        let folder = folder();
        let text = [SOCKET, &faulty("f", "client = \"f\"")].concat();
        std::fs::write(folder.path().join("broker.toml"), text).unwrap();
        let daemon = Daemon::start_in(folder, &["--config", "broker.toml", "--log", filter]);
        let mut client = daemon.client("a");
        assert_eq!(client.send("a", b"x"), 0x01);
        assert!(matches!(client.frame(), Frame::Data(..)));
        let (_, log) = daemon.stop();
        let line = "INFO elbus_faulty: faulty started instance=\"f\"";
        assert_eq!(log.contains(line), seen, "{filter}: {log}");
    }
}
