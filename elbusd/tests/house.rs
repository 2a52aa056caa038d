//! The rules of the house: which crate may know which, where unsafe code may be, and that every file says what it is.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should not")]

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn manifest(folder: &Path) -> toml::Table {
    std::fs::read_to_string(folder.join("Cargo.toml")).unwrap().parse().unwrap()
}

/// Our own crates that a crate depends on, tests left aside.
fn ours(folder: &Path) -> Vec<String> {
    let manifest = manifest(folder);
    let dependencies = manifest.get("dependencies").and_then(|d| d.as_table()).cloned().unwrap_or_default();
    dependencies.keys().filter(|name| name.starts_with("elbus")).cloned().collect()
}

/// Whether a crate can be built without one of its dependencies.
fn is_optional(folder: &Path, name: &str) -> bool {
    let optional = manifest(folder)["dependencies"][name].get("optional").cloned();
    optional == Some(toml::Value::Boolean(true))
}

#[test]
fn layers_point_one_way() {
    let root = root();
    assert_eq!(ours(&root.join("protocol")), Vec::<String>::new());
    assert_eq!(ours(&root.join("plugin-api")), ["elbus-protocol"]);
    assert_eq!(ours(&root.join("broker")), ["elbus-plugin-api", "elbus-protocol"]);
    assert_eq!(ours(&root.join("socket")), Vec::<String>::new());
    assert_eq!(ours(&root.join("tls")), Vec::<String>::new());
    assert_eq!(ours(&root.join("files")), Vec::<String>::new());
    let mut plugins = 0;
    for entry in std::fs::read_dir(root.join("plugins")).unwrap() {
        let folder = entry.unwrap().path();
        plugins += 1;
        for name in ours(&folder) {
            let allowed = ["elbus-files", "elbus-plugin-api", "elbus-protocol", "elbus-stream"]
                .contains(&name.as_str())
                || (name == "elbus-socket" && folder.ends_with("stream"))
                || (name == "elbus-tls" && folder.ends_with("tcp"));
            assert!(allowed, "{} depends on {name}", folder.display());
        }
    }
    assert!(plugins >= 7);
    for folder in ["protocol", "plugin-api", "broker"] {
        let dependencies = manifest(&root.join(folder));
        assert!(
            !dependencies["dependencies"].as_table().unwrap().contains_key("tokio"),
            "{folder} knows tokio"
        );
    }
}

#[test]
fn clients_know_no_broker() {
    let client = root().join("client");
    if client.exists() {
        for name in ours(&client) {
            let allowed = ["elbus-protocol", "elbus-socket"].contains(&name.as_str())
                || (["elbus-plugin-api", "elbus-tls"].contains(&name.as_str())
                    && is_optional(&client, &name));
            assert!(allowed, "client depends on {name}");
        }
    }
    let cli = root().join("cli");
    if cli.exists() {
        for name in ours(&cli) {
            assert!(
                ["elbus-client", "elbus-files", "elbus-protocol"].contains(&name.as_str()),
                "cli depends on {name}"
            );
        }
    }
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            sources(&path, found);
        } else if name.ends_with(".rs") {
            found.push(path);
        }
    }
}

/// The crates of the workspace, not what stands beside it.
fn workspace_sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in [
        "protocol",
        "socket",
        "files",
        "tls",
        "plugin-api",
        "broker",
        "elbusd",
        "plugins",
        "client",
        "cli",
        "examples",
        "benches",
    ] {
        let folder = root().join(folder);
        if folder.exists() {
            sources(&folder, &mut found);
        }
    }
    assert!(found.len() > 50);
    found
}

#[test]
fn every_file_says_what_it_is() {
    for path in workspace_sources() {
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("//!"), "{} does not begin with //!", path.display());
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        for vague in ["util", "utils", "common", "helper", "helpers", "manager", "tools"] {
            assert_ne!(name, vague, "{}", path.display());
        }
    }
}

#[test]
fn unsafe_code_is_where_the_boundary_is() {
    for path in workspace_sources() {
        let inside = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
        let allowed = inside.starts_with("plugin-api/src/")
            || inside.starts_with("broker/src/host/")
            || inside.starts_with("elbusd/src/process/")
            || inside.starts_with("elbusd/tests/plugins/foreign/")
            || inside == "elbusd/tests/house.rs";
        let text = std::fs::read_to_string(&path).unwrap();
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        let found = code.filter(|line| {
            line.contains("unsafe {") || line.contains("unsafe fn") || line.contains("unsafe impl")
        });
        assert!(allowed || found.count() == 0, "{inside} has unsafe code");
    }
}

/// Whatever waits or measures takes the clock that never jumps; the time of day is for stamps that people read.
#[test]
fn the_time_of_day_is_only_for_stamps() {
    let allowed = ["plugin-api/src/event.rs", "elbusd/tests/house.rs"];
    for path in workspace_sources() {
        let inside = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
        // these show it to people
        let shows = inside.starts_with("cli/") || inside.starts_with("benches/");
        if shows || allowed.contains(&inside.as_str()) {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        for clock in ["SystemTime", "UNIX_EPOCH", "ClockId::Realtime", "jiff::", "chrono::"] {
            assert!(!text.contains(clock), "{inside} reads the time of day ({clock})");
        }
    }
}
