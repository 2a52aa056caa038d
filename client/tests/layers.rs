//! The layers of the source: a module imports from its own and lower layers, never through the crate root.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

/// The modules from the lowest layer to the highest.
const LAYERS: [&[&str]; 6] = [
    &["address", "catch_panic", "error", "events", "frame", "settings", "subscription_state", "tls"],
    &["receive"],
    &["connection"],
    &["api"],
    &["rpc"],
    &["blocking"],
];

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|modules| modules.contains(&module))
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else {
            found.push(path);
        }
    }
}

fn identifier(text: &str) -> String {
    text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// Returns the first segments of all paths that start with `crate::`, except in comments.
fn imported(text: &str) -> Vec<String> {
    let code: Vec<_> = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let code = code.join("\n");
    let mut found = Vec::new();
    for (at, start) in code.match_indices("crate::") {
        let rest = &code[at + start.len()..];
        let Some(group) = rest.strip_prefix('{') else {
            found.push(identifier(rest));
            continue;
        };
        // the items of the group, separated by commas outside of nested groups
        let (mut depth, mut item) = (0, 0);
        for (position, character) in group.char_indices() {
            match character {
                '{' => depth += 1,
                '}' | ',' if depth == 0 => {
                    found.push(identifier(&group[item..position]));
                    item = position + 1;
                    if character == '}' {
                        break;
                    }
                }
                '}' => depth -= 1,
                _ => {}
            }
        }
    }
    found.retain(|name| !name.is_empty());
    found
}

#[test]
fn imports_are_found_in_groups_and_paths() {
    let text = "use crate::{a::{B, c::D}, e::F,\n};\n// crate::x\nlet g = crate::g::h();";
    assert_eq!(imported(text), ["a", "e", "g"]);
}

#[test]
fn modules_import_from_lower_layers() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    assert!(files.len() > 30);
    for file in files {
        let inside = file.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
        let module = inside.split(['/', '.']).next().unwrap();
        if module == "lib" {
            continue;
        }
        let own = layer(module).unwrap_or_else(|| panic!("{inside} is in no layer"));
        for name in imported(&std::fs::read_to_string(&file).unwrap()) {
            let used =
                layer(&name).unwrap_or_else(|| panic!("{inside} imports {name} through the crate root"));
            assert!(used <= own, "{inside} imports {name} from a higher layer");
        }
    }
}
