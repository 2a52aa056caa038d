//! The names of a client certificate and the patterns of rules for them. Owns which names a pattern applies
//! to; `pattern` compares a single name.

use super::pattern::{PlaceholderValues, certificate_matches};

/// The common name of the subject: on its own, only a description of the certificate's owner.
const COMMON_NAME: &str = "cn:";
/// The kinds of names that a certificate was issued for.
const ALTERNATIVES: [&str; 3] = ["dns:", "uri:", "email:"];

/// Returns whether one of the names matches the pattern. A pattern with a kind applies to names of that kind.
/// Without a kind it applies to all names, but to the common name only if the certificate has no other name.
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
    fn a_pattern_applies_to_its_kind_and_a_common_name_is_no_other_kind() {
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
        // the common name does not count as a name of another kind
        assert!(!matches("plc1.plant", &["cn:plc1.plant", "dns:other.plant"]));
        assert!(matches("plc1.plant", &["cn:plc1.plant"]));
        assert!(!matches("dns:plc1.plant", &["cn:dns:plc1.plant"]));
        assert!(matches("cn:dns:plc1.plant", &["cn:dns:plc1.plant"]));
        // a plugin that does not report kinds
        assert!(matches("plc1", &["plc1"]) && !matches("dns:plc1", &["plc1"]) && !matches("plc1", &[]));
    }
}
