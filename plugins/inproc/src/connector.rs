//! Creates in-process clients for the broker. Never sends or receives for them.

use elbus_plugin_api::{ClientInfo, Code, Op, Qos, Request, WARNINGS_TOPIC, inproc::InprocConnector};
use std::sync::Arc;

use crate::{
    clients::Clients,
    peer::{Peer, PeerEndpoint, PeerSink},
};

/// The connector that an instance offers to the broker.
pub(crate) struct Connector(Arc<Clients<Peer>>);

impl Connector {
    pub(crate) fn new(clients: Arc<Clients<Peer>>) -> Self {
        Connector(clients)
    }
}

impl InprocConnector for Connector {
    type Endpoint = PeerEndpoint;

    fn connect(&self, name: &str) -> Result<PeerEndpoint, Code> {
        let clients = &self.0;
        let peer = Peer::new(name, clients.limits, clients.clone());
        // inserted before the registration, so that a stop in between closes it
        if !clients.insert(&peer) {
            return Err(Code::NotSupported);
        }
        let endpoint = PeerEndpoint(peer.clone()); // dropped on failure, which removes the client
        let info = ClientInfo::in_process().with_overflow(clients.limits.overflow);
        let mut client = clients.host.register(name, &info, PeerSink(peer.clone()))?;
        // the broker adds no initial subscription for clients in the process, since other plugins do not
        // expect one
        _ = client.dispatch(&Request::new(Op::Subscribe, Qos::NO, WARNINGS_TOPIC, &[]));
        peer.set_client(client);
        Ok(endpoint)
    }
}
