//! What the documents claim about the repository: every test that SECURITY.md names exists.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should not")]

use std::{collections::BTreeSet, path::Path};

/// `(file, function)` of every `file.rs::function` in backticks.
fn named_tests(text: &str) -> BTreeSet<(String, String)> {
    let quoted = text.split('`').skip(1).step_by(2);
    let named = quoted.filter_map(|text| text.split_once(".rs::"));
    named.map(|(file, function)| (format!("{file}.rs"), function.to_owned())).collect()
}

#[test]
fn every_test_that_the_security_page_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let named = named_tests(&std::fs::read_to_string(root.join("SECURITY.md")).unwrap());
    assert!(named.len() > 40, "{named:?}");
    let missing: Vec<_> = named
        .iter()
        .filter(|(file, function)| {
            let text = std::fs::read_to_string(root.join(file)).unwrap_or_default();
            !text.contains(&format!("fn {function}("))
        })
        .collect();
    assert!(missing.is_empty(), "{missing:#?}");
}
