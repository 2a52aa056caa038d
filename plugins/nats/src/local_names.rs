//! Which clients this broker has: learns it by events, and from the list of clients when events were missed.

use elbus_bridge::Bridge;
use elbus_plugin_api::{Call, Completion, Event, EventKind, Host};
use serde::Deserialize;
use std::{collections::BTreeSet, sync::Arc};

use crate::{
    inputs::{Input, Inputs},
    own_clients::KIND,
};

/// Learns from now on which clients register and leave.
pub(crate) fn listen(host: &Host, inputs: &Arc<Inputs>) {
    let sink = inputs.clone();
    host.add_listener(move |event: &Event<'_>| {
        let name = || event.subject.to_owned();
        match event.kind {
            EventKind::ClientRegistered => {
                sink.push(Input::Registered { name: name(), kind: event.detail.to_owned() });
            }
            EventKind::ClientLeft => sink.push(Input::Left { name: name() }),
            EventKind::EventsMissed => sink.push(Input::Missed),
            _ => {}
        }
    });
}

#[derive(Deserialize)]
struct ClientList {
    clients: Vec<Listed>,
}

#[derive(Deserialize)]
struct Listed {
    name: String,
    kind: String,
}

/// The local clients.
#[derive(Debug, Default)]
pub(crate) struct LocalNames(BTreeSet<String>);

impl LocalNames {
    /// A client has registered.
    pub(crate) fn registered(&mut self, bridge: &mut Bridge<Completion>, name: String, kind: &str) {
        if is_local(&name, kind) && !self.0.contains(&name) {
            bridge.local_registered(&name);
            self.0.insert(name);
        }
    }

    /// A client has left.
    pub(crate) fn left(&mut self, bridge: &mut Bridge<Completion>, name: &str) {
        if self.0.remove(name) {
            bridge.local_left(name);
        }
    }

    /// Returns whether there is a local client of this name.
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.0.contains(name)
    }

    /// Reads the list of clients.
    pub(crate) fn read(&mut self, bridge: &mut Bridge<Completion>, host: &Host) {
        let listed = match host.call(&Call::by_broker("client.list", &[])) {
            Ok(list) => rmp_serde::from_slice::<ClientList>(&list).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let clients = match listed {
            Ok(listed) => listed.clients,
            Err(error) => return tracing::error!(error, "cannot read the list of clients"),
        };
        let now: BTreeSet<String> = clients
            .into_iter()
            .filter(|client| is_local(&client.name, &client.kind))
            .map(|client| client.name)
            .collect();
        for name in self.0.difference(&now) {
            bridge.local_left(name);
        }
        for name in now.difference(&self.0) {
            bridge.local_registered(name);
        }
        self.0 = now;
    }
}

/// Returns whether a client belongs to this broker, and is not a part of it.
fn is_local(name: &str, kind: &str) -> bool {
    kind != KIND && !name.starts_with('.')
}
