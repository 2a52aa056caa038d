//! The address of a client behind reverse proxies, from `X-Forwarded-For`. Only proxies that the operator has
//! listed are believed. Owns the key `trusted_proxies`; reads no request.

use elbus_plugin_api::PluginError;
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};

/// The networks of proxies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    /// # Errors
    /// The first text that is neither an address nor a network.
    pub(crate) fn new(texts: &[String]) -> Result<Self, PluginError> {
        let network = |(index, text): (usize, &String)| {
            let alone = || text.parse::<IpAddr>().map(IpNet::from);
            text.parse::<IpNet>().or_else(|_| alone()).map_err(|_| {
                let message = format!(
                    "{text:?} is not an address or a network, such as \"10.0.0.5\" or \"10.0.0.0/8\""
                );
                PluginError::of_key(format!("trusted_proxies[{index}]"), message)
            })
        };
        texts.iter().enumerate().map(network).collect::<Result<_, _>>().map(TrustedProxies)
    }

    pub(crate) fn contain(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// Returns the address of the client: the last one in the list that is none of a proxy. Each proxy
    /// appends the address that it was connected from, so what stands before that can be forged. Its port is
    /// 0 unless the proxy has added it.
    ///
    /// # Errors
    /// A proxy has passed on a text that is no address.
    pub(crate) fn client_of(&self, peer: SocketAddr, forwarded_for: &[String]) -> Result<SocketAddr, String> {
        let mut client = peer;
        for text in forwarded_for.iter().rev() {
            if !self.contain(client.ip()) {
                break;
            }
            client = parse(text).ok_or_else(|| {
                let text: String = text.chars().take(64).collect();
                format!("{text:?} in X-Forwarded-For is not an address")
            })?;
        }
        Ok(client)
    }
}

fn parse(text: &str) -> Option<SocketAddr> {
    let with_port = || text.parse::<SocketAddr>().ok();
    let in_brackets = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let alone = in_brackets.unwrap_or(text).parse::<IpAddr>().ok();
    let address = alone.map(|address| SocketAddr::new(address, 0)).or_else(with_port)?;
    Some(SocketAddr::new(address.ip().to_canonical(), address.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_trusted_proxies_have_added_is_believed() {
        let proxies = TrustedProxies::new(&["127.0.0.1".into(), "10.0.0.0/8".into(), "::1".into()]).unwrap();
        let client = |peer: &str, list: &[&str]| {
            let list: Vec<_> = list.iter().map(|text| (*text).to_owned()).collect();
            proxies.client_of(peer.parse().unwrap(), &list).map(|client| client.to_string())
        };
        for (peer, list, expected) in [
            ("127.0.0.1:5", &[][..], "127.0.0.1:5"),
            ("127.0.0.1:5", &["203.0.113.9"], "203.0.113.9:0"),
            ("[::ffff:127.0.0.1]:5", &["203.0.113.9"], "203.0.113.9:0"),
            ("127.0.0.1:5", &["203.0.113.9:77"], "203.0.113.9:77"),
            ("127.0.0.1:5", &["2001:db8::1"], "[2001:db8::1]:0"),
            ("127.0.0.1:5", &["[2001:db8::1]"], "[2001:db8::1]:0"),
            ("127.0.0.1:5", &["[2001:db8::1]:7"], "[2001:db8::1]:7"),
            // what the client itself has sent stands before what the proxy has appended
            ("127.0.0.1:5", &["127.0.0.1", "203.0.113.9"], "203.0.113.9:0"),
            ("127.0.0.1:5", &["nonsense", "203.0.113.9"], "203.0.113.9:0"),
            ("127.0.0.1:5", &["203.0.113.9", "10.1.2.3"], "203.0.113.9:0"),
            ("127.0.0.1:5", &["10.1.2.3", "10.1.2.4"], "10.1.2.3:0"),
            // peers that are no proxies
            ("192.0.2.1:5", &["127.0.0.1"], "192.0.2.1:5"),
            ("127.0.0.2:5", &["203.0.113.9"], "127.0.0.2:5"),
        ] {
            assert_eq!(client(peer, list).unwrap(), expected, "{peer} {list:?}");
        }
        assert!(client("127.0.0.1:5", &["unknown"]).unwrap_err().contains("\"unknown\""));
        let error = TrustedProxies::new(&["proxy.plant".into()]).unwrap_err().to_string();
        assert!(error.starts_with("trusted_proxies[0]: \"proxy.plant\" is not an address"), "{error}");
    }
}
