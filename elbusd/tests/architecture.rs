//! The rules of the code base: dependencies between crates, unsafe code, names, columns, import cycles.
//!
//! Reads the sources as text; it builds nothing and starts no broker.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

/// Words that no declared name and no file name contains: metaphors, and words that are not used in the
/// field.
const BANNED_WORDS: &[&str] = &[
    "allowance",
    "anew",
    "attendance",
    "attendant",
    "bell",
    "census",
    "complaint",
    "contestant",
    "crowd",
    "desk",
    "forever",
    "heard",
    "house",
    "judge",
    "judged",
    "judgement",
    "judging",
    "keeper",
    "letter",
    "newcomer",
    "office",
    "owed",
    "revival",
    "seat",
    "spares",
    "teller",
    "told",
    "unrest",
    "whoever",
    "whom",
    "wishes",
];
/// Words that are not informative as the name of a file.
const EMPTY_WORDS: &[&str] = &["common", "helper", "helpers", "manager", "tools", "util", "utils"];
/// The longest line of a source file, comments included.
const MAX_COLUMNS: usize = 110;
/// Number of import cycles between files of a crate, not counting an ancestor and its descendants.
/// ARCHITECTURE.md justifies each.
const MAX_IMPORT_CYCLES: usize = 3;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn manifest(folder: &Path) -> toml::Table {
    std::fs::read_to_string(folder.join("Cargo.toml")).unwrap().parse().unwrap()
}

/// Returns the crates of this workspace that a crate depends on, except for tests.
fn ours(folder: &Path) -> Vec<String> {
    let manifest = manifest(folder);
    let dependencies = manifest.get("dependencies").and_then(|d| d.as_table()).cloned().unwrap_or_default();
    dependencies.keys().filter(|name| name.starts_with("elbus")).cloned().collect()
}

/// Returns whether a crate can be built without one of its dependencies.
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
    assert_eq!(ours(&root.join("bridge")), ["elbus-protocol"]);
    assert_eq!(ours(&root.join("ring")), Vec::<String>::new());
    assert_eq!(ours(&root.join("socket")), ["elbus-ring"]);
    assert_eq!(ours(&root.join("tls")), Vec::<String>::new());
    assert_eq!(ours(&root.join("files")), Vec::<String>::new());
    let mut plugins = 0;
    for entry in std::fs::read_dir(root.join("plugins")).unwrap() {
        let folder = entry.unwrap().path();
        plugins += 1;
        for name in ours(&folder) {
            let has_ports = folder.ends_with("tcp") || folder.ends_with("http");
            let has_pages = folder.ends_with("websocket") || folder.ends_with("web");
            let allowed = ["elbus-files", "elbus-plugin-api", "elbus-protocol", "elbus-stream"]
                .contains(&name.as_str())
                || (name == "elbus-bridge" && folder.ends_with("nats"))
                || (name == "elbus-socket" && folder.ends_with("stream"))
                || (name == "elbus-network" && has_ports)
                || (name == "elbus-http" && has_pages)
                || (name == "elbus-bridge" && folder.ends_with("nats"))
                || (name == "elbus-tls"
                    && (has_ports || folder.ends_with("network") || folder.ends_with("nats")));
            assert!(allowed, "{} depends on {name}", folder.display());
        }
    }
    assert!(plugins >= 7);
    for folder in ["protocol", "bridge", "plugin-api", "broker"] {
        let dependencies = manifest(&root.join(folder));
        assert!(
            !dependencies["dependencies"].as_table().unwrap().contains_key("tokio"),
            "{folder} depends on tokio"
        );
    }
}

