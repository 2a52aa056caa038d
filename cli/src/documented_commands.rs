//! Test: the `elbus` commands in the documents parse. Checks names of commands and options, never runs a
//! command.

use clap::Parser;
use std::path::Path;

use crate::arguments::Arguments;

const DOCUMENTS: [&str; 5] =
    ["README.md", "SECURITY.md", "docs/install.md", "docs/debugging.md", "docs/performance.md"];

/// Splits a command at blanks outside single quotes; ends at a comment, pipe, redirection or `&`.
fn words(command: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), None::<String>, false);
    for c in command.chars() {
        match c {
            '\'' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            '#' | '|' | '>' | '&' if !quoted && word.is_none() => break,
            ' ' if !quoted => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// Returns the `elbus` commands of a document: indented lines and text in backticks that begin with `elbus `.
fn commands(text: &str) -> Vec<Vec<String>> {
    let indented = text.lines().filter_map(|line| line.strip_prefix("    "));
    let quoted = text.split('`').skip(1).step_by(2);
    let candidates = indented.chain(quoted).map(words);
    candidates.filter(|words| words.len() > 1 && words[0] == "elbus").collect()
}

#[test]
fn commands_in_the_documents_parse() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut count = 0;
    for document in DOCUMENTS {
        let text = std::fs::read_to_string(root.join(document)).unwrap();
        for command in commands(&text) {
            count += 1;
            if let Err(error) = Arguments::try_parse_from(&command) {
                panic!("{document}: {}: {error}", command.join(" "));
            }
        }
    }
    assert!(count > 15, "found {count} commands only");
}

#[test]
fn a_wrong_option_is_found() {
    let commands = commands("    elbus listen --nothing 'a b'   # comment\n");
    assert_eq!(commands, [["elbus", "listen", "--nothing", "a b"]]);
    assert!(Arguments::try_parse_from(&commands[0]).is_err());
}
