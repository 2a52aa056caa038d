//! `elbus client`: one client of the broker.

use serde_json::json;

use super::control::{As, Field, ask, change, show_map};
use crate::{arguments::ClientCommand, failure::Failure, link::Link};

const INFO: [Field; 8] = [
    ("name", "name", As::Text),
    ("kind", "kind", As::Text),
    ("queue_bytes", "queue", As::Bytes),
    ("pid", "pid", As::Count),
    ("uid", "uid", As::Count),
    ("gid", "gid", As::Count),
    ("certificate_names", "certificate", As::Text),
    ("denied", "denied", As::Count),
];

pub(crate) async fn run(link: &Link, command: ClientCommand) -> Result<(), Failure> {
    match command {
        ClientCommand::Info { client } => {
            show_map(link, ask(link, "client.info", json!({ "name": client })).await?, &INFO)
        }
        ClientCommand::Kick { client } => {
            change(link, "client.kick", &client, &format!("{client} is disconnected")).await
        }
    }
}
