//! Where in a file something stands, and how it is shown: nothing that is shown is longer than a few lines, whatever the
//! file holds. The file is parsed once for all that is looked up in it.

use elbus_plugin_api::PluginError;
use std::{borrow::Cow, collections::BTreeMap, ops::Range, path::Path, sync::OnceLock};
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

/// The positions of all keys, values and lines of a file.
#[derive(Debug)]
pub(super) struct Layout {
    /// Empty if the file is not valid TOML.
    root: Children,
    /// The bytes at which lines begin, but for the first.
    line_starts: Vec<usize>,
}

/// A value in the file.
#[derive(Debug)]
struct Node {
    /// Where its key begins, or itself in a list.
    start: usize,
    value: Range<usize>,
    children: Children,
}

#[derive(Debug)]
enum Children {
    Leaf,
    Table(BTreeMap<String, Node>),
    Array(Vec<Node>),
}

impl Layout {
    fn of(text: &str) -> Self {
        let root = DeTable::parse(text).map_or(Children::Leaf, |root| Children::of_table(root.get_ref()));
        let line_starts = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        Layout { root, line_starts: line_starts.collect() }
    }
}

impl Node {
    fn new(start: usize, value: &Spanned<DeValue<'_>>) -> Self {
        // nested as deep as the parser allows
        let children = match value.get_ref() {
            DeValue::Table(table) => Children::of_table(table),
            DeValue::Array(array) => {
                Children::Array(array.iter().map(|value| Node::new(value.span().start, value)).collect())
            }
            _ => Children::Leaf,
        };
        Node { start, value: value.span(), children }
    }
}

impl Children {
    fn of_table(table: &DeTable<'_>) -> Self {
        let entry = |(key, value): (&Spanned<Cow<'_, str>>, _)| {
            (key.get_ref().to_string(), Node::new(key.span().start, value))
        };
        Children::Table(table.iter().map(entry).collect())
    }
}

/// The file, for finding lines in it.
pub(super) struct Place<'a> {
    pub(super) path: &'a Path,
    pub(super) text: &'a str,
    /// Of the same text; made when something is looked up first.
    pub(super) layout: &'a OnceLock<Layout>,
}

impl Place<'_> {
    fn layout(&self) -> &Layout {
        self.layout.get_or_init(|| Layout::of(self.text))
    }

    /// The line of a byte, from 1.
    pub(super) fn line_at(&self, byte: usize) -> usize {
        1 + self.layout().line_starts.partition_point(|start| *start <= byte)
    }

    /// A line, from 1.
    pub(super) fn line_text(&self, line: usize) -> Option<&str> {
        let starts = &self.layout().line_starts;
        let start = if line == 1 { 0 } else { *starts.get(line.checked_sub(2)?)? };
        self.text.get(start..)?.lines().next()
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
        let (mut line, mut value, mut children) = (None, None, &self.layout().root);
        for step in steps.iter().chain(keys) {
            let found = match (step, children) {
                (Step::Key(key), Children::Table(table)) => table.get(*key),
                (Step::Index(index), Children::Array(array)) => array.get(*index),
                _ => None,
            };
            let Some(found) = found else { return (line, None) };
            line = Some(self.line_at(found.start));
            (value, children) = (Some(found.value.clone()), &found.children);
        }
        let is_leaf = !matches!(children, Children::Table(_)) && !keys.is_empty();
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
