//! The limits of names, targets and filters that the router applies.

use crate::settings::BrokerSettings;

/// Router settings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RouterSettings {
    /// Whether a second client of a primary name evicts the first.
    pub(crate) force_register: bool,
    /// The most subscriptions of a client, and the most exclusions.
    pub(crate) max_filters: usize,
    /// The longest filter, in bytes.
    pub(crate) max_filter_bytes: usize,
    /// The longest name of a client, in bytes.
    pub(crate) max_name_bytes: usize,
    /// The longest target, mask, topic or receiver, in bytes.
    pub(crate) max_topic_bytes: usize,
    /// Memory of the subscriptions of a client, and of its exclusions, in bytes each.
    pub(crate) filter_memory_bytes: usize,
    /// Memory of all filters of all clients, in bytes.
    pub(crate) total_filter_memory_bytes: usize,
    /// The most segments of complex shapes of subscriptions, and of exclusions.
    pub(crate) max_complex_segments: usize,
}

impl RouterSettings {
    /// Returns the limits of the `[broker]` table.
    pub(crate) fn of(settings: &BrokerSettings) -> Self {
        RouterSettings {
            force_register: settings.force_register,
            max_filters: settings.max_filters,
            max_filter_bytes: settings.max_filter_bytes,
            max_name_bytes: settings.max_name_bytes,
            max_topic_bytes: settings.max_topic_bytes,
            filter_memory_bytes: settings.filter_memory_bytes,
            total_filter_memory_bytes: settings.total_filter_memory_bytes,
            max_complex_segments: settings.max_complex_segments,
        }
    }
}
