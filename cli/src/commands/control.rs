//! Calls at the broker itself, and their results as tables. Never knows the keys of any method.

use elbus_client::{Bytes, Client, Error};
use elbus_protocol::{BROKER_NAME, Code, rpc::METHOD_NOT_FOUND};
use serde_json::{Map, Value, json};
use std::time::Duration;

use crate::{
    failure::Failure,
    input,
    link::Link,
    output::{Align, Column, Expect, Payload, Results, Table, Tone, human_bytes, human_seconds},
};

/// States of a plugin, as `plugin.list` shows them.
pub(crate) const STARTED: &str = "started";
pub(crate) const STOPPED: &str = "stopped";

/// Pause between attempts to reach a broker again.
const AGAIN_EVERY: Duration = Duration::from_millis(50);
/// How long to look for another way in after the plugin of the connection was stopped.
const AFTER_STOP: Duration = Duration::from_millis(500);

/// How a value is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum As {
    Text,
    Count,
    Bytes,
    Seconds,
}

/// A key of a result, the title it is shown under, and how.
pub(crate) type Field = (&'static str, &'static str, As);

/// Connects and calls one method of the broker.
pub(crate) async fn ask(link: &Link, method: &str, params: Value) -> Result<Map<String, Value>, Failure> {
    let (client, frames) = link.connect().await?;
    // nothing else is wanted
    drop(frames);
    let result = call(&client, method, params).await;
    client.close().await;
    result
}

async fn call(client: &Client, method: &str, params: Value) -> Result<Map<String, Value>, Failure> {
    let params = if params.is_null() { Vec::new() } else { input::pack(&params)? };
    let result = client.call(BROKER_NAME, method, params).await.map_err(|error| explain(error, method))?;
    read_map(result, method)
}

fn read_map(result: Bytes, method: &str) -> Result<Map<String, Value>, Failure> {
    match Payload::read(&result, Expect::Msgpack) {
        Payload::Msgpack(Value::Object(map)) => Ok(map),
        _ => Err(Failure::bus(format!(
            "the broker answered {method} with something else than a map: is it an ELBUS or BUS/RT broker?"
        ))),
    }
}

/// What an error of the broker means for a person at the command line.
fn explain(error: Error, method: &str) -> Failure {
    if matches!(error, Error::NotRegistered { .. }) {
        return Failure::bus(format!(
            "this broker answers no calls, {method} neither: its configuration has no plugin elbus_rpc"
        ));
    }
    match Failure::from(error) {
        Failure::Rpc { code: METHOD_NOT_FOUND, .. } => Failure::Rpc {
            code: METHOD_NOT_FOUND,
            text: format!("method not found: this broker offers no {method}, elbusd of this version does"),
        },
        Failure::Rpc { code, text } if code == Code::AccessDenied.rpc_code() => {
            let hint = match text.contains("remote_admin") {
                true => "try it on the broker's own machine, through its UNIX socket",
                false => "try another --name, if there is one for that",
            };
            Failure::Rpc { code, text: format!("access denied: {text}: {hint}") }
        }
        failure => failure,
    }
}

/// Calls a method that may end the connection it is called over. Returns `None` if it did.
pub(crate) async fn ask_transport(
    link: &Link,
    method: &str,
    params: Value,
) -> Result<Option<Map<String, Value>>, Failure> {
    let (client, frames) = link.connect().await?;
    drop(frames); // nothing else is wanted
    let packed = if params.is_null() { Vec::new() } else { input::pack(&params)? };
    let result = match client.call(BROKER_NAME, method, packed).await {
        Err(Error::Disconnected { .. }) => return Ok(None),
        result => read_map(result.map_err(|error| explain(error, method))?, method),
    };
    client.close().await;
    result.map(Some)
}

/// The plugins once the broker can be reached again. `None` if it cannot within `patience`.
pub(crate) async fn plugins_afterwards(link: &Link, patience: Duration) -> Option<Vec<Value>> {
    let again = async {
        loop {
            if let Ok(mut result) = ask(link, "plugin.list", Value::Null).await
                && let Some(Value::Array(plugins)) = result.remove("plugins")
            {
                return plugins;
            }
            tokio::time::sleep(AGAIN_EVERY).await;
        }
    };
    tokio::time::timeout(patience, again).await.ok()
}

/// Calls a method that leaves a plugin in the state `state`, and says `done` unless --quiet. If the connection ends with
/// the plugin, the outcome is looked up over a new one; a plugin that was stopped may have been the only way in.
pub(crate) async fn change_plugin(
    link: &Link,
    method: &str,
    name: &str,
    state: &str,
    done: &str,
) -> Result<(), Failure> {
    if let Some(result) = ask_transport(link, method, json!({ "name": name })).await? {
        return show_done(link, result, done);
    }
    let stops = state == STOPPED;
    let Some(plugins) = plugins_afterwards(link, if stops { AFTER_STOP } else { link.timeout() }).await
    else {
        let address = link.address();
        return match stops {
            true => {
                show_done(link, Map::new(), &format!("{done}; the connection at {address} ended with it"))
            }
            false => Err(Failure::bus(format!(
                "{method} has ended the connection, and no broker answers at {address} since: see its log"
            ))),
        };
    };
    let plugin = plugins.iter().find(|plugin| plugin.get("name").and_then(Value::as_str) == Some(name));
    let found = plugin.and_then(|plugin| plugin.get("state")).and_then(Value::as_str).unwrap_or("gone");
    if found == state {
        return show_done(link, Map::new(), done);
    }
    let why = plugin.and_then(|plugin| plugin.get("why")).and_then(Value::as_str).unwrap_or("see the log");
    Err(Failure::bus(format!("{method}: {name} is {found}: {why}")))
}

