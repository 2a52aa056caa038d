//! The last lines of the log, in memory, for the control method `log.recent`. Owns their limits; writes
//! nothing.

use elbus_broker::Broker;
use elbus_plugin_api::{Call, CallError, Method, unix_nanos};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::{collections::VecDeque, sync::Arc};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::{Layer, layer::Context};

use super::{event_text::EventText, instance::instance_of};

/// Lines that are kept.
const MAX_LINES: usize = 1000;
/// Bytes of a line's text.
const MAX_TEXT_BYTES: usize = 1024;
/// Bytes of the other texts of a line.
const MAX_NAME_BYTES: usize = 256;

/// What tokens begin with, and how many characters follow: 32 bytes in base64.
const TOKEN_PREFIX: &str = "elbus_";
const TOKEN_CHARACTERS: usize = 43;
/// What a token is replaced by.
const NO_TOKEN: &str = "elbus_(in the log only)";

/// The last lines at level info and above. Cheap to clone; clones share them.
#[derive(Clone, Default)]
pub(crate) struct RecentLines(Arc<Mutex<Lines>>);

#[derive(Default)]
struct Lines {
    lines: VecDeque<Line>,
    /// The number of the last line.
    newest: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Line {
    /// Lines are numbered from 1 on.
    number: u64,
    /// Unix time in milliseconds.
    at_ms: u64,
    level: &'static str,
    target: String,
    /// The instance of a plugin; empty for the broker itself.
    plugin: String,
    text: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Parameters {
    /// Lines after this number only.
    after: u64,
    /// Lines of this instance only.
    plugin: Option<String>,
}

#[derive(Serialize)]
struct Answer {
    lines: Vec<Line>,
    newest: u64,
    /// Lines after the number that are no longer kept, of all instances.
    missed: u64,
}

impl RecentLines {
    fn add(&self, mut line: Line) {
        let mut lines = self.0.lock();
        lines.newest += 1;
        line.number = lines.newest;
        let removed = (lines.lines.len() >= MAX_LINES).then(|| lines.lines.pop_front());
        lines.lines.push_back(line);
        drop(lines);
        drop(removed);
    }

    fn answer(&self, parameters: &Parameters) -> Answer {
        let lines = self.0.lock();
        let oldest = lines.lines.front().map_or(lines.newest + 1, |line| line.number);
        let is_wanted = |line: &&Line| {
            line.number > parameters.after
                && parameters.plugin.as_ref().is_none_or(|plugin| *plugin == line.plugin)
        };
        Answer {
            lines: lines.lines.iter().filter(is_wanted).cloned().collect(),
            newest: lines.newest,
            missed: (oldest - 1).saturating_sub(parameters.after),
        }
    }

    /// Adds the control method `log.recent`.
    pub(crate) fn add_method(&self, broker: &Broker) {
        // administrative: lines name clients, files and addresses
        let method = Method::new("log.recent")
            .params("{after: integer, plugin: text}, all optional")
            .about("returns the last lines of the log, of all or of one plugin instance")
            .query()
            .admin();
        let this = self.clone();
        let added = broker.host().add_method(&method, move |call: &Call<'_>| {
            let parameters = read(call)?;
            rmp_serde::to_vec_named(&this.answer(&parameters))
                .map_err(|error| CallError::internal(error.to_string()))
        });
        if let Err(error) = added {
            tracing::error!(%error, "cannot add the control method log.recent");
        }
    }
}

fn read(call: &Call<'_>) -> Result<Parameters, CallError> {
    if call.params.is_empty() || call.params == [0xc0] {
        return Ok(Parameters::default());
    }
    rmp_serde::from_slice(call.params).map_err(|error| {
        CallError::unreadable_params("{after: integer, plugin: text}, all optional", call.params, error)
    })
}

impl<S: Subscriber> Layer<S> for RecentLines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let level = match *metadata.level() {
            Level::ERROR => "error",
            Level::WARN => "warn",
            Level::INFO => "info",
            _ => return,
        };
        let mut text = EventText::default();
        event.record(&mut text);
        let EventText { message, fields, target } = text;
        let target = target.as_deref().unwrap_or(metadata.target());
        // a line of a library ends with the name of its instance
        let forwarded = || Some(message.rsplit_once(" plugin=\"")?.1.strip_suffix('"')?.to_owned());
        let plugin = instance_of(metadata.target()).or_else(forwarded).unwrap_or_default();
        self.add(Line {
            number: 0,
            at_ms: unix_nanos() / 1_000_000,
            level,
            target: cut(target.to_owned(), MAX_NAME_BYTES),
            plugin: cut(plugin, MAX_NAME_BYTES),
            text: cut(without_tokens(message + &fields), MAX_TEXT_BYTES),
        });
    }
}

