//! Options of subscriptions: shared work, newest values, and consumers that miss publications instead of
//! holding their publishers. Owns their composition; the protocol crate owns their syntax.

use elbus_protocol::subscription::{DeliveryMode, Sharing, Subscription, SubscriptionError};
use std::{borrow::Cow, time::Duration};

use super::filters::Filters;
use crate::error::Error;

/// Options of topic filters; [`of`](Self::of) adds the filters. For every function that takes [`Filters`].
///
/// The broker delivers a publication to a client once, whichever of its filters match. So a
/// [`Subscription`](crate::Subscription) can get more than its options ask for, if another filter of the
/// client matches the same topic: with [`latest`](Self::latest) beside a filter without options it gets all
/// publications. What the client gets by a filter without a group is not passed to its subscriptions with
/// one, because other members of the group get it too; while such a filter is being added or removed, it can
/// be. [Secondary](crate::Client::secondary) clients keep subscriptions apart.
///
/// If a client uses options, it asks the broker once for each connection which of them it knows, and refuses
/// others with [`Error::NotSupported`]: a broker without them would take `$latest/a` for an ordinary topic.
/// Filters that are restored with the next connection are not checked again. Filters that are written with
/// their options, such as `"$latest/a"`, are not checked either.
///
/// What the broker drops because of [`latest`](Self::latest), [`every`](Self::every) or
/// [`lossy`](Self::lossy), it reports to the client, at most once a second for each filter. It is counted by
/// [`Subscription::missed`](crate::Subscription::missed) at once, and by
/// [`Frame::missed`](crate::Frame::missed) of the next publication that arrives. If the access rules do not
/// allow the client to subscribe to `.broker/missed`, this count stays zero.
///
/// ```no_run
/// # async fn example(client: elbus_client::Client) -> Result<(), elbus_client::Error> {
/// use elbus_client::Options;
/// use std::time::Duration;
/// let mut values = client.subscribe(Options::latest().of("sensors/#")).await?;
/// let mut trend = client.subscribe(Options::every(Duration::from_secs(1)).of("power/+")).await?;
/// let mut jobs = client.subscribe(Options::share("workers").of(["paint/#", "drill/#"])).await?;
/// while let Some(value) = values.next().await {
///     println!("{} values missed, then {value:?}", value.missed());
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "it has no effect before filters are added with `of`"]
pub struct Options {
    sharing: OwnedSharing,
    mode: DeliveryMode,
}

/// As [`Sharing`], with the text of the group.
#[derive(Debug, Clone, PartialEq, Eq)]
enum OwnedSharing {
    None,
    Share { group: String },
    Key { group: String, levels: u8 },
}

/// Options of topic filters whose publications are shared by a group; from [`Options::share`] and
/// [`Options::key`]. Can be followed by one further option.
///
/// ```
/// use elbus_client::{Filters, Options};
/// let filters = Options::share("workers").latest().of("jobs/#");
/// assert_eq!(*filters.as_filters(), ["$share/workers/$latest/jobs/#"]);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "it has no effect before filters are added with `of`"]
pub struct SharedOptions {
    sharing: OwnedSharing,
}

/// Topic filters with options; from [`Options::of`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "pass it to a function that takes filters"]
pub struct OptionedFilters {
    texts: Vec<String>,
    /// What the broker must know.
    features: Vec<&'static str>,
    /// The first malformed filter, and what is wrong with it.
    malformed: Option<(String, SubscriptionError)>,
}

impl Options {
    /// The newest publication of each topic: while the client is slow, a newer one replaces the pending one.
    /// Never holds a publisher. Order holds for each topic, not between topics.
    pub fn latest() -> Self {
        Options { sharing: OwnedSharing::None, mode: DeliveryMode::Latest }
    }

    /// At most one publication of each topic in an interval, the newest; the last one always arrives. Never
    /// holds a publisher. The interval is rounded up to milliseconds, and at most a day.
    pub fn every(interval: Duration) -> Self {
        Options { sharing: OwnedSharing::None, mode: DeliveryMode::Every { millis: millis(interval) } }
    }

