//! Detects the encoding of payloads (JSON, msgpack, text or binary) and formats them. Never prints more than
//! the limit; the number of omitted bytes is printed.

use serde_json::{Map, Value, json};

use super::{
    colour::{Palette, Style},
    escape::{escape, escape_block, escape_json},
    hex, msgpack,
};

/// The largest payload decoded as JSON or msgpack, in bytes. Decoded values take many times as much memory.
const DECODE_LIMIT: usize = 4 << 20;
/// The most bytes of binary data printed in the line instead of below it.
const INLINE_BINARY: usize = 16;

/// The expected encoding of a payload, which decides if it could have two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expect {
    /// Unknown. Only lists and maps are taken for msgpack.
    Anything,
    /// Parameters or the result of a call, which are msgpack by convention.
    Msgpack,
}

/// A payload and its encoding.
#[derive(Debug, PartialEq)]
pub(crate) enum Payload<'a> {
    Empty,
    /// A list or a map.
    Json {
        text: &'a str,
        value: Value,
    },
    Msgpack(Value),
    Text(&'a str),
    Binary(&'a [u8]),
}

/// How much of a payload is printed, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DisplayLimit {
    /// For text, JSON and msgpack.
    pub(crate) readable: usize,
    /// For anything else.
    pub(crate) binary: usize,
}

impl DisplayLimit {
    /// Returns the same limit for everything; 0 is unlimited.
    pub(crate) fn all(bytes: u64) -> Self {
        let bytes = match bytes {
            0 => usize::MAX,
            bytes => usize::try_from(bytes).unwrap_or(usize::MAX),
        };
        DisplayLimit { readable: bytes, binary: bytes }
    }
}

/// A formatted payload.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Rendered {
    /// Printed in the frame's line.
    Inline(String),
    /// Printed in lines below it.
    Below(String),
}

impl<'a> Payload<'a> {
    pub(crate) fn read(bytes: &'a [u8], expect: Expect) -> Self {
        if bytes.is_empty() {
            return Payload::Empty;
        }
        let small = bytes.len() <= DECODE_LIMIT;
        if small
            && expect == Expect::Msgpack
            && let Some(value) = msgpack::decode(bytes)
        {
            return Payload::Msgpack(value);
        }
        if let Ok(text) = std::str::from_utf8(bytes) {
            if small && let Some(value) = json_container(text) {
                return Payload::Json { text, value };
            }
            if is_text(text) {
                return Payload::Text(text);
            }
        }
        if small
            && let Some(value) = msgpack::decode(bytes)
            && (value.is_array() || value.is_object())
        {
            return Payload::Msgpack(value);
        }
        Payload::Binary(bytes)
    }

    /// Formats the payload for the line of a frame. Line ends are escaped; long binary data is printed below.
    pub(crate) fn line(&self, limit: DisplayLimit, palette: Palette) -> Rendered {
        match self {
            Payload::Empty => Rendered::Inline(palette.paint(Style::Dim, "(empty)")),
            // unchanged, so that numbers keep their digits
            Payload::Json { text, .. } if !text.contains(['\n', '\r']) => inline(text, limit, palette),
            Payload::Json { value, .. } | Payload::Msgpack(value) => {
                inline(&escape_json(&value.to_string()), limit, palette)
            }
            Payload::Text(text) => inline(text, limit, palette),
            Payload::Binary(bytes) if bytes.len() <= INLINE_BINARY.min(limit.binary) => {
                Rendered::Inline(palette.paint(Style::Dim, "0x") + &hex::digits(bytes))
            }
            Payload::Binary(bytes) => Rendered::Below(dump(bytes, limit, palette)),
        }
    }

