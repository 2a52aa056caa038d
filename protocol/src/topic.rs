//! Matches a topic against one filter (section 6), for clients. The broker matches many filters with a tree
//! of its own.

/// Returns whether a publication to `topic` matches a subscription to `filter`. Reads both once and allocates
/// nothing.
///
/// ```
/// use elbus_protocol::topic::matches;
///
/// assert!(matches("plant/+/temperature", "plant/boiler/temperature"));
/// assert!(matches("plant/#", "plant/boiler/temperature") && !matches("plant/#", "plant"));
/// ```
pub fn matches(filter: &str, topic: &str) -> bool {
    let mut rest = topic.split('/');
    for segment in filter.split('/') {
        match (segment, rest.next()) {
            (_, None) => return false,
            ("#", Some(_)) => return true,
            ("+", Some(_)) => {}
            (plain, Some(name)) if plain == name => {}
            _ => return false,
        }
    }
    rest.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What each line of section 6 says of filters: what a filter matches, and what it does not.
    const TABLE: &[(&str, &[&str], &[&str])] = &[
        // exactly one segment, an empty one too
        ("+", &["a", ""], &["a/b", "/", "/a"]),
        ("a/+", &["a/b", "a/"], &["a", "a/b/c", "a//", "b/a"]),
        ("+/b", &["a/b", "/b"], &["b", "a/b/", "a/c", "a/a/b"]),
        ("a/+/c", &["a/b/c", "a//c"], &["a/c", "a/b/b/c", "a/b/d"]),
        // one or more segments, all that are left, empty ones too
        ("a/#", &["a/", "a/b", "a/b/c", "a//", "a/+"], &["a", "", "b/a", "ab/c", "/a"]),
        ("#", &["", "/", "/x", "a", "a/b/c", "$SYS", ".broker/warn"], &[]),
        ("/#", &["/", "/x", "/x/y"], &["", "x", "x/"]),
        ("+/#", &["a/b", "/", "a/b/c"], &["a", ""]),
        // what follows it is ignored
        ("a/#/b", &["a/", "a/b", "a/c", "a/c/b"], &["a", "b"]),
        ("#/b", &["", "a", "b"], &[]),
        ("#/", &["", "a"], &[]),
        // any other, the equal segment
        ("a+", &["a+"], &["a", "ab", "aa"]),
        ("a#", &["a#"], &["a", "ab", "a/b"]),
        ("+a/##", &["+a/##"], &["a/b", "+a/b", "ba/c"]),
        ("*", &["*"], &["a", "", "a/b"]),
        ("?", &["?"], &["a", ""]),
        ("a.b/.", &["a.b/."], &["a/b", "a.b/c", "axb/."]),
        ("a/b", &["a/b"], &["a", "a/", "a/b/", "a/b/c", "/a/b", "A/b"]),
        ("", &[""], &["a", "/", "a/"]),
        ("/", &["/"], &["", "a/", "/a", "//"]),
        ("température/ß", &["température/ß"], &["temperature/ß"]),
        // a leading `$` or `.` means nothing
        ("+/x", &["$SYS/x", ".broker/x"], &[]),
        // a topic is never taken as a filter
        ("a/b", &[], &["a/+", "a/#", "#", "+/b"]),
        ("a/+", &["a/+", "a/#"], &["#", "+/+"]),
    ];

    #[test]
    fn filters_match_as_section_6_says() {
        for (filter, matched, others) in TABLE {
            for topic in *matched {
                assert!(matches(filter, topic), "{filter:?} should match {topic:?}");
            }
            for topic in *others {
                assert!(!matches(filter, topic), "{filter:?} should not match {topic:?}");
            }
        }
    }
}
