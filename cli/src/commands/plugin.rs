//! `elbus plugin`: the plugins of the broker.

use serde_json::Value;

use super::control::{As, Field, ask, change, show_list};
use crate::{arguments::PluginCommand, failure::Failure, link::Link};

const PLUGINS: [Field; 8] = [
    ("name", "NAME", As::Text),
    ("state", "STATE", As::Text),
    ("plugin", "PLUGIN", As::Text),
    ("origin", "ORIGIN", As::Text),
    ("addresses", "ADDRESSES", As::Text),
    ("restarts", "RESTARTS", As::Count),
    ("next_attempt", "NEXT IN", As::Seconds),
    ("why", "WHY", As::Text),
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
            change(link, "plugin.stop", &name.plugin, &format!("{} is stopped", name.plugin)).await
        }
        PluginCommand::Reload(name) => {
            change(link, "plugin.reload", &name.plugin, &format!("{} is reloaded", name.plugin)).await
        }
    }
}
