//! System senders: commands that reach the broker from outside the bus, a FIFO for instance. They send as
//! `.broker`, receive nothing and have no name on the bus; access rules know them as `.KIND.INSTANCE`. Never
//! registered.

use abi_stable::{sabi_trait::TD_Opaque, std_types::RStr};
use elbus_plugin_api::{
    BROKER_NAME, ClientInfo, Code, Locality, Queued, Run, SinkLimits,
    abi::{NotifierObject, RawSink, RawSink_TO},
};
use std::{hash::BuildHasher, sync::Arc};

use super::Router;
use crate::{
    access::{PolicySnapshot, Refusal},
    client_origin::ClientOrigin,
    routing::{
        client_keys::BudgetOwner,
        registered_client::{RegisteredClient, SystemRights},
    },
    sync::Mutex,
};

/// The system senders there are.
#[derive(Default)]
pub(in crate::routing) struct SystemSenders(
    /// Taken within a change of access rules or alone, for a moment; the policy of a client may be taken
    /// within it.
    Mutex<Vec<Arc<RegisteredClient>>>,
);

impl SystemSenders {
    pub(in crate::routing) fn all(&self) -> Vec<Arc<RegisteredClient>> {
        self.0.lock().clone()
    }

    fn find(&self, id: u64) -> Option<Arc<RegisteredClient>> {
        self.0.lock().iter().find(|member| member.id == id).cloned()
    }

    /// Ends those for which `ends` holds.
    pub(in crate::routing) fn end(&self, ends: impl Fn(&RegisteredClient) -> bool) {
        self.0.lock().retain(|member| {
            let ends = ends(member);
            if ends {
                member.mark_gone();
            }
            !ends
        });
    }
}

impl Router {
    /// Adds a system sender of an instance, until its [`Sender`](crate::routing::Sender) is dropped.
    ///
    /// # Errors
    /// [`Code::BadData`] if `kind` is not one segment of a name.
    pub(crate) fn system_sender(
        &self,
        kind: &str,
        instance: &str,
        owner: u32,
        admin: bool,
    ) -> Result<Arc<RegisteredClient>, Code> {
        if kind.is_empty() || kind.contains(['.', '*', '?', '%', '\0']) {
            return Err(Code::BadData);
        }
        let name: Arc<str> = format!(".{kind}.{instance}").into();
        let origin = ClientOrigin::new(ClientInfo::new(kind, Locality::SameHost), &self.words);
        let sink = RawSink_TO::from_value(NoSink, TD_Opaque);
        // so that no rules are replaced before it is added to the others
        let changing = self.access.change();
        let policy = self.access.admit_system(&name, &origin);
        let member = RegisteredClient::new(name, origin, owner, sink, policy);
        let member = Arc::new(member.with_system_rights(SystemRights { admin }));
        self.system.0.lock().push(member.clone());
        drop(changing);
        Ok(member)
    }

    /// The registration with this name and id, as a [`Run`] names its sender; `None` once it has ended.
    pub(crate) fn registration(&self, name: &str, id: u64) -> Option<Arc<RegisteredClient>> {
        let found = self.find(name).filter(|member| member.id == id);
        let found = found.or_else(|| self.system.find(id).filter(|_| name == BROKER_NAME));
        found.filter(|member| !member.is_gone())
    }

    /// The [identity](BudgetOwner::identity_of) of a registration as a number that nobody outside can choose;
    /// zero once the registration has ended.
    pub(crate) fn identity_number(&self, name: &str, id: u64) -> u64 {
        let Some(member) = self.registration(name, id) else { return 0 };
        // zero is taken
        self.identities.hash_one(BudgetOwner::identity_of(&member.origin)).max(1)
    }

    /// By which of the rules in force a client acts; `None` if none apply to it.
    ///
    /// # Errors
    /// They do not admit it, and it is about to be disconnected.
    pub(crate) fn policy_in_force(
        &self,
        member: &RegisteredClient,
    ) -> Result<Option<Arc<PolicySnapshot>>, Refusal> {
        if self.has_current_policy(member) {
            return Ok(member.policy());
        }
        if member.system.is_some() {
            return Ok(self.access.admit_system(&member.name, &member.origin));
        }
        self.access.readmit(&member.name, &member.origin)
    }
}

/// Nobody sends to a system sender.
struct NoSink;

impl RawSink for NoSink {
    fn deliver(&self, _: &mut Run<'_>) -> u8 {
        elbus_plugin_api::DeliveryStatus::CLOSED.bits()
    }
    fn flush(&self) {}
    fn when_drained(&self, notifier: NotifierObject) {
        notifier.notify();
    }
    fn close(&self, _: RStr<'_>) {}
    fn queued(&self) -> Queued {
        Queued::default()
    }
    fn limit(&self, _: &SinkLimits) {}
}