#[test]
fn clients_do_not_depend_on_the_broker() {
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

/// Returns the sources of the workspace's crates.
fn workspace_sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in [
        "protocol",
        "bridge",
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
        "testing",
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
fn every_file_begins_with_a_description() {
    for path in workspace_sources() {
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("//!"), "{} does not begin with //!", path.display());
    }
}

/// Returns the words of a name in snake case or camel case, in lower case.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for c in name.chars() {
        if c == '_' || c.is_uppercase() {
            words.push(String::new());
        }
        if c != '_'
            && let Some(word) = words.last_mut()
        {
            word.extend(c.to_lowercase());
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// Returns the names that a line of code declares.
fn declared(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let mut tokens = line.split_whitespace().skip_while(|token| {
        token.starts_with("pub") || ["async", "const", "unsafe", "default", "extern", "in"].contains(token)
    });
    let first = tokens.next()?;
    let keyword = ["fn", "struct", "enum", "trait", "type", "mod", "static", "union"].contains(&first);
    let name = if keyword { tokens.next()? } else { return None };
    Some(name.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or(name))
}

#[test]
fn names_are_the_terms_of_the_field() {
    let mut found = Vec::new();
    let banned = |name: &str| words(name).iter().any(|word| BANNED_WORDS.contains(&word.as_str()));
    for path in workspace_sources() {
        let inside = path.strip_prefix(root()).unwrap().display().to_string();
        for part in path.strip_prefix(root()).unwrap().with_extension("").iter() {
            let part = part.to_string_lossy();
            if banned(&part) || EMPTY_WORDS.contains(&&*part) {
                found.push(inside.clone());
            }
        }
        let text = std::fs::read_to_string(&path).unwrap();
        for (number, line) in text.lines().enumerate() {
            if let Some(name) = declared(line).filter(|name| banned(name)) {
                found.push(format!("{inside}:{}: {name}", number + 1));
            }
        }
    }
    assert!(found.is_empty(), "{} names contain banned words: {found:#?}", found.len());
}

#[test]
fn lines_have_at_most_110_columns() {
    let mut found = Vec::new();
    for path in workspace_sources() {
        let text = std::fs::read_to_string(&path).unwrap();
        for (number, line) in text.lines().enumerate() {
            // a string literal cannot be wrapped without changing the code around it
            let literal = line.contains('"') && !line.trim_start().starts_with("//");
            if line.chars().count() > MAX_COLUMNS && !literal {
                found.push(format!("{}:{}", path.strip_prefix(root()).unwrap().display(), number + 1));
            }
        }
    }
    assert!(found.is_empty(), "{} lines exceed {MAX_COLUMNS} columns: {found:#?}", found.len());
}

#[test]
fn modules_are_in_files_of_their_name() {
    for path in workspace_sources() {
        let inside = path.strip_prefix(root()).unwrap().display().to_string();
        let support = inside.contains("/tests/") || inside.contains("/benches/");
        assert!(support || !inside.ends_with("/mod.rs"), "{inside}: use x.rs beside x/");
    }
}

/// Returns the module path of a source file below `src`, `[]` for the root of the crate.
fn module_of(src: &Path, path: &Path) -> Vec<String> {
    let inside = path.strip_prefix(src).unwrap().with_extension("");
    let mut parts: Vec<_> = inside.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if parts.last().is_some_and(|last| last == "mod") || parts == ["lib"] || parts == ["main"] {
        parts.pop();
    }
    parts
}

/// Returns the paths in the `use` declarations of a module, as absolute module paths of the crate.
fn imports(module: &[String], text: &str) -> Vec<Vec<String>> {
    let code: String = text
        .lines()
        .take_while(|line| !line.contains("#[cfg(test)]"))
        .filter(|line| !line.trim_start().starts_with("//"))
        .map(|line| format!("{line}\n"))
        .collect();
    let mut found = Vec::new();
    for (at, _) in code.match_indices("use ") {
        let start = code[..at].rsplit('\n').next().unwrap_or_default();
        if start.trim_start_matches("pub").trim_start_matches("(crate)").trim_start_matches("(super)").trim()
            != ""
        {
            continue;
        }
        let declaration = code[at + 4..].split(';').next().unwrap_or_default();
        let base: Vec<String> = match declaration.trim_start() {
            rest if rest.starts_with("crate") => Vec::new(),
            rest if rest.starts_with("super") => module[..module.len().saturating_sub(1)].to_vec(),
            rest if rest.starts_with("self") => module.to_vec(),
            _ => continue,
        };
        expand(&base, declaration.trim_start().split_once("::").map_or("", |(_, rest)| rest), &mut found);
    }
    found
}

/// Expands a tree of imports to paths: `a::{b, c::d}` below `base`.
fn expand(base: &[String], tree: &str, found: &mut Vec<Vec<String>>) {
    let mut depth = 0;
    let mut start = 0;
    let mut parts = Vec::new();
    for (at, c) in tree.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&tree[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&tree[start..]);
    for part in parts.iter().map(|part| part.trim()).filter(|part| !part.is_empty()) {
        if let Some(list) = part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
            expand(base, list, found);
            continue;
        }
        let (head, rest) = part.split_once("::").unwrap_or((part, ""));
        let mut path = base.to_vec();
        match head {
            "super" => drop(path.pop()),
            "self" => {}
            head => path.push(head.to_owned()),
        }
        if rest.is_empty() {
            found.push(path);
        } else {
            expand(&path, rest, found);
        }
    }
}

/// Returns the groups of files of a crate that import each other in a cycle.
fn cycles(src: &Path) -> Vec<Vec<String>> {
    let mut files = Vec::new();
    sources(src, &mut files);
    let modules: BTreeMap<Vec<String>, String> = files
        .iter()
        .filter(|path| !path.ends_with("tests.rs") && !path.ends_with("models.rs"))
        .map(|path| (module_of(src, path), std::fs::read_to_string(path).unwrap()))
        .collect();
    let edges: BTreeMap<&Vec<String>, BTreeSet<&Vec<String>>> = modules
        .iter()
        .map(|(module, text)| {
            let targets = imports(module, text).into_iter().filter_map(|path| {
                let longest = (0..=path.len()).rev().find_map(|len| modules.get_key_value(&path[..len]))?.0;
                let related = longest.starts_with(module) || module.starts_with(longest);
                (!related).then_some(longest)
            });
            (module, targets.collect())
        })
        .collect();
    let reachable = |from: &Vec<String>| {
        let mut seen: BTreeSet<&Vec<String>> = BTreeSet::new();
        let mut open: Vec<&Vec<String>> = edges.get(from).into_iter().flatten().copied().collect();
        while let Some(module) = open.pop() {
            if seen.insert(module) {
                open.extend(edges.get(module).into_iter().flatten());
            }
        }
        seen
    };
    let reach: BTreeMap<&Vec<String>, BTreeSet<&Vec<String>>> =
        modules.keys().map(|module| (module, reachable(module))).collect();
    let mut groups = BTreeSet::new();
    for (module, targets) in &reach {
        if targets.contains(module) {
            let group = targets.iter().filter(|other| reach[**other].contains(module));
            groups.insert(group.map(|module| module.join("::")).collect::<Vec<_>>());
        }
    }
    groups.into_iter().collect()
}

#[test]
fn few_files_import_each_other() {
    let mut found = Vec::new();
    for path in workspace_sources()
        .iter()
        .filter(|path| path.ends_with("src/lib.rs") || path.ends_with("src/main.rs"))
    {
        let src = path.parent().unwrap();
        let name = src.strip_prefix(root()).unwrap().display().to_string();
        found.extend(cycles(src).into_iter().map(|group| format!("{name}: {}", group.join(", "))));
    }
    assert!(found.len() <= MAX_IMPORT_CYCLES, "{} import cycles: {found:#?}", found.len());
}

#[test]
fn the_parser_of_imports_finds_cycles() {
    let text = "use super::{a::{B, c::D}, e};\nuse crate::f;\npub(crate) use self::g::H;\n";
    let module = ["x".to_owned(), "y".to_owned()];
    let found: Vec<_> = imports(&module, text).iter().map(|path| path.join("::")).collect();
    assert_eq!(found, ["x::a::B", "x::a::c::D", "x::e", "f", "x::y::g::H"]);
}

#[test]
fn unsafe_code_is_confined_to_the_boundary() {
    for path in workspace_sources() {
        let inside = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
        let allowed = inside.starts_with("plugin-api/src/")
            || inside.starts_with("broker/src/host/")
            || inside.starts_with("elbusd/src/process/")
            || inside.starts_with("ring/src/")
            || inside.starts_with("elbusd/tests/plugins/foreign/")
            || inside == "elbusd/tests/architecture.rs";
        let text = std::fs::read_to_string(&path).unwrap();
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        let found = code.filter(|line| {
            line.contains("unsafe {") || line.contains("unsafe fn") || line.contains("unsafe impl")
        });
        assert!(allowed || found.count() == 0, "{inside} has unsafe code");
    }
}

/// Timeouts and measurements use the monotonic clock; the time of day is only for timestamps that users read.
#[test]
fn the_time_of_day_is_used_only_for_timestamps() {
    let allowed = [
        "plugin-api/src/event.rs",
        "plugin-api/src/hooks/observer.rs",
        "plugin-api/src/hooks/observer_queue.rs",
        "examples/recorder/src/lib.rs",
        "elbusd/tests/architecture.rs",
    ];
    for path in workspace_sources() {
        let inside = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
        // these programs show timestamps to users
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

/// Authors of plugins see none of the crate that the boundary is built with, so it can be replaced.
#[test]
fn no_public_item_of_the_plugin_api_names_a_type_of_the_abi() {
    const TYPES: [&str; 11] = [
        "abi_stable",
        "RStr",
        "RString",
        "RSlice",
        "RSliceMut",
        "RVec",
        "RBox",
        "RArc",
        "ROption",
        "RResult",
        "TD_Opaque",
    ];
    let mut files = Vec::new();
    sources(&root().join("plugin-api/src"), &mut files);
    let mut found = Vec::new();
    for path in files {
        let inside = path.strip_prefix(root()).unwrap().display().to_string();
        let text = std::fs::read_to_string(&path).unwrap();
        // hidden from authors: the raw traits, and what only the broker uses
        let hidden = inside.starts_with("plugin-api/src/abi") || inside.ends_with("hooks/observer_queue.rs");
        let public = text.split("mod raw {").next().unwrap_or_default();
        for item in public.split("\n    pub ").chain(public.split("\npub ")).skip(1).filter(|_| !hidden) {
            let is_field = !["fn ", "const ", "struct ", "trait ", "type ", "enum ", "unsafe ", "use "]
                .iter()
                .any(|keyword| item.starts_with(keyword));
            let end: &[char] = if item.starts_with("struct ") { &['{', ';', '('] } else { &['{', ';'] };
            let signature = item.split(end).next().unwrap_or_default();
            let names = signature.split(|c: char| !c.is_alphanumeric() && c != '_');
            if names.into_iter().any(|name| TYPES.contains(&name)) && !is_field {
                found.push(format!("{inside}: {}", signature.lines().next().unwrap_or_default()));
            }
        }
    }
    found.sort();
    found.dedup();
    assert!(found.is_empty(), "{found:#?}");
}
