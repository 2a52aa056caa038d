//! `elbus plugin`: lists, starts, stops and reloads plugins.

use serde_json::Value;

use super::control::{
    Field, Format, STARTED, STOPPED, call_and_confirm, call_broker, change_plugin_state, print_list,
};
use crate::{arguments::PluginCommand, context::Context, error::CliError};

const PLUGINS: [Field; 12] = [
    ("name", "NAME", Format::Text),
    ("state", "STATE", Format::Text),
    ("plugin", "PLUGIN", Format::Text),
    ("origin", "ORIGIN", Format::Text),
    ("addresses", "ADDRESSES", Format::Text),
    ("restarts", "RESTARTS", Format::Count),
    ("next_attempt", "NEXT IN", Format::Seconds),
    ("why", "WHY", Format::Text),
    ("detail", "DETAIL", Format::Text),
    ("loaded_seconds", "LOADED FOR", Format::Seconds),
    ("build", "BUILD", Format::Text),
    ("path", "PATH", Format::Text),
];

pub(crate) async fn run(context: &Context, command: PluginCommand) -> Result<(), CliError> {
    match command {
        PluginCommand::List => {
            print_list(context, call_broker(context, "plugin.list", Value::Null).await?, "plugins", &PLUGINS)
        }
        PluginCommand::Start(name) => {
            call_and_confirm(context, "plugin.start", &name.plugin, &format!("{} is started", name.plugin))
                .await
        }
        PluginCommand::Stop(name) => {
            let done = format!("{} is stopped", name.plugin);
            change_plugin_state(context, "plugin.stop", &name.plugin, STOPPED, &done).await
        }
        PluginCommand::Reload(name) => {
            let done = format!("{} is reloaded", name.plugin);
            change_plugin_state(context, "plugin.reload", &name.plugin, STARTED, &done).await
        }
    }
}