    /// What the client's queue at the broker has room for; the rest is dropped. Never holds a publisher.
    pub fn lossy() -> Self {
        Options { sharing: OwnedSharing::None, mode: DeliveryMode::Lossy }
    }

    /// Each publication goes to one client of the group. A group has 1 to 255 bytes, and no `/`, `+` or `#`.
    pub fn share(group: impl Into<String>) -> SharedOptions {
        SharedOptions { sharing: OwnedSharing::Share { group: group.into() } }
    }

    /// Publications whose topics have the same first `levels` segments, 1 to 32, go to the same client of the
    /// group.
    pub fn key(group: impl Into<String>, levels: u8) -> SharedOptions {
        SharedOptions { sharing: OwnedSharing::Key { group: group.into(), levels } }
    }

    /// Adds the filters. If the options or one of the filters are malformed, the function that the result is
    /// passed to fails with [`Error::BadOptions`] and sends nothing.
    ///
    /// ```
    /// use elbus_client::{Filters, Options};
    /// assert_eq!(*Options::latest().of("a/+").as_filters(), ["$latest/a/+"]);
    /// assert_eq!(*Options::lossy().of(["a", "b"]).as_filters(), ["$lossy/a", "$lossy/b"]);
    /// // in one subscription with a filter without options
    /// assert_eq!(*("alarm", Options::lossy().of("log")).as_filters(), ["alarm", "$lossy/log"]);
    /// ```
    pub fn of(self, filters: impl Filters) -> OptionedFilters {
        let sharing = match &self.sharing {
            OwnedSharing::None => Sharing::None,
            OwnedSharing::Share { group } => Sharing::Share { group },
            OwnedSharing::Key { group, levels } => Sharing::Key { group, levels: *levels },
        };
        let mut malformed = None;
        let filters = filters.as_filters();
        let texts = filters.iter().map(|filter| {
            let wanted = Subscription { sharing, mode: self.mode, filter };
            let text = wanted.to_string();
            let found = match Subscription::parse(&text) {
                Ok(parsed) if parsed == wanted => None,
                // the group contains a slash
                Ok(_) => Some(SubscriptionError::Group),
                Err(error) => Some(error),
            };
            if let Some(error) = found {
                malformed.get_or_insert((text.clone(), error));
            }
            text
        });
        let texts = texts.collect();
        OptionedFilters { texts, features: self.features(), malformed }
    }

    /// Returns the names that the broker's method `features` has for the options.
    fn features(&self) -> Vec<&'static str> {
        let sharing = match self.sharing {
            OwnedSharing::None => None,
            OwnedSharing::Share { .. } => Some("share"),
            OwnedSharing::Key { .. } => Some("key"),
        };
        let mode = match self.mode {
            DeliveryMode::Queued => None,
            DeliveryMode::Lossy => Some("lossy"),
            DeliveryMode::Latest => Some("latest"),
            DeliveryMode::Every { .. } => Some("every"),
        };
        sharing.into_iter().chain(mode).collect()
    }
}

impl SharedOptions {
    /// As [`Options::latest`], of the publications that the client is chosen for.
    pub fn latest(self) -> Options {
        self.with(DeliveryMode::Latest)
    }

    /// As [`Options::every`], of the publications that the client is chosen for.
    pub fn every(self, interval: Duration) -> Options {
        self.with(DeliveryMode::Every { millis: millis(interval) })
    }

    /// As [`Options::lossy`], of the publications that the client is chosen for.
    pub fn lossy(self) -> Options {
        self.with(DeliveryMode::Lossy)
    }

    /// Adds the filters; see [`Options::of`].
    pub fn of(self, filters: impl Filters) -> OptionedFilters {
        Options::from(self).of(filters)
    }

    fn with(self, mode: DeliveryMode) -> Options {
        Options { sharing: self.sharing, mode }
    }
}

