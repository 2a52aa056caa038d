//! Records of the plugin monitor: their form in msgpack, and how they are printed.

use elbus_protocol::Code;
use jiff::{Timestamp, tz::TimeZone};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::output::{DisplayLimit, Expect, Palette, Payload, Rendered, Style, escape};

/// A message of the stream.
#[derive(Debug, Deserialize)]
pub(super) struct Batch<'a> {
    pub(super) batch: u64,
    /// Messages missed after the last record.
    pub(super) missed: u64,
    /// Why the session has ended.
    #[serde(borrow)]
    pub(super) end: Option<&'a str>,
    #[serde(borrow)]
    pub(super) records: Vec<Record<'a>>,
}

/// A message that has passed the bus.
#[derive(Debug, Deserialize)]
pub(super) struct Record<'a> {
    /// In nanoseconds since 1970.
    time: u64,
    op: &'a str,
    realtime: bool,
    sender: &'a str,
    target: &'a str,
    #[serde(default)]
    receiver: &'a str,
    #[serde(default)]
    code: Option<u8>,
    recipients: u32,
    bytes: u64,
    #[serde(default, borrow)]
    rpc: Option<Rpc<'a>>,
    payload: &'a [u8],
    #[serde(default)]
    omitted: u64,
    /// Messages missed before it.
    #[serde(default)]
    pub(super) missed: u64,
}

/// What a message is in the RPC layer.
#[derive(Debug, Deserialize)]
struct Rpc<'a> {
    kind: &'a str,
    #[serde(default)]
    id: Option<u32>,
    #[serde(default)]
    method: Option<&'a str>,
    #[serde(default)]
    error: Option<i16>,
    #[serde(default)]
    micros: Option<u64>,
}

/// How records are printed.
pub(super) struct Display {
    pub(super) json: bool,
    pub(super) zone: TimeZone,
}

fn code_text(code: u8) -> String {
    Code::from_wire(code).map_or_else(|| format!("code 0x{code:02x}"), |code| code.text().to_owned())
}

fn duration_text(micros: u64) -> String {
    match micros {
        0..1000 => format!("{micros} us"),
        1000..1_000_000 => format!("{:.1} ms", micros as f64 / 1e3),
        _ => format!("{:.1} s", micros as f64 / 1e6),
    }
}

impl Record<'_> {
    fn kind(&self) -> &str {
        self.rpc.as_ref().map_or(self.op, |rpc| rpc.kind)
    }

    fn timestamp(&self) -> Timestamp {
        Timestamp::from_nanosecond(i128::from(self.time)).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// Returns the JSON key of the payload, and the expected encoding.
    fn content(&self) -> (&'static str, Expect) {
        match self.kind() {
            "call" => ("params", Expect::Msgpack),
            "reply" => ("result", Expect::Msgpack),
            "error" => ("data", Expect::Anything),
            _ => ("payload", Expect::Anything),
        }
    }
}

impl Display {
    /// Formats a record as a JSON object. Keys that do not apply are absent.
    pub(super) fn to_json(&self, record: &Record<'_>) -> Value {
        let mut object = Map::new();
        let mut add = |key: &str, value: Value| _ = object.insert(key.to_owned(), value);
        add("time", json!(format!("{:.6}", record.timestamp())));
        add("kind", json!(record.kind()));
        add("realtime", json!(record.realtime));
        add("sender", json!(record.sender));
        add("target", json!(record.target));
        if !record.receiver.is_empty() {
            add("receiver", json!(record.receiver));
        }
        if let Some(code) = record.code {
            add("code", json!(code));
            add("status", json!(code_text(code)));
            add("recipients", json!(record.recipients));
        }
        if let Some(rpc) = &record.rpc {
            if let Some(id) = rpc.id {
                add("id", json!(id));
            }
            if rpc.kind != "notification" {
                add("method", json!(rpc.method));
            }
            if let Some(error) = rpc.error {
                add("error", json!(error));
            }
            if let Some(micros) = rpc.micros {
                add("duration_us", json!(micros));
            }
        }
        if record.kind() != "unanswered" {
            let (key, expect) = record.content();
            let all = DisplayLimit::all(0);
            Payload::read(record.payload, expect).add_to(&mut object, key, record.payload, all);
            object.insert("bytes".to_owned(), json!(record.bytes));
            if record.omitted > 0 {
                object.insert("omitted_bytes".to_owned(), json!(record.omitted));
            }
        }
        Value::Object(object)
    }

