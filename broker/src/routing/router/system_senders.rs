//! System senders: sources of commands outside the bus, for example a FIFO. They send as `.broker`, receive
//! nothing and have no name on the bus. In access rules their name is `.KIND.INSTANCE`. They are never in the
//! registry.

use elbus_plugin_api::{BROKER_NAME, ClientInfo, Code, Locality};
use std::{hash::BuildHasher, sync::Arc};

use super::Router;
use crate::{
    access::{PolicySnapshot, Refusal},
    client_origin::ClientOrigin,
    routing::{
        client_keys::BudgetOwner,
        closed_sink::closed_sink,
        registered_client::{RegisteredClient, SystemRights},
    },
    sync::Mutex,
};

/// All system senders.
#[derive(Default)]
pub(in crate::routing) struct SystemSenders(
    /// Lock order: a change of access rules, this, then the policy of a client.
    Mutex<Vec<Arc<RegisteredClient>>>,
);

impl SystemSenders {
    pub(in crate::routing) fn all(&self) -> Vec<Arc<RegisteredClient>> {
        self.0.lock().clone()
    }

    fn find(&self, id: u64) -> Option<Arc<RegisteredClient>> {
        self.0.lock().iter().find(|member| member.id == id).cloned()
    }

    /// Removes the system senders for which `ends` returns `true`.
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
    /// Adds a system sender of an instance. It exists until its [`Sender`](crate::routing::Sender) is
    /// dropped.
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
        // the rules cannot be replaced before it is among the others
        let changing = self.access.change();
        let policy = self.access.admit_system(&name, &origin);
        let member = RegisteredClient::new(name, origin, owner, closed_sink(), policy);
        let member = Arc::new(member.with_system_rights(SystemRights { admin }));
        self.system.0.lock().push(member.clone());
        drop(changing);
        Ok(member)
    }

    /// Returns the registration with this name and id, as a [`Run`](elbus_plugin_api::Run) names its sender.
    /// `None` once it has ended.
    pub(crate) fn registration(&self, name: &str, id: u64) -> Option<Arc<RegisteredClient>> {
        let found = self.find(name).filter(|member| member.id == id);
        let found = found.or_else(|| self.system.find(id).filter(|_| name == BROKER_NAME));
        found.filter(|member| !member.is_gone())
    }

    /// Returns the [identity](BudgetOwner::identity_of) of a registration as a number that clients cannot
    /// predict. Zero once the registration has ended.
    pub(crate) fn identity_number(&self, name: &str, id: u64) -> u64 {
        let Some(member) = self.registration(name, id) else { return 0 };
        // zero has a meaning of its own
        self.identities.hash_one(BudgetOwner::identity_of(&member.origin)).max(1)
    }

    /// Returns the policy of a client under the rules in force. `None` if no rules apply to it.
    ///
    /// # Errors
    /// The rules do not admit it: it is about to be disconnected.
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
