//! JSON Schema files: reads, checks and compiles them. Owns the limits of a schema: its length, its nesting,
//! its references, its regular expressions.

use jsonschema::{PatternOptions, Retrieve, Uri, Validator};
use rustix::fs::OFlags;
use serde_json::Value;
use std::{
    error::Error,
    fs::File,
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use crate::{document::Parsing, json, references};

/// Maximum length of a file, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// Approximate maximum size of a compiled regular expression, and of its cache in each thread.
const MAX_REGEX_BYTES: usize = 1 << 20;
/// The stack for compilation, which follows references recursively.
const COMPILE_STACK_BYTES: usize = 64 << 20;

/// A compiled schema.
#[derive(Debug)]
pub(crate) struct Schema {
    text: Vec<u8>,
    validator: Validator,
    /// Whether it has references. If they are recursive, finding out why a document does not match takes time
    /// exponential in its depth; finding out whether it matches does not.
    has_references: bool,
}

impl Schema {
    /// Reads and compiles a file.
    ///
    /// # Errors
    /// What is wrong with it. Begins with the path.
    pub(crate) fn load(path: &Path) -> Result<Self, String> {
        let text = read(path)?;
        let refuse = |reason: String| format!("{path:?} {reason}");
        let not_utf8 = |_| refuse("is not UTF-8".to_owned());
        let document = std::str::from_utf8(&text).map_err(not_utf8)?.trim_start_matches('\u{feff}');
        let document = json::parse_text(document, &Parsing::build(usize::MAX))
            .map_err(|error| refuse(format!("is not JSON: {error}")))?;
        let has_references = references::check(&document).map_err(refuse)?;
        let compile =
            || std::thread::Builder::new().stack_size(COMPILE_STACK_BYTES).spawn(move || compile(&document));
        let compiled = compile().map_err(|error| refuse(format!("cannot be compiled: {error}")))?.join();
        let validator = compiled.unwrap_or_else(|_| Err("cannot be compiled: the compiler panicked".into()));
        Ok(Schema { text, validator: validator.map_err(refuse)?, has_references })
    }

    /// Returns whether two schemas are from files of the same contents.
    pub(crate) fn is_same_as(&self, other: &Self) -> bool {
        self.text == other.text
    }

    /// Returns whether a document matches.
    pub(crate) fn matches(&self, document: &Value) -> bool {
        self.validator.is_valid(document)
    }

    /// Returns why a document does not match, without its contents, if that can be found in little time.
    pub(crate) fn explain(&self, document: &Value) -> Option<String> {
        if self.has_references {
            return None;
        }
        let error = self.validator.validate(document).err()?;
        Some(format!("{} (at {:?})", error.masked(), error.instance_path().as_str()))
    }
}

fn compile(document: &Value) -> Result<Validator, String> {
    let patterns = PatternOptions::regex().size_limit(MAX_REGEX_BYTES).dfa_size_limit(MAX_REGEX_BYTES);
    let options = jsonschema::options()
        .with_retriever(NoRetrieval)
        // of linear time
        .with_pattern_options(patterns)
        .should_validate_formats(true)
        // a format that is not checked would pass everything
        .should_ignore_unknown_formats(false)
        // would compile regular expressions of senders; `references` refuses it except in metaschemas
        .with_format("regex", |_: &str| true);
    options.build(document).map_err(|error| {
        let at = error.instance_path().as_str();
        if at.is_empty() {
            format!("is not a usable schema: {error}")
        } else {
            format!("is not a usable schema: {error} (at {at:?})")
        }
    })
}

/// Retrieves nothing: a schema is one file.
struct NoRetrieval;

impl Retrieve for NoRetrieval {
    fn retrieve(&self, _: &Uri<String>) -> Result<Value, Box<dyn Error + Send + Sync>> {
        Err("references must stay within the file".into())
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let refuse = |error: io::Error| format!("cannot read {path:?}: {error}");
    // opening a FIFO would block until a writer opens it
    let nonblock = OFlags::NONBLOCK.bits().cast_signed();
    let file = File::options().read(true).custom_flags(nonblock).open(path).map_err(refuse)?;
    if !file.metadata().map_err(refuse)?.is_file() {
        return Err(format!("cannot read {path:?}: it must be a regular file"));
    }
    let mut text = vec![];
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut text).map_err(refuse)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(format!("{path:?} is longer than {MAX_FILE_BYTES} bytes"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
