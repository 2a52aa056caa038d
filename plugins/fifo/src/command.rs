//! Parses one line of a FIFO (section 9). Never reads, sends or logs.

use elbus_plugin_api::Op;
use elbus_protocol::rpc;
use serde::Serialize;
use std::{borrow::Cow, collections::BTreeMap, fmt};

/// A request of a line to the broker.
#[derive(Debug, PartialEq, Eq)]
pub struct Command<'a> {
    /// [`Op::Message`], [`Op::Broadcast`] or [`Op::Publish`].
    pub op: Op,
    /// Name, mask or topic.
    pub target: &'a str,
    /// The payload; for the RPC forms, the frame of the call.
    pub payload: Cow<'a, [u8]>,
}

/// A syntax error of a line.
#[derive(Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "their texts explain them")]
#[non_exhaustive]
pub enum ParseError {
    NotUtf8,
    NoTarget,
    EmptyTopic,
    NoText,
    Nul { field: &'static str },
    EmptyMethod,
    NoValue { param: String },
    NoKey { param: String },
    Duplicate { key: String },
    Params { error: String },
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ParseError::NotUtf8 => f.write_str("not UTF-8"),
            ParseError::NoTarget => f.write_str("no target before the first space"),
            ParseError::EmptyTopic => f.write_str("no topic between = and the first space"),
            ParseError::NoText => f.write_str("no space and text after the target"),
            ParseError::Nul { field } => write!(f, "{field} contains a NUL"),
            ParseError::EmptyMethod => f.write_str("no method after the colon"),
            ParseError::NoValue { param } => write!(f, "parameter {param:?} without ="),
            ParseError::NoKey { param } => write!(f, "parameter {param:?} without a name"),
            ParseError::Duplicate { key } => write!(f, "parameter {key:?} is given twice"),
            ParseError::Params { error } => write!(f, "parameters cannot be encoded: {error}"),
        }
    }
}

/// Parses a line without its line feed. `None` if it is empty.
///
/// The text is everything after the first space, so it can contain spaces and can be empty. The RPC forms are
/// sent to the one client of that name, since broadcasts carry raw payloads (section 7).
///
/// # Errors
/// If the line has a syntax error.
pub fn parse(line: &[u8]) -> Result<Option<Command<'_>>, ParseError> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let line = std::str::from_utf8(line).map_err(|_| ParseError::NotUtf8)?;
    if line.is_empty() {
        return Ok(None);
    }
    let (target, text) = line.split_once(' ').unwrap_or((line, ""));
    let (field, op, target) = match target.strip_prefix('=') {
        Some("") => return Err(ParseError::EmptyTopic),
        Some(topic) => ("topic", Op::Publish, topic),
        None if target.is_empty() => return Err(ParseError::NoTarget),
        None => ("target", Op::Message, target),
    };
    if target.contains('\0') {
        return Err(ParseError::Nul { field });
    }
    if !line.contains(' ') {
        return Err(ParseError::NoText);
    }
    let (op, payload) = match (op, text.as_bytes()) {
        (Op::Message, [b'.', rest @ ..]) => (op, Cow::Owned(rpc::encode_notification(rest))),
        (Op::Message, [b':', ..]) => (op, Cow::Owned(request(text.get(1..).unwrap_or_default())?)),
        (Op::Message, raw) if target.contains(['*', '?']) => (Op::Broadcast, Cow::Borrowed(raw)),
        (op, raw) => (op, Cow::Borrowed(raw)),
    };
    Ok(Some(Command { op, target, payload }))
}

/// Encodes `METHOD k=v k=v` as a request without a reply.
fn request(text: &str) -> Result<Vec<u8>, ParseError> {
    let mut fields = text.split(' ');
    let method = fields.next().unwrap_or_default();
    if method.is_empty() {
        return Err(ParseError::EmptyMethod);
    }
    let mut params = BTreeMap::new();
    // an empty field is a superfluous space, for instance at the end
    for param in fields.filter(|field| !field.is_empty()) {
        let (key, value) =
            param.split_once('=').ok_or_else(|| ParseError::NoValue { param: beginning(param) })?;
        if key.is_empty() {
            return Err(ParseError::NoKey { param: beginning(param) });
        }
        if params.insert(key, Value::of(value)).is_some() {
            return Err(ParseError::Duplicate { key: beginning(key) });
        }
    }
    let params =
        rmp_serde::to_vec(&params).map_err(|error| ParseError::Params { error: error.to_string() })?;
    rpc::encode_request(rpc::NO_REPLY, method, &params).map_err(|_| ParseError::Nul { field: "method" })
}

/// A parameter, typed by its spelling.
#[derive(Debug, PartialEq, Serialize)]
#[serde(untagged)]
enum Value<'a> {
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(&'a str),
}

impl<'a> Value<'a> {
    fn of(text: &'a str) -> Self {
        match text {
            "true" => return Value::Bool(true),
            "false" => return Value::Bool(false),
            _ => {}
        }
        if let Ok(int) = text.parse() {
            return Value::Int(int);
        }
        match text.parse::<f64>() {
            // nan, inf and numbers too large to be finite are text
            Ok(float) if float.is_finite() => Value::Float(float),
            _ => Value::Text(text),
        }
    }
}

