//! Formats the fields of a log event: on one line, without control characters, truncated. Owns the escaping;
//! text from clients reaches a terminal or a log file only through it.

use std::fmt::{self, Debug, Write};
use tracing::field::Field;
use tracing_subscriber::{
    field::MakeExt,
    fmt::format::{self, FormatFields, Writer},
};

/// Maximum bytes of a message.
const MAX_MESSAGE_BYTES: usize = 4096;
/// Maximum bytes of any other field.
const MAX_FIELD_BYTES: usize = 1024;

/// Returns a formatter of `message field=value other="text"`.
pub(crate) fn fields() -> impl for<'writer> FormatFields<'writer> + 'static {
    format::debug_fn(write_field).delimited(" ")
}

fn write_field(writer: &mut Writer<'_>, field: &Field, value: &dyn Debug) -> fmt::Result {
    write(writer, field, value)
}

/// Writes a field as `name=value` and the message without its name, escaped and truncated.
pub(crate) fn write(writer: &mut impl Write, field: &Field, value: &dyn Debug) -> fmt::Result {
    match field.name() {
        // the origin of an event of the crate `log`, which is printed as its target
        name if name.starts_with("log.") => Ok(()),
        "message" => Escaped::new(writer, MAX_MESSAGE_BYTES).write(value),
        name => {
            write!(writer, "{name}=")?;
            escape(writer, value)
        }
    }
}

/// Writes a value, escaped and truncated.
pub(crate) fn escape(writer: &mut impl Write, value: &dyn Debug) -> fmt::Result {
    Escaped::new(writer, MAX_FIELD_BYTES).write(value)
}

/// Writes at most `remaining` bytes with control characters escaped, and counts the omitted ones.
struct Escaped<'a, W> {
    writer: &'a mut W,
    remaining: usize,
    omitted: usize,
}

impl<'a, W: Write> Escaped<'a, W> {
    fn new(writer: &'a mut W, limit: usize) -> Self {
        Escaped { writer, remaining: limit, omitted: 0 }
    }

    fn write(mut self, value: &dyn Debug) -> fmt::Result {
        write!(self, "{value:?}")?;
        if self.omitted > 0 {
            write!(self.writer, "... ({} more bytes)", self.omitted)?;
        }
        Ok(())
    }
}

impl<W: Write> Write for Escaped<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut whole = 0; // bytes from here on need no escape
        for (at, character) in text.char_indices() {
            let length = character.len_utf8();
            if self.remaining < length {
                self.writer.write_str(text.get(whole..at).unwrap_or_default())?;
                self.remaining = 0;
                self.omitted += text.len() - at;
                return Ok(());
            }
            self.remaining -= length;
            if is_deceptive(character) {
                self.writer.write_str(text.get(whole..at).unwrap_or_default())?;
                write!(self.writer, "{}", character.escape_default())?;
                whole = at + length;
            }
        }
        self.writer.write_str(text.get(whole..).unwrap_or_default())
    }
}

/// Returns whether a character could forge a line, control a terminal, or change the order in which text is
/// displayed.
fn is_deceptive(character: char) -> bool {
    let separators_and_embeddings = '\u{2028}'..='\u{202e}';
    let isolates = '\u{2066}'..='\u{2069}';
    character.is_control()
        || matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}')
        || separators_and_embeddings.contains(&character)
        || isolates.contains(&character)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escaped(text: &str, limit: usize) -> String {
        let mut out = String::new();
        Escaped::new(&mut out, limit).write(&format_args!("{text}")).unwrap();
        out
    }

    #[test]
    fn values_are_on_one_line_without_control_characters() {
        assert_eq!(escaped("plain äöü", 100), "plain äöü");
        let forged = escaped("a\n2026-01-01 ERROR forged\r\t\u{1b}[31m\u{202e}x", 100);
        assert_eq!(forged, "a\\n2026-01-01 ERROR forged\\r\\t\\u{1b}[31m\\u{202e}x");
    }

    #[test]
    fn long_values_are_truncated_between_characters() {
        assert_eq!(escaped("abcdef", 6), "abcdef");
        assert_eq!(escaped("abcdef", 5), "abcde... (1 more bytes)");
        assert_eq!(escaped("äö", 3), "ä... (2 more bytes)");
        assert_eq!(escaped(&"\n".repeat(1 << 20), 4), "\\n\\n\\n\\n... (1048572 more bytes)");
    }
}
