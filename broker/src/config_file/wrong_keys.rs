//! Finds all errors in one table. Reading a table reports its first error only: the key of the error is left
//! out, or renamed if it is misspelt, and the table is read again. Owns what is left out; knows no particular
//! key.

use elbus_plugin_api::PluginError;
use toml::{Table, Value};

use super::MAX_ERRORS;

/// The errors in one table.
#[derive(Default)]
pub(crate) struct WrongKeys {
    /// With keys as they are in the file.
    pub(crate) errors: Vec<PluginError>,
    /// List elements that are left out, with their index in the file: later elements have moved up.
    elements: Vec<String>,
    /// Renamed keys, with their names in the file.
    renamed: Vec<(String, String)>,
}

impl WrongKeys {
    /// Takes an error and removes its key from the table. Returns whether the table can be read again.
    pub(crate) fn leave_out(&mut self, mut error: PluginError, table: &mut Table) -> bool {
        let key = std::mem::take(&mut error.key);
        let counted = self.in_file(&key);
        error.key = self.as_written(&counted);
        let dot = if counted.is_empty() { "" } else { "." };
        let is_consequence = |missing: &str| {
            let missing = format!("{counted}{dot}{missing}");
            self.is_left_out(&missing) || self.is_left_out(&self.as_written(&missing))
        };
        if missing_keys(&error.message).any(is_consequence) {
            // of leaving it out: the rest of the table that it belongs to cannot be read
            return self.remove(table, &key);
        }
        let has_room = self.errors.len() < MAX_ERRORS;
        let meant = meant_key(&error.message).filter(|meant| !table.contains_key(*meant)).map(str::to_owned);
        let more = match meant {
            Some(meant) => has_room && self.rename(table, &key, &meant),
            None => has_room && !self.is_left_out(&counted) && self.remove(table, &key),
        };
        self.errors.push(error);
        more
    }

    /// Renames a misspelt key, so that its value is read.
    fn rename(&mut self, table: &mut Table, key: &str, meant: &str) -> bool {
        let Some(value) = table.remove(key) else { return false };
        table.insert(meant.to_owned(), value);
        self.renamed.push((meant.to_owned(), key.to_owned()));
        true
    }

    /// Converts a key, or the path to a value below it, to its name in the file.
    fn as_written(&self, key: &str) -> String {
        let written = self.renamed.iter().find_map(|(meant, written)| {
            let rest = key.strip_prefix(meant)?;
            (rest.is_empty() || rest.starts_with(['.', '['])).then(|| format!("{written}{rest}"))
        });
        written.unwrap_or_else(|| key.to_owned())
    }

    /// Whether an error was about this key or an element of it.
    fn is_left_out(&self, key: &str) -> bool {
        let is_of = |other: &str| {
            other.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with('['))
        };
        self.errors.iter().any(|error| is_of(&error.key))
    }

    /// Converts a key to the indices of the file.
    fn in_file(&self, key: &str) -> String {
        let mut counted = String::new();
        let mut rest = key;
        while let Some((before, index, after)) = next_index(rest) {
            counted.push_str(before);
            let of_list = |element: &String| {
                let (index, rest) = parse_index(element.strip_prefix(counted.as_str())?)?;
                rest.is_empty().then_some(index)
            };
            let mut left_out: Vec<usize> = self.elements.iter().filter_map(of_list).collect();
            left_out.sort_unstable();
            let index = left_out.into_iter().fold(index, |index, other| index + usize::from(other <= index));
            counted.push_str(&format!("[{index}]"));
            rest = after;
        }
        counted.push_str(rest);
        counted
    }

    fn remove(&mut self, table: &mut Table, key: &str) -> bool {
        let Some(bytes) = remove_key(table, key) else { return false };
        let removed = key.get(..bytes).unwrap_or(key);
        if removed.ends_with(']') {
            let removed = self.in_file(removed);
            self.elements.push(removed);
        }
        true
    }
}

/// The keys of which a message says that one is missing.
fn missing_keys(message: &str) -> impl Iterator<Item = &str> {
    let list = message.strip_prefix("missing key ").unwrap_or_default();
    list.split('`').skip(1).step_by(2)
}

/// The key that a message suggests instead.
fn meant_key(message: &str) -> Option<&str> {
    message.strip_suffix('?')?.rsplit_once("did you mean ").map(|(_, key)| key)
}

/// Splits a path at its first index: the part before it, the index, the part after it.
fn next_index(path: &str) -> Option<(&str, usize, &str)> {
    path.match_indices('[').find_map(|(at, _)| {
        let (before, rest) = path.split_at(at);
        parse_index(rest).map(|(index, after)| (before, index, after))
    })
}

/// `[3].name` as 3 and `.name`.
fn parse_index(text: &str) -> Option<(usize, &str)> {
    let (index, rest) = text.strip_prefix('[')?.split_once(']')?;
    Some((index.parse().ok()?, rest))
}

