//! Who may call a control method. A call is authorised by the registration that made it, never by a name:
//! whoever has left is denied, whoever has its name by now is somebody else. Unknown callers are denied.

use elbus_plugin_api::{BROKER_NAME, Call, CallError, Code, access::Action};
use elbus_protocol::rpc::METHOD_NOT_FOUND;
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use crate::{
    access::{Decision, DecisionReason},
    routing::{RegisteredClient, Router},
};

/// Who makes a call.
pub(super) enum Caller {
    Broker,
    Client(Arc<RegisteredClient>),
}

impl Caller {
    /// The name that methods and the log are told.
    pub(super) fn name(&self) -> &str {
        match self {
            Caller::Broker => BROKER_NAME,
            Caller::Client(member) => &member.name,
        }
    }
}

/// Decides who may call.
pub(super) struct Authority {
    router: Arc<Router>,
    remote_admin: AtomicBool,
}

impl Authority {
    pub(super) fn new(router: Arc<Router>, remote_admin: bool) -> Self {
        Authority { router, remote_admin: AtomicBool::new(remote_admin) }
    }

    pub(super) fn set_remote_admin(&self, remote_admin: bool) {
        self.remote_admin.store(remote_admin, Ordering::Relaxed);
    }

    /// The caller, if it is allowed to call the method at this moment. `admin` says whether the method is
    /// administrative, `None` that there is no such method, which only those learn whom the rules allow it.
    ///
    /// # Errors
    /// Why the call is denied.
    pub(super) fn authorize(&self, call: &Call<'_>, admin: Option<bool>) -> Result<Caller, CallError> {
        let caller = self.identify(call)?;
        let decision = match &caller {
            Caller::Broker => None,
            Caller::Client(member) => self.check_rules(member, call)?,
        };
        let admin = admin.ok_or_else(|| CallError::new(METHOD_NOT_FOUND, ""))?;
        if admin && let Caller::Client(member) = &caller {
            self.check_admin(member, call, decision.as_ref())?;
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

    /// What the access rules in force say, `None` if none apply.
    fn check_rules(&self, member: &RegisteredClient, call: &Call<'_>) -> Result<Option<Decision>, CallError> {
        let active = self.router.policy_in_force(member).map_err(|refusal| denied(refusal.why))?;
        let Some(policy) = active else { return Ok(None) };
        let decision = policy.decide(Action::Call, call.method);
        if decision.allowed {
            return Ok(Some(decision));
        }
        policy.deny(Action::Call, call.method, 1, &member.origin);
        Err(denied(format!("access rules do not let {} call {}", member.name, call.method)))
    }

    fn check_admin(
        &self,
        member: &RegisteredClient,
        call: &Call<'_>,
        decision: Option<&Decision>,
    ) -> Result<(), CallError> {
        let Some(why) = self.admin_refusal(member, call.method, decision) else { return Ok(()) };
        let (caller, method) = (&*member.name, call.method);
        let (source, uid) = (member.origin.source.as_deref(), member.origin.uid());
        if member.system.is_some() {
            tracing::warn!(
                caller,
                source,
                uid,
                method,
                "control method denied: the sender is not an administrator"
            );
        } else {
            tracing::warn!(caller, source, uid, method, "control method denied: caller is remote");
        }
        Err(denied(why))
    }

    /// Why a client may not call an administrative method that the rules allow it. What changes the broker is for this host
    /// only, unless `remote_admin` is set. A system sender needs the right of its own or a rule that names the method.
    pub(super) fn admin_refusal(
        &self,
        member: &RegisteredClient,
        method: &str,
        decision: Option<&Decision>,
    ) -> Option<String> {
        if let Some(rights) = member.system {
            let by_rule = decision.is_some_and(|is| matches!(is.reason, DecisionReason::Rule { .. }));
            return (!rights.admin && !by_rule).then(|| {
                format!("{method} needs `admin = true` or an access rule that allows it to {}", member.name)
            });
        }
        let may = member.origin.locality.may_administer() || self.remote_admin.load(Ordering::Relaxed);
        (!may).then(|| format!("{method} is for clients of this machine only (remote_admin)"))
    }
}

fn denied(text: String) -> CallError {
    CallError::new(Code::AccessDenied.rpc_code(), text)
}
