//! What a payload is (JSON, msgpack, text or anything else), and how it is shown. Never more than the bound, and what was left out
//! is said.

use serde_json::{Map, Value, json};

use super::{
    colour::{Palette, Tone},
    escape::{escape, escape_block, escape_json},
    hex, msgpack,
};

/// The most that is taken apart as JSON or msgpack, whose values need many times their bytes in memory.
const DECODE_LIMIT: usize = 4 << 20;
/// The most binary data shown in the line instead of below it.
const INLINE_BINARY: usize = 16;

/// What a payload would be expected to be, where it can be two things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expect {
    /// Anything, of any sender. Msgpack only if it is a list or a map.
    Anything,
    /// The parameters or the result of a call, which are msgpack by convention.
    Msgpack,
}

/// What a payload is.
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

/// How much of a payload is shown, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bound {
    /// Of text, JSON and msgpack.
    pub(crate) readable: usize,
    /// Of anything else.
    pub(crate) binary: usize,
}

impl Bound {
    /// The same for everything; 0 is no bound.
    pub(crate) fn all(bytes: u64) -> Self {
        let bytes = match bytes {
            0 => usize::MAX,
            bytes => usize::try_from(bytes).unwrap_or(usize::MAX),
        };
        Bound { readable: bytes, binary: bytes }
    }
}

