//! Subscriptions with options (protocol section 6): who gets a publication because of them, and how.
//!
//! The [`registry`](super::registry) keeps them apart from plain ones. What a topic is resolved to has an
//! [`OptionedRecipients`] only if one of them matches, so other traffic is not concerned.

pub(super) mod group;
pub(super) mod groups;
pub(super) mod pending;
pub(super) mod recipients;
pub(super) mod subscriber;

pub(crate) use recipients::OptionedRecipients;
pub(in crate::routing) use subscriber::Subscriber;
pub(crate) use subscriber::{SubscriptionReport, pacer::Pacer};
