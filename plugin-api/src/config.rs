//! The table of an instance in `broker.toml`, as its plugin reads it, and the values that tables share:
//! limits, ranges, times, overflow.
//!
//! [`Config`] remembers which keys were read, so that the others can be reported as unknown, and turns every
//! error into one about a key. The broker, which has the file, adds line and value.

mod limit;
mod overflow;
mod range;

pub use limit::Limit;
pub use overflow::{Admission, Overflow};
pub use range::{check_range, seconds};

use serde::de::{DeserializeOwned, Deserializer, Visitor};
use std::{cell::RefCell, collections::BTreeSet};
use toml::{Table, Value};

use crate::plugin_error::PluginError;

/// Characters of a wrong value that a message repeats.
const SHOWN_CHARS: usize = 60;

/// The configuration of one instance.
///
/// # Examples
/// ```
/// use elbus_plugin_api::Config;
///
/// #[derive(serde::Deserialize)]
/// struct Settings {
///     path: String,
///     #[serde(default)]
///     mode: Option<u32>,
/// }
///
/// let config = Config::parse("path = '/run/x'").unwrap();
/// let settings: Settings = config.read().unwrap();
/// assert_eq!((settings.path.as_str(), settings.mode), ("/run/x", None));
/// ```
#[derive(Debug)]
pub struct Config {
    table: Table,
    known: RefCell<BTreeSet<&'static str>>,
    takes_all: RefCell<bool>,
}

impl Config {
    /// Parses TOML text.
    ///
    /// # Errors
    /// The text is not TOML.
    pub fn parse(text: &str) -> Result<Self, PluginError> {
        let table = text.parse::<Table>().map_err(|error| PluginError::new(error.message()))?;
        Ok(Config { table, known: RefCell::default(), takes_all: RefCell::new(false) })
    }

    /// Reads the keys that are fields of `T`. Several types can share the table. A type that is not a plain
    /// struct takes the whole of it.
    ///
    /// # Errors
    /// A value of the wrong type, a missing key, or the unknown key that is the missing one misspelt.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, PluginError> {
        let mut table = self.table.clone();
        match fields_of::<T>() {
            Some(fields) => {
                table.retain(|key, _| fields.contains(&key));
                self.known.borrow_mut().extend(fields);
            }
            None => *self.takes_all.borrow_mut() = true,
        }
        serde_path_to_error::deserialize(Value::Table(table)).map_err(|error| {
            let path = error.path().to_string();
            let key = if path == "." { String::new() } else { path };
            let message = error.inner().message().trim_end();
            let missing = message.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`'));
            match missing.filter(|_| key.is_empty()).and_then(|missing| self.misspelt(missing)) {
                Some(error) => error,
                None => PluginError::of_key(key, explain(message)),
            }
        })
    }

    /// Returns the error for a missing key that is present misspelt.
    fn misspelt(&self, missing: &str) -> Option<PluginError> {
        let known = self.known.borrow();
        let mut unknown = self.table.keys().filter(|key| !known.contains(key.as_str()));
        let key = unknown.find(|key| is_similar(key, missing))?;
        Some(PluginError::of_key(key, format!("unknown key; did you mean {missing}?")))
    }

    /// Checks that every key was read. The broker does this for every plugin after its `create`.
    ///
    /// # Errors
    /// The first key that was not read, and those that are known.
    pub fn finish(&self) -> Result<(), PluginError> {
        if *self.takes_all.borrow() {
            return Ok(());
        }
        let known = self.known.borrow();
        match self.table.keys().find(|key| !known.contains(key.as_str())) {
            None => Ok(()),
            Some(key) if known.is_empty() => {
                Err(PluginError::of_key(key, "unknown key; this plugin takes no configuration"))
            }
            Some(key) => {
                let similar =
                    known.iter().find(|known| is_similar(key, known) && !self.table.contains_key(**known));
                let hint = similar.map(|known| format!("; did you mean {known}?")).unwrap_or_default();
                let known = known.iter().copied().collect::<Vec<_>>().join(", ");
                Err(PluginError::of_key(key, format!("unknown key; known are {known}{hint}")))
            }
        }
    }
}

/// Returns whether a key is another one misspelt: by one change in three characters at most, and two in all.
/// A change inserts, omits or replaces a character, or swaps two.
fn is_similar(written: &str, key: &str) -> bool {
    let limit = (key.len() / 3).clamp(1, 2);
    // the work is limited by the length of the key
    if written.len() > key.len() + limit {
        return false;
    }
    let (written, key): (Vec<_>, Vec<_>) = (written.bytes().collect(), key.bytes().collect());
    // changes from the first bytes of one to the first bytes of the other, for the last two rows
    let (mut before, mut last): (Vec<usize>, Vec<usize>) = (Vec::new(), (0..=key.len()).collect());
    for (row, from) in written.iter().enumerate() {
        let mut current = vec![row + 1];
        for (column, to) in key.iter().enumerate() {
            let replaced = last[column] + usize::from(from != to);
            let mut changes = replaced.min(last[column + 1] + 1).min(current[column] + 1);
            if row > 0 && column > 0 && *from == key[column - 1] && written[row - 1] == *to {
                changes = changes.min(before[column - 1] + 1);
            }
            current.push(changes);
        }
        before = std::mem::replace(&mut last, current);
    }
    last.last().is_some_and(|changes| *changes <= limit)
}

/// Rephrases an error of serde in terms of the file.
fn explain(message: &str) -> String {
    let found = ["invalid type: ", "invalid value: "].iter().find_map(|kind| message.strip_prefix(kind));
    let Some((found, expected)) = found.and_then(|rest| rest.rsplit_once(", expected ")) else {
        return message.replace("missing field", "missing key");
    };
    let wanted = match expected {
        "usize" | "u64" => "a whole number of 0 or more",
        "u32" => "a whole number from 0 to 4294967295",
        "u16" => "a whole number from 0 to 65535",
        "u8" => "a whole number from 0 to 255",
        "i64" | "isize" => "a whole number",
        "i32" => "a whole number from -2147483648 to 2147483647",
        "i16" => "a whole number from -32768 to 32767",
        "i8" => "a whole number from -128 to 127",
        "f64" | "f32" => "a number",
        "a boolean" | "bool" => "true or false",
        "a sequence" => "a list, [...]",
        "a map" => "a table",
        other => other,
    };
    let excerpt = match found.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}...", found.get(..end).unwrap_or_default()),
        None => found.to_owned(),
    };
    let number = || found.strip_prefix("integer `")?.strip_suffix('`');
    match number() {
        Some(number) if expected == "a string" => {
            format!("expected {wanted}, found integer {number}; write it in quotes: \"{number}\"")
        }
        _ => format!("expected {wanted}, found {}", excerpt.replace('`', "")),
    }
}

/// Returns the names of the fields of a struct, which serde passes to its deserializer.
fn fields_of<T: DeserializeOwned>() -> Option<&'static [&'static str]> {
    let mut found = None;
    let _ = T::deserialize(FieldProbe(&mut found));
    found
}

struct FieldProbe<'a>(&'a mut Option<&'static [&'static str]>);

