//! `elbus broker`: what the broker says about itself and its clients.

use serde_json::{Value, json};

use super::control::{As, Field, ask, ask_transport, plugins_afterwards, show_list, show_map};
use crate::{
    arguments::BrokerCommand,
    failure::Failure,
    link::Link,
    output::{Results, escape},
};

const INFO: [Field; 2] = [("author", "author", As::Text), ("version", "version", As::Text)];

const STATS: [Field; 5] = [
    ("uptime", "uptime", As::Seconds),
    ("r_frames", "frames in", As::Count),
    ("r_bytes", "bytes in", As::Bytes),
    ("w_frames", "frames out", As::Count),
    ("w_bytes", "bytes out", As::Bytes),
];

const CLIENTS: [Field; 10] = [
    ("name", "NAME", As::Text),
    ("kind", "KIND", As::Text),
    ("source", "SOURCE", As::Text),
    ("port", "PORT", As::Text),
    ("r_frames", "IN", As::Count),
    ("r_bytes", "IN BYTES", As::Bytes),
    ("w_frames", "OUT", As::Count),
    ("w_bytes", "OUT BYTES", As::Bytes),
    ("queue", "QUEUE", As::Count),
    ("instances", "INSTANCES", As::Count),
];

const EXPLAIN: [Field; 5] = [
    ("why", "verdict", As::Text),
    ("rule", "rule", As::Text),
    ("place", "place", As::Text),
    ("recipient_count", "would get it", As::Count),
    ("recipients", "who", As::Text),
];

pub(crate) async fn run(link: &Link, command: BrokerCommand) -> Result<(), Failure> {
    match command {
        BrokerCommand::Info => show_map(link, ask(link, "info", Value::Null).await?, &INFO),
        BrokerCommand::Stats => show_map(link, ask(link, "stats", Value::Null).await?, &STATS),
        BrokerCommand::Clients { filter } => {
            let params = filter.map_or(Value::Null, |filter| json!({ "filter": filter }));
            show_list(link, ask(link, "client.list", params).await?, "clients", &CLIENTS)
        }
        BrokerCommand::Explain { action, client, target } => {
            let params = json!({ "action": action, "name": client, "target": target });
            show_map(link, ask(link, "explain", params).await?, &EXPLAIN)
        }
        BrokerCommand::Test => test(link).await,
        BrokerCommand::Reload => reload(link).await,
    }
}

/// Says what has changed, and fails where a plugin could not do as the file says.
async fn reload(link: &Link) -> Result<(), Failure> {
    let Some(result) = ask_transport(link, "config.reload", Value::Null).await? else {
        return reloaded_meanwhile(link).await;
    };
    let names = |key: &str| {
        let names = result.get(key).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        names.iter().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>()
    };
    let errors = names("errors");
    let mut results = Results::new(link);
    if link.json() {
        results.json(&Value::Object(result.clone()))?;
    } else if !link.quiet() {
        let changed: Vec<_> = ["added", "removed", "restarted"]
            .iter()
            .map(|key| (key, names(key)))
            .filter(|(_, names)| !names.is_empty())
            .map(|(key, names)| format!("{key} {}", names.join(", ")))
            .collect();
        let changed =
            if changed.is_empty() { "no plugin has changed".to_owned() } else { changed.join("; ") };
        results.line(&escape(&format!("reloaded: {changed}")))?;
        let refreshed = names("refreshed");
        if !refreshed.is_empty() {
            // their declarations have not changed, the files that these name may have
            results.line(&escape(&format!("refreshed: {}", refreshed.join(", "))))?;
        }
    }
    results.flush()?;
    if errors.is_empty() { Ok(()) } else { Err(Failure::bus(errors.join("; "))) }
}

/// The reload has restarted the transport of the connection: whether it has succeeded is seen over a new one.
async fn reloaded_meanwhile(link: &Link) -> Result<(), Failure> {
    let Some(plugins) = plugins_afterwards(link, link.timeout()).await else {
        return Err(Failure::bus(format!(
            "the reload has ended the connection, and no broker answers at {} since: see its log",
            link.address()
        )));
    };
    let failed =
        plugins.iter().filter(|plugin| plugin.get("state").and_then(Value::as_str) == Some("failed"));
    let failed: Vec<_> =
        failed.filter_map(|plugin| Some(format!("{} has failed", plugin.get("name")?.as_str()?))).collect();
    if !failed.is_empty() {
        return Err(Failure::bus(failed.join("; ")));
    }
    let mut results = Results::new(link);
    if link.json() {
        results.json(&json!({ "reconnected": true }))?;
    } else if !link.quiet() {
        results.line("reloaded; the connection was restarted with its transport")?;
    }
    results.flush()
}

async fn test(link: &Link) -> Result<(), Failure> {
    let result = ask(link, "test", Value::Null).await?;
    let healthy = result.get("ok").and_then(Value::as_bool) == Some(true);
    let mut results = Results::new(link);
    if link.json() {
        results.json(&Value::Object(result))?;
    } else if healthy {
        results.line("ok")?;
    }
    results.flush()?;
    if healthy { Ok(()) } else { Err(Failure::bus("the broker answers, but not with ok: see its log")) }
}
