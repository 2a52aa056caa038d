//! Calls control methods of the broker and prints their results as tables. Never knows the keys of a method.

use elbus_client::{Bytes, Client, Error};
use elbus_protocol::{BROKER_NAME, Code, rpc::METHOD_NOT_FOUND};
use serde_json::{Map, Value, json};
use std::time::Duration;

use crate::{
    context::Context,
    error::CliError,
    input,
    output::{Align, Column, Expect, Payload, Results, Style, Table, escape, human_bytes, human_seconds},
};

/// Plugin states, as `plugin.list` reports them.
pub(crate) const STARTED: &str = "started";
pub(crate) const STOPPED: &str = "stopped";

/// Pause between attempts to reconnect.
const RECONNECT_INTERVAL: Duration = Duration::from_millis(50);
/// Time to reconnect after the plugin of the connection was stopped. It may have been the only transport.
const RECONNECT_TIMEOUT_AFTER_STOP: Duration = Duration::from_millis(500);

/// How a value is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Text,
    Count,
    Bytes,
    Seconds,
    /// A list of maps, each of them on a line of its own.
    Lines,
}

/// A key of a result, its title, and the format of its value.
pub(crate) type Field = (&'static str, &'static str, Format);

/// Connects and calls one control method.
pub(crate) async fn call_broker(
    context: &Context,
    method: &str,
    params: Value,
) -> Result<Map<String, Value>, CliError> {
    let (client, frames) = context.connect().await?;
    // only the reply is wanted
    drop(frames);
    let result = call(&client, method, params).await;
    client.close().await;
    result
}

async fn call(client: &Client, method: &str, params: Value) -> Result<Map<String, Value>, CliError> {
    let params = if params.is_null() { Vec::new() } else { input::to_msgpack(&params)? };
    let result = client.call(BROKER_NAME, method, params).await.map_err(|error| explain(error, method))?;
    read_map(result, method)
}

fn read_map(result: Bytes, method: &str) -> Result<Map<String, Value>, CliError> {
    match Payload::read(&result, Expect::Msgpack) {
        Payload::Msgpack(Value::Object(map)) => Ok(map),
        _ => Err(CliError::runtime(format!(
            "the reply to {method} is not a map: the peer may not be an ELBUS or BUS/RT broker"
        ))),
    }
}

/// Adds a remedy to an error of the broker.
fn explain(error: Error, method: &str) -> CliError {
    if matches!(error, Error::NotRegistered { .. }) {
        return CliError::runtime(format!(
            "the broker does not answer calls such as {method}: its configuration does not load the plugin elbus_rpc"
        ));
    }
    match CliError::from(error) {
        CliError::Rpc { code: METHOD_NOT_FOUND, .. } => CliError::Rpc {
            code: METHOD_NOT_FOUND,
            text: format!(
                "method not found: this broker has no method {method}; elbusd of this version has it"
            ),
        },
        CliError::Rpc { code, text } if code == Code::AccessDenied.rpc_code() => {
            let hint = match text.contains("remote_admin") {
                true => "call it on the broker's machine, through its UNIX socket",
                false => "use a --name that the access rules allow to call it",
            };
            CliError::Rpc { code, text: format!("access denied: {text}: {hint}") }
        }
        error => error,
    }
}

/// Calls a control method that can end the connection it is called over. Returns `None` if it did.
pub(crate) async fn call_broker_expecting_disconnect(
    context: &Context,
    method: &str,
    params: Value,
) -> Result<Option<Map<String, Value>>, CliError> {
    let (client, frames) = context.connect().await?;
    // only the reply is wanted
    drop(frames);
    let packed = if params.is_null() { Vec::new() } else { input::to_msgpack(&params)? };
    let result = match client.call(BROKER_NAME, method, packed).await {
        Err(Error::Disconnected { .. }) => return Ok(None),
        result => read_map(result.map_err(|error| explain(error, method))?, method),
    };
    client.close().await;
    result.map(Some)
}

/// Returns the plugins once the broker can be reached again, or `None` after `timeout`.
pub(crate) async fn plugins_after_reconnect(context: &Context, timeout: Duration) -> Option<Vec<Value>> {
    let plugins = async {
        loop {
            if let Ok(mut result) = call_broker(context, "plugin.list", Value::Null).await
                && let Some(Value::Array(plugins)) = result.remove("plugins")
            {
                return plugins;
            }
            tokio::time::sleep(RECONNECT_INTERVAL).await;
        }
    };
    tokio::time::timeout(timeout, plugins).await.ok()
}

/// Calls a control method that leaves a plugin in the state `state`, and prints `done` unless `--quiet`. If
/// the connection ends with the plugin, the outcome is queried over a new one; a plugin that was stopped may
/// have been the only transport.
pub(crate) async fn change_plugin_state(
    context: &Context,
    method: &str,
    name: &str,
    state: &str,
    done: &str,
) -> Result<(), CliError> {
    if let Some(result) = call_broker_expecting_disconnect(context, method, json!({ "name": name })).await? {
        return confirm(context, result, done);
    }
    let stops = state == STOPPED;
    let timeout = if stops { RECONNECT_TIMEOUT_AFTER_STOP } else { context.connection.timeout };
    let Some(plugins) = plugins_after_reconnect(context, timeout).await else {
        let address = &context.connection.address;
        return match stops {
            true => {
                confirm(context, Map::new(), &format!("{done}; the connection at {address} ended with it"))
            }
            false => Err(CliError::runtime(format!(
                "{method} ended the connection, and the broker at {address} has not answered since: see its log"
            ))),
        };
    };
    let plugin = plugins.iter().find(|plugin| plugin.get("name").and_then(Value::as_str) == Some(name));
    let found = plugin.and_then(|plugin| plugin.get("state")).and_then(Value::as_str).unwrap_or("not listed");
    if found == state {
        return confirm(context, Map::new(), done);
    }
    let reason = plugin.and_then(|plugin| plugin.get("why")).and_then(Value::as_str);
    let reason = reason.unwrap_or("see the broker's log");
    Err(CliError::runtime(format!("{method}: {name} is {found}: {reason}")))
}

