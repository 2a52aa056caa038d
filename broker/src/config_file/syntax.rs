//! Reports all syntax errors of a file that is not valid TOML, and how to correct common ones.

use std::collections::HashSet;
use toml::{
    Table,
    de::{DeTable, Error},
};

use super::MAX_ERRORS;
use crate::{
    config_error::ConfigError,
    location::{FileText, cut},
};

/// The error for `[plugin]` instead of `[[plugin]]`.
pub(super) const PLUGIN_LIST: &str =
    "must be a list of tables: write [[plugin]] with two brackets, once for each plugin";
/// Longer messages of the parser are cut.
const MAX_MESSAGE_CHARS: usize = 300;

/// Parses the text.
///
/// # Errors
/// All syntax errors.
pub(super) fn parse(source: &FileText) -> Result<Table, Vec<ConfigError>> {
    let first = match source.text.parse() {
        Ok(table) => return Ok(table),
        Err(error) => error,
    };
    let (_, mut found) = DeTable::parse_recoverable(&source.text);
    if found.is_empty() {
        found.push(first);
    }
    let mut errors: Vec<ConfigError> = Vec::new();
    let mut found = with_lines(source, found);
    found.sort_by_key(|(line, error)| (*line, error.span().map(|span| span.start)));
    for (line, error) in found {
        // further errors on the same line usually follow from the first
        if errors.last().is_none_or(|last| last.line != Some(line)) {
            let message = explain(error.message(), source.line_text(line).unwrap_or_default());
            errors.push(ConfigError::new(&source.path, Some(line), &message));
        }
    }
    if errors.iter().any(|error| error.message.ends_with(PLUGIN_LIST)) {
        // the keys of the second table seem to repeat those of the first
        errors.retain(|error| error.message != "duplicate key");
    }
    errors.truncate(MAX_ERRORS);
    Err(errors)
}

/// Adds the line of each error. Errors without a position and with the same message are one error.
fn with_lines(source: &FileText, found: Vec<Error>) -> Vec<(usize, Error)> {
    let mut without_position = HashSet::new();
    let line_of = |error: Error| match error.span() {
        Some(span) => Some((source.line_at(span.start), error)),
        None if !without_position.insert(error.message().to_owned()) => None,
        None => Some((first_line_with(source, error.message()), error)),
    };
    found.into_iter().filter_map(line_of).collect()
}

/// Finds the line of an error that the parser reports without a position: the last line of the shortest
/// beginning of the file that has the error. Searches by halves, since each step parses.
fn first_line_with(source: &FileText, message: &str) -> usize {
    let has_error = |lines: usize| {
        let text = source.first_lines(lines);
        let (_, found) = DeTable::parse_recoverable(text);
        found.iter().any(|error| error.span().is_none() && error.message() == message)
    };
    let (mut without, mut with) = (0, source.line_count());
    while with - without > 1 {
        let middle = without + (with - without) / 2;
        if has_error(middle) {
            with = middle;
        } else {
            without = middle;
        }
    }
    with
}

fn explain(message: &str, line: &str) -> String {
    let line = line.trim();
    if message.contains("leading zero")
        && let Some((key, value)) = line.split_once('=')
    {
        let value = value.split('#').next().unwrap_or_default().trim().trim_end_matches([',', '}', ' ']);
        let (key, value) = (cut(key.trim(), 60), cut(value, 60));
        return format!(
            "a number cannot begin with 0; write permissions of a file in quotes: {key} = \"{value}\""
        );
    }
    if message.contains("duplicate key") && (line.starts_with("[plugin]") || line.starts_with("[[plugin]]")) {
        return format!("plugin {PLUGIN_LIST}");
    }
    if message == "recursion limit" {
        return "a key has more than 80 parts, separated by dots".to_owned();
    }
    cut(message, MAX_MESSAGE_CHARS).into_owned()
}
