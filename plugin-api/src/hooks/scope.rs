//! The operations and targets that a hook applies to.

use abi_stable::{
    StableAbi,
    std_types::{RSlice, RStr},
};
use elbus_protocol::{Op, name::mask_matches, subscription::has_options, topic};

use super::MAX_HOOK_FILTERS;
use crate::{
    abi::{FromRaw, convert::sealed::Sealed},
    plugin_error::PluginError,
};

/// The operations and targets that a hook applies to.
///
/// # Examples
/// ```
/// use elbus_plugin_api::{Op, hooks::HookScope};
///
/// let scope = HookScope::new().publications(["plant/#"]).messages(["plc.*"]);
/// assert!(scope.applies_to(Op::Publish, "plant/boiler") && scope.applies_to(Op::Message, "plc.7"));
/// assert!(!scope.applies_to(Op::Message, "plant/boiler") && !scope.applies_to(Op::Broadcast, "plc.*"));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HookScope {
    topics: Vec<String>,
    names: Vec<String>,
    broadcasts: bool,
    after_others: bool,
    sampled: bool,
}

/// [`RawHookScope::flags`]: the hook applies to broadcasts.
const BROADCASTS: u32 = 1;
/// [`RawHookScope::flags`]: an interceptor comes after others of its priority.
const AFTER_OTHERS: u32 = 2;
/// [`RawHookScope::flags`]: an observer takes samples.
const SAMPLED: u32 = 4;

/// See [`HookScope`].
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct RawHookScope<'a> {
    flags: u32,
    topics: RSlice<'a, RStr<'a>>,
    names: RSlice<'a, RStr<'a>>,
}

impl HookScope {
    /// Creates a scope that applies to nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates a scope that applies to every message, broadcast and publication.
    pub fn everything() -> Self {
        Self::new().publications(["#"]).messages(["*"]).broadcasts()
    }

    /// Adds publications to topics that match one of the filters (`+`, `#`), limited ones included.
    pub fn publications<F: AsRef<str>>(mut self, filters: impl IntoIterator<Item = F>) -> Self {
        self.topics.extend(filters.into_iter().map(|filter| filter.as_ref().to_owned()));
        self
    }

    /// Adds messages to clients whose names match one of the masks (`?`, `*`), whether such a client is
    /// registered or not.
    pub fn messages<M: AsRef<str>>(mut self, masks: impl IntoIterator<Item = M>) -> Self {
        self.names.extend(masks.into_iter().map(|mask| mask.as_ref().to_owned()));
        self
    }

    /// Adds broadcasts, whatever their mask.
    pub fn broadcasts(mut self) -> Self {
        self.broadcasts = true;
        self
    }

    /// Has an interceptor called after those of equal priority that do not ask for this: one that keeps
    /// messages must see them as they are routed.
    pub fn after_others(mut self) -> Self {
        self.after_others = true;
        self
    }

    /// Returns whether [`after_others`](Self::after_others) was called.
    pub fn is_after_others(&self) -> bool {
        self.after_others
    }

    /// Has an observer take samples: from the first message on that does not fit into its queue, nothing is
    /// queued until the reader takes what is. A reader that reads rarely thereby costs senders next to
    /// nothing between two samples, whatever passes the bus. What is not queued is counted as missed.
    ///
    /// # Examples
    /// ```
    /// use elbus_plugin_api::{Code, Op, hooks::HookScope, testing::FakeHost};
    ///
    /// let fake = FakeHost::new();
    /// let (_hook, mut observer) = fake.host("map").add_observer(&HookScope::everything().sampled(), 400)?;
    /// for _ in 0..1000 {
    ///     fake.observe("boiler", Op::Publish, "sensors/boiler", &[b"20.5"], Code::Ok, 1);
    /// }
    /// let seen = std::iter::from_fn(|| observer.try_receive()).count() as u64;
    /// assert!(seen > 0 && observer.missed() == 1000 - seen);
    /// # Ok::<(), elbus_plugin_api::PluginError>(())
    /// ```
    pub fn sampled(mut self) -> Self {
        self.sampled = true;
        self
    }

    /// Returns whether [`sampled`](Self::sampled) was called.
    pub fn is_sampled(&self) -> bool {
        self.sampled
    }

    /// Returns whether the scope applies to an operation on a target.
    pub fn applies_to(&self, op: Op, target: &str) -> bool {
        match op {
            Op::Publish | Op::PublishFor => self.topics.iter().any(|filter| topic::matches(filter, target)),
            Op::Message => self.names.iter().any(|mask| mask_matches(mask, target)),
            Op::Broadcast => self.broadcasts,
            Op::Subscribe | Op::Unsubscribe | Op::Exclude | Op::Unexclude => false,
        }
    }

