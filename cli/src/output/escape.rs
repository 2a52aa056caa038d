//! Escapes text from outside for a terminal. Owns which characters are escaped.

use std::{borrow::Cow, fmt::Write};

/// Returns whether a terminal would act on the character or move the text after it: C0, DEL, C1, line and
/// paragraph separators, and bidirectional formatting characters.
fn is_harmful(c: char) -> bool {
    let separators_and_embeddings = '\u{2028}'..='\u{202e}';
    let isolates = '\u{2066}'..='\u{2069}';
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}')
        || separators_and_embeddings.contains(&c)
        || isolates.contains(&c)
}

fn escape_where(text: &str, harmful: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.chars().any(&harmful) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            c if !harmful(c) => escaped.push(c),
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            '\t' => escaped.push_str("\\t"),
            c if u32::from(c) < 0x80 => _ = write!(escaped, "\\x{:02x}", u32::from(c)),
            c => _ = write!(escaped, "\\u{{{:x}}}", u32::from(c)),
        }
    }
    Cow::Owned(escaped)
}

/// Escapes text for one line.
pub(crate) fn escape(text: &str) -> Cow<'_, str> {
    escape_where(text, is_harmful)
}

/// Escapes text of several lines: line ends and tabs stay.
pub(crate) fn escape_block(text: &str) -> Cow<'_, str> {
    escape_where(text, |c| is_harmful(c) && c != '\n' && c != '\t')
}

/// Escapes serialized JSON, in which only C0 is escaped. Other harmful characters occur only within strings
/// and are escaped as JSON escapes. Line ends between values stay.
pub(crate) fn escape_json(json: &str) -> Cow<'_, str> {
    let harmful = |c: char| is_harmful(c) && c != '\n';
    if !json.chars().any(harmful) {
        return Cow::Borrowed(json);
    }
    let mut escaped = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if harmful(c) {
            // all are in the basic multilingual plane: one UTF-16 unit
            _ = write!(escaped, "\\u{:04x}", u32::from(c));
        } else {
            escaped.push(c);
        }
    }
    Cow::Owned(escaped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(escape("a ünï → b"), "a ünï → b");
        assert_eq!(
            escape("\x1b[2J\0\x7f\u{9b}\u{202e}\r\n\t"),
            "\\x1b[2J\\x00\\x7f\\u{9b}\\u{202e}\\r\\n\\t"
        );
        assert_eq!(escape_block("a\n\tb\x1b"), "a\n\tb\\x1b");
        for c in (0..=0x10FFFFu32).filter_map(char::from_u32) {
            let text = c.to_string();
            assert!(!escape(&text).chars().any(char::is_control), "{c:?}");
        }
    }

    #[test]
    fn escaped_json_has_the_same_value() {
        let value = serde_json::json!({"k\u{9b}": ["\u{7f}\u{2028}\x1b", "plain"]});
        let text = value.to_string();
        let escaped = escape_json(&text);
        assert!(escaped.is_ascii());
        assert_eq!(serde_json::from_str::<serde_json::Value>(&escaped).unwrap(), value);
    }
}
