//! How the fields of a log event are written: on one line, without control characters, cut to a length. Owns the
//! escaping; text from clients reaches a terminal or a log file only through it.

use std::fmt::{self, Debug, Write};
use tracing::field::Field;
use tracing_subscriber::{
    field::MakeExt,
    fmt::format::{self, FormatFields, Writer},
};

/// Bytes of a message that are written.
const MAX_MESSAGE_BYTES: usize = 4096;
/// Bytes of another field that are written.
const MAX_FIELD_BYTES: usize = 1024;

/// Formats `message field=value other="text"`.
pub(crate) fn fields() -> impl for<'writer> FormatFields<'writer> + 'static {
    format::debug_fn(write_field).delimited(" ")
}

fn write_field(writer: &mut Writer<'_>, field: &Field, value: &dyn Debug) -> fmt::Result {
    write(writer, field, value)
}

/// Writes a field as `name=value`, the message as it is, both escaped and cut.
pub(crate) fn write(writer: &mut impl Write, field: &Field, value: &dyn Debug) -> fmt::Result {
    match field.name() {
        // where an event came from that was recorded with the crate `log`: shown as its target
        name if name.starts_with("log.") => Ok(()),
        "message" => Escaped::new(writer, MAX_MESSAGE_BYTES).write(value),
        name => {
            write!(writer, "{name}=")?;
            escape(writer, value)
        }
    }
}

/// Writes a value, escaped and cut.
pub(crate) fn escape(writer: &mut impl Write, value: &dyn Debug) -> fmt::Result {
    Escaped::new(writer, MAX_FIELD_BYTES).write(value)
}

/// Writes at most `left` bytes, control characters escaped, and counts the rest.
struct Escaped<'a, W> {
    writer: &'a mut W,
    left: usize,
    cut: usize,
}

impl<'a, W: Write> Escaped<'a, W> {
    fn new(writer: &'a mut W, limit: usize) -> Self {
        Escaped { writer, left: limit, cut: 0 }
    }

    fn write(mut self, value: &dyn Debug) -> fmt::Result {
        write!(self, "{value:?}")?;
        if self.cut > 0 {
            write!(self.writer, "... ({} more bytes)", self.cut)?;
        }
        Ok(())
    }
}

impl<W: Write> Write for Escaped<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut whole = 0; // bytes from here on need no escape
        for (at, character) in text.char_indices() {
            let length = character.len_utf8();
            if self.left < length {
                self.writer.write_str(text.get(whole..at).unwrap_or_default())?;
                self.left = 0;
                self.cut += text.len() - at;
                return Ok(());
            }
            self.left -= length;
            if is_deceptive(character) {
                self.writer.write_str(text.get(whole..at).unwrap_or_default())?;
                write!(self.writer, "{}", character.escape_default())?;
                whole = at + length;
            }
        }
        self.writer.write_str(text.get(whole..).unwrap_or_default())
    }
}

/// Whether a character could forge a line, command a terminal, or change the order in which text is shown.
fn is_deceptive(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
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
    fn one_line_without_control_characters() {
        assert_eq!(escaped("plain äöü", 100), "plain äöü");
        let forged = escaped("a\n2026-01-01 ERROR forged\r\t\u{1b}[31m\u{202e}x", 100);
        assert_eq!(forged, "a\\n2026-01-01 ERROR forged\\r\\t\\u{1b}[31m\\u{202e}x");
    }

    #[test]
    fn a_long_value_is_cut_between_characters() {
        assert_eq!(escaped("abcdef", 6), "abcdef");
        assert_eq!(escaped("abcdef", 5), "abcde... (1 more bytes)");
        assert_eq!(escaped("äö", 3), "ä... (2 more bytes)");
        assert_eq!(escaped(&"\n".repeat(1 << 20), 4), "\\n\\n\\n\\n... (1048572 more bytes)");
    }
}