/// Returns the beginning of a text for a log line.
pub(crate) fn beginning(text: &str) -> String {
    const SHOWN: usize = 48;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use elbus_protocol::rpc::{RpcFrame, decode_rpc};

    fn raw(line: &str) -> (Op, String, String) {
        let command = parse(line.as_bytes()).unwrap().unwrap();
        let payload = String::from_utf8(command.payload.into_owned()).unwrap();
        (command.op, command.target.to_owned(), payload)
    }

    #[test]
    fn text_is_sent_unchanged() {
        for (line, op, target, text) in [
            ("a.b hello", Op::Message, "a.b", "hello"),
            ("a.b hello  my = world ", Op::Message, "a.b", "hello  my = world "),
            ("a.b ", Op::Message, "a.b", ""),
            ("a hi\r", Op::Message, "a", "hi"),
            ("a hi\r\r", Op::Message, "a", "hi\r"),
            (".broker x", Op::Message, ".broker", "x"),
            ("a nul\0in text", Op::Message, "a", "nul\0in text"),
            ("a.* to all", Op::Broadcast, "a.*", "to all"),
            ("? x", Op::Broadcast, "?", "x"),
            ("=t/+ some text", Op::Publish, "t/+", "some text"),
            ("=a/* .raw", Op::Publish, "a/*", ".raw"),
            ("=t :raw", Op::Publish, "t", ":raw"),
        ] {
            assert_eq!(raw(line), (op, target.to_owned(), text.to_owned()), "{line:?}");
        }
        assert_eq!(parse(b""), Ok(None));
        assert_eq!(parse(b"\r"), Ok(None));
    }

    #[test]
    fn rpc_forms_are_encoded() {
        let command = parse(b"svc .some text").unwrap().unwrap();
        assert_eq!((command.op, &*command.payload), (Op::Message, b"\0some text".as_slice()));
        let command = parse(b"svc .").unwrap().unwrap();
        assert_eq!(&*command.payload, b"\0");
        let command = parse(b"svc :go").unwrap().unwrap();
        let expected = RpcFrame::Request { call_id: 0, method: b"go", params: &[0x80] };
        assert_eq!(decode_rpc(&command.payload), Ok(expected));
        // section 7: broadcasts are raw, so these are sent to the one client of that name
        assert_eq!(parse(b"a.* .x").unwrap().unwrap().op, Op::Message);
        assert_eq!(parse(b"a.? :x").unwrap().unwrap().op, Op::Message);
    }

    #[test]
    fn parameters_are_typed() {
        let line =
            b"svc :set i=-5 big=9223372036854775808 f=1.5 t=true n=nan inf=inf s=on eq=a=b e= u=\xC3\xBC ";
        let command = parse(line).unwrap().unwrap();
        let Ok(RpcFrame::Request { method: b"set", params, .. }) = decode_rpc(&command.payload) else {
            panic!("{command:?}");
        };
        let map = rmpv::decode::read_value(&mut &*params).unwrap();
        let text = map.as_map().unwrap().iter().map(|(k, v)| format!("{}: {v}", k.as_str().unwrap()));
        assert_eq!(
            text.collect::<Vec<_>>(),
            [
                "big: 9223372036854776000",
                "e: \"\"",
                "eq: \"a=b\"",
                "f: 1.5",
                "i: -5",
                "inf: \"inf\"",
                "n: \"nan\"",
                "s: \"on\"",
                "t: true",
                "u: \"ü\""
            ]
        );
    }

    #[test]
    fn errors_name_what_is_wrong_with_a_line() {
        let table: [(&[u8], &str); 13] = [
            (b"a \xFF", "not UTF-8"),
            (b" text", "no target before the first space"),
            (b" ", "no target before the first space"),
            (b"= text", "no topic between = and the first space"),
            (b"=", "no topic between = and the first space"),
            (b"target", "no space and text after the target"),
            (b"=topic", "no space and text after the target"),
            (b"a\0b c", "target contains a NUL"),
            (b"=a\0b c", "topic contains a NUL"),
            (b"a :", "no method after the colon"),
            (b"a :m\0 k=v", "method contains a NUL"),
            (b"a :m key", "parameter \"key\" without ="),
            (b"a :m =v", "parameter \"=v\" without a name"),
        ];
        for (line, why) in table {
            assert_eq!(parse(line).unwrap_err().to_string(), why, "{line:?}");
        }
        assert_eq!(parse(b"a :m k=1 k=2").unwrap_err().to_string(), "parameter \"k\" is given twice");
    }

    #[test]
    fn no_line_causes_a_panic() {
        for first in 0..=255u8 {
            for second in [0, b' ', b'=', b'.', b':', b'\r', 0xFF] {
                for third in [b' ', b':', b'a', b'='] {
                    let _ = parse(&[first, second, third, second]);
                }
            }
        }
    }

    #[test]
    fn a_beginning_is_cut_between_characters() {
        assert_eq!(beginning("ab"), "ab");
        assert_eq!(beginning(&"ü".repeat(49)), format!("{}...", "ü".repeat(48)));
    }
}