impl From<SharedOptions> for Options {
    fn from(shared: SharedOptions) -> Self {
        shared.with(DeliveryMode::Queued)
    }
}

/// Returns an interval in milliseconds, rounded up; one that is too long becomes an invalid number.
fn millis(interval: Duration) -> u32 {
    u32::try_from(interval.as_nanos().div_ceil(1_000_000)).unwrap_or(u32::MAX)
}

impl Filters for OptionedFilters {
    fn as_filters(&self) -> Cow<'_, [&str]> {
        Cow::Owned(self.texts.iter().map(String::as_str).collect())
    }

    fn required_features(&self) -> Result<Cow<'_, [&'static str]>, Error> {
        match &self.malformed {
            Some((filter, reason)) => Err(Error::BadOptions { filter: filter.clone(), reason: *reason }),
            None => Ok(Cow::Borrowed(&self.features)),
        }
    }
}

impl Filters for &OptionedFilters {
    fn as_filters(&self) -> Cow<'_, [&str]> {
        (**self).as_filters()
    }

    fn required_features(&self) -> Result<Cow<'_, [&'static str]>, Error> {
        (**self).required_features()
    }
}

/// The filters of both.
impl<A: Filters, B: Filters> Filters for (A, B) {
    fn as_filters(&self) -> Cow<'_, [&str]> {
        Cow::Owned([self.0.as_filters(), self.1.as_filters()].concat())
    }

    fn required_features(&self) -> Result<Cow<'_, [&'static str]>, Error> {
        Ok(Cow::Owned([self.0.required_features()?, self.1.required_features()?].concat()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(filters: &OptionedFilters) -> Option<SubscriptionError> {
        match filters.required_features() {
            Err(Error::BadOptions { reason, .. }) => Some(reason),
            _ => None,
        }
    }

    #[test]
    fn options_stand_in_front_of_each_filter() {
        let second = Duration::from_secs(1);
        for (filters, texts, features) in [
            (Options::share("g").of("a/#"), vec!["$share/g/a/#"], vec!["share"]),
            (
                Options::key("g", 2).every(second).of(["a"]),
                vec!["$key/g/2/$every/1000/a"],
                vec!["key", "every"],
            ),
            (
                Options::share("g").lossy().of(vec!["a", "b"]),
                vec!["$share/g/$lossy/a", "$share/g/$lossy/b"],
                vec!["share", "lossy"],
            ),
            (Options::every(Duration::from_micros(1)).of("a"), vec!["$every/1/a"], vec!["every"]),
        ] {
            assert_eq!(*filters.as_filters(), texts);
            assert_eq!(*filters.required_features().unwrap(), features);
        }
        assert_eq!(*("plain", Options::latest().of("a")).required_features().unwrap(), ["latest"]);
    }

    #[test]
    fn malformed_options_are_errors() {
        let group = Some(SubscriptionError::Group);
        for wrong in ["", "a/b", "a/$latest", "+", "#", "\0", &"g".repeat(256)] {
            assert_eq!(reason(&Options::share(wrong).of("a")), group, "{wrong:?}");
        }
        for levels in [0, 33] {
            assert_eq!(reason(&Options::key("g", levels).of("a")), Some(SubscriptionError::Levels));
        }
        for interval in [Duration::ZERO, Duration::from_secs(86_401), Duration::MAX] {
            assert_eq!(reason(&Options::every(interval).of("a")), Some(SubscriptionError::Interval));
        }
        assert_eq!(reason(&Options::latest().of("")), Some(SubscriptionError::NoFilter));
        assert_eq!(reason(&Options::latest().of(["a", "$lossy/a"])), Some(SubscriptionError::Order));
        assert_eq!(
            reason(&Options::latest().of(Options::share("g").of("a"))),
            Some(SubscriptionError::Order)
        );
        assert!(("a", Options::latest().of("")).required_features().is_err());
    }
}
