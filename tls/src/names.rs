//! The names in a certificate. Owns which of its fields count as names; never checks whether it is valid.

use rustls::pki_types::CertificateDer;
use x509_parser::{extensions::GeneralName, parse_x509_certificate};

/// Returns the names in a certificate: the common name of the subject, then the alternative DNS names, URIs
/// and email addresses. Each is listed once, with its kind as a prefix: `cn:`, `dns:`, `uri:` or `email:`.
/// Values with control characters are left out, since no rule can match them.
pub fn certificate_names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let mut names = vec![];
    let Ok((_, parsed)) = parse_x509_certificate(certificate) else { return names };
    let mut add = |kind: &str, name: &str| {
        let (is_name, name) =
            (!name.is_empty() && !name.chars().any(char::is_control), format!("{kind}:{name}"));
        if is_name && !names.contains(&name) {
            names.push(name);
        }
    };
    for common_name in parsed.subject().iter_common_name() {
        if let Ok(name) = common_name.as_str() {
            add("cn", name);
        }
    }
    if let Ok(Some(alternatives)) = parsed.subject_alternative_name() {
        for name in &alternatives.value.general_names {
            match name {
                GeneralName::DNSName(name) => add("dns", name),
                GeneralName::URI(name) => add("uri", name),
                GeneralName::RFC822Name(name) => add("email", name),
                _ => {}
            }
        }
    }
    names
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    fn names(common_name: &str, alternatives: Vec<SanType>) -> Vec<String> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.subject_alt_names = alternatives;
        certificate_names(params.self_signed(&KeyPair::generate().unwrap()).unwrap().der())
    }

    #[test]
    fn subject_and_alternatives_are_names_and_addresses_are_not() {
        let alternatives = vec![
            SanType::DnsName("plc-1.plant".try_into().unwrap()),
            SanType::IpAddress([127, 0, 0, 1].into()),
            SanType::URI("spiffe://plant/plc/1".try_into().unwrap()),
            SanType::Rfc822Name("plc@plant".try_into().unwrap()),
            SanType::DnsName("plc-1".try_into().unwrap()),
            SanType::DnsName("plc-1.plant".try_into().unwrap()),
        ];
        assert_eq!(
            names("plc-1", alternatives),
            ["cn:plc-1", "dns:plc-1.plant", "uri:spiffe://plant/plc/1", "email:plc@plant", "dns:plc-1"]
        );
    }

    #[test]
    fn control_characters_and_invalid_certificates_give_no_names() {
        assert_eq!(names("plc\n1", vec![]), Vec::<String>::new());
        assert_eq!(certificate_names(&CertificateDer::from(vec![1, 2, 3])), Vec::<String>::new());
    }
}
