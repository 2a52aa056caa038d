//! Names and interest of other nodes: which proxies and subscriptions there are.

use super::{Bridge, link::Link, link::SNAPSHOT_INTERVAL};
use crate::{
    names::can_travel,
    outbox::Outbox,
    output::{Output, RemoveReason},
    proxy_id::ProxyId,
    report::ReportKind,
    wire::{Changes, List},
};
use elbus_protocol::subscription;
use std::{collections::HashSet, sync::Arc};

impl<C> Bridge<C> {
    /// A link has begun: announces it and everything that this node announces.
    pub(super) fn begin_outputs(&mut self, node: &Arc<str>, outbox: Arc<Outbox<C>>) {
        self.send_names(&outbox);
        self.send_interest(&outbox);
        self.push_change(node, Output::NodeUp { node: Arc::clone(node), outbox });
    }

    fn send_names(&self, outbox: &Outbox<C>) {
        let names = self.names.sorted();
        let all: Vec<(bool, &str)> = names.iter().map(|name| (true, &**name)).collect();
        outbox.append_list(List::Names, self.names.version(), &all, false);
    }

    fn send_interest(&self, outbox: &Outbox<C>) {
        let filters = self.interest.list().sorted();
        let all: Vec<(bool, &str)> = filters.iter().map(|filter| (true, &**filter)).collect();
        outbox.append_list(List::Interest, self.interest.list().version(), &all, false);
    }

    /// Sends the snapshots that are due because changes were lost.
    pub(super) fn resend_snapshots(&mut self, node: &Arc<str>) {
        let now = self.now;
        let Some(link) = self.peers.get_mut(node).and_then(|peer| peer.link.as_mut()) else { return };
        let outbox = Arc::clone(&link.outbox);
        let sending = &mut link.sending;
        let mut is_due = [(&mut sending.names_due, List::Names), (&mut sending.interest_due, List::Interest)]
            .map(|(due, list)| {
                if due.is_some_and(|due| now >= due) && outbox.has_snapshot(list) {
                    // the node does not take them as fast
                    *due = Some(now + SNAPSHOT_INTERVAL);
                }
                due.take_if(|due| now >= *due).is_some()
            })
            .into_iter();
        if is_due.next() == Some(true) {
            self.send_names(&outbox);
        }
        if is_due.next() == Some(true) {
            self.send_interest(&outbox);
        }
    }

    /// Sends changes of a list to all nodes.
    pub(super) fn send_changes(&mut self, list: List, changes: &[(bool, &str)]) {
        let version = match list {
            List::Names => self.names.version(),
            List::Interest => self.interest.list().version(),
        };
        let due = self.now + SNAPSHOT_INTERVAL;
        for link in self.peers.values_mut().filter_map(|peer| peer.link.as_mut()) {
            if link.outbox.has_room_for(changes) {
                link.outbox.append_list(list, version, changes, true);
                continue;
            }
            // too long, or the node does not take them as fast: a snapshot later stands for all of them
            match list {
                List::Names => _ = link.sending.names_due.get_or_insert(due),
                List::Interest => _ = link.sending.interest_due.get_or_insert(due),
            }
        }
    }

    /// Names of a node have arrived.
    pub(super) fn names_arrived(&mut self, node: &Arc<str>, link: &mut Link<C>, changes: &Changes<'_>) {
        let max_bytes = self.settings.limits.max_name_bytes;
        let difference = link.names.apply(changes, |name| can_travel(name, max_bytes));
        self.count(ReportKind::NamesOverLimit, Some(node), difference.over_limit);
        self.count(ReportKind::NamesInvalid, Some(node), difference.invalid);
        // secondaries leave before their primaries
        for name in difference.removed.iter().rev() {
            if let Some(id) = link.proxies.get(name).copied() {
                link.outbox.close(id);
                self.push_removal(node, id, RemoveReason::Left);
                link.proxies.remove(name);
            }
        }
        for name in difference.added {
            let Some(local) = self.settings.imports.local_name(node, &name) else { continue };
            if let Some(id) = link.proxies.get(&name) {
                link.unlisted.remove(id);
                if let Some(proxy) = self.proxies.get_mut(*id) {
                    proxy.is_listed = true;
                }
                continue;
            }
            self.add_proxy(node, link, name, local, true);
        }
    }

    fn add_proxy(
        &mut self,
        node: &Arc<str>,
        link: &mut Link<C>,
        name: Arc<str>,
        local: String,
        is_listed: bool,
    ) -> Option<ProxyId> {
        let local: Arc<str> = local.into();
        let proxy = self.proxies.add(node, Arc::clone(&name), Arc::clone(&local), is_listed)?;
        link.proxies.insert(Arc::clone(&name), proxy);
        link.outbox.open(proxy, name);
        let (of, outbox) = (Arc::clone(node), Arc::clone(&link.outbox));
        self.push_change(node, Output::RegisterProxy { proxy, node: of, name: local, is_listed, outbox });
        Some(proxy)
    }

    /// Returns the proxy of a sender, which is added if the sender is not listed.
    pub(super) fn sender(&mut self, node: &Arc<str>, link: &mut Link<C>, name: &str) -> Option<ProxyId> {
        if let Some(id) = link.proxies.get(name).copied() {
            if let Some(used) = link.unlisted.get_mut(&id) {
                link.uses += 1;
                *used = link.uses;
            }
            return Some(id);
        }
        if link.unlisted.len() >= self.settings.limits.max_unlisted.max(1) {
            let oldest = link.unlisted.iter().min_by_key(|(_, used)| **used).map(|(id, _)| *id)?;
            link.unlisted.remove(&oldest);
            link.outbox.close(oldest);
            if let Some(proxy) = self.proxies.get(oldest) {
                link.proxies.remove(&proxy.remote);
            }
            self.push_removal(node, oldest, RemoveReason::Idle);
        }
        let imports = &self.settings.imports;
        let local = imports.local_name(node, name).unwrap_or_else(|| format!("@{node}.{name}"));
        let id = self.add_proxy(node, link, Arc::from(name), local, false)?;
        link.uses += 1;
        link.unlisted.insert(id, link.uses);
        Some(id)
    }

    /// Interest of a node has arrived.
    pub(super) fn interest_arrived(&mut self, node: &Arc<str>, link: &mut Link<C>, changes: &Changes<'_>) {
        let is_valid =
            |filter: &str| !filter.is_empty() && !filter.contains('\0') && !subscription::has_options(filter);
        let difference = link.filters.apply(changes, is_valid);
        self.count(ReportKind::FiltersOverLimit, Some(node), difference.over_limit);
        self.count(ReportKind::FiltersInvalid, Some(node), difference.invalid);
        let mut added: HashSet<String> = HashSet::new();
        let mut removed: Vec<String> = Vec::new();
        for filter in &difference.added {
            added.extend(link.interest.add(filter));
        }
        for filter in &difference.removed {
            for text in link.interest.remove(filter) {
                // what comes and goes in one step changes nothing
                if !added.remove(&text) {
                    removed.push(text);
                }
            }
        }
        if !added.is_empty() || !removed.is_empty() {
            let mut added: Vec<String> = added.into_iter().collect();
            added.sort_unstable();
            self.push_change(node, Output::Interest { node: Arc::clone(node), added, removed });
        }
    }
}
