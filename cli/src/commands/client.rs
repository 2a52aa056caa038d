//! `elbus client`: shows or disconnects one client.

use serde_json::json;

use super::control::{Field, Format, call_and_confirm, call_broker, print_map};
use crate::{arguments::ClientCommand, context::Context, error::CliError};

const INFO: [Field; 17] = [
    ("name", "name", Format::Text),
    ("kind", "kind", Format::Text),
    ("queue_bytes", "queue", Format::Bytes),
    ("pid", "pid", Format::Count),
    ("uid", "uid", Format::Count),
    ("gid", "gid", Format::Count),
    ("unit", "unit", Format::Text),
    ("certificate_names", "certificate", Format::Text),
    ("token", "token", Format::Text),
    ("node", "node", Format::Text),
    ("secondaries", "secondaries", Format::Text),
    ("denied", "denied", Format::Count),
    ("may_hold", "may hold senders", Format::Text),
    ("dropped_frames", "dropped", Format::Count),
    ("overflow", "overflow", Format::Text),
    ("rings", "rings", Format::Text),
    ("options", "with options", Format::Lines),
];

pub(crate) async fn run(context: &Context, command: ClientCommand) -> Result<(), CliError> {
    match command {
        ClientCommand::Info { client } => {
            print_map(context, call_broker(context, "client.info", json!({ "name": client })).await?, &INFO)
        }
        ClientCommand::Kick { client } => {
            call_and_confirm(context, "client.kick", &client, &format!("{client} is disconnected")).await
        }
    }
}
