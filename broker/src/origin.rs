//! Where a client comes from, as the broker keeps it for each of them: small, with the words that many have in common held
//! once.

use elbus_plugin_api::{ClientInfo, Credentials, Locality};
use std::sync::Arc;

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
        let ClientInfo { kind, locality, source, port, credentials, certificate_names, internal, .. } = info;
        Origin {
            kind: words.share(&kind),
            source: source.map(String::into_boxed_str),
            port: port.map(|port| words.share(&port)),
            credentials,
            certificate_names: (!certificate_names.is_empty()).then(|| Box::new(certificate_names)),
            max_filters: info.max_filters.unwrap_or(u32::MAX),
            max_filter_depth: info.max_filter_depth.unwrap_or(u32::MAX),
            locality,
            internal,
        }
    }

    /// The names of a verified certificate.
    pub(crate) fn certificate_names(&self) -> &[String] {
        self.certificate_names.as_deref().map_or(&[], |names| names.as_slice())
    }
}

/// Words that clients have in common: kinds, and the addresses they came in by.
#[derive(Default)]
pub(crate) struct Words(Mutex<Vec<Arc<str>>>);

impl Words {
    fn share(&self, word: &str) -> Arc<str> {
        let mut words = self.0.lock();
        if let Some(known) = words.iter().find(|known| ***known == *word) {
            return known.clone();
        }
        let word: Arc<str> = word.into();
        if words.len() < MAX_WORDS {
            words.push(word.clone());
        }
        word
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_words_are_held_once_and_not_without_end() {
        let words = Words::default();
        let info = |port: usize| ClientInfo { port: Some(port.to_string()), ..ClientInfo::default() };
        let (first, second) = (Origin::new(info(1), &words), Origin::new(info(1), &words));
        assert!(Arc::ptr_eq(&first.port.unwrap(), &second.port.unwrap()));
        (0..1000)
            .for_each(|port| assert_eq!(Origin::new(info(port), &words).port.unwrap().parse(), Ok(port)));
        assert_eq!(words.0.lock().len(), MAX_WORDS);
        assert!(size_of::<Origin>() <= 96, "there is one for each client: {}", size_of::<Origin>());
    }
}
