//! The limits of a client's filters: the strictest of those of the broker, its transport and the rules for
//! its name.

use elbus_protocol::{
    MAX_FILTERS_BYTES as MAX_REQUEST_BYTES, request,
    subscription::{Subscription, has_options},
};

use super::{
    registered_client::RegisteredClient,
    registry::{FilterRefusal, FilterSet, MAX_SHARED_FILTERS},
    router_settings::RouterSettings,
};
use crate::access::{MAX_FILTER_COMPARISONS, PolicySnapshot, without_options};

/// The most filters of one request. A request is handled before any other client of its thread.
pub(super) const MAX_REQUEST_FILTERS: usize = 32_768;

/// The limits of a client's filters, by the broker, its transport and the rules for its name.
pub(super) struct FilterLimits {
    pub(super) count: usize,
    pub(super) memory: usize,
    pub(super) total_memory: usize,
    pub(super) complex: usize,
    bytes: usize,
    depth: usize,
}

impl FilterLimits {
    pub(super) fn new(
        settings: RouterSettings,
        member: &RegisteredClient,
        policy: Option<&PolicySnapshot>,
    ) -> Self {
        let of_name = policy.map(PolicySnapshot::limits).unwrap_or_default();
        FilterLimits {
            count: member.origin.max_filters().min(of_name.max_filters).as_usize().min(settings.max_filters),
            memory: settings.filter_memory_bytes,
            total_memory: settings.total_filter_memory_bytes,
            complex: settings.max_complex_segments,
            bytes: settings.max_filter_bytes,
            depth: member.origin.max_filter_depth().min(of_name.max_filter_depth).as_usize(),
        }
    }

    /// Returns whether a request may contain these filters. Filters that are removed may have any depth: the
    /// limit may have been higher when they were added.
    pub(super) fn allow(&self, member: &RegisteredClient, body: &str, add: bool) -> bool {
        let FilterLimits { bytes: max_bytes, depth: max_depth, .. } = *self;
        let mut count = 0;
        let refused = (body.len() <= MAX_REQUEST_BYTES).then(|| {
            request::filters(body).find(|filter| {
                count += 1;
                let too_deep = add && max_depth != usize::MAX && depth(without_options(filter)) > max_depth;
                count > MAX_REQUEST_FILTERS || filter.len() > max_bytes || too_deep
            })
        });
        let filter = match refused {
            Some(None) => return true,
            Some(Some(filter)) if count <= MAX_REQUEST_FILTERS => filter,
            _ => {
                if member.is_first_refusal() {
                    tracing::warn!(
                        client = &*member.name,
                        source = member.origin.source.as_deref(),
                        uid = member.origin.uid(),
                        bytes = body.len(),
                        max_request_bytes = MAX_REQUEST_BYTES,
                        max_request_filters = MAX_REQUEST_FILTERS,
                        "filters refused: the request is too large; further refusals are not logged"
                    );
                }
                return false;
            }
        };
        if member.is_first_refusal() {
            tracing::warn!(
                client = &*member.name,
                source = member.origin.source.as_deref(),
                uid = member.origin.uid(),
                bytes = filter.len(),
                max_filter_bytes = max_bytes,
                depth = depth(without_options(filter)),
                max_filter_depth = max_depth,
                "filter refused: too long or too deep; further refusals are not logged"
            );
        }
        false
    }

    /// Logs why filters of a client are refused.
    pub(super) fn log_refusal(&self, member: &RegisteredClient, refusal: FilterRefusal) {
        let (limit, key) = match refusal {
            FilterRefusal::Gone => return,
            FilterRefusal::Count => (self.count, "max_filters"),
            FilterRefusal::Memory => (self.memory, "filter_memory_bytes"),
            FilterRefusal::TotalMemory => (self.total_memory, "total_filter_memory_bytes"),
            FilterRefusal::Complex => (self.complex, "max_complex_segments"),
            FilterRefusal::Shared => (MAX_SHARED_FILTERS, "filters that a client shares with groups"),
            FilterRefusal::Comparisons => (
                MAX_FILTER_COMPARISONS,
                "comparisons with access rules: send fewer filters in a request, or use fewer placeholders",
            ),
        };
        if member.is_first_refusal() {
            tracing::warn!(
                client = &*member.name,
                source = member.origin.source.as_deref(),
                uid = member.origin.uid(),
                key,
                limit,
                "filters refused: a limit is reached; further refusals are not logged"
            );
        }
    }
}

/// Returns whether the options of all filters of a request are well-formed; exclusions have none.
pub(super) fn has_valid_options(member: &RegisteredClient, set: FilterSet, body: &str) -> bool {
    if !body.contains('$') {
        return true;
    }
    let client = &*member.name;
    for filter in request::filters(body).filter(|filter| has_options(filter)) {
        match Subscription::parse(filter) {
            Ok(_) if set == FilterSet::Subscriptions => {}
            Ok(_) => {
                tracing::debug!(client, filter, "filter refused: an exclusion cannot have options");
                return false;
            }
            Err(error) => {
                let bytes = filter.len();
                tracing::debug!(client, bytes, %error, "filter refused: malformed options");
                return false;
            }
        }
    }
    true
}

/// Returns the number of segments, up to a `#`.
fn depth(filter: &str) -> usize {
    let before_rest = filter.split('/').take_while(|segment| *segment != "#").count();
    (before_rest + 1).min(filter.split('/').count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_up_to_the_rest() {
        for (filter, segments) in
            [("", 1), ("a", 1), ("a/b", 2), ("a/", 2), ("#", 1), ("a/#", 2), ("a/#/b/c", 2)]
        {
            assert_eq!(depth(filter), segments, "{filter:?}");
        }
    }
}
