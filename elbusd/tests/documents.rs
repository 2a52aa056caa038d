//! Checks the documents: the tests, files and links that they name exist, their configuration is valid, and
//! their prose uses plain words.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};
use support::daemon::{folder, run_to_end};

/// Words and phrases that have a plainer or more common equivalent.
const BANNED: [&str; 26] = [
    "whoever",
    "whomever",
    "wherever",
    "whom",
    "anew",
    "for ever",
    "so many",
    "is told",
    "are told",
    "is said",
    "are said",
    "let go",
    "thrown out",
    "seen off",
    "of no use",
    "has none",
    "comes to",
    "a look",
    "judge",
    "judged",
    "judges",
    "owed",
    "allowance",
    "need not",
    "bearer",
    "bears",
];

/// Measurement results are not rewritten.
const NOT_PROSE: &str = "benches/results";

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

/// Returns the paths of all Markdown files, relative to the root; skips build output and hidden folders.
fn documents() -> Vec<String> {
    let (mut found, mut folders) = (Vec::new(), vec![root().to_path_buf()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let (path, name) = (entry.path(), entry.file_name().into_string().unwrap());
            if entry.file_type().unwrap().is_dir() {
                if !name.starts_with('.') && !["target", "node_modules"].contains(&name.as_str()) {
                    folders.push(path);
                }
            } else if name.ends_with(".md") {
                found.push(path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    assert!(found.len() > 20, "{found:?}");
    found.sort();
    found
}

/// Returns the lines outside code blocks, with their numbers.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    let lines = text.lines().enumerate().filter(move |(_, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence && !line.starts_with("    ")
    });
    lines.map(|(index, line)| (index + 1, line))
}

/// Returns the texts in backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Returns `(file, function)` of every `file.rs::function` in backticks.
fn named_tests(text: &str) -> BTreeSet<(String, String)> {
    let named = quoted(text).filter_map(|text| text.split_once(".rs::"));
    named.map(|(file, function)| (format!("{file}.rs"), function.to_owned())).collect()
}

#[test]
fn tests_named_in_security_md_exist() {
    let named = named_tests(&read("SECURITY.md"));
    assert!(named.len() > 40, "{named:?}");
    let missing: Vec<_> = named
        .iter()
        .filter(|(file, function)| {
            let text = std::fs::read_to_string(root().join(file)).unwrap_or_default();
            !text.contains(&format!("fn {function}("))
        })
        .collect();
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn files_that_the_architecture_names_exist() {
    let text = read("ARCHITECTURE.md");
    let named: BTreeSet<_> =
        quoted(&text).filter(|text| text.contains('/') && text.ends_with(".rs")).collect();
    assert!(!named.is_empty());
    let missing: Vec<_> = named.iter().filter(|path| !root().join(path).is_file()).collect();
    assert!(missing.is_empty(), "{missing:#?}");
}

/// Returns the fragment identifiers of a document's headings.
fn anchors(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap();
    let headings = prose(&text).filter_map(|(_, line)| line.strip_prefix('#'));
    let slug = |heading: &str| {
        let heading = heading.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
        heading.chars().filter(|c| c.is_alphanumeric() || "-_".contains(*c)).collect()
    };
    headings.map(slug).collect()
}

#[test]
fn relative_links_lead_to_files_and_headings() {
    let mut broken = Vec::new();
    for document in documents() {
        let text = read(&document);
        for (number, line) in prose(&text) {
            let links = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
            for link in links.filter(|link| !link.contains("://")) {
                let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
                let target: PathBuf = match file {
                    "" => root().join(&document),
                    file => root().join(&document).parent().unwrap().join(file),
                };
                let exists = target.exists()
                    && (anchor.is_empty() || anchors(&target).iter().any(|heading| heading == anchor));
                if !exists {
                    broken.push(format!("{document}:{number}: {link}"));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn prose_uses_plain_words() {
    let mut found = Vec::new();
    for document in documents().iter().filter(|path| !path.starts_with(NOT_PROSE)) {
        let text = read(document);
        // the last word of the previous line, as phrases can continue on the next one
        let mut last = String::new();
        for (number, line) in prose(&text) {
            let unquoted: Vec<_> = line.split('`').step_by(2).collect();
            let text = format!("{last} {}", unquoted.join(" ").to_lowercase());
            let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
            let words: Vec<_> = words.collect();
            last = words.last().copied().unwrap_or_default().to_owned();
            let words = format!(" {} ", words.join(" "));
            let banned = BANNED.iter().filter(|banned| words.contains(&format!(" {banned} ")));
            found.extend(banned.map(|banned| format!("{document}:{number}: \"{banned}\"")));
        }
    }
    assert!(found.is_empty(), "{} phrases:\n{}", found.len(), found.join("\n"));
}

/// Certificates and the user in the samples are replaced by ones that exist on every machine.
#[test]
fn configuration_in_the_readme_passes_check() {
    let folder = folder();
    let certificate = rcgen::generate_simple_self_signed(["broker.plant".to_owned()]).unwrap();
    for (file, text) in [
        ("broker.pem", certificate.cert.pem()),
        ("clients-ca.pem", certificate.cert.pem()),
        ("broker.key", certificate.signing_key.serialize_pem()),
    ] {
        std::fs::write(folder.path().join(file), text).unwrap();
    }
    let text = read("README.md");
    let blocks = text.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let mut count = 0;
    for block in blocks.filter(|block| block.contains("[[plugin]]")) {
        count += 1;
        let local = folder.path().join("").to_str().unwrap().to_owned();
        let block = block.replace("/etc/elbus/", &local).replace("user = \"plc\"", "user = \"root\"");
        std::fs::write(folder.path().join("broker.toml"), &block).unwrap();
        let checked = run_to_end(folder.path(), &["--config", "broker.toml", "--check"]);
        assert!(checked.status.success(), "{block}\n{}", checked.stderr);
    }
    assert!(count >= 4, "found {count} samples only");
}
