//! A filter of a request, with its options, and the memory that it counts as.

use elbus_protocol::subscription::Subscription;

use crate::routing::{index::filter_tree::Filter, shapes::is_complex};

/// Memory of a filter in addition to its text, in bytes: a node of the tree, its entries in indices and sets.
const FILTER_BYTES: usize = 128;
/// Memory of a segment that may become a node of its own, in filters of more than [`FREE_SEGMENTS`].
const SEGMENT_BYTES: usize = 64;
const FREE_SEGMENTS: usize = 8;
/// Memory of a subscription with options beside that of its filter, in bytes: what it may miss, its values
/// and its group.
const OPTIONS_BYTES: usize = 768;

/// A filter of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Requested<'f> {
    /// In front of the filter, with the last `/`; empty if there are none.
    pub(super) options: &'f str,
    pub(super) filter: Filter<'f>,
}

impl<'f> Requested<'f> {
    /// Parses a filter of a request, which has been checked.
    pub(super) fn new(text: &'f str) -> Self {
        let options = Subscription::parse(text).map_or(0, |parsed| parsed.options_len());
        let (options, filter) = text.split_at_checked(options).unwrap_or(("", text));
        Requested { options, filter: filter.into() }
    }

    /// Returns what it weighs, see [`weight`].
    pub(super) fn weight(self) -> usize {
        weight(self.filter) + if self.has_options() { self.options.len() + OPTIONS_BYTES } else { 0 }
    }

    /// Returns whether its publications are shared by a group.
    pub(super) fn is_shared(self) -> bool {
        self.options.starts_with("$share/") || self.options.starts_with("$key/")
    }

    pub(super) fn has_options(self) -> bool {
        !self.options.is_empty()
    }

    /// Returns the text by which it is known: what follows a `#` is left out.
    pub(super) fn text(self) -> String {
        [self.options, &String::from_utf8_lossy(self.filter.text())].concat()
    }
}

/// Returns approximately the memory of a filter, in bytes.
pub(super) fn weight(filter: Filter<'_>) -> usize {
    let (_, segments) = is_complex(filter);
    filter.text().len() + FILTER_BYTES + segments.saturating_sub(FREE_SEGMENTS) * SEGMENT_BYTES
}
