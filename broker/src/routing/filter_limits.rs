//! What filters a client may have: the strictest of what the broker, its transport and the rules for its name say.

use super::{member::Member, router::RouterSettings};
use crate::access::Admission;

/// What filters a client may have, by the broker, its transport and the rules for its name.
pub(super) struct FilterLimits {
    pub(super) count: usize,
    bytes: usize,
    depth: usize,
}

impl FilterLimits {
    pub(super) fn new(settings: RouterSettings, member: &Member, admission: Option<&Admission>) -> Self {
        let least = |limits: [Option<u64>; 2], own: usize| {
            limits.into_iter().flatten().filter_map(|limit| limit.try_into().ok()).fold(own, usize::min)
        };
        let of_name = admission.map(Admission::limits).unwrap_or_default();
        FilterLimits {
            count: least(
                [Some(member.origin.max_filters.into()), of_name.subscriptions],
                settings.max_filters,
            ),
            bytes: settings.max_filter_bytes,
            depth: least([Some(member.origin.max_filter_depth.into()), of_name.filter_depth], usize::MAX),
        }
    }

    /// What is taken away may be as deep as it was allowed to be once.
    pub(super) fn allow(&self, filter: &str, add: bool) -> bool {
        filter.len() <= self.bytes && (!add || self.depth == usize::MAX || depth(filter) <= self.depth)
    }

    pub(super) fn tell(&self, member: &Member, filter: &str) {
        let FilterLimits { bytes: max_bytes, depth: max_depth, .. } = self;
        tracing::warn!(
            client = &*member.name,
            bytes = filter.len(),
            depth = depth(filter),
            "filter refused: more than {max_bytes} bytes (max_filter_bytes) or {max_depth} segments \
             (max_filter_depth, filter_depth)"
        );
    }
}

/// Segments, up to a `#`.
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
