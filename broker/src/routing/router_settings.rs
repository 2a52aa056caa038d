//! The limits of names, targets and filters that the router applies.

use crate::settings::BrokerSettings;

/// Router settings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RouterSettings {
    /// A second client of a primary name evicts the first.
    pub(crate) force_register: bool,
    /// Subscriptions of one client, and exclusions as many.
    pub(crate) max_filters: usize,
    /// Length of one filter.
    pub(crate) max_filter_bytes: usize,
    /// Length of a client's name.
    pub(crate) max_name_bytes: usize,
    /// Length of a target, mask, topic or receiver.
    pub(crate) max_topic_bytes: usize,
    /// Memory of the subscriptions of one client, and of its exclusions as much.
    pub(crate) filter_memory_bytes: usize,
    /// Memory of all filters of all clients.
    pub(crate) total_filter_memory_bytes: usize,
    /// Segments of complex shapes of subscriptions, and of exclusions as many.
    pub(crate) max_complex_segments: usize,
}

impl RouterSettings {
    /// Those of the `[broker]` table.
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
