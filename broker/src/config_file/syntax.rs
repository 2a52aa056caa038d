//! Reports every syntax error of a file that is not valid TOML, in terms of what the author meant to write.

use toml::{Table, de::DeTable};

use super::{ConfigError, MAX_ERRORS, Place, location};

/// For whoever has written one pair of brackets too few.
pub(super) const PLUGIN_LIST: &str =
    "must be a list of tables: write [[plugin]] with two brackets, once for each plugin";
/// More of a message of the parser is not shown.
const SHOWN_CHARS: usize = 300;

/// The table, or all that is wrong with the text.
pub(super) fn parse(place: &Place<'_>) -> Result<Table, Vec<ConfigError>> {
    let first = match place.text.parse() {
        Ok(table) => return Ok(table),
        Err(error) => error,
    };
    let (_, mut found) = DeTable::parse_recoverable(place.text);
    if found.is_empty() {
        found.push(first);
    }
    let mut errors: Vec<ConfigError> = Vec::new();
    found.sort_by_key(|error| error.span().map(|span| span.start));
    for error in found {
        let line = error.span().map(|span| place.line_at(span.start));
        // what follows from an error on the same line helps nobody
        if errors.last().is_none_or(|last| last.line != line) {
            let message = explain(error.message(), line.and_then(|line| place.line_text(line)));
            errors.push(ConfigError { path: place.path.to_owned(), line, message });
        }
    }
    if errors.iter().any(|error| error.message.ends_with(PLUGIN_LIST)) {
        // the keys of the second one are those of the first
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
        let (key, value) = (location::cut(key.trim(), 60), location::cut(value, 60));
        return format!(
            "a number cannot begin with 0; write permissions of a file in quotes: {key} = \"{value}\""
        );
    }
    if message.contains("duplicate key") && (line.starts_with("[plugin]") || line.starts_with("[[plugin]]")) {
        return format!("plugin {PLUGIN_LIST}");
    }
    let message: String = message.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    location::cut(&message, SHOWN_CHARS).into_owned()
}
