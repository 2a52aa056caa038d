//! The loop of `elbus listen` and `elbus rpc listen`: prints what arrives until a signal, a count, or the end
//! of the connection. Never sends anything but subscriptions.

use elbus_client::{Client, Frame, FrameKind, Frames, Reconnect};
use jiff::{Timestamp, Zoned, tz::TimeZone};
use serde_json::{Map, Value, json};
use std::time::Duration;
use tokio::sync::mpsc;

use super::{
    connection_reporter::{ConnectionChange, ConnectionReporter},
    topics::Topics,
};
use crate::{
    arguments::messages::FeedArguments,
    context::Context,
    error::CliError,
    output::{DisplayLimit, Expect, Palette, Payload, Rendered, Results, Style, escape},
    shutdown::Shutdown,
};

/// Bytes printed of a payload by default.
const TEXT_BYTES: u64 = 4096;
/// Bytes printed of a payload by default with `--json`.
const JSON_BYTES: u64 = 1 << 20;
/// Timeout for closing the connection.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// A frame, call or notification to be printed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FeedItem<'a> {
    /// `message`, `broadcast`, `publish`, `call`, `call0` (a call without a reply) or `notification`.
    pub(crate) kind: &'static str,
    pub(crate) realtime: bool,
    pub(crate) sender: &'a str,
    /// The topic of a publication or the method of a call, with its JSON key.
    pub(crate) subject: Option<(&'static str, &'a str)>,
    /// The JSON key of the payload, `payload` or `params`, and the expected encoding.
    pub(crate) content: (&'static str, Expect),
    pub(crate) payload: &'a [u8],
}

/// A call or a notification, as its handler received it.
#[derive(Debug)]
pub(crate) struct RpcEvent {
    pub(crate) kind: &'static str,
    pub(crate) sender: String,
    pub(crate) realtime: bool,
    /// `None` for a notification.
    pub(crate) method: Option<String>,
    pub(crate) payload: elbus_client::Bytes,
}

impl RpcEvent {
    fn item(&self) -> FeedItem<'_> {
        FeedItem {
            kind: self.kind,
            realtime: self.realtime,
            sender: &self.sender,
            subject: self.method.as_deref().map(|method| ("method", method)),
            content: match self.method {
                Some(_) => ("params", Expect::Msgpack),
                None => ("payload", Expect::Anything),
            },
            payload: &self.payload,
        }
    }
}

fn item(frame: &Frame) -> FeedItem<'_> {
    let (kind, subject) = match frame.kind() {
        FrameKind::Publish => ("publish", Some(("topic", frame.topic()))),
        FrameKind::Broadcast => ("broadcast", None),
        _ => ("message", None),
    };
    FeedItem {
        kind,
        realtime: frame.is_realtime(),
        sender: frame.sender(),
        subject,
        content: ("payload", Expect::Anything),
        payload: frame.payload(),
    }
}

/// Connects, without subscribing yet.
pub(crate) async fn connect(
    context: &Context,
    arguments: &FeedArguments,
) -> Result<(Client, Frames), CliError> {
    let reconnect = if arguments.no_reconnect { Reconnect::Off } else { Reconnect::backoff() };
    let builder = context.connection.builder(&context.connection.name).reconnect(reconnect);
    context.connect_with(builder.overflow(Topics::overflow(arguments))).await
}

/// Excludes and subscribes to topics, then prints the notice that it listens.
pub(crate) async fn subscribe(
    context: &Context,
    client: &Client,
    arguments: &FeedArguments,
) -> Result<Topics, CliError> {
    let mut topics = Topics::new(arguments)?;
    if !arguments.exclude.is_empty() {
        client.exclude(arguments.exclude.clone()).await?;
    }
    topics.subscribe(context, client).await?;
    let (address, name) = (&context.connection.address, &context.connection.name);
    context.output.notice(&format!("listening at {address} as {name}; press Ctrl-C to exit"));
    Ok(topics)
}

/// Prints received frames and events.
pub(crate) struct Feed<'a> {
    context: &'a Context,
    results: Results,
    limit: DisplayLimit,
    raw: bool,
    zone: TimeZone,
    /// Items until the exit, if `--count` is given.
    remaining: Option<u64>,
    reporter: ConnectionReporter<'a>,
}

impl<'a> Feed<'a> {
    /// Creates the feed of a client that has just connected. Connection events are observed from here on.
    pub(crate) fn new(context: &'a Context, client: &Client, arguments: &FeedArguments, raw: bool) -> Self {
        let default = if context.output.json { JSON_BYTES } else { TEXT_BYTES };
        Feed {
            context,
            results: Results::new(&context.output),
            limit: DisplayLimit::all(arguments.max_bytes.unwrap_or(default)),
            raw,
            zone: TimeZone::system(),
            remaining: arguments.count,
            reporter: ConnectionReporter::new(context, client, !arguments.no_reconnect),
        }
    }

