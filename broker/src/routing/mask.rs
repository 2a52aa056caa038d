//! Broadcast masks (protocol section 6): names split at `.`, `?` for one segment, `*` for the rest.

/// Whether `name` matches `mask`. Linear in their lengths, no allocation.
pub(crate) fn mask_matches(mask: &str, name: &str) -> bool {
    let mut masks = mask.split('.');
    let mut names = name.split('.');
    loop {
        match (masks.next(), names.next()) {
            (Some("*"), Some(_)) | (None, None) => return true,
            (Some("?"), Some(_)) => {}
            (Some(mask), Some(name)) if mask == name => {}
            _ => return false,
        }
    }
}

/// What every matching name begins with: the segments before the first wildcard. `None`: no wildcard in it, so it
/// matches only itself.
pub(crate) fn literal_prefix(mask: &str) -> Option<&str> {
    let mut start = 0;
    for segment in mask.split('.') {
        if segment == "?" || segment == "*" {
            return Some(&mask[..start]);
        }
        start += segment.len() + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_of_the_specification() {
        for (mask, name, matches) in [
            ("a.*", "a.b", true),
            ("a.*", "a.b.c", true),
            ("a.*", "a", false),
            ("?", "a", true),
            ("?", "a.b", false),
            ("*", "a.b.c", true),
            ("*", "", true),
            ("a.?.c", "a.b.c", true),
            ("a.?.c", "a..c", true),
            ("a.?.c", "a.b.d", false),
            ("a.*.z", "a.b", true),
            ("ab*", "abc", false),
            ("ab*", "ab*", true),
            ("a.b", "a.b", true),
            ("a.b", "a.b.c", false),
            ("a.?", "a.b%%0", true),
        ] {
            assert_eq!(mask_matches(mask, name), matches, "{mask} {name}");
            if matches {
                let prefix = literal_prefix(mask).unwrap_or(mask);
                assert!(name.starts_with(prefix), "{mask} {name} {prefix}");
            }
        }
    }

    #[test]
    fn prefixes() {
        assert_eq!(literal_prefix("a.b.*"), Some("a.b."));
        assert_eq!(literal_prefix("?.b"), Some(""));
        assert_eq!(literal_prefix("*"), Some(""));
        assert_eq!(literal_prefix("a.b*"), None);
    }

    #[test]
    fn many_dots_cost_little() {
        let name = vec!["x"; 30_000].join(".");
        let mask = vec!["?"; 30_000].join(".");
        assert!(mask_matches(&mask, &name));
        assert!(!mask_matches(&mask, &name[2..]));
    }
}
