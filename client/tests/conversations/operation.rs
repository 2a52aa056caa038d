//! The operations of a conversation and their outcomes. Does not know the wire.

use elbus_client::{
    Backoff, Client, ClientBuilder, Cursor, Error, Frames, Options, Qos, Reconnect, SharedOptions,
    Subscription,
};
use elbus_testing::notation::bytes;
use std::{path::PathBuf, sync::Arc, time::Duration};
use tokio::sync::Mutex;

use crate::script::Line;

/// How an operation ends, in the words of the conformance files.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Ok(Vec<u8>),
    End,
    Error(String, Vec<u8>),
}

/// What an operation makes.
pub(crate) enum Product {
    Client(Client, Frames),
    Subscription(Subscription),
    Cursor(SharedCursor),
}

pub(crate) type SharedCursor = Arc<Mutex<Cursor<u64>>>;
pub(crate) type Ended = (Outcome, Option<Product>);

impl Outcome {
    /// Parses the outcome that starts at this word of a line.
    pub(crate) fn parse(line: &Line, from: usize) -> Self {
        let rest = &line.rest[from..];
        match line.arg(from) {
            "ok" => Outcome::Ok(bytes(&rest[1..], &line.at)),
            "end" => Outcome::End,
            "error" => match line.arg(from + 1) {
                "rpc" => Outcome::Error(format!("rpc {}", line.arg(from + 2)), bytes(&rest[3..], &line.at)),
                _ => Outcome::Error(rest[1..].join(" "), vec![]),
            },
            other => panic!("{}: outcome {other}", line.at),
        }
    }

    fn of(result: Result<impl AsRef<[u8]>, Error>) -> Self {
        match result {
            Ok(bytes) => Outcome::Ok(bytes.as_ref().to_vec()),
            Err(error) => Outcome::of_error(&error),
        }
    }

    pub(crate) fn of_unit(result: Result<(), Error>) -> Self {
        Outcome::of(result.map(|()| []))
    }

    fn of_error(error: &Error) -> Self {
        let kind = match error {
            Error::NoBroker { .. } => "no-broker".to_owned(),
            Error::NotABroker { .. } => "not-a-broker".to_owned(),
            Error::NameTaken { .. } => "name-taken".to_owned(),
            Error::NameRefused { code, .. } => format!("name-refused {:02x}", *code as u8),
            Error::NoPrimary { .. } => "no-primary".to_owned(),
            Error::AccessDenied { .. } => "access-denied".to_owned(),
            Error::NotRegistered { .. } => "not-registered".to_owned(),
            Error::NotDelivered { .. } => "not-delivered".to_owned(),
            Error::Refused { code, .. } => format!("refused {:02x}", *code as u8),
            Error::Timeout { .. } => "timeout".to_owned(),
            Error::Disconnected { .. } => "disconnected".to_owned(),
            Error::Closed => "closed".to_owned(),
            Error::Unsendable(_) => "unsendable".to_owned(),
            Error::NotSupported { .. } => "not-supported".to_owned(),
            Error::Rpc(error) => {
                return Outcome::Error(format!("rpc {}", error.code), error.data.to_vec());
            }
            other => panic!("no word for {other:?}"),
        };
        Outcome::Error(kind, vec![])
    }
}

/// Returns the builder of a client with the settings of a line.
pub(crate) fn builder(settings: Option<&Line>, name: &str) -> ClientBuilder {
    let mut builder = Client::builder(name).ping_interval(Duration::from_secs(3600));
    for (key, value) in settings.iter().flat_map(|line| line.fields(0)) {
        let number = |index: usize| Duration::from_millis(value[index].parse().unwrap());
        builder = match key {
            "timeout" => builder.timeout(number(0)),
            "ping" => builder.ping_interval(number(0)),
            "reconnect" => {
                let backoff = Backoff::new().first_delay(number(0)).max_delay(number(1)).jitter(0.0);
                builder.reconnect(Reconnect::Backoff(backoff))
            }
            _ => panic!("setting {key}"),
        };
    }
    builder
}

pub(crate) async fn connect(builder: ClientBuilder, path: PathBuf) -> Ended {
    match builder.connect(path).await {
        Ok((client, frames)) => (Outcome::Ok(vec![]), Some(Product::Client(client, frames))),
        Err(error) => (Outcome::of_error(&error), None),
    }
}

fn qos(word: &str) -> Qos {
    match word {
        "no" => Qos::NO,
        "processed" => Qos::PROCESSED,
        "realtime" => Qos::REALTIME,
        "realtime-processed" => Qos::REALTIME_PROCESSED,
        _ => panic!("quality of service {word}"),
    }
}

/// The quoted words from an index on.
fn texts(line: &Line, from: usize) -> Vec<String> {
    let quoted = (from..line.rest.len()).filter(|index| line.arg(*index).starts_with('"'));
    quoted.map(|index| line.text(index).to_owned()).collect()
}

