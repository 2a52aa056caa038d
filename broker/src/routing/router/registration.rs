//! Registering and removing clients.
//!
//! Clients are removed under the lock of the registry. Their connections are closed after it is released.

use elbus_plugin_api::{ClientInfo, Code, Departure, EventKind, Locality, WARNINGS_TOPIC, abi::SinkObject};
use elbus_protocol::name::{check_name, is_secondary};
use std::sync::{Arc, atomic::Ordering::Relaxed};

use super::Router;
use crate::{
    callbacks::owner_name,
    client_origin::ClientOrigin,
    routing::{
        registered_client::RegisteredClient,
        registry::{FilterSet, Registry},
    },
    statistics::RegistrationRefusal,
    sync::atomic::Ordering,
};

impl Router {
    /// Registers a client (protocol section 2). It stays registered until its
    /// [`Sender`](crate::routing::Sender) is dropped.
    ///
    /// # Errors
    /// The name is invalid, taken or not allowed, or access rules do not admit the client.
    pub(crate) fn register(
        &self,
        name: &str,
        info: ClientInfo,
        owner: u32,
        sink: SinkObject,
    ) -> Result<Arc<RegisteredClient>, Code> {
        let registered = self.try_register(name, info, owner, sink);
        if let Err(code) = &registered {
            self.refused_registrations.add(RegistrationRefusal::of(*code), 1);
        }
        registered
    }

    fn try_register(
        &self,
        name: &str,
        info: ClientInfo,
        owner: u32,
        sink: SinkObject,
    ) -> Result<Arc<RegisteredClient>, Code> {
        if let Err(error) = check_name(name)
            && !(info.internal && is_part(name))
        {
            return Err(error.code());
        }
        let limit = self.settings().max_name_bytes;
        if name.len() > limit {
            tracing::debug!(bytes = name.len(), limit, "name refused: longer than max_name_bytes");
            return Err(Code::BadData);
        }
        let name: Arc<str> = name.into();
        let origin = ClientOrigin::new(info, &self.words);
        let policy = self.access.admit(&name, &origin).map_err(|refusal| refusal.code)?;
        let limits = policy.as_ref().map(|policy| policy.sink_limits());
        let statistics = self.instances.of(owner, || owner_name(owner));
        let member = RegisteredClient::new(name.clone(), origin, owner, sink, policy).counted_in(statistics);
        let member = Arc::new(member);
        if let Some(limits) = limits {
            member.limit(&limits);
        }
        let name = &*name;
        let mut evicted = vec![];
        let mut registry = self.registry.write();
        // a client of another node takes no name from one of this broker
        if self.settings().force_register
            && member.origin.node().is_none()
            && !is_secondary(name)
            && let Some(old) = registry.find(name).filter(|old| !old.origin.internal).cloned()
        {
            let why = (Departure::Replaced, "replaced by a newer client of the same name");
            self.remove(&mut registry, &old, why, &mut evicted);
        }
        if let Some(refusal) = registry.stranger_to_primary(&member) {
            drop(registry);
            self.access.note_refusal(name, &member.origin, &refusal);
            return Err(Code::AccessDenied);
        }
        registry.add(member.clone())?;
        if let Some(statistics) = &member.statistics {
            statistics.registered.fetch_add(1, Relaxed);
        }
        registry.set_overflow(&member, member.overflow());
        // before any sender can find it
        let is_awaited = self.waiting.begin_delivery(name, member.id);
        if is_awaited {
            member.begin_awaited(&self.holds);
        }
        if !member.origin.internal {
            if member.origin.locality != Locality::InProcess && member.origin.node().is_none() {
                // the epoch of topics stays the same: topics of the broker itself are never cached
                let warnings = std::iter::once((0, WARNINGS_TOPIC));
                _ = registry.change(&member, FilterSet::Subscriptions, true, warnings, |_| ());
            }
            if !is_secondary(name) {
                self.events.enqueue(EventKind::ClientRegistered, name, &member.origin.kind);
            }
        }
        self.names_epoch.fetch_add(1, Ordering::Release);
        drop(registry);
        while !member.is_gone() && !self.has_current_policy(&member) {
            // the rules were replaced meanwhile, perhaps before the client was visible to that change
            self.reauthorize(&member);
        }
        self.close_all(&evicted);
        if is_awaited {
            self.deliver_waiting(&member);
        }
        tracing::debug!(
            client = name,
            kind = &*member.origin.kind,
            source = member.origin.source,
            "registered"
        );
        self.events.dispatch();
        Ok(member)
    }

