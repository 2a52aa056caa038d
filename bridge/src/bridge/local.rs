//! What changes at the local broker: clients, subscriptions, and proxies that it refuses.

use super::Bridge;
use crate::{names::can_travel, output::Output, proxy_id::ProxyId, report::ReportKind, wire::List};
use std::sync::Arc;

impl<C> Bridge<C> {
    /// A local client has registered. It is announced if it is exported. Never called for proxies.
    pub fn local_registered(&mut self, name: &str) {
        if !self.settings.exports.has_name(name) {
            return;
        }
        if !can_travel(name, self.settings.limits.max_name_bytes) {
            return self.count(ReportKind::NamesInvalid, None, 1);
        }
        match self.names.add(name) {
            Some(true) => self.send_changes(List::Names, &[(true, name)]),
            Some(false) => {}
            None => self.count(ReportKind::NamesOverLimit, None, 1),
        }
    }

    /// A local client has left. A proxy that wanted its name is registered.
    pub fn local_left(&mut self, name: &str) {
        if self.names.remove(name) {
            self.send_changes(List::Names, &[(false, name)]);
            if let Some(next) = self.names.add_next() {
                self.send_changes(List::Names, &[(true, &next)]);
            }
        }
        self.retry_name(name);
    }

    /// Registers a proxy whose name has become free.
    pub(super) fn retry_name(&mut self, name: &str) {
        let Some(id) = self.proxies.retry(name) else { return };
        let Some(proxy) = self.proxies.get(id) else { return };
        let Some(link) = self.peers.get(&proxy.node).and_then(|peer| peer.link.as_ref()) else { return };
        let output = Output::RegisterProxy {
            proxy: id,
            node: Arc::clone(&proxy.node),
            name: Arc::clone(&proxy.local),
            is_listed: proxy.is_listed,
            outbox: Arc::clone(&link.outbox),
        };
        let node = Arc::clone(&proxy.node);
        self.push_change(&node, output);
    }

    /// Local clients, not proxies, have unsubscribed from filters and subscribed to others. The filters are
    /// without options, and counted: as many removals as additions end the interest. Other nodes learn only
    /// the sum of all changes, so what one client ends and another one begins goes on without a gap.
    pub fn interest_changed<'f>(
        &mut self,
        removed: impl IntoIterator<Item = &'f str>,
        added: impl IntoIterator<Item = &'f str>,
    ) {
        // they make room for what is added
        removed.into_iter().for_each(|filter| self.interest.remove(filter));
        let untracked = added.into_iter().filter(|filter| !self.interest.add(filter)).count();
        self.count(ReportKind::FiltersOverLimit, None, untracked as u64);
        self.announce_interest();
    }

    /// Returns whether all subscriptions may fit the limit again after there were too many. Then
    /// [`interest_replaced`](Self::interest_replaced) should be called.
    pub fn may_announce_all_filters(&self) -> bool {
        self.interest.may_fit()
    }

    /// These are the filters of all local clients, each as often as it is subscribed to.
    pub fn interest_replaced<'f>(&mut self, filters: impl IntoIterator<Item = &'f str>) {
        self.interest.replace(filters);
        self.announce_interest();
    }

    fn announce_interest(&mut self) {
        let changes = self.interest.adapt();
        if changes.is_empty() {
            return;
        }
        let changes: Vec<(bool, &str)> = changes.iter().map(|(added, text)| (*added, &**text)).collect();
        self.send_changes(List::Interest, &changes);
    }

    /// Returns how many clients of other nodes the broker has not registered.
    pub fn refused_clients(&self) -> usize {
        self.proxies.count_refused()
    }

    /// Registers refused proxies whose names may be free: the rules of the broker may have changed.
    pub fn retry_refused(&mut self, is_free: impl Fn(&str) -> bool) {
        for name in self.proxies.refused_names() {
            if is_free(&name) {
                self.retry_name(&name);
            }
        }
    }

    /// The broker did not register a proxy, because its name is taken or denied. It is tried again when the
    /// local client of this name leaves, and by [`retry_refused`](Self::retry_refused). What it sends is
    /// dropped and acknowledged with [`Code::NotDelivered`](elbus_protocol::Code::NotDelivered).
    pub fn proxy_refused(&mut self, proxy: ProxyId) {
        let Some(node) = self.proxies.get(proxy).map(|proxy| Arc::clone(&proxy.node)) else { return };
        let waiting = self.proxies.refuse(proxy);
        self.count(ReportKind::NamesTaken, Some(&node), 1);
        for delivery in waiting {
            self.drop_delivery(&delivery);
        }
    }
}
