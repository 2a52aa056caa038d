//! What tables are read, and which errors name key, value and limit.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
};

fn key_file(folder: &Path, text: &str) -> String {
    let path = folder.join("key");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    path.to_str().unwrap().to_owned()
}

fn read(text: &str) -> Result<Settings, PluginError> {
    let folder = tempfile::tempdir().unwrap();
    let key = key_file(folder.path(), "0123456789abcdef\n");
    let mut all = String::new();
    let has = |key: &str| text.lines().any(|line| line.starts_with(&format!("{key} =")));
    for (name, value) in [
        ("servers", "['nats://127.0.0.1:4222']"),
        ("bus", "'plant'"),
        ("node", "'mill'"),
        ("key_file", &format!("'{key}'")),
    ] {
        if !has(name) {
            all.push_str(&format!("{name} = {value}\n"));
        }
    }
    Settings::read(&Config::parse(&(all + text)).unwrap())
}

#[test]
fn a_mirrored_topic_is_subscribed_to_by_few_subjects() {
    let settings = read("mirror = ['a/b', 'a/+', 'c/+/1', 'c/2/+', 'a/#', 'a/#', 'd']").unwrap();
    let subjects = settings.mirrored_subjects();
    assert_eq!(
        subjects.iter().map(|subject| subject.as_str()).collect::<Vec<_>>(),
        ["c.*.1", "c.2.*", "a.>", "d"]
    );
}

#[test]
fn nothing_is_exported_or_imported_by_default() {
    let settings = read("").unwrap();
    assert!(!settings.bridge.exports.has_name("plant.pump") && !settings.bridge.exports.has_topic("a"));
    assert_eq!(settings.bridge.imports.local_name("press", "plant.pump"), None);
    assert!(settings.mirror.is_empty());
    assert_eq!(settings.bridge.limits, Limits { node_window: 64 << 20, ..Limits::default() });
}

#[test]
fn exports_imports_and_aliases_are_read() {
    let settings = read(
        "export = { names = ['plant.*'], topics = ['sensors/#'] }\n\
         import = { names = ['@press.*', '@saw.plant.pump as plant.saw'], topics = ['#'] }\n\
         mirror = ['sensors/+']",
    )
    .unwrap();
    assert!(settings.bridge.exports.has_name("plant.pump") && settings.bridge.exports.has_topic("sensors/a"));
    let local = |node: &str, name: &str| settings.bridge.imports.local_name(node, name);
    assert_eq!(local("press", "x").as_deref(), Some("@press.x"));
    assert_eq!(local("saw", "plant.pump").as_deref(), Some("plant.saw"));
    assert_eq!(local("saw", "x"), None);
    assert_eq!(settings.mirror, ["sensors/+"]);
}

#[test]
fn errors_name_key_value_and_limit() {
    let many = format!("mirror = [{}]", "'a',".repeat(1001));
    for (text, message) in [
        ("servers = []", "servers: expected at least one address, such as \"nats://10.0.0.1:4222\""),
        ("servers = ['ws://a:1']", "servers[0]: \"ws://a:1\": expected nats://HOST:PORT or tls://HOST:PORT"),
        ("servers = ['nats://a:b@c:1']", "servers[0]: \"nats://a:b@c:1\": a password in an address would be"),
        ("bus = 'a.b'", "bus: invalid name \"a.b\": expected 1 to 64 letters, digits, \"-\" or \"_\""),
        ("node = ''", "node: invalid name \"\": expected 1 to 64 letters"),
        ("key_file = '/nowhere/key'", "key_file: cannot read \"/nowhere/key\": No such file"),
        ("export = { names = ['@mill.*'] }", "export.names: \"@mill.*\": clients of other nodes are not"),
        ("export = { topic = [] }", "export.topic: unknown field `topic`"),
        (
            "import = { names = ['mill.*'] }",
            "import.names: \"mill.*\" matches no client of another node: write",
        ),
        ("import = { names = ['@mill.* as a'] }", "import.names: invalid alias \"@mill.* as a\": expected"),
        (
            "import = { topics = ['$latest/a'] }",
            "import.topics: \"$latest/a\" begins with options: write the",
        ),
        ("export = { topics = [''] }", "export.topics: \"\" is empty"),
        (
            "mirror = ['.broker/info']",
            "mirror: \".broker/info\" names topics of the broker, which stay local",
        ),
        ("max_nodes = 0", "max_nodes: 0 is not between 1 and 1000"),
        ("max_message_bytes = 1", "max_message_bytes: 1 is not between 1024 and 1073741824"),
        ("node_bytes = 1", "node_bytes: 1 is not between 1048576 and 1073741824"),
        ("receiver_bytes = 1", "receiver_bytes: 1 is not between 65536 and 268435456"),
        ("user = 'a'", "user: user and password_file belong together"),
        ("user = 'a'\npassword_file = '/nowhere'", "password_file: cannot read \"/nowhere\": No such file"),
        ("token_file = 'a'\ncredentials = 'b'", "credentials: a server takes one of credentials, user and"),
        ("tls = { ca = '/nowhere' }", "tls.ca: cannot read \"/nowhere\": No such file"),
        ("tls = { certificate = 'a' }", "tls: certificate and key belong together"),
        (&many, "mirror: 1001 entries; the limit is 1000"),
    ] {
        let error = read(text).unwrap_err().to_string();
        assert!(error.starts_with(message), "{text}: {error}");
    }
}

#[test]
fn a_key_is_long_enough_and_secret() {
    let folder = tempfile::tempdir().unwrap();
    let path = key_file(folder.path(), "short\n");
    let error = read(&format!("key_file = '{path}'")).unwrap_err().to_string();
    assert!(error.ends_with("the key has 5 bytes: expected 16 to 4096"), "{error}");
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    let error = read(&format!("key_file = '{path}'")).unwrap_err().to_string();
    assert!(error.ends_with("(mode 0644); set mode 0600"), "{error}");
}
