//! JSON Schema files: reads, checks and compiles them. Owns the limits of a schema: its length, its nesting,
//! its references, its regular expressions.

use jsonschema::{
    PatternOptions, Retrieve, Uri, ValidationError, Validator, error::ValidationErrorKind as Kind,
};
use rustix::fs::OFlags;
use serde_json::Value;
use std::{
    error::Error,
    fs::File,
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use crate::{
    document::Parsing,
    json,
    patterns::{self, MAX_REGEX_BYTES},
    references,
};

/// Maximum length of a file, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;
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
    /// Length of a document, in bytes, if the regular expressions limit it.
    max_bytes: Option<usize>,
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
        let max_bytes = patterns::max_bytes(&document);
        let compile =
            || std::thread::Builder::new().stack_size(COMPILE_STACK_BYTES).spawn(move || compile(&document));
        let compiled = compile().map_err(|error| refuse(format!("cannot be compiled: {error}")))?.join();
        let validator = compiled.unwrap_or_else(|_| Err("cannot be compiled: the compiler panicked".into()));
        Ok(Schema { text, validator: validator.map_err(refuse)?, has_references, max_bytes })
    }

    /// Returns whether two schemas are from files of the same contents.
    pub(crate) fn is_same_as(&self, other: &Self) -> bool {
        self.text == other.text
    }

    /// Returns the length of the longest document that is compared with it, in bytes. `None`: no limit.
    pub(crate) fn max_bytes(&self) -> Option<usize> {
        self.max_bytes
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
        let reason = match error.kind() {
            // names of properties are contents as well: no text and no path may repeat those of a document
            Kind::AdditionalProperties { unexpected } | Kind::UnevaluatedProperties { unexpected } => {
                format!("{} properties that the schema does not allow", unexpected.len())
            }
            Kind::PropertyNames { .. } => "the name of a property is not allowed".to_owned(),
            _ => error.masked().to_string(),
        };
        let place = error.schema_path().as_str();
        Some(format!("{reason} ({} of the schema)", if place.is_empty() { "/" } else { place }))
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
        let (at, problem) = (error.instance_path().as_str(), problem(&error));
        if at.is_empty() {
            format!("is not a usable schema: {problem}")
        } else {
            format!("is not a usable schema: {problem} (at {at:?})")
        }
    })
}

/// Says what is wrong with a schema, and what to write instead where the compiler's text would advise what an
/// operator cannot do.
fn problem(error: &ValidationError<'_>) -> String {
    let text = error.to_string();
    let is_format = |name: &str| matches!(error.kind(), Kind::Format { format } if format == name);
    if is_format("regex") {
        let limit = MAX_REGEX_BYTES >> 10;
        return format!(
            "{} is not a usable regular expression: expected one without look-around and back-references, of \
             at most {limit} KiB when compiled",
            error.instance()
        );
    }
    if let Some((unknown, _)) = text.split_once(". Adjust configuration") {
        return format!("{unknown}: remove it, or use one that JSON Schema defines");
    }
    if let Some((unknown, _)) = text.split_once(". Custom meta-schemas") {
        return format!("{unknown}: expected that of draft 4, 6, 7, 2019-09 or 2020-12");
    }
    if error.instance_path().as_str().ends_with("/type") && matches!(error.kind(), Kind::AnyOf { .. }) {
        return format!(
            "{} is not a type: expected array, boolean, integer, null, number, object, string, or a list of \
             them",
            error.instance()
        );
    }
    text
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
