//! References of a JSON Schema: how far they lead. Owns the limits that keep compilation and checks within
//! their stack; resolves only references within the document, and leaves errors in them to the compiler.

use serde_json::{Map, Value};
use std::collections::{BTreeSet, HashMap};

/// Schemas that can apply to one value, one through the other.
const MAX_CHAIN: usize = 64;
/// Different targets of references.
const MAX_TARGETS: usize = 500;

/// The keywords whose schemas apply to the same value.
const SCHEMAS: [&str; 4] = ["not", "if", "then", "else"];
const LISTS: [&str; 3] = ["allOf", "anyOf", "oneOf"];
const MAPS: [&str; 2] = ["dependentSchemas", "dependencies"];
const REFERENCES: [&str; 3] = ["$ref", "$dynamicRef", "$recursiveRef"];
/// The keywords that name a schema.
const NAMES: [&str; 4] = ["$anchor", "$dynamicAnchor", "$id", "id"];

/// Checks a schema document. Returns whether it has references.
///
/// # Errors
/// What is wrong, to follow the path of the file.
pub(crate) fn check(document: &Value) -> Result<bool, String> {
    let mut references = References { document, named: HashMap::new(), chains: HashMap::new() };
    let (mut tables, mut targets) = (vec![], BTreeSet::new());
    let mut pending = vec![document];
    while let Some(value) = pending.pop() {
        match value {
            Value::Array(values) => pending.extend(values),
            Value::Object(table) => {
                pending.extend(table.values());
                tables.push(table);
                targets.extend(REFERENCES.iter().filter_map(|key| table.get(*key)?.as_str()));
                for name in NAMES.iter().filter_map(|key| table.get(*key)?.as_str()) {
                    references.named.entry(name.trim_start_matches('#')).or_default().push(table);
                }
            }
            _ => {}
        }
    }
    if tables.iter().any(|table| table.get("format").and_then(Value::as_str) == Some("regex")) {
        return Err(
            "uses the format \"regex\", which is not supported: it would compile what clients send".into()
        );
    }
    if targets.len() > MAX_TARGETS {
        return Err(format!("refers to {} different targets; the limit is {MAX_TARGETS}", targets.len()));
    }
    for table in tables {
        references.chain(table, 1)?;
    }
    Ok(!targets.is_empty())
}

struct References<'a> {
    document: &'a Value,
    named: HashMap<&'a str, Vec<&'a Map<String, Value>>>,
    /// By address: the length of the chain of a schema, or zero while it is being found. A cycle ends
    /// where it closes, as it does when a value is checked.
    chains: HashMap<*const Map<String, Value>, usize>,
}

impl<'a> References<'a> {
    /// Returns the length of the longest chain of schemas for the same value that begins here, at a length so
    /// far.
    fn chain(&mut self, schema: &'a Map<String, Value>, so_far: usize) -> Result<usize, String> {
        let known = self.chains.get(&std::ptr::from_ref(schema)).copied();
        if so_far + known.unwrap_or(1).max(1) - 1 > MAX_CHAIN {
            return Err(format!(
                "has more than {MAX_CHAIN} schemas that apply to one value, each through another"
            ));
        }
        if let Some(known) = known {
            return Ok(known);
        }
        self.chains.insert(schema, 0);
        let mut longest = 1;
        for next in self.next(schema) {
            longest = longest.max(1 + self.chain(next, so_far + 1)?);
        }
        self.chains.insert(schema, longest);
        Ok(longest)
    }

    /// Returns the schemas that apply to the same value as this one.
    fn next(&self, schema: &'a Map<String, Value>) -> Vec<&'a Map<String, Value>> {
        let direct = SCHEMAS.iter().filter_map(|key| schema.get(*key));
        let lists = LISTS.iter().filter_map(|key| schema.get(*key)?.as_array()).flatten();
        let maps = MAPS.iter().filter_map(|key| schema.get(*key)?.as_object()).flat_map(Map::values);
        let mut next: Vec<_> = direct.chain(lists).chain(maps).filter_map(Value::as_object).collect();
        for reference in REFERENCES.iter().filter_map(|key| schema.get(*key)?.as_str()) {
            let (base, fragment) = reference.split_once('#').unwrap_or((reference, ""));
            let bases = self.named.get(base).cloned().unwrap_or_default();
            if base.is_empty() && (fragment.is_empty() || fragment.starts_with('/')) {
                next.extend(self.document.pointer(&decoded(fragment)).and_then(Value::as_object));
            } else if fragment.is_empty() {
                next.extend(bases);
            } else if fragment.starts_with('/') {
                let pointed = |table: &'a Map<String, Value>| follow(table, &decoded(fragment));
                next.extend(bases.into_iter().filter_map(pointed));
            } else {
                next.extend(self.named.get(fragment).into_iter().flatten());
            }
        }
        next
    }
}

/// Follows a JSON pointer that begins with a slash.
fn follow<'a>(table: &'a Map<String, Value>, pointer: &str) -> Option<&'a Map<String, Value>> {
    let (first, rest) = pointer
        .strip_prefix('/')?
        .split_once('/')
        .map_or((pointer.get(1..)?, None), |(first, rest)| (first, Some(rest)));
    let value = table.get(&first.replace("~1", "/").replace("~0", "~"))?;
    match rest {
        Some(rest) => value.pointer(&format!("/{rest}"))?.as_object(),
        None => value.as_object(),
    }
}

/// Decodes the percent escapes of a fragment.
fn decoded(fragment: &str) -> String {
    let mut bytes = Vec::with_capacity(fragment.len());
    let mut rest = fragment.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let escaped = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok()).filter(|_| *first == b'%') {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