impl<'de> Deserializer<'de> for FieldProbe<'_> {
    type Error = serde::de::value::Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
        Err(serde::de::Error::custom("only asked for its fields"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        *self.0 = Some(fields);
        self.deserialize_any(visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize, Debug)]
    struct Socket {
        path: String,
        #[serde(default)]
        mode: Option<u32>,
    }

    #[derive(serde::Deserialize, Debug)]
    #[serde(default)]
    struct Limits {
        queue_bytes: u64,
    }
    impl Default for Limits {
        fn default() -> Self {
            Limits { queue_bytes: 8 }
        }
    }

    #[test]
    fn several_types_share_a_table() {
        let config = Config::parse("path = '/x'\nqueue_bytes = 9").unwrap();
        let socket = config.read::<Socket>().unwrap();
        assert_eq!((socket.path.as_str(), socket.mode), ("/x", None));
        assert_eq!(config.read::<Limits>().unwrap().queue_bytes, 9);
        assert_eq!(config.finish(), Ok(()));
    }

    #[test]
    fn keys_that_are_not_read_are_unknown() {
        let config = Config::parse("path = '/x'\npaht = '/y'").unwrap();
        config.read::<Socket>().unwrap();
        config.read::<Limits>().unwrap();
        let error = config.finish().unwrap_err();
        assert_eq!(error.key, "paht");
        assert_eq!(error.message, "unknown key; known are mode, path, queue_bytes");
        let config = Config::parse("mdoe = 1\npath = '/x'").unwrap();
        config.read::<Socket>().unwrap();
        assert_eq!(
            config.finish().unwrap_err().message,
            "unknown key; known are mode, path; did you mean mode?"
        );
        let error = Config::parse("a = 1").unwrap().finish().unwrap_err();
        assert_eq!(error.message, "unknown key; this plugin takes no configuration");
    }

    #[test]
    fn a_missing_key_is_reported_as_misspelt_if_a_similar_one_is_there() {
        for key in ["paht", "pth", "paths", "Path", "patj"] {
            let error = Config::parse(&format!("a = 1\n{key} = '/x'")).unwrap().read::<Socket>().unwrap_err();
            assert_eq!(
                (error.key.as_str(), error.message.as_str()),
                (key, "unknown key; did you mean path?")
            );
        }
        let long = "path".repeat(100_000);
        for key in ["mode", "queue_bytes", "thap", "p", long.as_str()] {
            let error = Config::parse(&format!("{key} = 1")).unwrap().read::<Socket>().unwrap_err();
            assert_eq!((error.key.as_str(), error.message.as_str()), ("", "missing key `path`"), "{key:.20}");
        }
        assert!(is_similar("queue_byts", "queue_bytes") && is_similar("queuebyte", "queue_bytes"));
        assert!(!is_similar("max_bytes", "queue_bytes") && !is_similar("", "path") && is_similar("x", "y"));
    }

    #[test]
    fn errors_name_the_key() {
        let error = Config::parse("path = 5").unwrap().read::<Socket>().unwrap_err();
        assert_eq!(error.key, "path");
        assert_eq!(error.message, "expected a string, found integer 5; write it in quotes: \"5\"");
        for (text, message) in [
            ("mode = 'rw'", "expected a whole number from 0 to 4294967295, found string \"rw\""),
            ("mode = -5", "expected a whole number from 0 to 4294967295, found integer -5"),
            ("mode = 4294967296", "expected a whole number from 0 to 4294967295, found integer 4294967296"),
            ("path = [1]", "expected a string, found sequence"),
        ] {
            let error = Config::parse(text).unwrap().read::<Socket>().unwrap_err();
            assert_eq!(error.message, message);
        }
        let long = format!("mode = '{}'", "x".repeat(100_000));
        let error = Config::parse(&long).unwrap().read::<Socket>().unwrap_err();
        assert!(error.message.len() < 200 && error.message.ends_with("..."), "{error}");
        let error = Config::parse("").unwrap().read::<Socket>().unwrap_err();
        assert_eq!((error.key.as_str(), error.message.as_str()), ("", "missing key `path`"));
        let any = Config::parse("what = 'ever'").unwrap();
        any.read::<Table>().unwrap();
        assert_eq!(any.finish(), Ok(()));
    }
}