    /// Formats a record as a line, and binary data below it.
    pub(super) fn to_text(&self, record: &Record<'_>, palette: Palette) -> String {
        let dim = |text: &str| palette.paint(Style::Dim, text);
        let time = record.timestamp().to_zoned(self.zone.clone()).strftime("%H:%M:%S%.3f").to_string();
        let realtime = if record.realtime { "!" } else { "" };
        let id = record.rpc.as_ref().and_then(|rpc| rpc.id).map(|id| format!("#{id}")).unwrap_or_default();
        let is_topic = record.op.starts_with("publish");
        let style = if is_topic { Style::Topic } else { Style::Name };
        let mut parts = vec![
            dim(&time),
            palette.paint(Style::Kind, &format!("{}{realtime}{id}", record.kind())),
            palette.paint(Style::Name, &escape(record.sender)),
            "->".to_owned(),
            palette.paint(style, &escape(record.target)),
        ];
        if !record.receiver.is_empty() {
            parts.push(format!("for {}", palette.paint(Style::Name, &escape(record.receiver))));
        }
        let mut notes = Vec::new();
        if record.op != "message" {
            notes.push(format!("{} recipients", record.recipients));
        }
        notes.extend(record.code.filter(|code| *code != Code::Ok as u8).map(code_text));
        if let Some(rpc) = &record.rpc {
            let unknown = if rpc.kind == "notification" { "" } else { "?" };
            let method = rpc.method.unwrap_or(unknown);
            if !method.is_empty() {
                parts.push(palette.paint(Style::Topic, &escape(method)));
            }
            notes.extend(rpc.error.map(|error| error.to_string()));
            notes.extend(rpc.micros.map(duration_text));
        }
        if !notes.is_empty() {
            parts.push(dim(&format!("({})", notes.join(", "))));
        }
        if record.kind() == "unanswered" {
            return parts.join(" ");
        }
        let omitted = match record.omitted {
            0 => String::new(),
            bytes => dim(&format!(" ... {bytes} more bytes")),
        };
        match Payload::read(record.payload, record.content().1).line(DisplayLimit::all(0), palette) {
            Rendered::Inline(text) => parts.push(text + &omitted),
            Rendered::Below(text) => {
                parts.push(dim(&format!("{} bytes", record.payload.len())));
                let lines: Vec<_> = text.lines().map(|line| format!("\n    {line}")).collect();
                return parts.join(" ") + &lines.concat() + &omitted;
            }
        }
        parts.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn display() -> Display {
        Display { json: false, zone: TimeZone::UTC }
    }

    fn record<'a>(op: &'a str, rpc: Option<Rpc<'a>>, payload: &'a [u8]) -> Record<'a> {
        Record {
            time: 1_767_355_200_500_000_000,
            op,
            realtime: false,
            sender: "a\x1b",
            target: "b",
            receiver: "",
            code: Some(1),
            recipients: 1,
            bytes: 10,
            rpc,
            payload,
            omitted: 0,
            missed: 0,
        }
    }

    fn rpc<'a>(kind: &'a str, method: Option<&'a str>) -> Option<Rpc<'a>> {
        let replied = kind != "call";
        let error = (kind == "error").then_some(-32601);
        Some(Rpc { kind, id: Some(7), method, error, micros: (replied && method.is_some()).then_some(1500) })
    }

    #[test]
    fn a_record_is_one_line() {
        let text = |record: &Record<'_>| display().to_text(record, Palette::PLAIN);
        let head = "12:00:00.500";
        assert_eq!(
            text(&record("publish", None, b"71.5")),
            format!("{head} publish a\\x1b -> b (1 recipients) 71.5")
        );
        assert_eq!(text(&record("message", None, b"")), format!("{head} message a\\x1b -> b (empty)"));
        let refused =
            Record { code: Some(0x71), realtime: true, omitted: 5, ..record("message", None, b"hello") };
        assert_eq!(
            text(&refused),
            format!("{head} message! a\\x1b -> b (not registered) hello ... 5 more bytes")
        );
        let limited = Record { receiver: "c", ..record("publish_for", None, b"x") };
        assert_eq!(text(&limited), format!("{head} publish_for a\\x1b -> b for c (1 recipients) x"));
        for (kind, method, payload, expected) in [
            ("call", Some("add"), &b"\x92\x01\x02"[..], "call#7 a\\x1b -> b add [1,2]"),
            ("reply", Some("add"), b"\x03", "reply#7 a\\x1b -> b add (1.5 ms) 3"),
            ("reply", None, b"\x03", "reply#7 a\\x1b -> b ? 3"),
            ("error", Some("add"), b"no", "error#7 a\\x1b -> b add (-32601, 1.5 ms) no"),
            ("unanswered", Some("add"), b"", "unanswered#7 a\\x1b -> b add (1.5 ms)"),
        ] {
            assert_eq!(text(&record("message", rpc(kind, method), payload)), format!("{head} {expected}"));
        }
        let binary = text(&record("message", None, &[0xff; 20]));
        assert!(
            binary.starts_with(&format!("{head} message a\\x1b -> b 20 bytes\n    00000000")),
            "{binary}"
        );
    }

    #[test]
    fn json_records_have_the_keys_that_apply() {
        let json = |record: &Record<'_>| display().to_json(record).to_string();
        assert_eq!(
            json(&record("message", rpc("error", Some("add")), b"no")),
            r#"{"time":"2026-01-02T12:00:00.500000Z","kind":"error","realtime":false,"sender":"a\u001b","target":"b","code":1,"status":"ok","recipients":1,"id":7,"method":"add","error":-32601,"duration_us":1500,"data":"no","encoding":"text","bytes":10}"#
        );
        let cut = Record { omitted: 6, code: None, receiver: "r", ..record("publish_for", None, b"[1") };
        assert_eq!(
            json(&cut),
            r#"{"time":"2026-01-02T12:00:00.500000Z","kind":"publish_for","realtime":false,"sender":"a\u001b","target":"b","receiver":"r","payload":"[1","encoding":"text","bytes":10,"omitted_bytes":6}"#
        );
    }
}