/// Removes tokens: the log is for who may read its file, what is kept here for clients of the bus.
fn without_tokens(text: String) -> String {
    let is_token = |rest: &str| {
        let is_character = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_".contains(byte);
        rest.bytes().take_while(is_character).count() >= TOKEN_CHARACTERS
    };
    let mut parts = text.split(TOKEN_PREFIX);
    let mut kept = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        if is_token(part) {
            kept.push_str(NO_TOKEN);
            kept.push_str(part.get(TOKEN_CHARACTERS..).unwrap_or_default());
        } else {
            kept.push_str(TOKEN_PREFIX);
            kept.push_str(part);
        }
    }
    kept
}

fn cut(mut text: String, most: usize) -> String {
    let end = (0..=text.len().min(most)).rev().find(|end| text.is_char_boundary(*end));
    text.truncate(end.unwrap_or(0));
    text.shrink_to_fit();
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use tracing_subscriber::layer::SubscriberExt;

    fn after(recent: &RecentLines, after: u64) -> (Vec<String>, u64, u64) {
        let answer = recent.answer(&Parameters { after, plugin: None });
        (answer.lines.into_iter().map(|line| line.text).collect(), answer.newest, answer.missed)
    }

    #[test]
    fn lines_have_level_target_plugin_and_escaped_text() {
        let recent = RecentLines::default();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(recent.clone()), || {
            tracing::warn!(target: "elbusd", client = "a\nb", bytes = 7, "queue {}", "full");
            tracing::debug!("not kept");
            tracing::error!(target: "log", "of a library client=\"plugin=\\\"x\\\"\" plugin=\"web\"");
        });
        let answer = recent.answer(&Parameters::default());
        let lines: Vec<_> =
            answer.lines.iter().map(|line| (line.number, line.level, &*line.plugin)).collect();
        assert_eq!(lines, [(1, "warn", ""), (2, "error", "web")]);
        assert_eq!(answer.lines[0].text, "queue full client=\"a\\nb\" bytes=7");
        assert!(answer.lines[0].at_ms > 1_600_000_000_000);
        let of = |plugin: &str| recent.answer(&Parameters { after: 0, plugin: Some(plugin.to_owned()) });
        assert_eq!((of("web").lines.len(), of("other").lines.len()), (1, 0));
    }

    #[test]
    fn tokens_are_in_the_log_only() {
        let token = elbus_websocket::make_token("a").unwrap().token;
        assert_eq!(token.len(), TOKEN_PREFIX.len() + TOKEN_CHARACTERS);
        let recent = RecentLines::default();
        let url = format!("http://127.0.0.1:7780/#token={token}");
        tracing::subscriber::with_default(tracing_subscriber::registry().with(recent.clone()), || {
            tracing::warn!(url, "elbus_unix and {token}");
            tracing::warn!("{}{token}", "x".repeat(MAX_TEXT_BYTES - 20));
        });
        let (lines, ..) = after(&recent, 0);
        assert_eq!(
            lines[0],
            format!("elbus_unix and {NO_TOKEN} url=\"http://127.0.0.1:7780/#token={NO_TOKEN}\"")
        );
        assert!(!lines[1].contains(&token[..20]), "{}", lines[1]);
    }

    #[test]
    fn the_last_lines_are_kept_and_the_others_counted() {
        let recent = RecentLines::default();
        assert_eq!(after(&recent, 0), (vec![], 0, 0));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(recent.clone()), || {
            (1..=MAX_LINES + 5).for_each(|number| tracing::info!(target: "elbusd", "line {number}"));
        });
        let (lines, newest, missed) = after(&recent, 2);
        assert_eq!((lines.len(), newest, missed), (MAX_LINES, 1005, 3));
        assert_eq!((lines[0].as_str(), lines[999].as_str()), ("line 6", "line 1005"));
        assert_eq!(after(&recent, 1004), (vec!["line 1005".to_owned()], 1005, 0));
        assert_eq!(after(&recent, 5000), (vec![], 1005, 0));
    }

    #[test]
    fn a_long_line_is_cut_between_characters() {
        assert_eq!(cut("äöü".to_owned(), 3), "ä");
        assert_eq!(cut("abc".to_owned(), 3), "abc");
    }
}
