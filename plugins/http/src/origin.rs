//! The origin of the page that opens a connection. Browsers let every page connect to every address, so the
//! server decides. Owns the comparison; reads no request.

use elbus_plugin_api::PluginError;
use std::net::IpAddr;

/// Origins other than that of the server itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct AllowedOrigins(Vec<String>);

/// The scheme and authority of an origin, in lower case.
struct Origin<'a> {
    scheme: &'a str,
    authority: String,
}

impl<'a> Origin<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (scheme, authority) = text.split_once("://")?;
        let is_name = |c: char| c.is_ascii_alphanumeric() || "-._:[]%".contains(c);
        let is_valid = ["http", "https"].contains(&scheme.to_ascii_lowercase().as_str())
            && !authority.is_empty()
            && authority.chars().all(is_name);
        is_valid.then(|| Origin { scheme, authority: with_port(authority, scheme) })
    }
}

/// Returns an authority in lower case and with its port: that of the scheme if it has none.
fn with_port(authority: &str, scheme: &str) -> String {
    let authority = authority.to_ascii_lowercase();
    let has_port = match authority.rsplit_once(':') {
        Some((host, port)) => !port.is_empty() && (host.ends_with(']') || !host.contains(':')),
        None => false,
    };
    match (has_port, scheme.eq_ignore_ascii_case("https")) {
        (true, _) => authority,
        (false, true) => format!("{authority}:443"),
        (false, false) => format!("{authority}:80"),
    }
}

/// Returns the host of an authority.
fn host_of(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, _)) if host.ends_with(']') || !host.contains(':') => host,
        _ => authority,
    }
}

impl AllowedOrigins {
    /// # Errors
    /// The first text that is no origin.
    pub(crate) fn new(texts: Vec<String>) -> Result<Self, PluginError> {
        for (index, text) in texts.iter().enumerate() {
            if text != "null" && Origin::parse(text).is_none() {
                let message = format!(
                    "{text:?} is not an origin, such as \"https://panel.plant:8443\"; there are no wildcards"
                );
                return Err(PluginError::of_key(format!("allowed_origins[{index}]"), message));
            }
        }
        Ok(AllowedOrigins(texts))
    }

    /// Returns whether a page of this origin may connect. `host` is the `Host` of its request, and
    /// `is_secure` whether the connection itself is under TLS. `names` are the names of this server: without
    /// `has_token`, a page counts as one of the same origin only at these, at `localhost` and at addresses,
    /// because the name in `Host` can be one of the attacker that resolves to this server.
    pub(crate) fn allow(
        &self,
        origin: &str,
        host: &str,
        is_secure: bool,
        has_token: bool,
        names: &[&str],
    ) -> bool {
        let Some(parsed) = Origin::parse(origin) else {
            return origin == "null" && self.0.iter().any(|allowed| allowed == "null");
        };
        let is_listed = self.0.iter().filter_map(|allowed| Origin::parse(allowed)).any(|allowed| {
            allowed.scheme.eq_ignore_ascii_case(parsed.scheme) && allowed.authority == parsed.authority
        });
        // a proxy in front can have TLS, so https is the same origin; http is not if we have TLS ourselves
        let scheme_fits = !is_secure || parsed.scheme.eq_ignore_ascii_case("https");
        let is_same = scheme_fits && with_port(host, parsed.scheme) == parsed.authority;
        is_listed || is_same && (has_token || is_own_name(host_of(&parsed.authority), names))
    }
}

/// Returns whether nobody else can make this host name resolve to this server.
fn is_own_name(host: &str, names: &[&str]) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    address.parse::<IpAddr>().is_ok()
        || host == "localhost"
        || names.iter().any(|name| name.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_origin_and_listed_ones_are_allowed() {
        let allowed =
            AllowedOrigins::new(vec!["https://Panel.plant:8443".into(), "http://dev".into()]).unwrap();
        for (origin, host, is_secure, expected) in [
            ("http://127.0.0.1:8080", "127.0.0.1:8080", false, true),
            ("https://127.0.0.1:8080", "127.0.0.1:8080", false, true),
            ("https://127.0.0.1:8080", "127.0.0.1:8080", true, true),
            ("http://127.0.0.1:8080", "127.0.0.1:8080", true, false),
            ("http://127.0.0.1:8081", "127.0.0.1:8080", false, false),
            ("http://127.0.0.2:8080", "127.0.0.1:8080", false, false),
            ("http://bus.plant", "bus.plant", false, true),
            ("http://bus.plant", "bus.plant:80", false, true),
            ("https://bus.plant", "bus.plant:443", false, true),
            ("https://bus.plant", "bus.plant:80", false, false),
            ("https://BUS.plant", "bus.PLANT", false, true),
            ("http://[::1]:8080", "[::1]:8080", false, true),
            ("http://[::1]", "[::1]", false, true),
            ("https://panel.plant:8443", "bus.plant", true, true),
            ("http://panel.plant:8443", "bus.plant", false, false),
            ("http://dev:80", "bus.plant", false, true),
            ("https://evil.example", "bus.plant", false, false),
            ("https://bus.plant.evil.example", "bus.plant", false, false),
            ("https://bus.plant@evil.example", "evil.example", false, false),
            ("file://", "", false, false),
            ("null", "bus.plant", false, false),
            ("", "", false, false),
            ("bus.plant", "bus.plant", false, false),
            ("http://", "", false, false),
        ] {
            assert_eq!(
                allowed.allow(origin, host, is_secure, true, &[]),
                expected,
                "{origin} at {host}, TLS {is_secure}"
            );
        }
        let null = AllowedOrigins::new(vec!["null".into()]).unwrap();
        assert!(null.allow("null", "x", false, true, &[]));
        for text in ["*", "https://*.plant", "panel.plant", "ftp://x", "https://x/path", "https://"] {
            let error = AllowedOrigins::new(vec![text.into()]).unwrap_err();
            assert!(error.to_string().starts_with("allowed_origins[0]: "), "{error}");
        }
    }

    #[test]
    fn a_name_of_an_attacker_that_resolves_to_the_server_is_no_same_origin_without_a_token() {
        let none = AllowedOrigins::default();
        let rebound = |host: &str, has_token, names: &[&str]| {
            none.allow(&format!("http://{host}"), host, false, has_token, names)
        };
        assert!(!rebound("evil.example:8080", false, &["bus.plant"]));
        assert!(rebound("evil.example:8080", true, &["bus.plant"]), "the token protects");
        for host in ["127.0.0.1:8080", "[::1]:8080", "localhost:8080", "Bus.plant", "bus.plant:8080"] {
            assert!(rebound(host, false, &["bus.plant"]), "{host}");
        }
    }
}
