//! `elbus broker`: inspects the broker and its clients, and reloads its configuration.

use serde_json::{Map, Value, json};

use super::control::{
    Field, Format, call_broker, call_broker_expecting_disconnect, plugins_after_reconnect, print_list,
    print_map,
};
use crate::{
    arguments::BrokerCommand,
    context::Context,
    error::CliError,
    output::{Results, escape},
};

const INFO: [Field; 2] = [("author", "author", Format::Text), ("version", "version", Format::Text)];

const STATS: [Field; 5] = [
    ("uptime", "uptime", Format::Seconds),
    ("r_frames", "frames in", Format::Count),
    ("r_bytes", "bytes in", Format::Bytes),
    ("w_frames", "frames out", Format::Count),
    ("w_bytes", "bytes out", Format::Bytes),
];

const CLIENTS: [Field; 10] = [
    ("name", "NAME", Format::Text),
    ("kind", "KIND", Format::Text),
    ("source", "SOURCE", Format::Text),
    ("port", "PORT", Format::Text),
    ("r_frames", "IN", Format::Count),
    ("r_bytes", "IN BYTES", Format::Bytes),
    ("w_frames", "OUT", Format::Count),
    ("w_bytes", "OUT BYTES", Format::Bytes),
    ("queue", "QUEUE", Format::Count),
    ("instances", "INSTANCES", Format::Count),
];

/// The method of the first bridge; that of a further one ends in a dot and the name of its bus.
const NODES_METHOD: &str = "broker.nodes";

const NODES: [Field; 7] = [
    ("name", "NODE", Format::Text),
    ("bus", "BUS", Format::Text),
    ("state", "STATE", Format::Text),
    ("clients", "CLIENTS", Format::Count),
    ("filters", "FILTERS", Format::Count),
    ("in_flight", "IN FLIGHT", Format::Bytes),
    ("lost_frames", "LOST", Format::Count),
];

const EXPLAIN: [Field; 8] = [
    ("why", "decision", Format::Text),
    ("rule", "rule", Format::Text),
    ("place", "place", Format::Text),
    ("recipient_count", "recipients", Format::Count),
    ("recipients", "names", Format::Text),
    ("options", "with options", Format::Lines),
    ("interceptors", "interceptors", Format::Lines),
    ("full", "full queues", Format::Lines),
];

pub(crate) async fn run(context: &Context, command: BrokerCommand) -> Result<(), CliError> {
    match command {
        BrokerCommand::Info => print_map(context, call_broker(context, "info", Value::Null).await?, &INFO),
        BrokerCommand::Stats => print_map(context, call_broker(context, "stats", Value::Null).await?, &STATS),
        BrokerCommand::Clients { filter, all } => {
            // only what was requested: other brokers know neither parameter
            let filter = filter.map(|filter| ("filter".to_owned(), Value::from(filter)));
            let all = all.then(|| ("all".to_owned(), Value::from(true)));
            let params: Map<_, _> = filter.into_iter().chain(all).collect();
            let params = if params.is_empty() { Value::Null } else { Value::Object(params) };
            print_list(context, call_broker(context, "client.list", params).await?, "clients", &CLIENTS)
        }
        BrokerCommand::Nodes => nodes(context).await,
        BrokerCommand::Explain { action, client, target } => {
            let params = json!({ "action": action, "name": client, "target": target });
            print_map(context, call_broker(context, "explain", params).await?, &EXPLAIN)
        }
        BrokerCommand::Test => test(context).await,
        BrokerCommand::Reload => reload(context).await,
    }
}

/// Prints the nodes of all buses: each bridge of the broker has a method of its own.
async fn nodes(context: &Context) -> Result<(), CliError> {
    let mut methods = nodes_methods(context).await.into_iter();
    let first = methods.next().unwrap_or_else(|| NODES_METHOD.to_owned());
    let mut all = call_broker(context, &first, Value::Null).await?;
    for method in methods {
        let mut more = call_broker(context, &method, Value::Null).await?;
        if let (Some(Value::Array(all)), Some(Value::Array(more))) =
            (all.get_mut("nodes"), more.remove("nodes"))
        {
            all.extend(more);
        }
    }
    print_list(context, all, "nodes", &NODES)
}

/// Returns the names of the methods that list nodes. None if the broker does not say which methods it has.
async fn nodes_methods(context: &Context) -> Vec<String> {
    let list = call_broker(context, "method.list", Value::Null).await.unwrap_or_default();
    let methods = list.get("methods").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let names = methods.iter().filter_map(|method| method.get("name")?.as_str());
    let is_wanted = |name: &&str| {
        name.strip_prefix(NODES_METHOD).is_some_and(|bus| bus.is_empty() || bus.starts_with('.'))
    };
    names.filter(is_wanted).map(str::to_owned).collect()
}

/// Prints what has changed. Fails if a plugin does not run as the file declares it.
async fn reload(context: &Context) -> Result<(), CliError> {
    let Some(result) = call_broker_expecting_disconnect(context, "config.reload", Value::Null).await? else {
        return report_after_reconnect(context).await;
    };
    let names = |key: &str| {
        let names = result.get(key).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        names.iter().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>()
    };
    let errors = names("errors");
    let mut results = Results::new(&context.output);
    if context.output.json {
        results.json(&Value::Object(result.clone()))?;
    } else if !context.output.quiet {
        let changed: Vec<_> = ["added", "removed", "restarted"]
            .iter()
            .map(|key| (key, names(key)))
            .filter(|(_, names)| !names.is_empty())
            .map(|(key, names)| format!("{key} {}", names.join(", ")))
            .collect();
        let changed = if changed.is_empty() { "no plugin changed".to_owned() } else { changed.join("; ") };
        results.line(&escape(&format!("reloaded: {changed}")))?;
        let refreshed = names("refreshed");
        if !refreshed.is_empty() {
            // their declarations are unchanged; the files that these name may have changed
            results.line(&escape(&format!("refreshed: {}", refreshed.join(", "))))?;
        }
    }
    results.flush()?;
    if errors.is_empty() { Ok(()) } else { Err(CliError::runtime(errors.join("; "))) }
}

/// Reports the result of a reload that restarted the transport of its own connection, over a new connection.
async fn report_after_reconnect(context: &Context) -> Result<(), CliError> {
    let Some(plugins) = plugins_after_reconnect(context, context.connection.timeout).await else {
        return Err(CliError::runtime(format!(
            "the reload ended the connection, and the broker at {} has not answered since: see its log",
            context.connection.address
        )));
    };
    let failed =
        plugins.iter().filter(|plugin| plugin.get("state").and_then(Value::as_str) == Some("failed"));
    let failed: Vec<_> =
        failed.filter_map(|plugin| Some(format!("{} has failed", plugin.get("name")?.as_str()?))).collect();
    if !failed.is_empty() {
        return Err(CliError::runtime(format!("after the reload: {}", failed.join("; "))));
    }
    let mut results = Results::new(&context.output);
    if context.output.json {
        results.json(&json!({ "reconnected": true }))?;
    } else if !context.output.quiet {
        results.line("reloaded; the transport of this connection was restarted")?;
    }
    results.flush()
}

async fn test(context: &Context) -> Result<(), CliError> {
    let result = call_broker(context, "test", Value::Null).await?;
    let healthy = result.get("ok").and_then(Value::as_bool) == Some(true);
    let mut results = Results::new(&context.output);
    if context.output.json {
        results.json(&Value::Object(result))?;
    } else if healthy {
        results.line("ok")?;
    }
    results.flush()?;
    if healthy { Ok(()) } else { Err(CliError::runtime("the broker did not answer with ok: see its log")) }
}
