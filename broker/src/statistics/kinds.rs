//! The kinds of refusals and denials that are counted, with their names in results.

use elbus_plugin_api::{Code, Departure, access::Action};

use super::counts_by::Kind;

/// Why a message was not queued for a recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The queue of the recipient has no room, and its overflow policy or the message does not let the sender
    /// wait.
    QueueFull,
    /// The hold budget of the recipient is spent for the sender.
    HoldBudget,
    /// The sender ignores back-pressure.
    Unheeded,
    /// It was sent only to recipients that have room.
    BestEffort,
    /// No more messages can wait for a name that is not registered.
    NameWait,
}

/// What access rules, or `remote_admin`, have denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denial {
    /// An operation, or the call of a control method.
    Action(Action),
    /// A registration.
    Register,
    /// An administrative method that the rules allow, to a caller that is not an administrator.
    Admin,
}

/// Why a registration was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RegistrationRefusal {
    /// The name is malformed or too long.
    InvalidName,
    /// The name is taken, or a quota of the access rules is used up.
    Busy,
    /// Access rules deny it.
    Denied,
    /// The primary of a secondary is not registered.
    NoPrimary,
    /// Another reason.
    Other,
}

impl RegistrationRefusal {
    /// Returns the kind of the code by which a registration was refused.
    pub(crate) fn of(code: Code) -> Self {
        match code {
            Code::BadData => RegistrationRefusal::InvalidName,
            Code::Busy => RegistrationRefusal::Busy,
            Code::AccessDenied => RegistrationRefusal::Denied,
            Code::NotRegistered => RegistrationRefusal::NoPrimary,
            _ => RegistrationRefusal::Other,
        }
    }
}

impl Kind for Refusal {
    const ALL: &'static [Self] =
        &[Refusal::QueueFull, Refusal::HoldBudget, Refusal::Unheeded, Refusal::BestEffort, Refusal::NameWait];

    fn number(self) -> usize {
        self as usize
    }

    fn key(self) -> &'static str {
        match self {
            Refusal::QueueFull => "queue_full",
            Refusal::HoldBudget => "hold_budget",
            Refusal::Unheeded => "unheeded",
            Refusal::BestEffort => "best_effort",
            Refusal::NameWait => "name_wait",
        }
    }
}

impl Kind for Denial {
    const ALL: &'static [Self] = &[
        Denial::Action(Action::Send),
        Denial::Action(Action::Broadcast),
        Denial::Action(Action::Publish),
        Denial::Action(Action::Subscribe),
        Denial::Action(Action::Call),
        Denial::Register,
        Denial::Admin,
    ];

    fn number(self) -> usize {
        match self {
            Denial::Action(action) => action as usize,
            Denial::Register => 5,
            Denial::Admin => 6,
        }
    }

    fn key(self) -> &'static str {
        match self {
            Denial::Action(action) => action.key(),
            Denial::Register => "register",
            Denial::Admin => "admin",
        }
    }
}

impl Kind for RegistrationRefusal {
    const ALL: &'static [Self] = &[
        RegistrationRefusal::InvalidName,
        RegistrationRefusal::Busy,
        RegistrationRefusal::Denied,
        RegistrationRefusal::NoPrimary,
        RegistrationRefusal::Other,
    ];

    fn number(self) -> usize {
        self as usize
    }

    fn key(self) -> &'static str {
        match self {
            RegistrationRefusal::InvalidName => "invalid_name",
            RegistrationRefusal::Busy => "busy",
            RegistrationRefusal::Denied => "denied",
            RegistrationRefusal::NoPrimary => "no_primary",
            RegistrationRefusal::Other => "other",
        }
    }
}

impl Kind for Departure {
    const ALL: &'static [Self] = &Departure::ALL;

    fn number(self) -> usize {
        self as usize
    }

    fn key(self) -> &'static str {
        Departure::key(self)
    }
}

#[cfg(all(test, not(elbus_model)))]
mod tests {
    use super::{super::CountsBy, *};

    fn check<K: Kind>() {
        let counts = CountsBy::<K>::default();
        for (position, kind) in K::ALL.iter().enumerate() {
            assert_eq!(kind.number(), position);
            counts.add(*kind, position + 1);
        }
        let (keys, values): (Vec<_>, Vec<_>) = counts.all().unzip();
        assert_eq!(values, (1..=K::ALL.len() as u64).collect::<Vec<_>>());
        assert_eq!(counts.sum(), values.iter().sum::<u64>());
        for key in &keys {
            assert_eq!(keys.iter().filter(|other| *other == key).count(), 1, "{key}");
        }
    }

    #[test]
    fn each_kind_has_a_counter_and_a_key() {
        check::<Refusal>();
        check::<Denial>();
        check::<RegistrationRefusal>();
        check::<Departure>();
    }
}