    /// Checks the filters and masks.
    ///
    /// # Errors
    /// There are none at all, or more than [`MAX_HOOK_FILTERS`], or a filter begins with an option of
    /// subscriptions (`$share`, `$latest`, ..), as no topic does.
    pub fn check(&self) -> Result<(), PluginError> {
        let count = self.topics.len() + self.names.len();
        if count == 0 && !self.broadcasts {
            return Err(PluginError::new("the scope of a hook must name topics, clients or broadcasts"));
        }
        if count > MAX_HOOK_FILTERS {
            let text =
                format!("the scope of a hook has {count} filters and masks; the limit is {MAX_HOOK_FILTERS}");
            return Err(PluginError::new(text));
        }
        if let Some(filter) = self.topics.iter().find(|filter| has_options(filter)) {
            let text = format!("{filter:?} matches no topic: a hook takes filters without options");
            return Err(PluginError::new(text));
        }
        Ok(())
    }

    pub(crate) fn with_raw<R>(&self, f: impl FnOnce(&RawHookScope<'_>) -> R) -> R {
        let (topics, names) = (raw_texts(&self.topics), raw_texts(&self.names));
        f(&RawHookScope {
            flags: if self.broadcasts { BROADCASTS } else { 0 }
                | if self.after_others { AFTER_OTHERS } else { 0 }
                | if self.sampled { SAMPLED } else { 0 },
            topics: RSlice::from_slice(&topics),
            names: RSlice::from_slice(&names),
        })
    }
}

fn raw_texts(texts: &[String]) -> Vec<RStr<'_>> {
    texts.iter().map(|text| text.as_str().into()).collect()
}

impl Sealed for HookScope {}

impl FromRaw<&RawHookScope<'_>> for HookScope {
    fn from_raw(raw: &RawHookScope<'_>) -> Self {
        let owned = |texts: RSlice<'_, RStr<'_>>| texts.iter().map(|text| text.as_str().to_owned()).collect();
        HookScope {
            topics: owned(raw.topics),
            names: owned(raw.names),
            broadcasts: raw.flags & BROADCASTS != 0,
            after_others: raw.flags & AFTER_OTHERS != 0,
            sampled: raw.flags & SAMPLED != 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_applies_to_its_operations_and_targets() {
        let all = [Op::Message, Op::Broadcast, Op::Publish, Op::PublishFor];
        assert!(all.iter().all(|op| HookScope::everything().applies_to(*op, "a")));
        assert!(all.iter().all(|op| !HookScope::new().applies_to(*op, "a")));
        let scope = HookScope::new().publications(["a/+", "b"]).messages(["c.?"]);
        assert!(scope.applies_to(Op::PublishFor, "a/x") && scope.applies_to(Op::Publish, "b"));
        assert!(!scope.applies_to(Op::Publish, "a/x/y") && !scope.applies_to(Op::Subscribe, "b"));
        assert!(scope.applies_to(Op::Message, "c.d") && !scope.applies_to(Op::Message, "c"));
    }

    #[test]
    fn a_scope_crosses_the_boundary_unchanged() {
        let scope = HookScope::new().publications(["a", "b"]).messages(["c"]).broadcasts();
        assert_eq!(scope.with_raw(|raw| HookScope::from_raw(raw)), scope);
        let last = HookScope::new().publications(["a"]).after_others();
        assert_eq!(last.with_raw(|raw| HookScope::from_raw(raw)), last);
        assert!(last.is_after_others() && !scope.is_after_others());
        let sampled = HookScope::everything().sampled();
        assert_eq!(sampled.with_raw(|raw| HookScope::from_raw(raw)), sampled);
    }

    #[test]
    fn a_filter_with_options_is_refused_since_it_matches_nothing() {
        let check = |filter: &str| HookScope::new().publications(["a", filter]).check();
        for filter in ["$share/g/a", "$key/g/1/a", "$latest/a", "$every/5/a", "$lossy", "$latest"] {
            let error = check(filter).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{filter:?} matches no topic")), "{error}");
        }
        assert!(check("$other/a").is_ok() && check("a/$latest").is_ok());
    }

    #[test]
    fn an_empty_scope_and_one_with_too_many_filters_are_refused() {
        assert!(HookScope::new().check().is_err() && HookScope::new().broadcasts().check().is_ok());
        let many = |count: usize| HookScope::new().messages(vec!["a"; count]).check();
        assert!(many(MAX_HOOK_FILTERS).is_ok());
        let error = many(MAX_HOOK_FILTERS + 1).unwrap_err().to_string();
        assert!(error.contains("65 filters and masks; the limit is 64"), "{error}");
    }
}