    /// Runs until a signal, the count, a closed stdout or, with `--no-reconnect`, the end of the connection.
    pub(crate) async fn run(
        mut self,
        mut shutdown: Shutdown,
        client: Client,
        mut frames: Frames,
        mut topics: Topics,
        mut rpc_events: mpsc::Receiver<RpcEvent>,
    ) -> Result<(), CliError> {
        while self.remaining != Some(0) {
            tokio::select! {
                biased;
                () = shutdown.wait() => break,
                change = self.reporter.next() => {
                    if change == ConnectionChange::Restored {
                        // it can be another broker; a connection that is lost again is reported above
                        match topics.subscribe(self.context, &client).await {
                            Err(error) if !error.is_disconnected() => return Err(error.into()),
                            _ => {}
                        }
                    }
                    continue;
                }
                Some(event) = rpc_events.recv() => self.print(&event.item())?,
                frame = frames.next() => match frame {
                    Some(frame) => self.print_frame(&frame)?,
                    None => {
                        self.results.flush()?;
                        client.connected().await?;
                        return Err(CliError::runtime("connection lost: is the broker still running?"));
                    }
                },
            }
            // print everything that has already arrived before the flush
            while self.remaining != Some(0) {
                if let Ok(event) = rpc_events.try_recv() {
                    self.print(&event.item())?;
                } else if let Some(frame) = frames.try_next() {
                    self.print_frame(&frame)?;
                } else {
                    break;
                }
            }
            self.results.flush()?;
        }
        let missed = frames.missed();
        if missed > 0 {
            self.context.output.notice(&format!("{missed} messages missed"));
        }
        // if this times out, the exit of the process closes the connection
        _ = tokio::time::timeout(CLOSE_TIMEOUT, client.close()).await;
        Ok(())
    }

    fn print_frame(&mut self, frame: &Frame) -> Result<(), CliError> {
        self.print_missed(frame.missed())?;
        self.print(&item(frame))
    }

    /// Prints how many frames were missed before the next one. With `--raw`, only the total is reported.
    fn print_missed(&mut self, missed: u64) -> Result<(), CliError> {
        if missed == 0 || self.raw {
            return Ok(());
        }
        match self.context.output.json {
            true => self.results.json(&json!({ "kind": "missed", "count": missed })),
            false => self.results.line(&format!("... {missed} messages missed")),
        }
    }

    fn print(&mut self, item: &FeedItem<'_>) -> Result<(), CliError> {
        if let Some(remaining) = &mut self.remaining {
            *remaining = remaining.saturating_sub(1);
        }
        if self.raw {
            return self.results.bytes(item.payload);
        }
        let now = Timestamp::now();
        if self.context.output.json {
            return self.results.json(&to_json(item, now, self.limit));
        }
        let text = to_text(item, &now.to_zoned(self.zone.clone()), self.limit, self.results.palette);
        self.results.line(&text)
    }
}

fn to_json(item: &FeedItem<'_>, now: Timestamp, limit: DisplayLimit) -> Value {
    let mut object = Map::new();
    object.insert("time".to_owned(), json!(format!("{now:.6}")));
    object.insert("kind".to_owned(), json!(item.kind));
    object.insert("realtime".to_owned(), json!(item.realtime));
    object.insert("sender".to_owned(), json!(item.sender));
    if let Some((key, subject)) = item.subject {
        object.insert(key.to_owned(), json!(subject));
    }
    let (key, expect) = item.content;
    Payload::read(item.payload, expect).add_to(&mut object, key, item.payload, limit);
    Value::Object(object)
}

fn to_text(item: &FeedItem<'_>, now: &Zoned, limit: DisplayLimit, palette: Palette) -> String {
    let realtime = if item.realtime { "!" } else { "" };
    let mut parts = vec![
        palette.paint(Style::Dim, &now.strftime("%H:%M:%S%.3f").to_string()),
        palette.paint(Style::Kind, &format!("{}{realtime}", item.kind)),
        palette.paint(Style::Name, &escape(item.sender)),
    ];
    if let Some((_, subject)) = item.subject {
        parts.push(palette.paint(Style::Topic, &escape(subject)));
    }
    match Payload::read(item.payload, item.content.1).line(limit, palette) {
        Rendered::Inline(text) => parts.push(text),
        Rendered::Below(text) => {
            parts.push(palette.paint(Style::Dim, &format!("{} bytes", item.payload.len())));
            let lines: Vec<_> = text.lines().map(|line| format!("\n    {line}")).collect();
            return parts.join(" ") + &lines.concat();
        }
    }
    parts.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample<'a>(payload: &'a [u8]) -> FeedItem<'a> {
        FeedItem {
            kind: "publish",
            realtime: false,
            sender: "a\x1b.b",
            subject: Some(("topic", "x/y")),
            content: ("payload", Expect::Anything),
            payload,
        }
    }

    fn noon() -> Timestamp {
        "2026-01-02T12:00:00.5Z".parse().unwrap()
    }

    #[test]
    fn an_item_is_one_line_and_binary_payloads_follow_it() {
        let text = |item: &FeedItem<'_>| {
            to_text(item, &noon().to_zoned(TimeZone::UTC), DisplayLimit::all(64), Palette::PLAIN)
        };
        assert_eq!(text(&sample(b"71.5")), "12:00:00.500 publish a\\x1b.b x/y 71.5");
        let realtime = FeedItem { kind: "message", realtime: true, subject: None, ..sample(b"") };
        assert_eq!(text(&realtime), "12:00:00.500 message! a\\x1b.b (empty)");
        let binary = text(&sample(&[0xff; 80]));
        let lines: Vec<_> = binary.lines().collect();
        assert_eq!(lines[0], "12:00:00.500 publish a\\x1b.b x/y 80 bytes");
        assert!(
            lines[4].starts_with("    00000030  ff ff") && lines[4].ends_with(" ... 16 more bytes"),
            "{binary}"
        );
        assert_eq!(lines.len(), 5);
    }

    #[test]
    fn json_items_have_every_key() {
        assert_eq!(
            to_json(&sample(b"{\"k\":1}"), noon(), DisplayLimit::all(0)).to_string(),
            r#"{"time":"2026-01-02T12:00:00.500000Z","kind":"publish","realtime":false,"sender":"a\u001b.b","topic":"x/y","payload":{"k":1},"encoding":"json","bytes":7}"#
        );
    }
}
