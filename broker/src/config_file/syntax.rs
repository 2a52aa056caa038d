//! Reports all syntax errors of a file that is not valid TOML, and how to correct common ones.

use toml::{Table, de::DeTable};

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
    found.sort_by_key(|error| error.span().map(|span| span.start));
    for error in found {
        let line = error.span().map(|span| source.line_at(span.start));
        // further errors on the same line usually follow from the first
        if errors.last().is_none_or(|last| last.line != line) {
            let message = explain(error.message(), line.and_then(|line| source.line_text(line)));
            errors.push(ConfigError { path: source.path.clone(), line, message });
        }
    }
    if errors.iter().any(|error| error.message.ends_with(PLUGIN_LIST)) {
        // the keys of the second table seem to repeat those of the first
        errors.retain(|error| error.message != "duplicate key");
    }
    errors.truncate(MAX_ERRORS);
    Err(errors)
}

fn explain(message: &str, line: Option<&str>) -> String {
    let line = line.unwrap_or_default().trim();
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
    let message: String = message.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    cut(&message, MAX_MESSAGE_CHARS).into_owned()
}
