//! Where in a file something stands, and how it is shown: nothing that is shown is longer than a few lines, whatever the
//! file holds.

use elbus_plugin_api::PluginError;
use std::{borrow::Cow, path::Path};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::ConfigError;

/// Longer values are cut in messages.
const SHOWN_VALUE_CHARS: usize = 60;
/// As are longer keys.
const SHOWN_KEY_CHARS: usize = 100;
/// And what a plugin says of a value.
const SHOWN_MESSAGE_CHARS: usize = 1000;

/// The way to a value in the file.
#[derive(Clone, Copy)]
pub(super) enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

/// The file, for finding lines in it.
pub(super) struct Place<'a> {
    pub(super) path: &'a Path,
    pub(super) text: &'a str,
}

impl Place<'_> {
    /// The line of a byte, from 1.
    pub(super) fn line_at(&self, byte: usize) -> usize {
        1 + self.text.bytes().take(byte).filter(|b| *b == b'\n').count()
    }

    /// An error about a key of the table that `steps` lead to; `who` is named before it.
    pub(super) fn error(&self, steps: &[Step<'_>], who: &str, error: &PluginError) -> ConfigError {
        let keys = path_steps(&error.key);
        let (line, value) = self.find(steps, &keys);
        let key = cut(&error.key, SHOWN_KEY_CHARS);
        let who = if who.is_empty() { String::new() } else { format!("{who}: ") };
        let said = cut(&error.message, SHOWN_MESSAGE_CHARS);
        let message = match (&*key, value) {
            ("", _) => format!("{who}{said}"),
            (key, None) => format!("{who}{key}: {said}"),
            (key, Some(value)) => format!("{who}{key} = {value}: {said}"),
        };
        ConfigError { path: self.path.to_owned(), line, message: printable(&message) }
    }

    /// The line of the last of the keys that is in the file, and the value of the very last one as it is written.
    pub(super) fn find(&self, steps: &[Step<'_>], keys: &[Step<'_>]) -> (Option<usize>, Option<String>) {
        let Ok(root) = DeTable::parse(self.text) else { return (None, None) };
        let mut line = None;
        let mut table = Some(root.get_ref());
        let mut array: Option<&[Spanned<DeValue<'_>>]> = None;
        let mut value = None;
        for step in steps.iter().chain(keys) {
            let found = match step {
                Step::Key(key) => table
                    .and_then(|table| table.iter().find(|(k, _)| k.get_ref() == key))
                    .map(|(key, value)| (key.span().start, value)),
                Step::Index(index) => {
                    array.and_then(|array| array.get(*index)).map(|value| (value.span().start, value))
                }
            };
            let Some((start, found)) = found else { return (line, None) };
            line = Some(self.line_at(start));
            value = Some(found.span());
            table = found.get_ref().as_table();
            array = found.get_ref().as_array().map(|array| &array[..]);
        }
        let is_leaf = table.is_none() && !keys.is_empty();
        let text = value.filter(|_| is_leaf).and_then(|span| self.text.get(span));
        (line, text.map(shorten))
    }
}

/// One line, whatever keys and values hold.
fn printable(text: &str) -> String {
    let each = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(each).collect()
}

fn shorten(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    cut(&line, SHOWN_VALUE_CHARS).into_owned()
}

/// The beginning of a text that may be of any length.
pub(super) fn cut(text: &str, chars: usize) -> Cow<'_, str> {
    match text.char_indices().nth(chars) {
        None => text.into(),
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()).into(),
    }
}

/// `a.b[2]` as steps.
pub(super) fn path_steps(path: &str) -> Vec<Step<'_>> {
    let mut steps = Vec::new();
    for part in path.split('.').filter(|part| !part.is_empty()) {
        let (key, indices) = part.split_once('[').unwrap_or((part, ""));
        steps.push(Step::Key(key));
        let indices = indices.split('[').filter_map(|index| index.strip_suffix(']')?.parse().ok());
        steps.extend(indices.map(Step::Index));
    }
    steps
}
