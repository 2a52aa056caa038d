//! `elbus client`: shows or disconnects one client.

use serde_json::json;

use super::control::{Field, Format, call_and_confirm, call_broker, print_map};
use crate::{arguments::ClientCommand, context::Context, error::CliError};

const INFO: [Field; 8] = [
    ("name", "name", Format::Text),
    ("kind", "kind", Format::Text),
    ("queue_bytes", "queue", Format::Bytes),
    ("pid", "pid", Format::Count),
    ("uid", "uid", Format::Count),
    ("gid", "gid", Format::Count),
    ("certificate_names", "certificate", Format::Text),
    ("denied", "denied", Format::Count),
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