    /// Formats the payload as the whole output: indented JSON if `pretty`, text with its line ends, without a
    /// final one.
    pub(crate) fn block(&self, limit: DisplayLimit, palette: Palette, pretty: bool) -> String {
        match self {
            Payload::Empty => String::new(),
            Payload::Json { value, .. } | Payload::Msgpack(value) => {
                let text = if pretty { format!("{value:#}") } else { value.to_string() };
                let (shown, note) = truncate(&text, limit, palette);
                escape_json(shown).into_owned() + &note
            }
            Payload::Text(text) => {
                let (shown, note) = truncate(text, limit, palette);
                escape_block(shown.trim_end_matches(['\n', '\r'])).into_owned() + &note
            }
            Payload::Binary(bytes) => dump(bytes, limit, palette),
        }
    }

    /// Adds the payload to a JSON object as `key`, with `encoding`, `bytes` and, if it was truncated,
    /// `omitted_bytes`.
    pub(crate) fn add_to(
        &self,
        object: &mut Map<String, Value>,
        key: &str,
        bytes: &[u8],
        limit: DisplayLimit,
    ) {
        let mut omitted = 0;
        let mut text = |text: &str| {
            let shown = prefix(text, limit.readable);
            omitted = text.len() - shown.len();
            Value::from(shown)
        };
        let (value, encoding) = match self {
            Payload::Empty => (Value::Null, "empty"),
            Payload::Json { value, .. } if bytes.len() <= limit.readable => (value.clone(), "json"),
            // truncated JSON is no value any more, only text
            Payload::Json { text: whole, .. } => (text(whole), "text"),
            Payload::Msgpack(value) if bytes.len() <= limit.readable => (value.clone(), "msgpack"),
            Payload::Text(whole) => (text(whole), "text"),
            Payload::Msgpack(_) | Payload::Binary(_) => {
                let shown = bytes.get(..limit.binary).unwrap_or(bytes);
                omitted = bytes.len() - shown.len();
                (Value::from(hex::digits(shown)), "hex")
            }
        };
        object.insert(key.to_owned(), value);
        object.insert("encoding".to_owned(), json!(encoding));
        object.insert("bytes".to_owned(), json!(bytes.len()));
        if omitted > 0 {
            object.insert("omitted_bytes".to_owned(), json!(omitted));
        }
    }
}

/// Parses a JSON list or map. Other JSON values, such as a number, are text as well.
fn json_container(text: &str) -> Option<Value> {
    if !text.trim_start().starts_with(['{', '[']) {
        return None;
    }
    serde_json::from_str(text).ok()
}

/// Returns whether this is text. Of control characters, it contains only tabs, line ends and ESC, as coloured
/// logs do.
fn is_text(text: &str) -> bool {
    text.chars().all(|c| !c.is_control() || matches!(c, '\t' | '\n' | '\r' | '\x1b'))
}

/// Returns the longest prefix of at most `bytes` bytes.
fn prefix(text: &str, bytes: usize) -> &str {
    // characters have at most four bytes
    let ends = (bytes.saturating_sub(3)..=bytes).rev();
    ends.filter(|_| bytes < text.len()).find_map(|end| text.get(..end)).unwrap_or(text)
}

/// Returns the prefix to print, and a note with the number of omitted bytes.
fn truncate(text: &str, limit: DisplayLimit, palette: Palette) -> (&str, String) {
    let shown = prefix(text, limit.readable);
    (shown, omitted_note(text.len() - shown.len(), palette))
}

fn omitted_note(bytes: usize, palette: Palette) -> String {
    match bytes {
        0 => String::new(),
        bytes => palette.paint(Style::Dim, &format!(" ... {bytes} more bytes")),
    }
}

fn inline(text: &str, limit: DisplayLimit, palette: Palette) -> Rendered {
    let (shown, note) = truncate(text, limit, palette);
    Rendered::Inline(escape(shown).into_owned() + &note)
}