/// Removes a key by its path (`client[2].publish[0]`), and its parent if that is empty then. Returns the
/// length of the path to what was removed, in bytes.
fn remove_key(table: &mut Table, path: &str) -> Option<usize> {
    // a key can have dots in its name
    if table.remove(path).is_some() {
        return Some(path.len());
    }
    let end = path.find(['.', '['])?;
    let (name, rest) = path.split_at(end);
    let value = table.get_mut(name)?;
    let bytes = remove_below(value, rest)?;
    if is_empty(value) {
        table.remove(name);
        return Some(end);
    }
    Some(end + bytes)
}

fn remove_below(value: &mut Value, path: &str) -> Option<usize> {
    if let Some(key) = path.strip_prefix('.') {
        return remove_key(value.as_table_mut()?, key).map(|bytes| bytes + 1);
    }
    let (index, rest) = parse_index(path)?;
    let to_element = path.len() - rest.len();
    let list = value.as_array_mut()?;
    let element = list.get_mut(index)?;
    if !rest.is_empty() {
        let bytes = remove_below(element, rest)?;
        if !is_empty(element) {
            return Some(to_element + bytes);
        }
    }
    list.remove(index);
    Some(to_element)
}

fn is_empty(value: &Value) -> bool {
    value.as_table().is_some_and(Table::is_empty) || value.as_array().is_some_and(Vec::is_empty)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_counted_as_in_the_file() {
        let text = "list = [0, 1, 2, 3]\n[[t]]\na = 1\n[[t]]\nb = 1\nc = 2\n[[t]]\nwho = [{ u = 1 }]";
        let mut table: Table = text.parse().unwrap();
        let mut wrong = WrongKeys::default();
        let mut leave_out = |key: &str, message: &str| {
            let more = wrong.leave_out(PluginError::of_key(key, message), &mut table);
            (more, wrong.errors.last().unwrap().key.clone())
        };
        let mut found = |key: &str| leave_out(key, "wrong");
        assert_eq!(found("list[1]"), (true, "list[1]".to_owned()));
        assert_eq!(found("list[1]"), (true, "list[2]".to_owned()));
        assert_eq!(found("list[0]"), (true, "list[0]".to_owned()));
        assert_eq!(found("list[0]"), (true, "list[3]".to_owned()));
        // the first table is empty without it
        assert_eq!(found("t[0].a"), (true, "t[0].a".to_owned()));
        assert_eq!(found("t[0].c"), (true, "t[1].c".to_owned()));
        assert_eq!(found("t[1].who[0].u"), (true, "t[2].who[0].u".to_owned()));
        // what is left out is missing: this is not an error of its own
        assert_eq!(leave_out("t[0]", "missing key `c`, of something"), (true, "t[2].who[0].u".to_owned()));
        assert_eq!(leave_out("", "missing key `list`"), (false, "t[2].who[0].u".to_owned()));
        assert_eq!(leave_out("", "missing key `x`"), (false, String::new()));
        assert!(table.is_empty());
    }

    #[test]
    fn consequences_of_what_is_left_out_are_no_errors() {
        let mut table: Table = "t = [{ a = 1, b = 2 }]".parse().unwrap();
        let mut wrong = WrongKeys::default();
        let mut leave_out = |key: &str, message: &str| {
            (wrong.leave_out(PluginError::of_key(key, message), &mut table), wrong.errors.len())
        };
        assert_eq!(leave_out("t[0].b", "wrong"), (true, 1));
        assert_eq!(leave_out("t[0]", "missing key `x` or `b`: the element does nothing"), (true, 1));
        assert_eq!(leave_out("", "missing key `t`: expected at least one"), (false, 1));
    }

    #[test]
    fn the_value_of_a_misspelt_key_is_read() {
        let mut table: Table = "paht = ['/x', 5]\nmode = 1".parse().unwrap();
        let mut wrong = WrongKeys::default();
        let mut leave_out = |key: &str, message: &str, table: &mut Table| {
            let more = wrong.leave_out(PluginError::of_key(key, message), table);
            (more, wrong.errors.iter().map(|error| error.key.clone()).collect::<Vec<_>>().join(" "))
        };
        let mut expect = |key: &str, message: &str, keys: &str, left: &str| {
            assert_eq!(leave_out(key, message, &mut table).1, keys);
            assert_eq!(table.to_string().replace('\n', " ").trim(), left);
        };
        expect("paht", "unknown key; did you mean path?", "paht", "mode = 1 path = [\"/x\", 5]");
        expect("path[1]", "expected a string", "paht paht[1]", "mode = 1 path = [\"/x\"]");
        expect("path", "is too short", "paht paht[1] paht", "mode = 1");
        // a consequence of leaving it out
        expect("", "missing key `path`", "paht paht[1] paht", "mode = 1");
        expect("mode", "wrong", "paht paht[1] paht mode", "");
    }
}
