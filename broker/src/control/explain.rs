//! The control method `explain`: the recipients of what a client sends, the interceptors that see it first
//! and the full queues it meets, or the access rule that denies it; with their places in the configuration.

use elbus_plugin_api::{
    BROKER_NAME, Call, CallError, Locality, Method, Op, access::Action, config::Overflow,
};
use elbus_protocol::{
    rpc::INVALID_PARAMS,
    subscription::{Subscription, has_options},
};
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Weak};

use super::{
    bounded_regex::check_pattern,
    params::{MAX_NAME_BYTES, decode_params, encode_result, truncated},
    table::ControlTable,
};
use crate::{
    access::{Subject, without_options},
    routing::{RegisteredClient, Router},
};

/// The number of recipients that are named; further ones are only counted.
const MAX_NAMED_RECIPIENTS: usize = 1000;

#[derive(Deserialize, Default)]
struct Question {
    action: String,
    name: String,
    target: String,
}

#[derive(Serialize, Default)]
struct Answer {
    allowed: bool,
    why: String,
    /// The text of the rule that decides, if there is one.
    rule: Option<String>,
    /// The file and line of the rule.
    #[serde(rename = "place")]
    location: Option<String>,
    /// Whether a client of this name is registered. The user of any other is unknown.
    registered: bool,
    /// The recipients of a message, a broadcast or a publication.
    recipients: Vec<String>,
    recipient_count: u64,
    /// The subscriptions with options that match a publication.
    options: Vec<OptionedClient>,
    /// The interceptors that see the message before it is routed, in their order.
    interceptors: Vec<Interceptor>,
    /// Recipients whose queues are over their limits now.
    full: Vec<FullRecipient>,
}

#[derive(Serialize)]
struct Interceptor {
    /// The instance.
    plugin: String,
    /// The file and line of its declaration.
    place: Option<String>,
    /// What happens to messages while it cannot be called.
    on_failure: &'static str,
    /// Whether it can be called now.
    serves: bool,
}

#[derive(Serialize)]
struct FullRecipient {
    client: String,
    /// What its policy does with further messages.
    overflow: Overflow,
}

#[derive(Serialize)]
struct OptionedClient {
    client: String,
    filter: String,
    /// The group of which one member gets the publication.
    group: Option<String>,
}

/// Adds the method. `location_of` returns the location of a key of an instance's table in the configuration.
pub(crate) fn add_explain_method(
    table: &Arc<ControlTable>,
    router: &Arc<Router>,
    location_of: impl Fn(&str, &str) -> Option<String> + Send + Sync + 'static,
) {
    let method = Method::new("explain")
        .params("{action: send|broadcast|publish|subscribe|call, name: str, target: str}")
        .about("lists the recipients, or names the access rule that denies it")
        .slow()
        .query();
    let (router, methods) = (router.clone(), Arc::downgrade(table));
    table.add_own(&method, move |call| answer(&router, &methods, &location_of, call));
}

fn answer(
    router: &Router,
    methods: &Weak<ControlTable>,
    location_of: &impl Fn(&str, &str) -> Option<String>,
    call: &Call<'_>,
) -> Result<Vec<u8>, CallError> {
    let Question { action, name, target } = decode_params(call.params)?;
    let Some(action) = Action::ALL.into_iter().find(|known| known.key() == action) else {
        let known = Action::ALL.map(Action::key).join(", ");
        return Err(CallError::new(
            INVALID_PARAMS,
            format!("unknown action {:?}: expected one of {known}", truncated(&action)),
        ));
    };
    check_length("name", &name)?;
    match action {
        Action::Broadcast | Action::Subscribe => check_pattern("target", &target)?,
        Action::Send | Action::Publish | Action::Call => check_length("target", &target)?,
    }
    let client = router.find(&name);
    let registered = client.is_some();
    let malformed = match action {
        Action::Subscribe => Subscription::parse(&target).err().map(|error| error.to_string()),
        Action::Publish if has_options(&target) => {
            Some("a topic that begins like the options of a filter cannot be published to".to_owned())
        }
        _ => None,
    };
    if let Some(error) = malformed {
        return Err(CallError::new(INVALID_PARAMS, format!("invalid target: {error}")));
    }
    let decided = decide(router, client.as_deref(), &name, action, &target);
    // an administrative method that the rules allow may still be denied
    let refusal = client.as_deref().filter(|_| action == Action::Call).and_then(|client| {
        let decision = decided.as_ref().map(|(decision, ..)| decision);
        methods.upgrade()?.admin_refusal(client, &target, decision)
    });
    let mut answer = Answer { allowed: true, registered, ..Answer::default() };
    match decided {
        Some((decision, why, rule, instance)) => {
            let key = decision.reason.key();
            answer.location = key.map(|key| {
                location_of(&instance, &key).unwrap_or_else(|| format!("{key} of plugin {instance}"))
            });
            (answer.allowed, answer.why, answer.rule) = (decision.allowed, why, rule);
        }
        None => answer.why = "allowed: no access rules apply".to_owned(),
    }
    if let Some(why) = refusal.filter(|_| answer.allowed) {
        (answer.allowed, answer.why) = (false, format!("denied: {why}"));
        (answer.rule, answer.location) = (None, None);
    }
    if answer.allowed {
        add_interceptors(router, client.as_deref(), action, &target, location_of, &mut answer);
    }
    if answer.allowed {
        let recipients = recipients(router, client.as_deref(), action, &target);
        answer.recipient_count = recipients.len() as u64;
        answer.recipients =
            recipients.iter().take(MAX_NAMED_RECIPIENTS).map(|client| client.name.to_string()).collect();
        answer.recipients.sort_unstable();
        let full = recipients.iter().filter(|client| client.is_full()).take(MAX_NAMED_RECIPIENTS);
        answer.full.extend(
            full.map(|client| FullRecipient { client: client.name.to_string(), overflow: client.overflow() }),
        );
        if action == Action::Publish {
            add_optioned(router, &target, &mut answer);
        }
    }
    encode_result(&answer)
}

