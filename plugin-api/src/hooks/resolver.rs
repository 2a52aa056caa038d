//! Name resolvers: what they are asked, and what they answer.

use abi_stable::{StableAbi, std_types::RStr};
use elbus_protocol::Qos;
use std::time::Duration;

use super::MAX_WAIT;

/// Decides what happens to messages for a name that is not registered. A function will do.
///
/// Called by the thread of a sender when it sends a message to such a name that matches the masks of the
/// resolver, unless messages for the name wait already. If the answer is [`Resolution::WaitUpTo`], the
/// messages wait in the broker, in order, and are delivered once the name registers. It must not block; it
/// can start what registers the name, and it can [end the wait](super::Hook::end_wait). See [the rules for
/// hooks](super#name-resolvers).
///
/// # Examples
/// ```
/// use elbus_plugin_api::{
///     hooks::{Resolution, UnresolvedMessage},
///     testing::FakeHost,
/// };
/// use std::time::Duration;
///
/// let fake = FakeHost::new();
/// let services = |message: &UnresolvedMessage<'_>| match message.target() {
///     "plant.camera" => Resolution::WaitUpTo(Duration::from_secs(10)),
///     _ => Resolution::Unknown,
/// };
/// let _hook = fake.host("services").add_resolver(["plant.*"], services)?;
/// assert_eq!(fake.resolve("hmi", "plant.camera"), Resolution::WaitUpTo(Duration::from_secs(10)));
/// assert_eq!(fake.resolve("hmi", "plant.pump"), Resolution::Unknown);
/// # Ok::<(), elbus_plugin_api::PluginError>(())
/// ```
pub trait NameResolver: Send + Sync + 'static {
    /// Decides about a message, and about those for the same name that follow it.
    fn resolve(&self, message: &UnresolvedMessage<'_>) -> Resolution;
}

impl<F: Fn(&UnresolvedMessage<'_>) -> Resolution + Send + Sync + 'static> NameResolver for F {
    fn resolve(&self, message: &UnresolvedMessage<'_>) -> Resolution {
        self(message)
    }
}

/// What happens to messages for a name that is not registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Resolution {
    /// Nothing is known of the name: the next resolver is asked. If there is none, the sender gets
    /// [`Code::NotRegistered`](crate::Code::NotRegistered).
    #[default]
    Unknown,
    /// The messages wait until the name registers, at most for this time, which is cut to [`MAX_WAIT`].
    WaitUpTo(Duration),
}

impl Resolution {
    /// In milliseconds; 0 is unknown.
    pub(crate) fn to_millis(self) -> u64 {
        match self {
            Resolution::Unknown => 0,
            Resolution::WaitUpTo(time) => (time.min(MAX_WAIT).as_millis() as u64).max(1),
        }
    }

    #[doc(hidden)]
    pub fn of_millis(millis: u64) -> Self {
        match millis {
            0 => Resolution::Unknown,
            millis => Resolution::WaitUpTo(Duration::from_millis(millis).min(MAX_WAIT)),
        }
    }
}

/// The message for which a [`NameResolver`] is asked.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct UnresolvedMessage<'a> {
    flags: u32,
    qos: u8,
    target: RStr<'a>,
    sender: RStr<'a>,
    sender_id: u64,
}

impl<'a> UnresolvedMessage<'a> {
    #[doc(hidden)]
    pub fn new(target: &'a str, qos: Qos, sender: &'a str, sender_id: u64) -> Self {
        let (target, sender) = (RStr::from_str(target), RStr::from_str(sender));
        UnresolvedMessage { flags: 0, qos: qos.bits(), target, sender, sender_id }
    }

    /// Returns the name that is not registered.
    #[inline]
    pub fn target(&self) -> &'a str {
        self.target.as_str()
    }

    /// Returns the full registered name of the sender, whose access rules allow the message.
    #[inline]
    pub fn sender(&self) -> &'a str {
        self.sender.as_str()
    }

    /// Returns the id of the sender's registration.
    #[inline]
    pub fn sender_id(&self) -> u64 {
        self.sender_id
    }

    /// Returns the quality of service.
    #[inline]
    pub fn qos(&self) -> Qos {
        Qos::from_bits(self.qos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resolution_crosses_the_boundary_as_milliseconds_within_the_limit() {
        let crossed = |resolution: Resolution| Resolution::of_millis(resolution.to_millis());
        assert_eq!(crossed(Resolution::Unknown), Resolution::Unknown);
        for (time, expected) in [
            (Duration::from_millis(1500), Duration::from_millis(1500)),
            (Duration::ZERO, Duration::from_millis(1)),
            (Duration::MAX, MAX_WAIT),
        ] {
            assert_eq!(crossed(Resolution::WaitUpTo(time)), Resolution::WaitUpTo(expected));
        }
        assert_eq!(Resolution::of_millis(u64::MAX), Resolution::WaitUpTo(MAX_WAIT));
    }
}
