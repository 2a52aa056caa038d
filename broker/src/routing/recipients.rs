//! Who gets a publication or a broadcast: resolved once, kept by the senders until something changes.

use std::sync::{Arc, Weak};

use super::member::Member;

/// Recipients, held weakly: a sender that falls silent keeps no departed client, and no socket of one, alive.
pub(super) struct Recipients {
    members: Box<[Weak<Member>]>,
}

impl Recipients {
    pub(super) fn new(members: impl Iterator<Item = Arc<Member>>) -> Self {
        Recipients { members: members.map(|member| Arc::downgrade(&member)).collect() }
    }

    /// Those who are still there.
    #[inline]
    pub(super) fn iter(&self) -> impl Iterator<Item = Arc<Member>> {
        self.members.iter().filter_map(Weak::upgrade).filter(|member| !member.is_gone())
    }
}