/// The options of a subscription, if it has any.
fn options(line: &Line) -> Option<Options> {
    let mut words = line.rest.iter().map(String::as_str).skip(2).skip_while(|word| word.starts_with('"'));
    let (mut shared, mut options) = (None::<SharedOptions>, None);
    while let Some(word) = words.next() {
        let mut value = || words.next().unwrap_or_else(|| panic!("{}: {word}", line.at));
        match word {
            "share" => shared = Some(Options::share(value())),
            "key" => shared = Some(Options::key(value(), value().parse().unwrap())),
            "latest" => options = Some(shared.take().map_or_else(Options::latest, SharedOptions::latest)),
            "lossy" => options = Some(shared.take().map_or_else(Options::lossy, SharedOptions::lossy)),
            "every" => {
                let interval = Duration::from_millis(value().parse().unwrap());
                let every = |shared: SharedOptions| shared.every(interval);
                options = Some(shared.take().map_or_else(|| Options::every(interval), every));
            }
            _ => panic!("{}: option {word}", line.at),
        }
    }
    options.or(shared.map(Options::from))
}

/// Returns the operation of a line that needs only the client.
pub(crate) fn plain(client: Client, line: &Line) -> impl Future<Output = Ended> + use<> {
    let text =
        |index: usize| if line.rest.len() > index { line.text(index).to_owned() } else { String::new() };
    let payload = |from: usize| bytes(line.rest.get(from..).unwrap_or_default(), &line.at);
    let at = line.at.clone();
    let operation = line.arg(1).to_owned();
    let (first, second) = match operation.as_str() {
        "send" | "broadcast" | "publish" => (text(3), String::new()),
        "publish_for" => (text(3), text(4)),
        "call" | "call0" | "cursor" => (text(2), text(3)),
        "notify" => (text(2), String::new()),
        _ => Default::default(),
    };
    let qos = match operation.as_str() {
        "send" | "broadcast" | "publish" | "publish_for" => qos(line.arg(2)),
        _ => Qos::NO,
    };
    let payload = match operation.as_str() {
        "send" | "broadcast" | "publish" | "call" | "call0" => payload(4),
        "publish_for" => payload(5),
        "notify" => payload(3),
        _ => vec![],
    };
    let filters = match operation.as_str() {
        "add_filters" | "remove_filters" | "subscribe" | "exclude" | "unexclude" => texts(line, 2),
        _ => vec![],
    };
    let options = if operation == "subscribe" { options(line) } else { None };
    let (opening, next) = match operation.as_str() {
        "cursor" => {
            let last = line.rest.len() - 1;
            let params: u64 = rmp_serde::from_slice(&bytes(&line.rest[4..last], &line.at)).unwrap();
            (params, line.text(last).to_owned())
        }
        _ => Default::default(),
    };
    async move {
        let done = |result: Result<(), Error>| (Outcome::of(result.map(|()| [])), None);
        match operation.as_str() {
            "send" => done(client.send(&first, payload, qos).await),
            "broadcast" => done(client.broadcast(&first, payload, qos).await),
            "publish" => done(client.publish(&first, payload, qos).await),
            "publish_for" => done(client.publish_for(&first, &second, payload, qos).await),
            "add_filters" => done(client.add_filters(filters).await),
            "remove_filters" => done(client.remove_filters(filters).await),
            "exclude" => done(client.exclude(filters).await),
            "unexclude" => done(client.unexclude(filters).await),
            "subscribe" => {
                let subscribed = match options {
                    Some(options) => client.subscribe(options.of(filters)).await,
                    None => client.subscribe(filters).await,
                };
                match subscribed {
                    Ok(subscription) => (Outcome::Ok(vec![]), Some(Product::Subscription(subscription))),
                    Err(error) => (Outcome::of_error(&error), None),
                }
            }
            "call" => (Outcome::of(client.call(&first, &second, payload).await), None),
            "call0" => done(client.call0(&first, &second, payload, Qos::NO).await),
            "notify" => done(client.notify(&first, payload, Qos::NO).await),
            "cursor" => match client.cursor::<u64>(&first, &second, &opening, &next).await {
                Ok(cursor) => (Outcome::Ok(vec![]), Some(Product::Cursor(Arc::new(Mutex::new(cursor))))),
                Err(error) => (Outcome::of_error(&error), None),
            },
            "round_trip" => done(client.round_trip().await.map(drop)),
            "close" => {
                client.close().await;
                (Outcome::Ok(vec![]), None)
            }
            _ => panic!("{at}: operation"),
        }
    }
}

pub(crate) async fn next(cursor: SharedCursor) -> Ended {
    let outcome = match cursor.lock().await.next().await {
        Ok(Some(item)) => Outcome::Ok(msgpack(&item)),
        Ok(None) => Outcome::End,
        Err(error) => Outcome::of_error(&error),
    };
    (outcome, None)
}

pub(crate) async fn block(cursor: SharedCursor, count: u32) -> Ended {
    let outcome = match cursor.lock().await.block(count).await {
        Ok(items) if items.is_empty() => Outcome::End,
        Ok(items) => Outcome::Ok(msgpack(&items)),
        Err(error) => Outcome::of_error(&error),
    };
    (outcome, None)
}

fn msgpack(value: &impl serde::Serialize) -> Vec<u8> {
    rmp_serde::to_vec(value).unwrap()
}
