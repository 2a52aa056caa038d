//! All clients of an instance: who comes, who goes, and whom the watch has to see to. Knows nothing of what they
//! send and receive.

use elbus_plugin_api::{
    ClientInfo, Code, Host, Locality, Op, Qos, Request, WARNINGS_TOPIC, inproc::InprocConnector,
};
use parking_lot::{Condvar, Mutex};
use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use crate::{
    peer::{Incoming, Outgoing, Peer},
    settings::Limits,
};

pub(crate) struct Office {
    pub(crate) host: Host,
    pub(crate) limits: Limits,
    /// A leaf: nothing is called while it is held.
    pub(crate) desk: Mutex<Desk>,
    pub(crate) changed: Condvar,
}

#[derive(Default)]
pub(crate) struct Desk {
    /// All of them, by their address.
    clients: HashMap<usize, Weak<Peer>>,
    /// Those over their limit since the watch last looked.
    pub(crate) held: Vec<Weak<Peer>>,
    /// Those that are shut, whose registration the watch is to end.
    pub(crate) leaving: Vec<Leaving>,
    pub(crate) ended: bool,
}

/// A client to be seen off.
pub(crate) struct Leaving {
    pub(crate) peer: Arc<Peer>,
    pub(crate) why: Why,
}

pub(crate) enum Why {
    /// The broker says so.
    Told(String),
    /// It took too little: so many bytes wait.
    Slow { bytes: usize },
}

impl Office {
    pub(crate) fn new(host: Host, limits: Limits) -> Self {
        Office { host, limits, desk: Mutex::default(), changed: Condvar::new() }
    }

    /// How many clients there are.
    pub(crate) fn clients(&self) -> usize {
        self.desk.lock().clients.len()
    }

    fn connect(self: &Arc<Self>, name: &str) -> Result<Outgoing, Code> {
        let peer = Peer::new(name, self.limits, self.clone());
        // known before it is registered, so that an end meanwhile closes it
        let key = key(&peer);
        {
            let mut desk = self.desk.lock();
            if desk.ended {
                return Err(Code::NotSupported);
            }
            desk.clients.insert(key, Arc::downgrade(&peer));
        }
        let (kind, locality) = ("internal".into(), Locality::InProcess);
        let info = ClientInfo { kind, locality, ..Default::default() };
        let endpoint = Outgoing(peer.clone()); // dropped where this fails, it is forgotten
        let mut client = self.host.register(name, &info, Incoming(peer.clone()))?;
        // the broker subscribes clients within the process to nothing: other plugins do not expect it
        _ = client.dispatch(&Request::new(Op::Subscribe, Qos::NO, WARNINGS_TOPIC, &[]));
        peer.arrive(client);
        Ok(endpoint)
    }

    /// The user has closed it.
    pub(crate) fn forget(&self, peer: &Arc<Peer>) {
        self.desk.lock().clients.remove(&key(peer));
    }

    /// It is over its limit.
    pub(crate) fn look_after(&self, peer: &Arc<Peer>) {
        self.tell(|desk| desk.held.push(Arc::downgrade(peer)));
    }

    /// The broker has closed it.
    pub(crate) fn dismiss(&self, peer: &Arc<Peer>, reason: &str) {
        let leaving = Leaving { peer: peer.clone(), why: Why::Told(reason.to_owned()) };
        self.tell(|desk| desk.leaving.push(leaving));
    }

    /// It was closed, since it took too little.
    pub(crate) fn slow(&self, peer: &Arc<Peer>, bytes: usize) {
        let leaving = Leaving { peer: peer.clone(), why: Why::Slow { bytes } };
        self.tell(|desk| desk.leaving.push(leaving));
    }

    fn tell(&self, what: impl FnOnce(&mut Desk)) {
        {
            let mut desk = self.desk.lock();
            if desk.ended {
                return; // the end has closed or is closing all of them
            }
            what(&mut desk);
        }
        self.changed.notify_all();
    }

    /// Closes all clients and takes no more.
    pub(crate) fn end(&self) {
        let desk = std::mem::replace(&mut *self.desk.lock(), Desk { ended: true, ..Default::default() });
        self.changed.notify_all();
        for peer in desk.clients.values().filter_map(Weak::upgrade) {
            peer.leave("the plugin has stopped");
        }
    }
}

fn key(peer: &Arc<Peer>) -> usize {
    Arc::as_ptr(peer).addr()
}

/// What is offered to the broker.
pub(crate) struct Connector(Arc<Office>);

impl Connector {
    pub(crate) fn new(office: Arc<Office>) -> Self {
        Connector(office)
    }
}

impl InprocConnector for Connector {
    type Endpoint = Outgoing;

    fn connect(&self, name: &str) -> Result<Outgoing, Code> {
        self.0.connect(name)
    }
}
