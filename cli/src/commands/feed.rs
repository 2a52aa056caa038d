//! What arrives, shown until there is an end to it: the loop behind `elbus listen` and `elbus rpc listen`. Never asks
//! for anything itself.

use elbus_client::{Client, ConnectionEvent, ConnectionEvents, Frame, FrameKind, Frames, Reconnect};
use jiff::{Timestamp, Zoned, tz::TimeZone};
use serde_json::{Map, Value, json};
use std::time::Duration;
use tokio::sync::mpsc;

use crate::{
    arguments::FeedArguments,
    ending::Ending,
    failure::Failure,
    link::Link,
    output::{Bound, Expect, Palette, Payload, Results, Shown, Tone, escape},
};

/// Bytes shown of a payload, unless it is said.
const TEXT_BYTES: u64 = 4096;
/// The same in JSON, which is for programs.
const JSON_BYTES: u64 = 1 << 20;
/// What closing the connection may take at the end.
const CLOSE: Duration = Duration::from_secs(1);

/// Something that arrived.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival<'a> {
    /// `message`, `broadcast`, `publish`, `call`, `call0` (nobody waits for its result), `notification`.
    pub(crate) kind: &'static str,
    pub(crate) realtime: bool,
    pub(crate) sender: &'a str,
    /// The topic of a publication, the method of a call.
    pub(crate) subject: Option<(&'static str, &'a str)>,
    /// `payload` or `params`, and what is expected of it.
    pub(crate) holds: (&'static str, Expect),
    pub(crate) payload: &'a [u8],
}

/// A call or a notification that a handler has taken.
#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) kind: &'static str,
    pub(crate) sender: String,
    pub(crate) realtime: bool,
    /// `None` of a notification.
    pub(crate) method: Option<String>,
    pub(crate) payload: elbus_client::Bytes,
}

impl Heard {
    fn arrival(&self) -> Arrival<'_> {
        Arrival {
            kind: self.kind,
            realtime: self.realtime,
            sender: &self.sender,
            subject: self.method.as_deref().map(|method| ("method", method)),
            holds: match self.method {
                Some(_) => ("params", Expect::Msgpack),
                None => ("payload", Expect::Anything),
            },
            payload: &self.payload,
        }
    }
}

fn arrival(frame: &Frame) -> Arrival<'_> {
    let (kind, subject) = match frame.kind() {
        FrameKind::Publish => ("publish", Some(("topic", frame.topic()))),
        FrameKind::Broadcast => ("broadcast", None),
        _ => ("message", None),
    };
    Arrival {
        kind,
        realtime: frame.is_realtime(),
        sender: frame.sender(),
        subject,
        holds: ("payload", Expect::Anything),
        payload: frame.payload(),
    }
}

/// Connects as the arguments say; nothing is subscribed to yet.
pub(crate) async fn connect(link: &Link, arguments: &FeedArguments) -> Result<(Client, Frames), Failure> {
    let reconnect = if arguments.no_reconnect { Reconnect::Off } else { Reconnect::backoff() };
    link.connect_with(link.builder(link.name()).reconnect(reconnect)).await
}

/// Excludes and subscribes, then says that it listens.
pub(crate) async fn subscribe(
    link: &Link,
    client: &Client,
    arguments: &FeedArguments,
) -> Result<(), Failure> {
    if !arguments.exclude.is_empty() {
        client.exclude(arguments.exclude.clone()).await?;
    }
    if !arguments.topics.is_empty() {
        client.add_filters(arguments.topics.clone()).await?;
    }
    link.notice(&format!("listening at {} as {}, Ctrl-C ends it", link.address(), link.name()));
    Ok(())
}

/// Shows what arrives.
pub(crate) struct Feed<'a> {
    link: &'a Link,
    results: Results,
    bound: Bound,
    raw: bool,
    zone: TimeZone,
    /// How many are still to be shown, where that is limited.
    left: Option<u64>,
    watched: Watched<'a>,
}

impl<'a> Feed<'a> {
    /// To be made as soon as the client is connected: from then on it notes what happens to the connection.
    pub(crate) fn new(link: &'a Link, client: &Client, arguments: &FeedArguments, raw: bool) -> Self {
        let default = if link.json() { JSON_BYTES } else { TEXT_BYTES };
        Feed {
            link,
            results: Results::new(link),
            bound: Bound::all(arguments.max_bytes.unwrap_or(default)),
            raw,
            zone: TimeZone::system(),
            left: arguments.count,
            watched: Watched::new(link, client.events(), !arguments.no_reconnect),
        }
    }

    /// Until a signal, the count, a closed output or, where that was chosen, the end of the connection.
    pub(crate) async fn run(
        mut self,
        mut ending: Ending,
        client: Client,
        mut frames: Frames,
        mut heard: mpsc::Receiver<Heard>,
    ) -> Result<(), Failure> {
        while self.left != Some(0) {
            tokio::select! {
                biased;
                () = ending.wait() => break,
                () = self.watched.next() => continue,
                Some(heard) = heard.recv() => self.show(&heard.arrival())?,
                frame = frames.next() => match frame {
                    Some(frame) => self.show(&arrival(&frame))?,
                    None => {
                        self.results.flush()?;
                        client.connected().await?;
                        return Err(Failure::bus("the connection has ended: is the broker still running?"));
                    }
                },
            }
            // what is there already is written at once
            while self.left != Some(0) {
                if let Ok(heard) = heard.try_recv() {
                    self.show(&heard.arrival())?;
                } else if let Some(frame) = frames.try_next() {
                    self.show(&arrival(&frame))?;
                } else {
                    break;
                }
            }
            self.results.flush()?;
        }
        // the broker notices the end either way
        _ = tokio::time::timeout(CLOSE, client.close()).await;
        Ok(())
    }

