//! The control methods of an instance: `INSTANCE.get`, `INSTANCE.list` and `INSTANCE.delete`.
//!
//! Access rules decide about calls of them by their names alone: who can call `get` or `list` reads every
//! value, whatever it can subscribe to.

use elbus_plugin_api::{Call, CallError, Host, Method, PluginError};
use serde::{Deserialize, Serialize, Serializer, de::DeserializeOwned};
use std::sync::Arc;

use crate::topics::{Cursor, Filter, Topics, Value};

/// Values of one `list`, by default and at most.
const DEFAULT_LIST: usize = 100;
const MAX_LIST: usize = 1000;
/// Topics that one `list` looks at, and bytes of values after which it ends.
const MAX_LIST_VISITS: usize = 20_000;
const MAX_LIST_BYTES: usize = 256 * 1024;

/// The parameters of `get`.
#[derive(Deserialize)]
struct Get {
    topic: String,
}

/// The parameters of `list`.
#[derive(Deserialize)]
struct List {
    #[serde(default = "all")]
    filter: String,
    #[serde(default)]
    limit: Option<usize>,
    /// `next` of the previous answer.
    #[serde(default)]
    after: Option<String>,
}

/// The parameters of `delete`: one of both.
#[derive(Deserialize)]
struct Delete {
    #[serde(default)]
    topic: Option<String>,
    #[serde(default)]
    filter: Option<String>,
}

fn all() -> String {
    "#".to_owned()
}

/// The result of `get`, and a part of that of `list`.
#[derive(Serialize)]
struct Retained<'a> {
    topic: &'a str,
    sender: &'a str,
    #[serde(serialize_with = "text_or_binary")]
    payload: &'a [u8],
}

impl<'a> Retained<'a> {
    fn new(topic: &'a str, value: &'a Value) -> Self {
        Retained { topic, sender: value.sender(), payload: value.payload() }
    }
}

/// The result of `list`.
#[derive(Serialize)]
struct Listed<'a> {
    values: Vec<Retained<'a>>,
    /// Where to continue, unless there are no more.
    next: Option<String>,
}

/// The result of `delete`.
#[derive(Serialize)]
struct Deleted {
    deleted: u64,
}

/// Serializes a payload as msgpack text if it is UTF-8, else as msgpack binary.
fn text_or_binary<S: Serializer>(payload: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    match std::str::from_utf8(payload) {
        Ok(text) => serializer.serialize_str(text),
        Err(_) => serializer.serialize_bytes(payload),
    }
}

fn read<T: DeserializeOwned>(call: &Call<'_>, expected: &str) -> Result<T, CallError> {
    rmp_serde::from_slice(call.params)
        .map_err(|error| CallError::unreadable_params(expected, call.params, error))
}

fn answer(result: &impl Serialize) -> Result<Vec<u8>, CallError> {
    rmp_serde::to_vec_named(result).map_err(|error| CallError::internal(error.to_string()))
}

const GET: &str = "{topic: str}";
const LIST: &str = "{filter: str, limit: int, after: str}, all optional";
const DELETE: &str = "{topic: str} or {filter: str}";

/// Adds the methods.
pub(crate) fn add(host: &Host, topics: &Arc<Topics>) -> Result<(), PluginError> {
    let instance = host.instance();
    let (get, list) = (topics.clone(), topics.clone());
    let delete = topics.clone();
    let name = format!("{instance}.get");
    let method = Method::new(&name).params(GET).about("returns the retained value of a topic").query();
    host.add_method(&method, move |call: &Call<'_>| get_value(&get, call))?;
    let name = format!("{instance}.list");
    let method = Method::new(&name).params(LIST).about("returns retained values, some at a time").query();
    host.add_method(&method, move |call: &Call<'_>| list_values(&list, call))?;
    let name = format!("{instance}.delete");
    let method = Method::new(&name).params(DELETE).about("deletes retained values").admin().slow();
    host.add_method(&method, move |call: &Call<'_>| delete_values(&delete, call))
}

fn get_value(topics: &Topics, call: &Call<'_>) -> Result<Vec<u8>, CallError> {
    let Get { topic } = read(call, GET)?;
    let value = topics.get(&topic);
    let value = value.ok_or_else(|| CallError::not_found(format!("no retained value of topic {topic:?}")))?;
    answer(&Retained::new(&topic, &value))
}

fn list_values(topics: &Topics, call: &Call<'_>) -> Result<Vec<u8>, CallError> {
    // all parameters are optional, and so is the map
    let empty = Call { params: b"\x80", ..*call };
    let call = if call.params.is_empty() { &empty } else { call };
    let List { filter, limit, after } = read(call, LIST)?;
    let limit = limit.unwrap_or(DEFAULT_LIST).clamp(1, MAX_LIST);
    let mut cursor = match after.as_deref().map(Cursor::parse) {
        None => Cursor::default(),
        Some(Some(cursor)) => cursor,
        Some(None) => return Err(CallError::invalid_params("expected `next` of an answer as `after`")),
    };
    let (filter, mut found, mut visits) = (Filter::new(&filter), Vec::new(), 0);
    let (mut counted, mut bytes) = (0, 0);
    while !cursor.is_at_end() && found.len() < limit && visits < MAX_LIST_VISITS {
        let start = cursor.clone();
        visits += topics.walk(&filter, &mut cursor, limit, &mut found);
        while let Some((topic, value)) = found.get(counted) {
            let next = topic.len() + value.bytes();
            if counted > 0 && bytes + next > MAX_LIST_BYTES {
                // it is the first of the next answer
                let of_shard = counted.checked_sub(1).and_then(|last| found.get(last));
                let of_shard = of_shard.map(|(topic, _)| Cursor::after(topic));
                cursor = of_shard.filter(|last| last.is_behind(&start)).unwrap_or(start);
                found.truncate(counted);
                visits = MAX_LIST_VISITS;
                break;
            }
            bytes += next;
            counted += 1;
        }
    }
    let values = found.iter().map(|(topic, value)| Retained::new(topic, value)).collect();
    answer(&Listed { values, next: (!cursor.is_at_end()).then(|| cursor.to_string()) })
}

fn delete_values(topics: &Topics, call: &Call<'_>) -> Result<Vec<u8>, CallError> {
    let deleted = match read(call, DELETE)? {
        Delete { topic: Some(topic), filter: None } => u64::from(topics.delete(&topic)),
        Delete { topic: None, filter: Some(filter) } => {
            let (filter, mut cursor, mut deleted) = (Filter::new(&filter), Cursor::default(), 0);
            let mut found = Vec::new();
            while !cursor.is_at_end() {
                topics.walk(&filter, &mut cursor, usize::MAX, &mut found);
                deleted += found.drain(..).map(|(topic, _)| u64::from(topics.delete(&topic))).sum::<u64>();
            }
            deleted
        }
        _ => return Err(CallError::invalid_params(format!("expected {DELETE}"))),
    };
    tracing::info!(client = call.caller, deleted, "retained values deleted");
    answer(&Deleted { deleted })
}
