//! Authorises control calls by the registration that made them, never by name: a client that has left is
//! denied, and a later client of the same name is another caller. Unknown callers are denied.

use elbus_plugin_api::{BROKER_NAME, Call, CallError, Code, access::Action};
use elbus_protocol::rpc::METHOD_NOT_FOUND;
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use crate::{
    access::{Decision, DecisionReason},
    routing::{RegisteredClient, Router},
    statistics::Denial,
};

/// The caller of a control method.
pub(super) enum Caller {
    Broker,
    Client(Arc<RegisteredClient>),
}

impl Caller {
    /// Returns the name of the caller, for methods and the log.
    pub(super) fn name(&self) -> &str {
        match self {
            Caller::Broker => BROKER_NAME,
            Caller::Client(client) => &client.name,
        }
    }
}

/// Decides whether a call is allowed.
pub(super) struct Authorizer {
    router: Arc<Router>,
    remote_admin: AtomicBool,
}

impl Authorizer {
    pub(super) fn new(router: Arc<Router>, remote_admin: bool) -> Self {
        Authorizer { router, remote_admin: AtomicBool::new(remote_admin) }
    }

    /// Allows or denies administrative methods to clients of other machines.
    pub(super) fn set_remote_admin(&self, remote_admin: bool) {
        self.remote_admin.store(remote_admin, Ordering::Relaxed);
    }

    /// Returns the caller, if it is allowed to call the method now. `admin` is whether the method is
    /// administrative; `None` if it does not exist, which is revealed only to callers that the rules allow
    /// the call.
    /// the call.
    ///
    /// # Errors
    /// Why the call is denied.
    pub(super) fn authorize(&self, call: &Call<'_>, admin: Option<bool>) -> Result<Caller, CallError> {
        let caller = self.identify(call)?;
        let decision = match &caller {
            Caller::Broker => None,
            Caller::Client(client) => self.check_rules(client, call)?,
        };
        let admin = admin.ok_or_else(|| CallError::new(METHOD_NOT_FOUND, ""))?;
        if admin && let Caller::Client(client) = &caller {
            self.check_admin(client, call, decision.as_ref())?;
        }
        Ok(caller)
    }

    fn identify(&self, call: &Call<'_>) -> Result<Caller, CallError> {
        if call.caller_id == 0 && call.caller == BROKER_NAME {
            return Ok(Caller::Broker);
        }
        let registered = self.router.registration(call.caller, call.caller_id);
        registered.map(Caller::Client).ok_or_else(|| {
            tracing::debug!(method = call.method, "control method denied: caller is not registered");
            denied("the caller is not registered".to_owned())
        })
    }

    /// Returns the decision of the access rules in force, `None` if no rules apply.
    fn check_rules(&self, client: &RegisteredClient, call: &Call<'_>) -> Result<Option<Decision>, CallError> {
        let active = self.router.policy_in_force(client).map_err(|refusal| denied(refusal.reason))?;
        let Some(policy) = active else { return Ok(None) };
        let decision = policy.decide(Action::Call, call.method);
        if decision.allowed {
            return Ok(Some(decision));
        }
        policy.deny(Action::Call, call.method, 1, &client.origin);
        Err(denied(format!("access rules do not allow {} to call {}", client.name, call.method)))
    }

    fn check_admin(
        &self,
        client: &RegisteredClient,
        call: &Call<'_>,
        decision: Option<&Decision>,
    ) -> Result<(), CallError> {
        let Some(why) = self.admin_refusal(client, call.method, decision) else { return Ok(()) };
        self.router.access.denied().add(Denial::Admin, 1);
        let (caller, method) = (&*client.name, call.method);
        let (source, uid) = (client.origin.source.as_deref(), client.origin.uid());
        if client.system.is_some() {
            tracing::warn!(
                caller,
                source,
                uid,
                method,
                "control method denied: caller is not an administrator"
            );
        } else {
            tracing::warn!(caller, source, uid, method, "control method denied: caller is remote");
        }
        Err(denied(why))
    }

    /// Returns why a client cannot call an administrative method although the rules allow it. Such methods
    /// are for clients of this machine only, unless `remote_admin` is set. A system sender needs `admin` or a
    /// rule that names the method.
    pub(super) fn admin_refusal(
        &self,
        client: &RegisteredClient,
        method: &str,
        decision: Option<&Decision>,
    ) -> Option<String> {
        if let Some(rights) = client.system {
            let by_rule = decision.is_some_and(|is| matches!(is.reason, DecisionReason::Rule { .. }));
            return (!rights.admin && !by_rule).then(|| {
                format!("{method} needs `admin = true` or an access rule that allows it to {}", client.name)
            });
        }
        let may = client.origin.locality.may_administer() || self.remote_admin.load(Ordering::Relaxed);
        (!may).then(|| format!("{method} is for clients of this machine only (remote_admin)"))
    }
}

fn denied(text: String) -> CallError {
    CallError::new(Code::AccessDenied.rpc_code(), text)
}