    fn show(&mut self, arrival: &Arrival<'_>) -> Result<(), Failure> {
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(1);
        }
        if self.raw {
            return self.results.bytes(arrival.payload);
        }
        let now = Timestamp::now();
        if self.link.json() {
            return self.results.json(&in_json(arrival, now, self.bound));
        }
        let text = in_text(arrival, &now.to_zoned(self.zone.clone()), self.bound, self.results.palette);
        self.results.line(&text)
    }
}

fn in_json(arrival: &Arrival<'_>, now: Timestamp, bound: Bound) -> Value {
    let mut object = Map::new();
    object.insert("time".to_owned(), json!(format!("{now:.6}")));
    object.insert("kind".to_owned(), json!(arrival.kind));
    object.insert("realtime".to_owned(), json!(arrival.realtime));
    object.insert("sender".to_owned(), json!(arrival.sender));
    if let Some((key, subject)) = arrival.subject {
        object.insert(key.to_owned(), json!(subject));
    }
    let (key, expect) = arrival.holds;
    Payload::read(arrival.payload, expect).add_to(&mut object, key, arrival.payload, bound);
    Value::Object(object)
}

fn in_text(arrival: &Arrival<'_>, now: &Zoned, bound: Bound, palette: Palette) -> String {
    let realtime = if arrival.realtime { "!" } else { "" };
    let mut parts = vec![
        palette.paint(Tone::Dim, &now.strftime("%H:%M:%S%.3f").to_string()),
        palette.paint(Tone::Kind, &format!("{}{realtime}", arrival.kind)),
        palette.paint(Tone::Name, &escape(arrival.sender)),
    ];
    if let Some((_, subject)) = arrival.subject {
        parts.push(palette.paint(Tone::Topic, &escape(subject)));
    }
    match Payload::read(arrival.payload, arrival.holds.1).line(bound, palette) {
        Shown::Inline(text) => parts.push(text),
        Shown::Below(text) => {
            parts.push(palette.paint(Tone::Dim, &format!("{} bytes", arrival.payload.len())));
            let lines: Vec<_> = text.lines().map(|line| format!("\n    {line}")).collect();
            return parts.join(" ") + &lines.concat();
        }
    }
    parts.join(" ")
}

/// Tells on stderr what happens to a connection that is made again when it is lost.
struct Watched<'a> {
    link: &'a Link,
    events: ConnectionEvents,
    /// The end of one that is not made again is the end of the command, which says so.
    silent: bool,
    /// Why there is none now, as it was said last.
    lost: Option<String>,
}

impl<'a> Watched<'a> {
    fn new(link: &'a Link, events: ConnectionEvents, reconnects: bool) -> Self {
        Watched { link, events, silent: !reconnects, lost: None }
    }

    /// Ends with each event, never once there are no more.
    async fn next(&mut self) {
        let Some(event) = self.events.next().await else { return std::future::pending().await };
        if self.silent {
            return;
        }
        match event {
            ConnectionEvent::Disconnected { reason, .. } => {
                self.link.notice(&format!("the connection was lost: {reason}: connecting again"));
                self.lost = Some(reason);
            }
            ConnectionEvent::Retrying { attempt, after, reason, .. } => {
                self.link.detail(&format!("attempt {attempt} in {:.1} s", after.as_secs_f64()));
                if self.lost.as_ref() != Some(&reason) {
                    self.link.notice(&format!("not yet connected: {reason}: trying again"));
                    self.lost = Some(reason);
                }
            }
            ConnectionEvent::Connected if self.lost.take().is_some() => self.link.notice("connected again"),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample<'a>(payload: &'a [u8]) -> Arrival<'a> {
        Arrival {
            kind: "publish",
            realtime: false,
            sender: "a\x1b.b",
            subject: Some(("topic", "x/y")),
            holds: ("payload", Expect::Anything),
            payload,
        }
    }

    fn noon() -> Timestamp {
        "2026-01-02T12:00:00.5Z".parse().unwrap()
    }

    #[test]
    fn one_line_holds_it_all() {
        let text = |arrival: &Arrival<'_>| {
            in_text(arrival, &noon().to_zoned(TimeZone::UTC), Bound::all(64), Palette::PLAIN)
        };
        assert_eq!(text(&sample(b"71.5")), "12:00:00.500 publish a\\x1b.b x/y 71.5");
        let realtime = Arrival { kind: "message", realtime: true, subject: None, ..sample(b"") };
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
    fn json_has_every_key() {
        assert_eq!(
            in_json(&sample(b"{\"k\":1}"), noon(), Bound::all(0)).to_string(),
            r#"{"time":"2026-01-02T12:00:00.500000Z","kind":"publish","realtime":false,"sender":"a\u001b.b","topic":"x/y","payload":{"k":1},"encoding":"json","bytes":7}"#
        );
    }
}
