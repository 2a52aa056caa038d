//! The table of an instance in `broker.toml`, as its plugin reads it.
//!
//! It remembers which keys were read, so that the others can be reported as unknown, and turns every error into
//! one about a key; the broker, which has the file, adds line and value.

use serde::de::{DeserializeOwned, Deserializer, Visitor};
use std::{cell::RefCell, collections::BTreeSet};
use toml::{Table, Value};

use crate::PluginError;

/// More of a wrong value is not repeated in a message.
const SHOWN_CHARS: usize = 60;

/// The configuration of one instance.
#[derive(Debug)]
pub struct Config {
    table: Table,
    known: RefCell<BTreeSet<&'static str>>,
    takes_any: RefCell<bool>,
}

impl Config {
    /// From TOML text.
    ///
    /// # Errors
    /// Where the text is no TOML.
    pub fn parse(text: &str) -> Result<Self, PluginError> {
        let table = text.parse::<Table>().map_err(|error| PluginError::new(error.message()))?;
        Ok(Config { table, known: RefCell::default(), takes_any: RefCell::new(false) })
    }

    /// Reads the keys that are fields of `T`. May be called for several types that share the table; a type that
    /// is no plain struct takes the whole of it.
    ///
    /// # Errors
    /// A value of the wrong type, a missing key.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, PluginError> {
        let mut table = self.table.clone();
        match fields_of::<T>() {
            Some(fields) => {
                table.retain(|key, _| fields.contains(&key));
                self.known.borrow_mut().extend(fields);
            }
            None => *self.takes_any.borrow_mut() = true,
        }
        serde_path_to_error::deserialize(Value::Table(table)).map_err(|error| {
            let path = error.path().to_string();
            let key = if path == "." { String::new() } else { path };
            PluginError::of_key(key, explain(error.inner().message().trim_end()))
        })
    }

    /// Reports a key that nobody has read. Done for every plugin after its `create`.
    ///
    /// # Errors
    /// The first such key, and which are known.
    pub fn finish(&self) -> Result<(), PluginError> {
        if *self.takes_any.borrow() {
            return Ok(());
        }
        let known = self.known.borrow();
        match self.table.keys().find(|key| !known.contains(key.as_str())) {
            None => Ok(()),
            Some(key) if known.is_empty() => {
                Err(PluginError::of_key(key, "unknown key; this plugin takes no configuration"))
            }
            Some(key) => {
                let known = known.iter().copied().collect::<Vec<_>>().join(", ");
                Err(PluginError::of_key(key, format!("unknown key; known are {known}")))
            }
        }
    }
}

/// What serde says, in terms of what stands in the file.
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
    let shown = match found.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}...", found.get(..end).unwrap_or_default()),
        None => found.to_owned(),
    };
    let number = || found.strip_prefix("integer `")?.strip_suffix('`');
    match number() {
        Some(number) if expected == "a string" => {
            format!("expected {wanted}, found integer {number}; write it in quotes: \"{number}\"")
        }
        _ => format!("expected {wanted}, found {}", shown.replace('`', "")),
    }
}

/// The names of the fields of a struct, which serde tells to whoever deserializes it.
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
    struct Place {
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
        let place = config.read::<Place>().unwrap();
        assert_eq!((place.path.as_str(), place.mode), ("/x", None));
        assert_eq!(config.read::<Limits>().unwrap().queue_bytes, 9);
        assert_eq!(config.finish(), Ok(()));
    }

    #[test]
    fn what_nobody_reads_is_unknown() {
        let config = Config::parse("path = '/x'\npaht = '/y'").unwrap();
        config.read::<Place>().unwrap();
        config.read::<Limits>().unwrap();
        let error = config.finish().unwrap_err();
        assert_eq!(error.key, "paht");
        assert_eq!(error.message, "unknown key; known are mode, path, queue_bytes");
        let error = Config::parse("a = 1").unwrap().finish().unwrap_err();
        assert_eq!(error.message, "unknown key; this plugin takes no configuration");
    }

    #[test]
    fn errors_name_the_key() {
        let error = Config::parse("path = 5").unwrap().read::<Place>().unwrap_err();
        assert_eq!(error.key, "path");
        assert_eq!(error.message, "expected a string, found integer 5; write it in quotes: \"5\"");
        for (text, message) in [
            ("mode = 'rw'", "expected a whole number from 0 to 4294967295, found string \"rw\""),
            ("mode = -5", "expected a whole number from 0 to 4294967295, found integer -5"),
            ("mode = 4294967296", "expected a whole number from 0 to 4294967295, found integer 4294967296"),
            ("path = [1]", "expected a string, found sequence"),
        ] {
            let error = Config::parse(text).unwrap().read::<Place>().unwrap_err();
            assert_eq!(error.message, message);
        }
        let long = format!("mode = '{}'", "x".repeat(100_000));
        let error = Config::parse(&long).unwrap().read::<Place>().unwrap_err();
        assert!(error.message.len() < 200 && error.message.ends_with("..."), "{error}");
        let error = Config::parse("").unwrap().read::<Place>().unwrap_err();
        assert_eq!((error.key.as_str(), error.message.as_str()), ("", "missing key `path`"));
        let any = Config::parse("what = 'ever'").unwrap();
        any.read::<Table>().unwrap();
        assert_eq!(any.finish(), Ok(()));
    }
}
