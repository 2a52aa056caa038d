//! The names of a client certificate and the patterns of rules for them. Owns which names a pattern is for; a
//! single comparison is `pattern`'s.

use super::pattern::{PlaceholderValues, certificate_matches};

/// The common name of the subject: by itself no more than a description of the certificate's owner.
const COMMON_NAME: &str = "cn:";
/// The names a certificate was issued for.
const ALTERNATIVES: [&str; 3] = ["dns:", "uri:", "email:"];

/// Whether one of the names is like the pattern. With a kind in front it is for names of that kind. Without
/// one it is for all, but for the common name only where the certificate was issued for no other name.
pub(super) fn any_matches(pattern: &str, names: &[String], values: PlaceholderValues<'_>) -> bool {
    let kinds = [&ALTERNATIVES[..], &[COMMON_NAME]].concat();
    let kind_of = |text: &str| kinds.iter().copied().find(|kind| text.starts_with(kind));
    let wanted = kind_of(pattern);
    let pattern = wanted.and_then(|kind| pattern.strip_prefix(kind)).unwrap_or(pattern);
    let has_alternatives = names.iter().any(|name| ALTERNATIVES.iter().any(|kind| name.starts_with(kind)));
    names.iter().any(|name| {
        let kind = kind_of(name);
        let counts = match wanted {
            Some(wanted) => kind == Some(wanted),
            None => kind != Some(COMMON_NAME) || !has_alternatives,
        };
        counts && certificate_matches(pattern, name.strip_prefix(kind.unwrap_or("")).unwrap_or(name), values)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_for_names_of_its_kind_and_a_common_name_does_not_pass_for_another() {
        let values = PlaceholderValues { name: "plc1", user: None };
        let matches = |pattern: &str, names: &[&str]| {
            let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
            any_matches(pattern, &names, values)
        };
        let all = ["cn:plc1", "dns:plc1.plant", "uri:spiffe://plant/plc1", "email:plc1@plant"];
        for pattern in ["cn:plc1", "cn:{name}", "dns:*.plant", "dns:plc1.plant", "uri:spiffe://plant/{name}"]
        {
            assert!(matches(pattern, &all), "{pattern}");
        }
        for pattern in ["plc1.plant", "{name}.plant", "spiffe://*/plc1", "{name}@plant", "email:*"] {
            assert!(matches(pattern, &all), "{pattern}");
        }
        for pattern in
            ["plc1", "dns:plc1", "uri:plc1.plant", "cn:plc1.plant", "email:plc1", "ip:plc1", "dns:"]
        {
            assert!(!matches(pattern, &all), "{pattern}");
        }
        // the common name does not count as another kind of name
        assert!(!matches("plc1.plant", &["cn:plc1.plant", "dns:other.plant"]));
        assert!(matches("plc1.plant", &["cn:plc1.plant"]));
        assert!(!matches("dns:plc1.plant", &["cn:dns:plc1.plant"]));
        assert!(matches("cn:dns:plc1.plant", &["cn:dns:plc1.plant"]));
        // a plugin that knows no kinds
        assert!(matches("plc1", &["plc1"]) && !matches("dns:plc1", &["plc1"]) && !matches("plc1", &[]));
    }
}