/// A payload in text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Shown {
    /// Fits behind what is said about the frame.
    Inline(String),
    /// Lines of their own.
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

    /// For the line of a frame: line ends are escaped, only binary data needs lines of its own.
    pub(crate) fn line(&self, bound: Bound, palette: Palette) -> Shown {
        match self {
            Payload::Empty => Shown::Inline(palette.paint(Tone::Dim, "(empty)")),
            // as it was sent, so that its numbers keep their digits
            Payload::Json { text, .. } if !text.contains(['\n', '\r']) => inline(text, bound, palette),
            Payload::Json { value, .. } | Payload::Msgpack(value) => {
                inline(&escape_json(&value.to_string()), bound, palette)
            }
            Payload::Text(text) => inline(text, bound, palette),
            Payload::Binary(bytes) if bytes.len() <= INLINE_BINARY.min(bound.binary) => {
                Shown::Inline(palette.paint(Tone::Dim, "0x") + &hex::digits(bytes))
            }
            Payload::Binary(bytes) => Shown::Below(dump(bytes, bound, palette)),
        }
    }

    /// For a result that stands alone: JSON in many lines if `pretty`, text with its line ends. No line end at the end.
    pub(crate) fn block(&self, bound: Bound, palette: Palette, pretty: bool) -> String {
        match self {
            Payload::Empty => String::new(),
            Payload::Json { value, .. } | Payload::Msgpack(value) => {
                let text = if pretty { format!("{value:#}") } else { value.to_string() };
                let (shown, note) = bounded(&text, bound, palette);
                escape_json(shown).into_owned() + &note
            }
            Payload::Text(text) => {
                let (shown, note) = bounded(text, bound, palette);
                escape_block(shown.trim_end_matches(['\n', '\r'])).into_owned() + &note
            }
            Payload::Binary(bytes) => dump(bytes, bound, palette),
        }
    }

    /// Adds to a JSON object: the payload as `key`, `encoding` and `bytes`, and where it was too long `omitted_bytes`.
    pub(crate) fn add_to(&self, object: &mut Map<String, Value>, key: &str, bytes: &[u8], bound: Bound) {
        let mut omitted = 0;
        let mut text = |text: &str| {
            let shown = prefix(text, bound.readable);
            omitted = text.len() - shown.len();
            Value::from(shown)
        };
        let (value, encoding) = match self {
            Payload::Empty => (Value::Null, "empty"),
            Payload::Json { value, .. } if bytes.len() <= bound.readable => (value.clone(), "json"),
            // not a value any more, so it is the beginning of a text
            Payload::Json { text: whole, .. } => (text(whole), "text"),
            Payload::Msgpack(value) if bytes.len() <= bound.readable => (value.clone(), "msgpack"),
            Payload::Text(whole) => (text(whole), "text"),
            Payload::Msgpack(_) | Payload::Binary(_) => {
                let shown = bytes.get(..bound.binary).unwrap_or(bytes);
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

/// Only what cannot be anything else: a lone number is text as well.
fn json_container(text: &str) -> Option<Value> {
    if !text.trim_start().starts_with(['{', '[']) {
        return None;
    }
    serde_json::from_str(text).ok()
}

/// Blanks, line ends and the escape sequences of coloured logs are text; other control characters are binary data.
fn is_text(text: &str) -> bool {
    text.chars().all(|c| !c.is_control() || matches!(c, '\t' | '\n' | '\r' | '\x1b'))
}

/// The longest beginning of at most so many bytes.
fn prefix(text: &str, bytes: usize) -> &str {
    // characters have at most four bytes
    let ends = (bytes.saturating_sub(3)..=bytes).rev();
    ends.filter(|_| bytes < text.len()).find_map(|end| text.get(..end)).unwrap_or(text)
}

/// What is shown, and a note of what is not.
fn bounded(text: &str, bound: Bound, palette: Palette) -> (&str, String) {
    let shown = prefix(text, bound.readable);
    (shown, left_out(text.len() - shown.len(), palette))
}

fn left_out(bytes: usize, palette: Palette) -> String {
    match bytes {
        0 => String::new(),
        bytes => palette.paint(Tone::Dim, &format!(" ... {bytes} more bytes")),
    }
}

fn inline(text: &str, bound: Bound, palette: Palette) -> Shown {
    let (shown, note) = bounded(text, bound, palette);
    Shown::Inline(escape(shown).into_owned() + &note)
}

fn dump(bytes: &[u8], bound: Bound, palette: Palette) -> String {
    let shown = bytes.get(..bound.binary).unwrap_or(bytes);
    hex::dump(shown) + &left_out(bytes.len() - shown.len(), palette)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Palette = Palette::PLAIN;

    fn line(bytes: &[u8]) -> Shown {
        Payload::read(bytes, Expect::Anything).line(Bound::all(20), PLAIN)
    }

    fn inline(text: &str) -> Shown {
        Shown::Inline(text.to_owned())
    }

    #[test]
    fn each_payload_is_shown_as_what_it_is() {
        assert_eq!(line(b""), inline("(empty)"));
        assert_eq!(line(b"{\"b\": 1.10, \"a\":2}"), inline("{\"b\": 1.10, \"a\":2}"), "as it was sent");
        assert_eq!(line(b"[1,\n 2]"), inline("[1,2]"));
        assert_eq!(line(b"71.5"), inline("71.5"));
        assert_eq!(line("grün\n".as_bytes()), inline("grün\\n"));
        assert_eq!(line(b"\x1b[31mred"), inline("\\x1b[31mred"));
        assert_eq!(line(b"\x81\xa1k\x92\x01\x02"), inline("{\"k\":[1,2]}"));
        assert_eq!(line(b"\x00\x01"), inline("0x0001"), "a lone msgpack number is no msgpack");
        assert_eq!(line(b"\xff\xfe"), inline("0xfffe"));
        let Shown::Below(dump) = line(&[0; 100]) else { panic!("in the line") };
        assert!(dump.starts_with("00000000  00 00") && dump.ends_with("|....| ... 80 more bytes"), "{dump}");
    }

    #[test]
    fn what_is_too_long_is_cut_and_said() {
        assert_eq!(line("aaaaaaaaaaaaaaaaaaaüb".as_bytes()), inline("aaaaaaaaaaaaaaaaaaa ... 3 more bytes"));
        let list = serde_json::to_string(&[1000; 10]).unwrap();
        assert_eq!(line(list.as_bytes()), inline("[1000,1000,1000,1000 ... 31 more bytes"));
    }

    #[test]
    fn results_of_calls_are_msgpack_first() {
        let read = |bytes| Payload::read(bytes, Expect::Msgpack).block(Bound::all(0), PLAIN, false);
        assert_eq!(read(&[5]), "5");
        assert_eq!(read(b"\xa1a"), "\"a\"");
        assert_eq!(read(b"hello\nyou\n"), "hello\nyou");
        assert_eq!(read(b""), "");
        assert_eq!(
            Payload::read(b"\x81\xa1k\x01", Expect::Msgpack).block(Bound::all(0), PLAIN, true),
            "{\n  \"k\": 1\n}"
        );
    }

    #[test]
    fn json_says_what_it_holds() {
        let object = |bytes: &[u8], bound| {
            let mut object = Map::new();
            Payload::read(bytes, Expect::Anything).add_to(&mut object, "payload", bytes, Bound::all(bound));
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
    fn what_is_too_large_is_not_taken_apart() {
        let list = vec![0xc0; DECODE_LIMIT + 1];
        assert!(matches!(Payload::read(&list, Expect::Msgpack), Payload::Binary(_)));
    }
}
