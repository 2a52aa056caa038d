//! What documents have in common, whatever their encoding: their limits, and what can be wrong with them.
//! Owns the text for each fault; parses nothing.

use std::{cell::Cell, fmt};

/// Deepest nesting of lists and maps. Parsing and checking are recursive, and use the stack of the sender's
/// thread.
pub(crate) const MAX_DEPTH: usize = 64;

/// Why a message is refused. No text of it repeats a payload, which may be confidential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Longer than `max_bytes`.
    TooLong { bytes: usize, max: usize },
    /// Too long for the regular expressions of the schema.
    TooLongForPatterns { bytes: usize, max: usize },
    /// Not UTF-8.
    NotUtf8,
    /// Not JSON.
    NotJson { line: usize, column: usize },
    /// Not msgpack, or more than one value.
    NotMsgpack { at: usize },
    /// Nested deeper than [`MAX_DEPTH`].
    TooDeep,
    /// More than `max_values` values.
    TooManyValues { max: usize },
    /// A map with the same key twice, of which receivers could take either.
    RepeatedKey,
    /// Part of a msgpack document that JSON, and so a schema, cannot describe.
    NotInJson { what: &'static str },
    /// It begins like a call and cannot be decoded.
    NotACall,
    /// It does not match the schema.
    Schema,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::TooLong { bytes, max } => write!(f, "{bytes} bytes exceed max_bytes = {max}"),
            Fault::TooLongForPatterns { bytes, max } => {
                write!(f, "{bytes} bytes exceed the {max} that the regular expressions of the schema allow")
            }
            Fault::NotUtf8 => f.write_str("not UTF-8"),
            Fault::NotJson { line, column } => write!(f, "not JSON at line {line}, column {column}"),
            Fault::NotMsgpack { at } => write!(f, "not a msgpack value at byte {at}"),
            Fault::TooDeep => write!(f, "nested deeper than {MAX_DEPTH} levels"),
            Fault::TooManyValues { max } => write!(f, "more values than max_values = {max}"),
            Fault::RepeatedKey => f.write_str("a map contains a key twice"),
            Fault::NotInJson { what } => write!(f, "contains {what}, which a JSON Schema cannot describe"),
            Fault::NotACall => f.write_str("begins like a call and cannot be decoded"),
            Fault::Schema => f.write_str("does not match the schema"),
        }
    }
}

/// What is done with a document while it is parsed.
#[derive(Debug)]
pub(crate) struct Parsing {
    /// Whether the document is built, to be compared with a schema; otherwise only its syntax is checked.
    pub(crate) build: bool,
    max_values: usize,
    values: Cell<usize>,
    fault: Cell<Option<Fault>>,
}

impl Parsing {
    /// Checks the syntax of a document of any number of values.
    pub(crate) fn check() -> Self {
        Parsing { build: false, max_values: usize::MAX, values: Cell::new(0), fault: Cell::new(None) }
    }

    /// Builds a document of at most `max_values` values.
    pub(crate) fn build(max_values: usize) -> Self {
        Parsing { build: true, max_values, ..Self::check() }
    }

    /// Counts a value at a depth.
    pub(crate) fn begin_value(&self, depth: usize) -> Result<(), Fault> {
        self.values.set(self.values.get() + 1);
        if self.values.get() > self.max_values {
            return Err(self.failed(Fault::TooManyValues { max: self.max_values }));
        }
        if depth > MAX_DEPTH {
            return Err(self.failed(Fault::TooDeep));
        }
        Ok(())
    }

    /// Keeps a fault, for parsers whose own error would hide it.
    pub(crate) fn failed(&self, fault: Fault) -> Fault {
        self.fault.set(Some(fault));
        fault
    }

    /// Returns the fault that was kept.
    pub(crate) fn fault(&self) -> Option<Fault> {
        self.fault.get()
    }
}