    /// Unregisters a client, unless it is unregistered already.
    pub(in crate::routing) fn leave(
        &self,
        member: &Arc<RegisteredClient>,
        (departure, reason): (Departure, &str),
    ) {
        if member.system.is_some() {
            return self.system.end(|other| other.id == member.id);
        }
        let mut evicted = vec![];
        if !member.is_gone() {
            self.remove(&mut self.registry.write(), member, (departure, reason), &mut evicted);
        }
        member.drained();
        if evicted.iter().any(|(other, _)| Arc::ptr_eq(other, member)) {
            self.report_left(member);
        }
        // its own connection is ending already
        evicted.retain(|(other, _)| !Arc::ptr_eq(other, member));
        self.close_all(&evicted);
        self.events.dispatch();
    }

    /// Unregisters the client of this name and closes its connection. Returns `false` if there is no such
    /// client, or if it is a part of the broker.
    pub(crate) fn evict(&self, name: &str, reason: &str) -> bool {
        let mut evicted = vec![];
        let mut registry = self.registry.write();
        let found = registry.find(name).filter(|member| !member.origin.internal).cloned();
        if let Some(member) = &found {
            self.remove(&mut registry, member, (Departure::Kicked, reason), &mut evicted);
        }
        drop(registry);
        self.close_all(&evicted);
        self.events.dispatch();
        found.is_some()
    }

    /// Unregisters all clients of an instance and closes their connections.
    pub(crate) fn evict_owner(&self, owner: u32, reason: &str) {
        self.system.end(|member| member.owner == owner);
        let mut evicted = vec![];
        let mut registry = self.registry.write();
        let members: Vec<_> = registry.all().filter(|member| member.owner == owner).cloned().collect();
        for member in &members {
            self.remove(&mut registry, member, (Departure::Stopped, reason), &mut evicted);
        }
        drop(registry);
        self.close_all(&evicted);
        self.instances.forget(owner);
        self.events.dispatch();
    }

    /// Removes a client and, if it is a primary, its secondaries. Adds them to `evicted`, for
    /// [`close_all`](Self::close_all) once the lock is released.
    pub(in crate::routing) fn remove(
        &self,
        registry: &mut Registry,
        member: &Arc<RegisteredClient>,
        (departure, reason): (Departure, &str),
        evicted: &mut Vec<(Arc<RegisteredClient>, String)>,
    ) {
        if !registry.remove(member) {
            return;
        }
        let totals = member.counts.totals();
        self.departed.add(totals);
        if let Some(statistics) = &member.statistics {
            statistics.departed.add(totals);
            statistics.departures.add(departure, 1);
        }
        tracing::debug!(client = &*member.name, reason, "left");
        evicted.push((member.clone(), reason.to_owned()));
        if is_secondary(&member.name) || member.origin.internal {
            return;
        }
        self.events.enqueue(EventKind::ClientLeft, &member.name, reason);
        let secondaries: Vec<_> = registry.secondaries(&member.name).cloned().collect();
        for secondary in secondaries {
            let reason = format!("its primary client {} left", member.name);
            self.remove(registry, &secondary, (Departure::PrimaryLeft, &reason), evicted);
        }
    }

    /// Closes the connections of removed clients. Must be called without the lock of the registry.
    pub(in crate::routing) fn close_all(&self, evicted: &[(Arc<RegisteredClient>, String)]) {
        for (member, reason) in evicted {
            self.reclaim(member, reason);
            member.close(reason);
            member.drained();
            self.report_left(member);
        }
        // many filters are removed in steps, so that other threads get the lock between them
        while self.registry.write().clear_departed() {}
    }
}

/// Returns whether a part of the broker may have this name: `.WORD`. Names with a second dot are those of
/// system senders in access rules.
fn is_part(name: &str) -> bool {
    name.strip_prefix('.').is_some_and(|rest| !rest.contains('.'))
}
