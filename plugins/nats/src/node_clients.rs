//! The clients that subscribe for other nodes: each gets the publications that its node asks for, and queues
//! them for it. Used by the thread of the instance only.

use elbus_bridge::Outbox;
use elbus_plugin_api::{Client, ClientInfo, Completion, Host};
use std::{collections::HashMap, sync::Arc, time::Instant};

use crate::{
    inputs::Inputs,
    log_limit::LogLimit,
    own_clients::node_name,
    settings::Settings,
    sinks::{NodeSink, ProxyNames, Waiters},
};

/// Filters of nodes that cannot be subscribed to and are logged, per second.
const LOGGED_REFUSALS: u32 = 5;
/// Characters of such a filter that are logged.
const LOGGED_CHARACTERS: usize = 200;

/// The clients of all nodes that are up.
pub(crate) struct NodeClients {
    host: Host,
    settings: Arc<Settings>,
    inputs: Arc<Inputs>,
    names: Arc<ProxyNames>,
    clients: HashMap<Arc<str>, NodeClient>,
    refused: LogLimit,
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
        let (clients, refused) = (HashMap::new(), LogLimit::new(LOGGED_REFUSALS));
        NodeClients { host, settings, inputs, names, clients, refused }
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
            if let Err(code) = client.subscribe([filter])
                && let Some(suppressed) = self.refused.permit(Instant::now())
            {
                let code = code.to_string();
                // a filter of a node can be long
                let filter: String = filter.chars().take(LOGGED_CHARACTERS).collect();
                tracing::warn!(node, filter, code, suppressed, "cannot subscribe for a node");
            }
        }
        if let Err(code) = client.unsubscribe(removed)
            && let Some(suppressed) = self.refused.permit(Instant::now())
        {
            tracing::warn!(node, code = code.to_string(), suppressed, "cannot unsubscribe for a node");
        }
    }

    /// Removes the clients of all nodes.
    pub(crate) fn clear(&mut self) {
        self.clients.clear();
    }
}
