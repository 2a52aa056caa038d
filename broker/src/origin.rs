//! Where a client comes from, as the broker keeps it for each of them: small, with the words that many have in common held
//! once.

use elbus_plugin_api::{ClientInfo, Credentials, Locality};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use crate::sync::Mutex;

/// Words that are held once; more than so many are not in common.
const MAX_WORDS: usize = 64;

/// What a transport has said of a client, see [`ClientInfo`].
#[derive(Debug, Clone, Default)]
pub(crate) struct Origin {
    pub(crate) kind: Arc<str>,
    pub(crate) source: Option<Box<str>>,
    pub(crate) port: Option<Arc<str>>,
    pub(crate) credentials: Option<Credentials>,
    /// Held once for all clients of the unit.
    pub(crate) unit: Option<Arc<String>>,
    #[expect(clippy::box_collection, reason = "hardly anybody has any, and this is a third as long")]
    certificate_names: Option<Box<Vec<String>>>,
    /// `u32::MAX`: no limit.
    pub(crate) max_filters: u32,
    /// `u32::MAX`: no limit.
    pub(crate) max_filter_depth: u32,
    pub(crate) locality: Locality,
    pub(crate) internal: bool,
}

impl Origin {
    pub(crate) fn new(info: ClientInfo, words: &Words) -> Self {
        let ClientInfo {
            kind, locality, source, port, credentials, unit, certificate_names, internal, ..
        } = info;
        Origin {
            kind: words.share(&kind),
            source: source.map(String::into_boxed_str),
            port: port.map(|port| words.share(&port)),
            credentials,
            unit: unit.map(|unit| words.share_unit(unit)),
            certificate_names: (!certificate_names.is_empty()).then(|| Box::new(certificate_names)),
            max_filters: info.max_filters.unwrap_or(u32::MAX),
            max_filter_depth: info.max_filter_depth.unwrap_or(u32::MAX),
            locality,
            internal,
        }
    }

    /// Who is behind the connection.
    pub(crate) fn identity(&self) -> Identity<'_> {
        if !self.certificate_names().is_empty() {
            return Identity::Certificate(self.certificate_names());
        }
        if let Some(credentials) = self.credentials {
            return Identity::User(credentials.uid);
        }
        let Some(source) = self.source.as_deref() else { return Identity::Kind(self.locality, &self.kind) };
        let Ok(address) = source.parse::<SocketAddr>() else { return Identity::Source(source) };
        let scope = if let SocketAddr::V6(address) = address { address.scope_id() } else { 0 };
        match address.ip().to_canonical() {
            address if address.is_loopback() => Identity::Address(Ipv4Addr::LOCALHOST.into(), 0),
            address => Identity::Address(address, scope),
        }
    }

    /// The user of a process on this machine.
    pub(crate) fn uid(&self) -> Option<u32> {
        self.credentials.map(|credentials| credentials.uid)
    }

    /// The names of a verified certificate.
    pub(crate) fn certificate_names(&self) -> &[String] {
        self.certificate_names.as_deref().map_or(&[], |names| names.as_slice())
    }
}

/// Who is behind a connection: the strongest that is known of it. The same client has the same, whichever way it connects
/// a second time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Identity<'a> {
    /// The names of its certificate.
    Certificate(&'a [String]),
    /// The user it runs as.
    User(u32),
    /// Where it connects from, and in which scope where that is needed. This machine has one address, whichever of its
    /// loopback addresses is used.
    Address(IpAddr, u32),
    /// What a transport says instead of an address.
    Source(&'a str),
    /// Nothing is known but the kind of its connection.
    Kind(Locality, &'a str),
}

impl Identity<'_> {
    /// What it is, in a word.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Identity::Certificate(_) => "certificate",
            Identity::User(_) => "user",
            Identity::Address(..) | Identity::Source(_) => "address",
            Identity::Kind(..) => "kind of connection",
        }
    }
}

/// Words that clients have in common: kinds, and the addresses they came in by.
#[derive(Default)]
pub(crate) struct Words {
    words: Mutex<Vec<Arc<str>>>,
    /// As long as somebody is of them.
    units: Mutex<Vec<Arc<String>>>,
}

