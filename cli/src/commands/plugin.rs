//! `elbus plugin`: the plugins of the broker.

use serde_json::Value;

use super::control::{As, Field, STARTED, STOPPED, ask, change, change_plugin, show_list};
use crate::{arguments::PluginCommand, failure::Failure, link::Link};

const PLUGINS: [Field; 12] = [
    ("name", "NAME", As::Text),
    ("state", "STATE", As::Text),
    ("plugin", "PLUGIN", As::Text),
    ("origin", "ORIGIN", As::Text),
    ("addresses", "ADDRESSES", As::Text),
    ("restarts", "RESTARTS", As::Count),
    ("next_attempt", "NEXT IN", As::Seconds),
    ("why", "WHY", As::Text),
    ("detail", "DETAIL", As::Text),
    ("loaded_seconds", "LOADED FOR", As::Seconds),
    ("build", "BUILD", As::Text),
    ("path", "PATH", As::Text),
];

pub(crate) async fn run(link: &Link, command: PluginCommand) -> Result<(), Failure> {
    match command {
        PluginCommand::List => {
            show_list(link, ask(link, "plugin.list", Value::Null).await?, "plugins", &PLUGINS)
        }
        PluginCommand::Start(name) => {
            change(link, "plugin.start", &name.plugin, &format!("{} is started", name.plugin)).await
        }
        PluginCommand::Stop(name) => {
            let done = format!("{} is stopped", name.plugin);
            change_plugin(link, "plugin.stop", &name.plugin, STOPPED, &done).await
        }
        PluginCommand::Reload(name) => {
            let done = format!("{} is reloaded", name.plugin);
            change_plugin(link, "plugin.reload", &name.plugin, STARTED, &done).await
        }
    }
}
