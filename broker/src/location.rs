//! Locations in the configuration file: finds the line and value of a key, and builds errors that name them.
//! Limits the length of file contents in errors. A file is parsed once for all lookups.

use elbus_plugin_api::PluginError;
use std::{
    borrow::Cow,
    collections::BTreeMap,
    ops::Range,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::config_error::ConfigError;

/// Longer values are cut in messages.
const SHOWN_VALUE_CHARS: usize = 60;
/// Longer keys are cut.
const SHOWN_KEY_CHARS: usize = 100;
/// Longer messages are cut.
const SHOWN_MESSAGE_CHARS: usize = 1000;

/// A step on the path to a value in the file.
#[derive(Clone, Copy)]
pub(crate) enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

/// A file and its text, as it was read.
#[derive(Debug)]
pub(crate) struct FileText {
    pub(crate) path: PathBuf,
    pub(crate) text: String,
    /// Of this text; built by the first lookup.
    layout: OnceLock<Layout>,
}

/// The positions of all keys, values and lines of a file.
#[derive(Debug)]
struct Layout {
    /// Empty if the file is not valid TOML.
    root: Children,
    /// The positions at which lines begin, except the first, in bytes.
    line_starts: Vec<usize>,
}

/// A value in the file.
#[derive(Debug)]
struct Node {
    /// Where its key begins; the value itself in a list.
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
        // the parser limits the depth
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

/// The location of a declaration: the file, and the index of its `[[plugin]]`.
#[derive(Debug, Clone)]
pub(crate) struct DeclarationLocation {
    pub(crate) file: Arc<FileText>,
    pub(crate) index: usize,
}

impl DeclarationLocation {
    /// Returns the file and line of a key of its table.
    pub(crate) fn of_key(&self, key: &str) -> Option<String> {
        let (line, _) = self.file.find(&table_steps(self.index), &path_steps(key));
        line.map(|line| format!("{}:{line}", self.file.path.display()))
    }
}

/// Returns the path to the table of a plugin.
pub(crate) fn table_steps<'a>(index: usize) -> [Step<'a>; 3] {
    [Step::Key("plugin"), Step::Index(index), Step::Key("config")]
}

impl FileText {
    /// Creates it from the text that was read.
    pub(crate) fn new(path: &Path, text: String) -> Self {
        FileText { path: path.to_owned(), text, layout: OnceLock::new() }
    }

    fn layout(&self) -> &Layout {
        self.layout.get_or_init(|| Layout::of(&self.text))
    }

    /// Returns the line of a byte, from 1.
    pub(crate) fn line_at(&self, byte: usize) -> usize {
        1 + self.layout().line_starts.partition_point(|start| *start <= byte)
    }

    /// Returns the number of lines; text that ends with a line break has an empty last line.
    pub(crate) fn line_count(&self) -> usize {
        1 + self.layout().line_starts.len()
    }

    /// Returns the text of the first lines, without the line break of the last one.
    pub(crate) fn first_lines(&self, lines: usize) -> &str {
        let Some(last) = lines.checked_sub(1) else { return "" };
        let end = self.layout().line_starts.get(last).map_or(self.text.len(), |start| start - 1);
        self.text.get(..end).unwrap_or_default()
    }

    /// Returns the text of a line, from 1.
    pub(crate) fn line_text(&self, line: usize) -> Option<&str> {
        let starts = &self.layout().line_starts;
        let start = if line == 1 { 0 } else { *starts.get(line.checked_sub(2)?)? };
        self.text.get(start..)?.lines().next()
    }

    /// Returns an error about a key of the table at `steps`. The message begins with `who`.
    pub(crate) fn error(&self, steps: &[Step<'_>], who: &str, error: &PluginError) -> ConfigError {
        let keys = path_steps(&error.key);
        let (line, value) = self.find(steps, &keys);
        let key = cut(&error.key, SHOWN_KEY_CHARS);
        let who = if who.is_empty() { String::new() } else { format!("{who}: ") };
        let text = cut(&error.message, SHOWN_MESSAGE_CHARS);
        let message = match (&*key, value) {
            ("", _) => format!("{who}{text}"),
            (key, None) => format!("{who}{key}: {text}"),
            (key, Some(value)) => format!("{who}{key} = {value}: {text}"),
        };
        ConfigError::new(&self.path, line, &message)
    }

    /// Returns the line of the last key of the path that is in the file, and the text of the value if the
    /// whole path is.
    pub(crate) fn find(&self, steps: &[Step<'_>], keys: &[Step<'_>]) -> (Option<usize>, Option<String>) {
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

fn shorten(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    cut(&line, SHOWN_VALUE_CHARS).into_owned()
}

/// Cuts a text to a number of characters.
pub(crate) fn cut(text: &str, chars: usize) -> Cow<'_, str> {
    match text.char_indices().nth(chars) {
        None => text.into(),
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()).into(),
    }
}

/// Parses a path such as `a.b[2]`.
pub(crate) fn path_steps(path: &str) -> Vec<Step<'_>> {
    let mut steps = Vec::new();
    for part in path.split('.').filter(|part| !part.is_empty()) {
        let (key, indices) = part.split_once('[').unwrap_or((part, ""));
        steps.push(Step::Key(key));
        let indices = indices.split('[').filter_map(|index| index.strip_suffix(']')?.parse().ok());
        steps.extend(indices.map(Step::Index));
    }
    steps
}
