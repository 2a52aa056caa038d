//! The example plugin can be copied out of the workspace: it builds in a folder of its own, with nothing but
//! its dependency on the plugin API changed.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    path::{Path, PathBuf},
    process::Command,
};

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Returns the target directory of this build: the parent of the folder of the profile.
fn target() -> PathBuf {
    let executable = std::env::current_exe().unwrap();
    executable.ancestors().nth(3).unwrap().to_path_buf()
}

#[test]
fn the_example_plugin_builds_outside_the_workspace() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("my-plugin");
    copy_folder(&root.join("examples/last-value"), &copy);

    let text = std::fs::read_to_string(copy.join("Cargo.toml")).unwrap();
    assert!(!text.contains("workspace"), "nothing may be inherited from a workspace: {text}");
    // its own name, as the build shares the target directory, which contains liblast_value.so
    let own = text
        .replace("name = \"last-value\"", "name = \"my-plugin\"")
        .replace("\"../../plugin-api\"", &format!("{:?}", root.join("plugin-api")));
    assert_eq!(own.matches(root.to_str().unwrap()).count(), 1, "{own}");
    std::fs::write(copy.join("Cargo.toml"), own).unwrap();
    // the same versions of everything, and no network
    std::fs::copy(root.join("Cargo.lock"), copy.join("Cargo.lock")).unwrap();

    let output = Command::new(env!("CARGO"))
        .args(["build", "--offline", "--target-dir"])
        .arg(target())
        // the workspace's setting, so that existing builds are reused
        .env("CARGO_PROFILE_DEV_DEBUG", "line-tables-only")
        .current_dir(&copy)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(target().join("debug/libmy_plugin.so").exists());
}
