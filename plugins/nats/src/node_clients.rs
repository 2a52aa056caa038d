//! The clients that subscribe for other nodes: each gets the publications that its node asks for, and queues
//! them for it. Used by the thread of the instance only.

use elbus_bridge::Outbox;
use elbus_plugin_api::{Client, ClientInfo, Completion, Host};
use std::{collections::HashMap, sync::Arc};

use crate::{
    inputs::Inputs,
    own_clients::node_name,
    settings::Settings,
    sinks::{NodeSink, ProxyNames, Waiters},
};

/// The clients of all nodes that are up.
pub(crate) struct NodeClients {
    host: Host,
    settings: Arc<Settings>,
    inputs: Arc<Inputs>,
    names: Arc<ProxyNames>,
    clients: HashMap<Arc<str>, NodeClient>,
}

struct NodeClient {
    client: Client,
    waiters: Arc<Waiters>,
}

impl NodeClients {
    pub(crate) fn new(
        host: Host,
        settings: Arc<Settings>,
        inputs: Arc<Inputs>,
        names: Arc<ProxyNames>,
    ) -> Self {
        NodeClients { host, settings, inputs, names, clients: HashMap::new() }
    }

    /// Registers the client of a node.
    pub(crate) fn add(&mut self, node: Arc<str>, outbox: Arc<Outbox<Completion>>) {
        let waiters = Arc::<Waiters>::default();
        let sink = NodeSink {
            outbox,
            exports: self.settings.bridge.exports.clone(),
            inputs: self.inputs.clone(),
            waiters: waiters.clone(),
            proxies: self.names.clone(),
        };
        let name = node_name(&self.settings.bridge.bus, &node);
        // the previous one first, of which the name is
        self.clients.remove(&node);
        match self.host.register(&name, &ClientInfo::in_process().as_internal(), sink) {
            Ok(client) => _ = self.clients.insert(node, NodeClient { client, waiters }),
            Err(code) => {
                let (client, code) = (name, code.to_string());
                tracing::error!(client, code, "cannot register; the node gets no publications");
            }
        }
    }

    /// Removes the client of a node that is lost.
    pub(crate) fn remove(&mut self, node: &str) {
        if let Some(lost) = self.clients.remove(node) {
            drop(lost.client);
            lost.waiters.close();
        }
    }

    /// Lets publishers continue.
    pub(crate) fn drained(&self, node: &str) {
        if let Some(node) = self.clients.get(node) {
            node.waiters.notify();
        }
    }

    /// Subscribes to what a node asks for, and to nothing else.
    pub(crate) fn change_interest(&mut self, node: &str, added: &[String], removed: &[String]) {
        let Some(client) = self.clients.get_mut(node).map(|node| &mut node.client) else { return };
        // a filter that another one replaces ends last, so that nothing is missed
        for filter in added {
            if let Err(code) = client.subscribe([filter]) {
                let code = code.to_string();
                tracing::warn!(node, filter, code, "cannot subscribe for a node");
            }
        }
        if let Err(code) = client.unsubscribe(removed) {
            tracing::warn!(node, code = code.to_string(), "cannot unsubscribe for a node");
        }
    }

    /// Removes the clients of all nodes.
    pub(crate) fn clear(&mut self) {
        self.clients.clear();
    }
}
