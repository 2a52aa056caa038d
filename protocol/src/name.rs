//! The rules of client names that need no registry (section 2); never knows which names are taken.

use crate::Code;
use std::fmt;

/// Maximum length of a name, which its length field allows, in bytes.
pub const MAX_NAME_BYTES: usize = u16::MAX as usize;

/// Separates a secondary name from its primary, at its first occurrence.
pub const SECONDARY_SEPARATOR: &str = "%%";

/// Why no client can have a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NameError {
    /// The name has no bytes.
    Empty,
    /// The name begins with a dot: such names belong to the broker.
    LeadingDot,
    /// The name contains a NUL, which would break the framing of the client's messages.
    HasNul,
    /// The name exceeds its length field.
    TooLong {
        /// Its length, in bytes.
        len: usize,
    },
}

impl NameError {
    /// Returns the broker's answer to such a name: 72.
    pub fn code(&self) -> Code {
        Code::BadData
    }
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NameError::Empty => f.write_str("name is empty"),
            NameError::LeadingDot => f.write_str("name begins with a dot, which is reserved for the broker"),
            NameError::HasNul => f.write_str("name contains a NUL"),
            NameError::TooLong { len } => write!(f, "name of {len} bytes exceeds {MAX_NAME_BYTES}"),
        }
    }
}

impl std::error::Error for NameError {}

/// Checks the syntax of a client's name.
///
/// # Errors
/// No client can have the name.
pub fn check_name(name: &str) -> Result<(), NameError> {
    match name.as_bytes() {
        [] => Err(NameError::Empty),
        [b'.', ..] => Err(NameError::LeadingDot),
        bytes if bytes.len() > MAX_NAME_BYTES => Err(NameError::TooLong { len: bytes.len() }),
        bytes if bytes.contains(&0) => Err(NameError::HasNul),
        _ => Ok(()),
    }
}

/// Returns whether a name matches a mask (section 6): `?` is one segment, `*` one or more, all that are left.
/// Reads both once and allocates nothing.
///
/// ```
/// use elbus_protocol::name::mask_matches;
///
/// assert!(mask_matches("plant.?.pump", "plant.mill.pump") && mask_matches("plant.*", "plant.mill.pump"));
/// assert!(!mask_matches("plant.*", "plant") && !mask_matches("plant.?", "plant.mill.pump"));
/// ```
pub fn mask_matches(mask: &str, name: &str) -> bool {
    let (mut segments, mut names) = (mask.split('.'), name.split('.'));
    loop {
        match (segments.next(), names.next()) {
            (Some("*"), Some(_)) | (None, None) => return true,
            (Some("?"), Some(_)) => {}
            (Some(segment), Some(name)) if segment == name => {}
            _ => return false,
        }
    }
}

/// Returns the primary of a name: the part before the first `%%`, or the whole name of a primary.
#[inline]
pub fn primary_of(name: &str) -> &str {
    name.split_once(SECONDARY_SEPARATOR).map_or(name, |(primary, _)| primary)
}

/// Returns whether the name is that of a secondary: it contains `%%`.
#[inline]
pub fn is_secondary(name: &str) -> bool {
    name.contains(SECONDARY_SEPARATOR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_reserved_nul_and_overlong_names_are_refused() {
        for good in ["a", "a.b", "?", "*", "+/#", "with space", "ünï", "a.", "%%"] {
            assert_eq!(check_name(good), Ok(()), "{good:?}");
        }
        assert_eq!(check_name(""), Err(NameError::Empty));
        assert_eq!(check_name(".broker"), Err(NameError::LeadingDot));
        assert_eq!(check_name("a\0b"), Err(NameError::HasNul));
        assert_eq!(check_name(&"x".repeat(65_535)), Ok(()));
        assert_eq!(check_name(&"x".repeat(65_536)), Err(NameError::TooLong { len: 65_536 }));
        assert_eq!(NameError::HasNul.code(), Code::BadData);
    }

    #[test]
    fn the_first_separator_divides() {
        assert_eq!(primary_of("a.b"), "a.b");
        assert_eq!(primary_of("a.b%%0"), "a.b");
        assert_eq!(primary_of("a%%b%%c"), "a");
        assert_eq!(primary_of("a%%%b"), "a");
        assert_eq!(primary_of("%%0"), "");
        assert_eq!(primary_of("a%b"), "a%b");
        assert!(is_secondary("a%%") && !is_secondary("a%b"));
    }
}