/// Calls a method that changes something, and says `done` unless --quiet.
pub(crate) async fn change(link: &Link, method: &str, name: &str, done: &str) -> Result<(), Failure> {
    let result = ask(link, method, json!({ "name": name })).await?;
    show_done(link, result, done)
}

fn show_done(link: &Link, result: Map<String, Value>, done: &str) -> Result<(), Failure> {
    let mut results = Results::new(link);
    if link.json() {
        results.json(&Value::Object(result))?;
    } else if !link.quiet() {
        results.line(&crate::output::escape(done))?;
    }
    results.flush()
}

/// One map: a line for each key.
pub(crate) fn show_map(link: &Link, map: Map<String, Value>, fields: &[Field]) -> Result<(), Failure> {
    let mut results = Results::new(link);
    if link.json() {
        results.json(&Value::Object(map))?;
        return results.flush();
    }
    let width = fields.iter().map(|(_, title, _)| title.len()).max().unwrap_or(0);
    for (key, title, form) in fields {
        let title = results.palette.paint(Tone::Strong, &format!("{title:width$}"));
        let value = cell(map.get(*key), *form);
        results.line(&format!("{title}  {}", crate::output::escape(&value)))?;
    }
    results.flush()
}

/// Many maps: a row for each, by name.
pub(crate) fn show_list(
    link: &Link,
    mut result: Map<String, Value>,
    key: &str,
    fields: &[Field],
) -> Result<(), Failure> {
    let Some(Value::Array(mut items)) = result.remove(key) else {
        return Err(Failure::bus(format!(
            "the broker answered without {key}: is it an ELBUS or BUS/RT broker?"
        )));
    };
    let name = |item: &Value| item.get("name").and_then(Value::as_str).map(str::to_owned);
    items.sort_by_cached_key(name);
    let mut results = Results::new(link);
    if link.json() {
        for item in &items {
            results.json(item)?;
        }
        return results.flush();
    }
    let columns = fields.iter().map(|(_, title, form)| Column {
        title,
        align: if *form == As::Text { Align::Left } else { Align::Right },
    });
    let mut table = Table::new(columns.collect());
    for item in &items {
        let cells: Vec<_> = fields.iter().map(|(key, _, form)| cell(item.get(key), *form)).collect();
        table.row(cells.iter().map(String::as_str));
    }
    for line in table.lines(results.palette) {
        results.line(&line)?;
    }
    results.flush()
}

fn cell(value: Option<&Value>, form: As) -> String {
    match (value, form) {
        (None | Some(Value::Null), _) => "-".to_owned(),
        (Some(Value::String(text)), _) => text.clone(),
        (Some(Value::Array(items)), _) if items.is_empty() => "-".to_owned(),
        (Some(Value::Array(items)), _) => {
            let items: Vec<_> = items.iter().map(|item| cell(Some(item), form)).collect();
            items.join(", ")
        }
        (Some(Value::Object(map)), _) if map.is_empty() => "-".to_owned(),
        (Some(Value::Object(map)), _) => {
            let items: Vec<_> =
                map.iter().map(|(key, value)| format!("{key} {}", cell(Some(value), form))).collect();
            items.join(", ")
        }
        (Some(value), As::Bytes) => value.as_u64().map_or_else(|| value.to_string(), human_bytes),
        (Some(value), As::Seconds) => value.as_u64().map_or_else(|| value.to_string(), human_seconds),
        (Some(value), _) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells() {
        assert_eq!(cell(None, As::Text), "-");
        assert_eq!(cell(Some(&Value::Null), As::Bytes), "-");
        assert_eq!(cell(Some(&json!("a")), As::Text), "a");
        assert_eq!(cell(Some(&json!(2048)), As::Bytes), "2.0 KiB");
        assert_eq!(cell(Some(&json!(2048)), As::Count), "2048");
        assert_eq!(cell(Some(&json!(-1.5)), As::Bytes), "-1.5", "of some other broker");
        assert_eq!(cell(Some(&json!(61)), As::Seconds), "1 min 1 s");
        assert_eq!(cell(Some(&json!([])), As::Text), "-");
        assert_eq!(cell(Some(&json!({})), As::Text), "-");
        assert_eq!(cell(Some(&json!({"call": 1, "send": 2})), As::Count), "call 1, send 2");
        assert_eq!(cell(Some(&json!(["unix:a", "tcp:b"])), As::Text), "unix:a, tcp:b");
    }

    #[test]
    fn errors_say_what_to_try() {
        let text = |code, said: &str| {
            explain(Error::Rpc(elbus_client::RpcError::new(code, said)), "plugin.list").to_string()
        };
        let missing = text(-32601, "");
        assert!(missing.starts_with("error -32601: method not found: this broker offers no plugin.list"));
        let of_this_machine = text(-32121, "for clients of this machine only (remote_admin)");
        assert!(of_this_machine.ends_with("through its UNIX socket"), "{of_this_machine}");
        let by_rules = text(-32121, "access rules do not let a call b");
        assert!(
            by_rules.ends_with("do not let a call b: try another --name, if there is one for that"),
            "{by_rules}"
        );
    }
}
