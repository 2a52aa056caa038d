//! Hooks: what a plugin can do with the messages of other clients, before, while and after they are routed.
//!
//! | hook | when | what it can do |
//! |---|---|---|
//! | [`Interceptor`] | before routing | let a message pass, reject, consume or replace it |
//! | [`NameResolver`] | when a message goes to a name that is not registered | have it wait for the name |
//! | [`Observer`] | after routing | read messages, their result and the number of recipients |
//! | [`SubscriptionListener`] | after a client has subscribed | deliver earlier publications to the client |
//!
//! A hook is registered through [`Host`] and applies to the operations and targets of its
//! [`HookScope`]. It ends when its [`Hook`] is dropped, and with the instance.
//!
//! # Order
//! 1. Access rules. Operations that they deny reach no interceptor; observers see them with
//!    [`Code::AccessDenied`](crate::Code::AccessDenied).
//! 2. Back-pressure. If a recipient of the original target is over its limit and the sender can wait, it
//!    waits; no interceptor is called until the message is dispatched again.
//! 3. Interceptors, by the `priority` of their `[[plugin]]` table, lower first; of equal priority those that
//!    come [after others](HookScope::after_others) last, and otherwise by the name of the instance. A message
//!    that one of them rejects or consumes reaches none after it. A replaced target is checked against the
//!    sender's access rules again; the interceptors that follow see the replaced message, if they apply to
//!    its target. Messages of a client that arrive together reach an interceptor in one call, also if their
//!    targets differ.
//! 4. Routing and delivery. For a message to a name that is not registered, name resolvers are asked, by
//!    `priority` as interceptors.
//! 5. Observers, with the target and payload that were routed.
//!
//! # Subscriptions
//! A subscription listener is called in the thread of the client, after its filters have changed and before
//! it gets its acknowledgement. With a [`Replay`] it delivers publications that an interceptor has kept, as
//! part of the subscription: each once, in order with what is published meanwhile, and from its original
//! sender. The subscription was allowed, so access rules are not asked again. A broker has one listener.
//! Plugins that need to know the subscriptions only are *watchers*
//! ([`Host::add_subscription_watcher`]), of which there can be several.
//!
//! # What is not intercepted
//! - Messages to parts of the broker and topics of the broker (names and topics that begin with a dot), and
//!   what the broker itself sends: the bus stays manageable whatever an interceptor does. Observers see them.
//! - Messages of in-process clients that the intercepting instance itself has registered.
//!
//! # Rights
//! Messages that a plugin sends from a hook are those of its own client, and access rules do not apply to
//! clients within the broker's process. They pass the interceptors of other instances. Interceptors that send
//! within interceptors are limited to a depth of [`MAX_DEPTH`]: deeper messages are refused with
//! [`Code::NotDelivered`](crate::Code::NotDelivered).
//!
//! # Failure and reload
//! If an interceptor panics, blocks beyond `callback_seconds`, or its instance fails otherwise,
//! [`OnFailure`] decides about the messages in its scope until the instance serves again or its declaration
//! is removed: they pass (`open`) or are rejected with [`Code::Other`](crate::Code::Other) (`closed`). The
//! operator overrides what the plugin declares with `on_failure` in the `[[plugin]]` table. The same holds
//! while an instance is restarted by a reload. Observers of a failed instance end.
//!
//! # Name resolvers
//! A resolver is asked about a name once, not for each message, and only about messages that access rules
//! and interceptors have let pass, never about names that begin with a dot. The first one that does not
//! answer [`Resolution::Unknown`] decides. Messages then wait in the broker, from whichever sender, in order.
//! - *The name registers:* the messages are delivered before anything that is sent later. A message that the
//!   access rules deny by then gets [`Code::AccessDenied`](crate::Code::AccessDenied).
//! - *The time is over, the resolver [ends the wait](Hook::end_wait), or its hook or instance ends:* the
//!   senders get [`Code::NotRegistered`](crate::Code::NotRegistered), and the messages are dropped.
//! - *The sender leaves:* its messages still wait, and are delivered.
//!
//! Acknowledgements wait as the messages do. A sender that cannot wait for them (an in-process client, the
//! FIFO) gets [`Code::NotRegistered`](crate::Code::NotRegistered) at once for a message that it wants
//! acknowledged; the resolver is asked nevertheless, so that the next attempt can succeed. Messages that are
//! not acknowledged wait, from any sender.
//!
//! At most 1 MiB and 10,000 runs of messages wait for a name, and 16 MiB for at most 1,024 names. What
//! exceeds this is refused with [`Code::NotDelivered`](crate::Code::NotDelivered), a message to a further
//! name with [`Code::NotRegistered`](crate::Code::NotRegistered). Waiting messages count in the broker's
//! queue budget. Observers see a message when it begins to wait, with [`Code::Ok`](crate::Code::Ok) and no
//! recipient. While a thread asks a resolver, messages that the resolver sends to other names that are not
//! registered do not wait.

pub(crate) mod interceptor;
pub(crate) mod observer;
pub(crate) mod observer_queue;
pub(crate) mod resolver;
pub(crate) mod scope;
pub(crate) mod subscription_listener;

use crate::host::Host;
use abi_stable::std_types::RStr;
use std::time::Duration;

pub use interceptor::{InterceptedFrame, InterceptedRun, Interceptor, Replacement, Verdict};
pub use observer::{Observation, Observer};
pub use resolver::{NameResolver, Resolution, UnresolvedMessage};
pub use scope::HookScope;
pub use subscription_listener::{
    EarlierPublication, Replay, Replayed, SubscriptionChange, SubscriptionEvent, SubscriptionListener,
};

/// Interceptors, observers and name resolvers that a broker can have at once, each.
pub const MAX_HOOKS: usize = 64;
/// Filters and masks of a hook's scope.
pub const MAX_HOOK_FILTERS: usize = 64;
/// The longest time that messages wait for a name.
pub const MAX_WAIT: Duration = Duration::from_secs(60);
/// Interceptors that can be in progress in one thread, one inside the other.
pub const MAX_DEPTH: usize = 4;

/// What happens to the messages in the scope of an interceptor that cannot be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// They pass.
    #[default]
    Open,
    /// They are rejected.
    Closed,
}

/// A registered hook. Dropping it ends the hook: no message is intercepted or observed from then on. What an
/// observer has already received into its queue stays readable. Messages that wait because of a name resolver
/// are refused.
#[must_use = "dropping it ends the hook"]
pub struct Hook {
    host: Host,
    id: u64,
}

impl Hook {
    pub(crate) fn new(host: Host, id: u64) -> Self {
        Hook { host, id }
    }

    /// Ends the wait for a name that this [`NameResolver`] has begun: the name will not register. The senders
    /// of the messages that wait get [`Code::NotRegistered`](crate::Code::NotRegistered). Without effect if
    /// nothing waits for the name. Any thread may call it; it does not block, and calls notifiers of
    /// transports.
    pub fn end_wait(&self, name: &str) {
        self.host.object().end_wait(self.id, RStr::from_str(name));
    }
}

impl Drop for Hook {
    fn drop(&mut self) {
        self.host.object().remove_hook(self.id);
    }
}

impl std::fmt::Debug for Hook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Hook {} of {:?}", self.id, self.host.instance())
    }
}