impl Words {
    fn share(&self, word: &str) -> Arc<str> {
        let mut words = self.words.lock();
        if let Some(known) = words.iter().find(|known| ***known == *word) {
            return known.clone();
        }
        let word: Arc<str> = word.into();
        if words.len() < MAX_WORDS {
            words.push(word.clone());
        }
        word
    }

    fn share_unit(&self, unit: String) -> Arc<String> {
        let mut units = self.units.lock();
        if let Some(known) = units.iter().find(|known| ***known == *unit) {
            return known.clone();
        }
        let unit = Arc::new(unit);
        if units.len() >= MAX_WORDS {
            units.retain(|known| Arc::strong_count(known) > 1);
        }
        if units.len() < MAX_WORDS {
            units.push(unit.clone());
        }
        unit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_the_strongest_that_is_known() {
        let words = Words::default();
        let from = |source: &str| ClientInfo { source: Some(source.to_owned()), ..ClientInfo::default() };
        let of_user =
            |info, uid| ClientInfo { credentials: Some(Credentials { pid: 1, uid, gid: 2 }), ..info };
        let certified = |info, name: &str| ClientInfo { certificate_names: vec![name.to_owned()], ..info };
        let kind = |kind: &str| ClientInfo { kind: kind.to_owned(), ..ClientInfo::default() };
        for (one, other, same) in [
            (from("10.0.0.1:1"), from("10.0.0.1:2"), true),
            (from("10.0.0.1:1"), from("[::ffff:10.0.0.1]:2"), true),
            (from("10.0.0.1:1"), from("10.0.0.2:1"), false),
            (from("127.0.0.1:1"), from("[::1]:2"), true),
            (from("[fe80::1%3]:1"), from("[fe80::1%4]:1"), false),
            (from("somewhere"), from("somewhere"), true),
            (from("somewhere"), from("elsewhere"), false),
            (of_user(from("10.0.0.1:1"), 7), of_user(from("10.0.0.2:1"), 7), true),
            (of_user(from("10.0.0.1:1"), 7), of_user(from("10.0.0.1:1"), 8), false),
            (of_user(from("10.0.0.1:1"), 7), from("10.0.0.1:1"), false),
            (certified(from("10.0.0.1:1"), "a"), certified(from("10.0.0.2:1"), "a"), true),
            (certified(from("10.0.0.1:1"), "a"), certified(from("10.0.0.1:1"), "b"), false),
            (certified(from("10.0.0.1:1"), "a"), from("10.0.0.1:1"), false),
            (kind("internal"), kind("internal"), true),
            (kind("internal"), kind("local_ipc"), false),
            (kind("internal"), of_user(kind("internal"), 0), false),
        ] {
            let (one, other) = (Origin::new(one, &words), Origin::new(other, &words));
            assert_eq!(one.identity() == other.identity(), same, "{one:?} {other:?}");
            assert_eq!(one.identity(), one.identity());
        }
    }

    #[test]
    fn common_words_are_held_once_and_not_without_end() {
        let words = Words::default();
        let info = |port: usize| ClientInfo { port: Some(port.to_string()), ..ClientInfo::default() };
        let (first, second) = (Origin::new(info(1), &words), Origin::new(info(1), &words));
        assert!(Arc::ptr_eq(&first.port.unwrap(), &second.port.unwrap()));
        (0..1000)
            .for_each(|port| assert_eq!(Origin::new(info(port), &words).port.unwrap().parse(), Ok(port)));
        assert_eq!(words.words.lock().len(), MAX_WORDS);
        let of_unit = |number: usize| ClientInfo { unit: Some(number.to_string()), ..ClientInfo::default() };
        let (first, second) = (Origin::new(of_unit(1), &words), Origin::new(of_unit(1), &words));
        assert!(Arc::ptr_eq(&first.unit.unwrap(), &second.unit.unwrap()));
        let many: Vec<_> = (0..1000).map(|number| Origin::new(of_unit(number), &words)).collect();
        assert_eq!(words.units.lock().len(), MAX_WORDS);
        drop(many);
        drop(Origin::new(of_unit(5000), &words));
        assert_eq!(words.units.lock().len(), 1, "those nobody is of are forgotten");
        assert!(size_of::<Origin>() <= 96, "there is one for each client: {}", size_of::<Origin>());
    }
}
