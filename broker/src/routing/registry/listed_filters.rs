//! The filters of a client for its details. Bounded in number and bytes; changes nothing.

use std::sync::Arc;

use super::{FilterSet, Registry};
use crate::routing::registered_client::RegisteredClient;

/// Filters that are listed.
const MAX_LISTED: usize = 1000;
/// Bytes of their texts; the filter that exceeds them is the last one.
const MAX_LISTED_BYTES: usize = 64 * 1024;

/// Filters of a client without options, in order of their texts, and the number of all of them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ListedFilters {
    pub(crate) filters: Vec<String>,
    pub(crate) count: usize,
}

impl Registry {
    /// Returns the filters of a client, at most 1,000 of them and about 64 KiB.
    pub(in crate::routing) fn listed_filters(
        &self,
        member: &Arc<RegisteredClient>,
        set: FilterSet,
    ) -> ListedFilters {
        let nodes = self.filter_nodes(member, set);
        let tree = match set {
            FilterSet::Subscriptions => &self.subscriptions.tree,
            FilterSet::Exclusions => &self.exclusions.tree,
        };
        let mut bytes = 0;
        let mut filters = Vec::new();
        for node in nodes.iter().take(MAX_LISTED) {
            if bytes > MAX_LISTED_BYTES {
                break;
            }
            let text = tree.text_at(*node);
            bytes += text.len();
            filters.push(text);
        }
        filters.sort_unstable();
        ListedFilters { filters, count: nodes.len() }
    }
}
