//! The name resolvers that plugins have registered, in the order in which they are asked. Owns the list and
//! its limit. Calls nothing of a plugin while its lock is held.

use elbus_plugin_api::{
    Op, Run,
    abi::ResolverObject,
    hooks::{HookScope, MAX_HOOKS, Resolution, UnresolvedMessage},
};
use std::{cell::Cell, sync::Arc, time::Duration};

use super::HookOwner;
use crate::{
    callbacks::{self, Callback},
    sync::{
        RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

/// Set in the ids of resolvers, so that they differ from those of other hooks.
const RESOLVER_ID: u64 = 1 << 63;

thread_local! {
    /// Whether the thread is asking a resolver, which is then asked about nothing else.
    static ASKING: Cell<bool> = const { Cell::new(false) };
}

/// All name resolvers of a broker.
#[derive(Default)]
pub(crate) struct Resolvers {
    /// Whether there are any: read for each message to a name that is not registered.
    any: AtomicBool,
    /// A leaf lock.
    registered: RwLock<Registered>,
}

#[derive(Default)]
struct Registered {
    last_id: u64,
    /// By priority, then by the name of the instance, then in the order in which they were added.
    resolvers: Vec<Arc<RegisteredResolver>>,
}

/// A resolver. Dropping it runs code of the plugin.
pub(crate) struct RegisteredResolver {
    id: u64,
    of: HookOwner,
    scope: HookScope,
    object: ResolverObject,
}

impl RegisteredResolver {
    pub(crate) fn id(&self) -> u64 {
        self.id
    }
}

impl Resolvers {
    /// Returns whether there are any.
    #[inline]
    pub(crate) fn any(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    /// Returns whether this one is still registered.
    pub(crate) fn has(&self, id: u64) -> bool {
        self.registered.read().resolvers.iter().any(|resolver| resolver.id == id)
    }

    /// Adds a resolver; returns its id.
    ///
    /// # Errors
    /// There are [`MAX_HOOKS`] already.
    pub(crate) fn add(&self, of: HookOwner, scope: HookScope, object: ResolverObject) -> Result<u64, String> {
        let mut registered = self.registered.write();
        if registered.resolvers.len() >= MAX_HOOKS {
            return Err(format!("the broker has {MAX_HOOKS} name resolvers already, which is the limit"));
        }
        registered.last_id += 1;
        let id = registered.last_id | RESOLVER_ID;
        registered.resolvers.push(Arc::new(RegisteredResolver { id, of, scope, object }));
        registered.resolvers.sort_by(|one, other| {
            (one.of.priority, &one.of.instance).cmp(&(other.of.priority, &other.of.instance))
        });
        self.any.store(true, Ordering::Relaxed);
        Ok(id)
    }

    /// Removes a resolver, as its plugin wishes.
    pub(crate) fn remove(&self, id: u64) -> Vec<Arc<RegisteredResolver>> {
        if id & RESOLVER_ID == 0 { Vec::new() } else { self.remove_if(|resolver| resolver.id == id) }
    }

    /// Removes the resolvers of an instance.
    pub(crate) fn remove_owner(&self, owner: u32) -> Vec<Arc<RegisteredResolver>> {
        self.remove_if(|resolver| resolver.of.owner == owner)
    }

    fn remove_if(&self, is_removed: impl Fn(&RegisteredResolver) -> bool) -> Vec<Arc<RegisteredResolver>> {
        let mut registered = self.registered.write();
        let removed = registered.resolvers.extract_if(.., |resolver| is_removed(resolver)).collect();
        self.any.store(!registered.resolvers.is_empty(), Ordering::Relaxed);
        removed
    }

    /// Asks about the target of a message. Returns the resolver that has its messages wait, and for how long.
    pub(crate) fn ask(&self, target: &str, run: &Run<'_>) -> Option<(u64, Duration)> {
        if ASKING.try_with(|asking| asking.replace(true)).unwrap_or(true) {
            return None;
        }
        let applying: Vec<_> = {
            let registered = self.registered.read();
            let all = registered.resolvers.iter();
            all.filter(|resolver| resolver.scope.applies_to(Op::Message, target)).cloned().collect()
        };
        let message = UnresolvedMessage::new(target, run.qos(), run.sender(), run.sender_id());
        let answer = applying.iter().find_map(|resolver| {
            let call = || resolver.object.resolve(&message);
            let call = || callbacks::for_client(resolver.of.owner, Callback::Resolve, call);
            let millis = resolver.of.statistics.resolve.time(call);
            match Resolution::of_millis(millis) {
                Resolution::Unknown => None,
                Resolution::WaitUpTo(time) => Some((resolver.id, time)),
            }
        });
        _ = ASKING.try_with(|asking| asking.set(false));
        // it may have sent messages of its own
        callbacks::set_client(run.sender_id());
        answer
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use super::*;
    use abi_stable::sabi_trait::TD_Opaque;
    use elbus_plugin_api::{
        Encoding, FrameKind, Qos,
        abi::{RawResolver, RawResolver_TO},
    };

    /// Answers with this many milliseconds.
    struct Waits(u64);

    impl RawResolver for Waits {
        fn resolve(&self, message: &UnresolvedMessage<'_>) -> u64 {
            assert_eq!((message.target(), message.sender()), ("a.b", "s"));
            self.0
        }
    }

    fn add(resolvers: &Resolvers, instance: &str, priority: i32, mask: &str, millis: u64) -> u64 {
        let of = HookOwner { owner: 1, instance: instance.into(), priority, ..HookOwner::default() };
        let object = RawResolver_TO::from_value(Waits(millis), TD_Opaque);
        resolvers.add(of, HookScope::new().messages([mask]), object).unwrap()
    }

    fn ask(resolvers: &Resolvers) -> Option<(u64, Duration)> {
        let mut encoding = Encoding::new();
        let run = Run::new(FrameKind::Message, Qos::NO, "s", "", &[], None, &mut encoding);
        resolvers.ask("a.b", &run)
    }

    #[test]
    fn the_first_that_knows_the_name_decides() {
        let resolvers = Resolvers::default();
        assert!(!resolvers.any() && ask(&resolvers).is_none());
        add(&resolvers, "other", -9, "b.*", 9);
        add(&resolvers, "unknown", -5, "a.*", 0);
        let second = add(&resolvers, "second", 2, "*", 2);
        let first = add(&resolvers, "first", 1, "a.*", 1);
        assert_eq!(ask(&resolvers), Some((first, Duration::from_millis(1))));
        assert!(resolvers.has(first) && resolvers.remove(1).is_empty());
        assert_eq!(resolvers.remove(first).len(), 1);
        assert!(!resolvers.has(first));
        assert_eq!(ask(&resolvers), Some((second, Duration::from_millis(2))));
        assert_eq!(resolvers.remove_owner(1).len(), 3);
        assert!(!resolvers.any());
    }

    #[test]
    fn the_number_of_resolvers_is_limited() {
        let resolvers = Resolvers::default();
        (0..MAX_HOOKS).for_each(|_| _ = add(&resolvers, "a", 0, "*", 1));
        let object = RawResolver_TO::from_value(Waits(1), TD_Opaque);
        let more = resolvers.add(HookOwner::default(), HookScope::everything(), object);
        assert!(more.unwrap_err().contains("64 name resolvers already"));
    }
}
