//! Remote clients as the local broker sees them, and their runs that wait.

use crate::{delivery::Delivery, output::RemoveReason, proxy_id::ProxyId};
use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

/// A remote client.
#[derive(Debug)]
pub(super) struct Proxy {
    pub(super) node: Arc<str>,
    /// Name at its node.
    pub(super) remote: Arc<str>,
    /// Name at the local broker.
    pub(super) local: Arc<str>,
    pub(super) is_listed: bool,
    /// The broker has not registered it.
    pub(super) is_refused: bool,
    /// Its runs wait until receivers have drained.
    pub(super) is_held: bool,
    /// It leaves once its runs are dispatched.
    pub(super) leaves: Option<RemoveReason>,
    pub(super) parked: VecDeque<Delivery>,
}

/// All proxies of all nodes.
#[derive(Debug, Default)]
pub(super) struct Proxies {
    last: u64,
    all: HashMap<ProxyId, Proxy>,
    /// Those that were refused, by local name.
    refused: HashMap<Arc<str>, Vec<ProxyId>>,
    /// Those with parked runs that can go on.
    ready: VecDeque<ProxyId>,
}

impl Proxies {
    /// Adds a proxy. `None` if there are no more numbers.
    pub(super) fn add(
        &mut self,
        node: &Arc<str>,
        remote: Arc<str>,
        local: Arc<str>,
        is_listed: bool,
    ) -> Option<ProxyId> {
        self.last = self.last.checked_add(1)?;
        let id = ProxyId(self.last);
        let node = Arc::clone(node);
        let proxy = Proxy {
            node,
            remote,
            local,
            is_listed,
            is_refused: false,
            is_held: false,
            leaves: None,
            parked: VecDeque::new(),
        };
        self.all.insert(id, proxy);
        Some(id)
    }

    pub(super) fn get(&self, id: ProxyId) -> Option<&Proxy> {
        self.all.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: ProxyId) -> Option<&mut Proxy> {
        self.all.get_mut(&id)
    }

    /// Returns the proxies of a node.
    pub(super) fn of_node(&self, node: &Arc<str>) -> Vec<ProxyId> {
        self.all.iter().filter(|(_, proxy)| proxy.node == *node).map(|(id, _)| *id).collect()
    }

    pub(super) fn remove(&mut self, id: ProxyId) -> Option<Proxy> {
        let proxy = self.all.remove(&id)?;
        if let Some(ids) = self.refused.get_mut(&proxy.local) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.refused.remove(&proxy.local);
            }
        }
        Some(proxy)
    }

    /// Notes that the broker has not registered a proxy, or has ended its registration. Returns its runs that
    /// wait: nothing tells that their receivers have drained.
    pub(super) fn refuse(&mut self, id: ProxyId) -> VecDeque<Delivery> {
        let Some(proxy) = self.all.get_mut(&id).filter(|proxy| !proxy.is_refused) else {
            return VecDeque::new();
        };
        proxy.is_refused = true;
        proxy.is_held = false;
        if proxy.leaves.is_some() {
            self.ready.push_back(id);
        }
        self.refused.entry(Arc::clone(&proxy.local)).or_default().push(id);
        std::mem::take(&mut proxy.parked)
    }

    /// Returns how many proxies the broker has not registered.
    pub(super) fn count_refused(&self) -> usize {
        self.refused.values().map(Vec::len).sum()
    }

    /// Returns the local names of the proxies that the broker has not registered.
    pub(super) fn refused_names(&self) -> Vec<Arc<str>> {
        self.refused.keys().cloned().collect()
    }

    /// Returns a proxy to register, now that a local client has given up its name.
    pub(super) fn retry(&mut self, local: &str) -> Option<ProxyId> {
        let ids = self.refused.get_mut(local)?;
        let id = (!ids.is_empty()).then(|| ids.remove(0));
        if ids.is_empty() {
            self.refused.remove(local);
        }
        let proxy = self.all.get_mut(&id?)?;
        proxy.is_refused = false;
        id
    }

    /// The receivers of a proxy have drained.
    pub(super) fn ready(&mut self, id: ProxyId) {
        if let Some(proxy) = self.all.get_mut(&id).filter(|proxy| proxy.is_held) {
            proxy.is_held = false;
            if !proxy.parked.is_empty() || proxy.leaves.is_some() {
                self.ready.push_back(id);
            }
        }
    }

    /// Returns the next parked run that can go on, or a proxy that leaves because it has no more of them.
    pub(super) fn next_parked(&mut self) -> Option<Parked> {
        while let Some(id) = self.ready.front().copied() {
            if let Some(proxy) = self.all.get_mut(&id).filter(|proxy| !proxy.is_held) {
                if let Some(delivery) = proxy.parked.pop_front() {
                    return Some(Parked::Run(delivery));
                }
                if let Some(reason) = proxy.leaves.take() {
                    self.ready.pop_front();
                    return Some(Parked::Leaves(id, reason));
                }
            }
            self.ready.pop_front();
        }
        None
    }
}

/// What a proxy that was held does next.
#[derive(Debug)]
pub(super) enum Parked {
    Run(Delivery),
    Leaves(ProxyId, RemoveReason),
}
