//! A limit, as configuration tables spell it and as it crosses the boundary: a number, or none.

use abi_stable::StableAbi;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, Unexpected, Visitor},
};
use std::fmt;

/// A limit, or none. The stricter of two limits is their minimum.
///
/// In a table it is a whole number of at least 1, and a missing key is no limit.
///
/// # Examples
/// ```
/// use elbus_plugin_api::{Config, config::Limit};
///
/// #[derive(serde::Deserialize)]
/// #[serde(default)]
/// #[derive(Default)]
/// struct Settings {
///     max_topics: Limit,
///     max_readers: Limit,
/// }
///
/// let settings: Settings = Config::parse("max_topics = 100").unwrap().read().unwrap();
/// assert_eq!(settings.max_topics.get(), Some(100));
/// assert!(settings.max_readers.is_none());
/// assert_eq!(settings.max_readers.min(Limit::new(5)), Limit::new(5));
/// ```
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Limit(u64);

impl Limit {
    /// No limit.
    pub const NONE: Limit = Limit(u64::MAX);

    /// Creates a limit; `u64::MAX` is none.
    pub const fn new(limit: u64) -> Self {
        Limit(limit)
    }

    /// Returns the limit.
    pub const fn get(self) -> Option<u64> {
        if self.is_none() { None } else { Some(self.0) }
    }

    /// Whether there is no limit.
    pub const fn is_none(&self) -> bool {
        self.0 == u64::MAX
    }

    /// Returns the limit as a number that nothing exceeds if there is none.
    pub const fn or_max(self) -> u64 {
        self.0
    }

    /// As [`or_max`](Self::or_max), for a number of things in memory.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl Default for Limit {
    fn default() -> Self {
        Limit::NONE
    }
}

impl fmt::Debug for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Limit").field(&self.get()).finish()
    }
}

impl Serialize for Limit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.get().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_u64(LimitVisitor)
    }
}

struct LimitVisitor;

impl Visitor<'_> for LimitVisitor {
    type Value = Limit;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number of at least 1")
    }

    fn visit_u64<E: Error>(self, limit: u64) -> Result<Limit, E> {
        match limit {
            0 => Err(E::custom("0 is not at least 1; without the key there is no limit")),
            limit => Ok(Limit(limit)),
        }
    }

    fn visit_i64<E: Error>(self, limit: i64) -> Result<Limit, E> {
        match u64::try_from(limit) {
            Ok(limit) => self.visit_u64(limit),
            Err(_) => Err(E::invalid_value(Unexpected::Signed(limit), &self)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
    #[serde(default)]
    struct Settings {
        #[serde(skip_serializing_if = "Limit::is_none")]
        max_topics: Limit,
    }

    #[test]
    fn a_limit_is_a_number_of_at_least_one_or_a_missing_key() {
        let read = |text: &str| Config::parse(text).unwrap().read::<Settings>();
        assert_eq!(read("").unwrap().max_topics, Limit::NONE);
        assert_eq!(read("max_topics = 1").unwrap().max_topics.get(), Some(1));
        for (text, message) in [
            ("max_topics = 0", "0 is not at least 1; without the key there is no limit"),
            ("max_topics = -5", "expected a whole number of at least 1, found integer -5"),
            ("max_topics = 1.5", "expected a whole number of at least 1, found floating point 1.5"),
            ("max_topics = 'no'", "expected a whole number of at least 1, found string \"no\""),
        ] {
            let error = read(text).unwrap_err();
            assert_eq!((&*error.key, &*error.message), ("max_topics", message));
        }
        for limit in [Limit::new(7), Limit::NONE] {
            let settings = Settings { max_topics: limit };
            assert_eq!(toml::from_str::<Settings>(&toml::to_string(&settings).unwrap()).unwrap(), settings);
        }
    }

    #[test]
    fn the_stricter_limit_is_the_minimum() {
        let (five, none) = (Limit::new(5), Limit::NONE);
        assert_eq!((five.min(none), none.min(five), none.min(none)), (five, five, none));
        assert_eq!(five.min(Limit::new(3)).get(), Some(3));
        assert_eq!((five.as_usize(), none.as_usize()), (5, usize::MAX));
        assert_eq!(format!("{five:?} {none:?}"), "Limit(Some(5)) Limit(None)");
    }
}