/// Calls a control method that takes a name, and prints `done` unless `--quiet`.
pub(crate) async fn call_and_confirm(
    context: &Context,
    method: &str,
    name: &str,
    done: &str,
) -> Result<(), CliError> {
    let result = call_broker(context, method, json!({ "name": name })).await?;
    confirm(context, result, done)
}

fn confirm(context: &Context, result: Map<String, Value>, done: &str) -> Result<(), CliError> {
    let mut results = Results::new(&context.output);
    if context.output.json {
        results.json(&Value::Object(result))?;
    } else if !context.output.quiet {
        results.line(&escape(done))?;
    }
    results.flush()
}

/// Prints a map, one line per key.
pub(crate) fn print_map(
    context: &Context,
    map: Map<String, Value>,
    fields: &[Field],
) -> Result<(), CliError> {
    let mut results = Results::new(&context.output);
    if context.output.json {
        results.json(&Value::Object(map))?;
        return results.flush();
    }
    let width = fields.iter().map(|(_, title, _)| title.len()).max().unwrap_or(0);
    for (key, title, form) in fields {
        for (number, value) in values(map.get(*key), *form).iter().enumerate() {
            let title = if number == 0 { *title } else { "" };
            let title = results.palette.paint(Style::Strong, &format!("{title:width$}"));
            results.line(&format!("{title}  {}", escape(value)))?;
        }
    }
    results.flush()
}

/// Prints a list of maps as a table, sorted by name.
pub(crate) fn print_list(
    context: &Context,
    mut result: Map<String, Value>,
    key: &str,
    fields: &[Field],
) -> Result<(), CliError> {
    let Some(Value::Array(mut items)) = result.remove(key) else {
        return Err(CliError::runtime(format!(
            "the reply has no {key}: the peer may not be an ELBUS or BUS/RT broker"
        )));
    };
    let name = |item: &Value| item.get("name").and_then(Value::as_str).map(str::to_owned);
    items.sort_by_cached_key(name);
    let mut results = Results::new(&context.output);
    if context.output.json {
        for item in &items {
            results.json(item)?;
        }
        return results.flush();
    }
    let columns = fields.iter().map(|(_, title, form)| Column {
        title,
        align: if *form == Format::Text { Align::Left } else { Align::Right },
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

/// Returns the lines of a value, at least one.
fn values(value: Option<&Value>, form: Format) -> Vec<String> {
    match value {
        Some(Value::Array(items)) if form == Format::Lines && !items.is_empty() => {
            items.iter().map(|item| cell(Some(item), form)).collect()
        }
        value => vec![cell(value, form)],
    }
}

fn cell(value: Option<&Value>, form: Format) -> String {
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
            let items = map.iter().filter(|(_, value)| !value.is_null());
            items
                .map(|(key, value)| format!("{key} {}", cell(Some(value), form)))
                .collect::<Vec<_>>()
                .join(", ")
        }
        (Some(value), Format::Bytes) => value.as_u64().map_or_else(|| value.to_string(), human_bytes),
        (Some(value), Format::Seconds) => value.as_u64().map_or_else(|| value.to_string(), human_seconds),
        (Some(value), _) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_formatted_by_type() {
        assert_eq!(cell(None, Format::Text), "-");
        assert_eq!(cell(Some(&Value::Null), Format::Bytes), "-");
        assert_eq!(cell(Some(&json!("a")), Format::Text), "a");
        assert_eq!(cell(Some(&json!(2048)), Format::Bytes), "2.0 KiB");
        assert_eq!(cell(Some(&json!(2048)), Format::Count), "2048");
        assert_eq!(cell(Some(&json!(-1.5)), Format::Bytes), "-1.5", "another broker may send this");
        assert_eq!(cell(Some(&json!(61)), Format::Seconds), "1 min 1 s");
        assert_eq!(cell(Some(&json!([])), Format::Text), "-");
        assert_eq!(cell(Some(&json!({})), Format::Text), "-");
        assert_eq!(cell(Some(&json!({"call": 1, "send": 2})), Format::Count), "call 1, send 2");
        assert_eq!(cell(Some(&json!(["unix:a", "tcp:b"])), Format::Text), "unix:a, tcp:b");
        assert_eq!(cell(Some(&json!({"a": 1, "b": null})), Format::Lines), "a 1");
        assert_eq!(values(Some(&json!([])), Format::Lines), ["-"]);
        assert_eq!(values(Some(&json!([{"a": 1}, {"a": 2}])), Format::Lines), ["a 1", "a 2"]);
        assert_eq!(values(Some(&json!(["a", "b"])), Format::Text), ["a, b"]);
    }

    #[test]
    fn errors_name_the_remedy() {
        let text = |code, text: &str| {
            explain(Error::Rpc(elbus_client::RpcError::new(code, text)), "plugin.list").to_string()
        };
        let missing = text(-32601, "");
        assert!(missing.starts_with("error -32601: method not found: this broker has no method plugin.list"));
        let of_this_machine = text(-32121, "for clients of this machine only (remote_admin)");
        assert!(of_this_machine.ends_with("through its UNIX socket"), "{of_this_machine}");
        let by_rules = text(-32121, "access rules do not let a call b");
        assert!(
            by_rules.ends_with("do not let a call b: use a --name that the access rules allow to call it"),
            "{by_rules}"
        );
    }
}
