//! Splits changes of a list into parts, so that no record is long.

use crate::wire::ListPart;

/// Length of a part from which the next part begins, in bytes.
const PART_BYTES: usize = 8 << 10;

/// A part of the changes of a list.
pub(super) struct Part<'a> {
    pub(super) kind: ListPart,
    /// Whether each text was added, and the text.
    pub(super) changes: &'a [(bool, &'a str)],
    /// Length of the encoded changes.
    pub(super) bytes: usize,
}

/// Returns whether changes are one part.
pub(super) fn fits_in_one(changes: &[(bool, &str)]) -> bool {
    parts(changes, true).nth(1).is_none()
}

/// Returns the parts of a delta or a snapshot, at least one.
pub(super) fn parts<'a>(changes: &'a [(bool, &'a str)], is_delta: bool) -> impl Iterator<Item = Part<'a>> {
    let mut rest = Some(changes);
    let mut is_first = true;
    std::iter::from_fn(move || {
        let left = rest?;
        let (mut bytes, mut count) = (0, 0);
        while let Some((_, text)) = left.get(count)
            && (count == 0 || bytes < PART_BYTES)
        {
            bytes += 3 + text.len();
            count += 1;
        }
        let (changes, behind) = left.split_at(count);
        let kind = match (is_delta, is_first, behind.is_empty()) {
            (true, ..) => ListPart::Delta,
            (false, true, true) => ListPart::Only,
            (false, true, false) => ListPart::First,
            (false, false, false) => ListPart::Next,
            (false, false, true) => ListPart::Last,
        };
        rest = (!behind.is_empty()).then_some(behind);
        is_first = false;
        Some(Part { kind, changes, bytes })
    })
}