/// Adds the interceptors that a message of the client passes. One that cannot be called and is closed rejects
/// it.
fn add_interceptors(
    router: &Router,
    client: Option<&RegisteredClient>,
    action: Action,
    target: &str,
    location_of: &impl Fn(&str, &str) -> Option<String>,
    answer: &mut Answer,
) {
    let op = match action {
        Action::Send => Op::Message,
        Action::Broadcast => Op::Broadcast,
        Action::Publish => Op::Publish,
        Action::Subscribe | Action::Call => return,
    };
    let Some(table) = router.hooks.table() else { return };
    // an instance does not intercept what its own clients send
    let own = client.filter(|it| it.origin.locality == Locality::InProcess).map(|it| it.owner);
    for hook in table.interceptors_of(op, target).filter(|hook| own != Some(hook.owner)) {
        let plugin = hook.instance.to_string();
        let place = location_of(&plugin, "");
        let (serves, on_failure) = (hook.serves(), if hook.closed { "closed" } else { "open" });
        if !serves && hook.closed && answer.allowed {
            answer.allowed = false;
            answer.why = format!(
                "rejected: the interceptor of plugin {plugin:?} does not serve (on_failure = \"closed\")"
            );
            (answer.rule, answer.location) = (None, place.clone());
        }
        answer.interceptors.push(Interceptor { plugin, place, on_failure, serves });
    }
}

/// Adds the clients that subscriptions with options match. Of a group, any member can get the publication.
fn add_optioned(router: &Router, topic: &str, answer: &mut Answer) {
    let resolved = router.resolve_topic(topic);
    let Some(optioned) = resolved.optioned() else { return };
    answer.recipient_count += optioned.count() as u64;
    for found in optioned.matches().take(MAX_NAMED_RECIPIENTS) {
        if found.group.is_none() {
            answer.recipients.push(found.client.to_string());
        }
        let (client, filter) = (found.client.to_string(), found.filter.to_string());
        answer.options.push(OptionedClient { client, filter, group: found.group });
    }
    answer.recipients.sort_unstable();
}

fn check_length(key: &str, text: &str) -> Result<(), CallError> {
    if text.len() <= MAX_NAME_BYTES {
        return Ok(());
    }
    let text = format!("{key} has {} bytes, the limit is {MAX_NAME_BYTES}", text.len());
    Err(CallError::new(INVALID_PARAMS, text))
}

/// The decision, its explanation, the text of the rule, and the instance that has set it.
type Decided = (crate::access::Decision, String, Option<String>, String);

/// Returns the decision of the access rules, `None` if no rules apply.
fn decide(
    router: &Router,
    client: Option<&RegisteredClient>,
    name: &str,
    action: Action,
    target: &str,
) -> Option<Decided> {
    if action == Action::Send && target == BROKER_NAME {
        return None;
    }
    let current = router.access.current()?;
    let decision = match client {
        Some(client) => client.policy()?.decide(action, target),
        None => {
            let subject = Subject { name, uid: None };
            let target = if action == Action::Subscribe { without_options(target) } else { target };
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