fn dump(bytes: &[u8], limit: DisplayLimit, palette: Palette) -> String {
    let shown = bytes.get(..limit.binary).unwrap_or(bytes);
    hex::dump(shown) + &omitted_note(bytes.len() - shown.len(), palette)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Palette = Palette::PLAIN;

    fn line(bytes: &[u8]) -> Rendered {
        Payload::read(bytes, Expect::Anything).line(DisplayLimit::all(20), PLAIN)
    }

    fn inline(text: &str) -> Rendered {
        Rendered::Inline(text.to_owned())
    }

    #[test]
    fn each_encoding_has_its_form() {
        assert_eq!(line(b""), inline("(empty)"));
        assert_eq!(line(b"{\"b\": 1.10, \"a\":2}"), inline("{\"b\": 1.10, \"a\":2}"), "unchanged");
        assert_eq!(line(b"[1,\n 2]"), inline("[1,2]"));
        assert_eq!(line(b"71.5"), inline("71.5"));
        assert_eq!(line("grün\n".as_bytes()), inline("grün\\n"));
        assert_eq!(line(b"\x1b[31mred"), inline("\\x1b[31mred"));
        assert_eq!(line(b"\x81\xa1k\x92\x01\x02"), inline("{\"k\":[1,2]}"));
        assert_eq!(line(b"\x00\x01"), inline("0x0001"), "a single msgpack number is not taken for msgpack");
        assert_eq!(line(b"\xff\xfe"), inline("0xfffe"));
        let Rendered::Below(dump) = line(&[0; 100]) else { panic!("in the line") };
        assert!(dump.starts_with("00000000  00 00") && dump.ends_with("|....| ... 80 more bytes"), "{dump}");
    }

    #[test]
    fn long_payloads_are_truncated_with_a_note() {
        assert_eq!(line("aaaaaaaaaaaaaaaaaaaüb".as_bytes()), inline("aaaaaaaaaaaaaaaaaaa ... 3 more bytes"));
        let list = serde_json::to_string(&[1000; 10]).unwrap();
        assert_eq!(line(list.as_bytes()), inline("[1000,1000,1000,1000 ... 31 more bytes"));
    }

    #[test]
    fn results_of_calls_are_preferably_msgpack() {
        let read = |bytes| Payload::read(bytes, Expect::Msgpack).block(DisplayLimit::all(0), PLAIN, false);
        assert_eq!(read(&[5]), "5");
        assert_eq!(read(b"\xa1a"), "\"a\"");
        assert_eq!(read(b"hello\nyou\n"), "hello\nyou");
        assert_eq!(read(b""), "");
        assert_eq!(
            Payload::read(b"\x81\xa1k\x01", Expect::Msgpack).block(DisplayLimit::all(0), PLAIN, true),
            "{\n  \"k\": 1\n}"
        );
    }

    #[test]
    fn json_objects_carry_encoding_and_size() {
        let object = |bytes: &[u8], limit| {
            let mut object = Map::new();
            Payload::read(bytes, Expect::Anything).add_to(
                &mut object,
                "payload",
                bytes,
                DisplayLimit::all(limit),
            );
            Value::Object(object).to_string()
        };
        assert_eq!(object(b"", 0), r#"{"payload":null,"encoding":"empty","bytes":0}"#);
        assert_eq!(object(b"[1, 2]", 0), r#"{"payload":[1,2],"encoding":"json","bytes":6}"#);
        assert_eq!(object(b"[1, 2]", 2), r#"{"payload":"[1","encoding":"text","bytes":6,"omitted_bytes":4}"#);
        assert_eq!(object(b"\x91\x01", 0), r#"{"payload":[1],"encoding":"msgpack","bytes":2}"#);
        assert_eq!(
            object(b"\x91\x01", 1),
            r#"{"payload":"91","encoding":"hex","bytes":2,"omitted_bytes":1}"#
        );
        assert_eq!(object(b"12", 0), r#"{"payload":"12","encoding":"text","bytes":2}"#);
        assert_eq!(object(b"\0\xff", 0), r#"{"payload":"00ff","encoding":"hex","bytes":2}"#);
    }

    #[test]
    fn large_payloads_are_not_decoded() {
        let list = vec![0xc0; DECODE_LIMIT + 1];
        assert!(matches!(Payload::read(&list, Expect::Msgpack), Payload::Binary(_)));
    }
}
