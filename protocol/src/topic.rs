//! Matches a topic against one filter (section 6), for clients. The broker matches many filters with its own
//! tree.

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

    /// One line for each statement of section 6: a filter, topics that it matches, and topics that it does
    /// not.
    const TABLE: &[(&str, &[&str], &[&str])] = &[
        // exactly one segment, which can be empty
        ("+", &["a", ""], &["a/b", "/", "/a"]),
        ("a/+", &["a/b", "a/"], &["a", "a/b/c", "a//", "b/a"]),
        ("+/b", &["a/b", "/b"], &["b", "a/b/", "a/c", "a/a/b"]),
        ("a/+/c", &["a/b/c", "a//c"], &["a/c", "a/b/b/c", "a/b/d"]),
        // one or more segments: all that remain, which can be empty
        ("a/#", &["a/", "a/b", "a/b/c", "a//", "a/+"], &["a", "", "b/a", "ab/c", "/a"]),
        ("#", &["", "/", "/x", "a", "a/b/c", "$SYS", ".broker/warn"], &[]),
        ("/#", &["/", "/x", "/x/y"], &["", "x", "x/"]),
        ("+/#", &["a/b", "/", "a/b/c"], &["a", ""]),
        // the rest of the filter is ignored
        ("a/#/b", &["a/", "a/b", "a/c", "a/c/b"], &["a", "b"]),
        ("#/b", &["", "a", "b"], &[]),
        ("#/", &["", "a"], &[]),
        // any other segment matches itself
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
        // a leading `$` or `.` has no meaning
        ("+/x", &["$SYS/x", ".broker/x"], &[]),
        // a topic is never interpreted as a filter
        ("a/b", &[], &["a/+", "a/#", "#", "+/b"]),
        ("a/+", &["a/+", "a/#"], &["#", "+/+"]),
    ];

    #[test]
    fn filters_match_as_section_6_specifies() {
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
