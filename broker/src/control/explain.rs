//! The control method `explain`: who would get what a client sends, or which access rule denies it and where
//! it stands.

use elbus_plugin_api::{BROKER_NAME, Call, CallError, Method, access::Action};
use elbus_protocol::rpc::INVALID_PARAMS;
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Weak};

use super::{
    ControlTable, decode_params, encode_result, expression::check_pattern, shown, table::MAX_NAME_BYTES,
};
use crate::{
    access::Subject,
    routing::{RegisteredClient, Router},
};

/// Recipients that are named; the others are only counted.
const NAMED_RECIPIENTS: usize = 1000;

#[derive(Deserialize, Default)]
struct Question {
    action: String,
    name: String,
    target: String,
}

#[derive(Serialize)]
struct Answer {
    allowed: bool,
    why: String,
    /// The rule as it is written, where one decides.
    rule: Option<String>,
    /// Where it stands.
    place: Option<String>,
    /// Whether a client of this name is registered. Of others it is not known which user they would run as.
    registered: bool,
    /// Who would get it: of a message, a broadcast, a publication.
    recipients: Vec<String>,
    recipient_count: u64,
}

/// Adds the method. `place_of` tells where a key of an instance's table stands in the configuration.
pub(crate) fn add_explain_method(
    table: &Arc<ControlTable>,
    router: &Arc<Router>,
    place_of: impl Fn(&str, &str) -> Option<String> + Send + Sync + 'static,
) {
    let method = Method {
        name: "explain",
        params: "{action: send|broadcast|publish|subscribe|call, name: str, target: str}",
        about: "who would get it, or which access rule denies it",
        slow: true,
        query: true,
        ..Method::default()
    };
    let (router, methods) = (router.clone(), Arc::downgrade(table));
    table.add_own(&method, move |call| answer(&router, &methods, &place_of, call));
}

fn answer(
    router: &Router,
    methods: &Weak<ControlTable>,
    place_of: &impl Fn(&str, &str) -> Option<String>,
    call: &Call<'_>,
) -> Result<Vec<u8>, CallError> {
    let Question { action, name, target } = decode_params(call.params)?;
    let Some(action) = Action::ALL.into_iter().find(|known| known.key() == action) else {
        let known = Action::ALL.map(Action::key).join(", ");
        return Err(CallError::new(
            INVALID_PARAMS,
            format!("action {:?} is none of {known}", shown(&action)),
        ));
    };
    check_length("name", &name)?;
    match action {
        Action::Broadcast | Action::Subscribe => check_pattern("target", &target)?,
        Action::Send | Action::Publish | Action::Call => check_length("target", &target)?,
    }
    let member = router.find(&name);
    let registered = member.is_some();
    let explanation = explanation(router, member.as_deref(), &name, action, &target);
    // what the rules allow may be for others all the same
    let refusal = member.as_deref().filter(|_| action == Action::Call).and_then(|member| {
        let decision = explanation.as_ref().map(|(decision, ..)| decision);
        methods.upgrade()?.admin_refusal(member, &target, decision)
    });
    let mut answer = match explanation {
        Some((decision, why, rule, instance)) => {
            let key = decision.reason.key();
            let place = key.map(|key| {
                place_of(&instance, &key).unwrap_or_else(|| format!("{key} of plugin {instance}"))
            });
            let allowed = decision.allowed;
            Answer { allowed, why, rule, place, registered, recipients: vec![], recipient_count: 0 }
        }
        None => Answer {
            allowed: true,
            why: "allowed: no access rules concern it".to_owned(),
            rule: None,
            place: None,
            registered,
            recipients: vec![],
            recipient_count: 0,
        },
    };
    if let Some(why) = refusal.filter(|_| answer.allowed) {
        (answer.allowed, answer.why) = (false, format!("denied: {why}"));
        (answer.rule, answer.place) = (None, None);
    }
    if answer.allowed {
        let recipients = recipients(router, member.as_deref(), action, &target);
        answer.recipient_count = recipients.len() as u64;
        answer.recipients =
            recipients.iter().take(NAMED_RECIPIENTS).map(|member| member.name.to_string()).collect();
        answer.recipients.sort_unstable();
    }
    encode_result(&answer)
}

fn check_length(key: &str, text: &str) -> Result<(), CallError> {
    if text.len() <= MAX_NAME_BYTES {
        return Ok(());
    }
    let text = format!("{key} has {} bytes, the limit is {MAX_NAME_BYTES}", text.len());
    Err(CallError::new(INVALID_PARAMS, text))
}

type Explanation = (crate::access::Decision, String, Option<String>, String);

/// `None` where no rules concern it.
fn explanation(
    router: &Router,
    member: Option<&RegisteredClient>,
    name: &str,
    action: Action,
    target: &str,
) -> Option<Explanation> {
    if action == Action::Send && target == BROKER_NAME {
        return None;
    }
    let current = router.access.current()?;
    let decision = match member {
        Some(member) => member.policy()?.decide(action, target),
        None => {
            let subject = Subject { name, uid: None };
            current.rules.decide(current.rules.table_of(name), &subject, action, target)
        }
    };
    let (why, rule) = (current.rules.explain(&decision), current.rules.text_of(&decision.reason));
    Some((decision, why, rule, current.setter.instance.clone()))
}

fn recipients(
    router: &Router,
    sender: Option<&RegisteredClient>,
    action: Action,
    target: &str,
) -> Vec<Arc<RegisteredClient>> {
    let policy = sender.and_then(RegisteredClient::policy);
    match action {
        Action::Send => router.find(target).into_iter().collect(),
        Action::Broadcast => router.resolve_mask(policy.as_deref(), target).recipients(),
        Action::Publish => router.resolve_topic(target).recipients(),
        Action::Subscribe | Action::Call => vec![],
    }
}
