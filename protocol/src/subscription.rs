//! Subscriptions: a topic filter, and the options in front of it (section 6). Owns their syntax; never
//! matches a topic.

use crate::Code;
use std::fmt;

/// Maximum length of the name of a group, in bytes.
pub const MAX_GROUP_BYTES: usize = 255;
/// Maximum number of topic levels by which `$key` distributes.
pub const MAX_KEY_LEVELS: u8 = 32;
/// Maximum interval of `$every`, in milliseconds: a day.
pub const MAX_INTERVAL_MS: u32 = 86_400_000;

/// First segments that begin an option.
const OPTIONS: [&str; 5] = ["$share", "$key", "$latest", "$every", "$lossy"];

/// Which clients share the publications of a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Sharing<'f> {
    /// Nobody: the client gets all of them.
    #[default]
    None,
    /// `$share/GROUP/`: each publication goes to one member of the group.
    Share {
        /// The name of the group.
        group: &'f str,
    },
    /// `$key/GROUP/N/`: publications whose first levels are equal go to the same member of the group.
    Key {
        /// The name of the group.
        group: &'f str,
        /// How many levels of the topic are compared, 1 to [`MAX_KEY_LEVELS`].
        levels: u8,
    },
}

/// What happens to publications that the client does not take at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum DeliveryMode {
    /// They are queued, and hold their publishers if the queue is over its limit.
    #[default]
    Queued,
    /// `$lossy/`: they are dropped if the queue is over its limit.
    Lossy,
    /// `$latest/`: a newer publication replaces the pending one of the same topic.
    Latest,
    /// `$every/MS/`: at most one for each topic in an interval, the newest.
    Every {
        /// The interval, 1 to [`MAX_INTERVAL_MS`].
        millis: u32,
    },
}

/// A filter with its options, as SUBSCRIBE and UNSUBSCRIBE have it.
///
/// Each subscription has one spelling: `$share` or `$key` come before the other options, and numbers have no
/// leading zeros.
///
/// ```
/// use elbus_protocol::subscription::{DeliveryMode, Sharing, Subscription};
///
/// let parsed = Subscription::parse("$share/workers/$latest/jobs/#")?;
/// assert_eq!(parsed.sharing, Sharing::Share { group: "workers" });
/// assert_eq!((parsed.mode, parsed.filter), (DeliveryMode::Latest, "jobs/#"));
/// assert_eq!(parsed.options_len(), "$share/workers/$latest/".len());
/// assert_eq!(parsed.to_string(), "$share/workers/$latest/jobs/#");
///
/// assert!(Subscription::parse("$latest/$share/workers/jobs/#").is_err());
/// # Ok::<(), elbus_protocol::subscription::SubscriptionError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subscription<'f> {
    /// Who shares the publications.
    pub sharing: Sharing<'f>,
    /// How they are delivered.
    pub mode: DeliveryMode,
    /// The topic filter, without options.
    pub filter: &'f str,
}

/// Why a filter with options is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SubscriptionError {
    /// The name of the group is empty, too long, or has a wildcard.
    Group,
    /// The number of levels is not one of 1 to [`MAX_KEY_LEVELS`].
    Levels,
    /// The interval is not one of 1 to [`MAX_INTERVAL_MS`].
    Interval,
    /// An option is repeated, excludes an earlier one, or comes too late.
    Order,
    /// No filter follows the options.
    NoFilter,
}

impl SubscriptionError {
    /// Returns the broker's answer to such a filter: 72.
    pub fn code(&self) -> Code {
        Code::BadData
    }
}

impl fmt::Display for SubscriptionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SubscriptionError::Group => {
                write!(f, "the group must have 1 to {MAX_GROUP_BYTES} bytes and no wildcards")
            }
            SubscriptionError::Levels => write!(f, "the number of levels must be 1 to {MAX_KEY_LEVELS}"),
            SubscriptionError::Interval => {
                write!(f, "the interval must be 1 to {MAX_INTERVAL_MS} milliseconds")
            }
            SubscriptionError::Order => f.write_str(
                "the options must be at most one of $share and $key, then at most one of $latest, $every \
                 and $lossy",
            ),
            SubscriptionError::NoFilter => f.write_str("the options have no filter behind them"),
        }
    }
}

impl std::error::Error for SubscriptionError {}

/// Returns whether a filter begins with an option, well-formed or not. No topic that does so can be published
/// to; all other topics that begin with `$` are ordinary ones.
#[inline]
pub fn has_options(text: &str) -> bool {
    text.starts_with('$') && begins_option(text)
}

#[cold]
fn begins_option(text: &str) -> bool {
    OPTIONS.contains(&split(text).0)
}

/// Returns the first segment, and what is behind it.
fn split(text: &str) -> (&str, Option<&str>) {
    text.split_once('/').map_or((text, None), |(first, rest)| (first, Some(rest)))
}

/// Returns the number that a segment has in its only spelling.
fn number(segment: &str, max: u32) -> Option<u32> {
    let is_plain = segment.bytes().all(|byte| byte.is_ascii_digit()) && !segment.starts_with('0');
    segment.parse().ok().filter(|number| is_plain && (1..=max).contains(number))
}

/// Returns the name of a group, and what is behind it.
fn group(text: Option<&str>) -> Result<(&str, Option<&str>), SubscriptionError> {
    let (group, rest) = split(text.unwrap_or_default());
    let is_valid = !group.is_empty() && group.len() <= MAX_GROUP_BYTES && !group.contains(['+', '#', '\0']);
    if is_valid { Ok((group, rest)) } else { Err(SubscriptionError::Group) }
}

impl<'f> Subscription<'f> {
    /// Returns the subscription to a filter without options.
    pub fn plain(filter: &'f str) -> Self {
        Subscription { sharing: Sharing::None, mode: DeliveryMode::Queued, filter }
    }

    /// Parses a filter, with or without options.
    ///
    /// # Errors
    /// The filter begins with an option and is malformed.
    #[inline]
    pub fn parse(text: &'f str) -> Result<Self, SubscriptionError> {
        if has_options(text) { Self::parse_options(text) } else { Ok(Self::plain(text)) }
    }

    fn parse_options(text: &'f str) -> Result<Self, SubscriptionError> {
        let mut parsed = Self::plain(text);
        let (first, rest) = split(text);
        let mut left = Some(text);
        match first {
            "$share" => {
                let (group, behind) = group(rest)?;
                parsed.sharing = Sharing::Share { group };
                left = behind;
            }
            "$key" => {
                let (group, behind) = group(rest)?;
                let (levels, behind) = split(behind.unwrap_or_default());
                let levels = number(levels, u32::from(MAX_KEY_LEVELS)).ok_or(SubscriptionError::Levels)?;
                parsed.sharing = Sharing::Key { group, levels: levels as u8 };
                left = behind;
            }
            _ => {}
        }
        let (first, rest) = split(left.ok_or(SubscriptionError::NoFilter)?);
        match first {
            "$lossy" => (parsed.mode, left) = (DeliveryMode::Lossy, rest),
            "$latest" => (parsed.mode, left) = (DeliveryMode::Latest, rest),
            "$every" => {
                let (millis, behind) = split(rest.unwrap_or_default());
                let millis = number(millis, MAX_INTERVAL_MS).ok_or(SubscriptionError::Interval)?;
                parsed.mode = DeliveryMode::Every { millis };
                left = behind;
            }
            _ => {}
        }
        match left {
            None | Some("") => Err(SubscriptionError::NoFilter),
            Some(filter) if has_options(filter) => Err(SubscriptionError::Order),
            Some(filter) => Ok(Subscription { filter, ..parsed }),
        }
    }

    /// Returns whether the subscription has neither sharing nor a mode.
    #[inline]
    pub fn is_plain(&self) -> bool {
        self.sharing == Sharing::None && self.mode == DeliveryMode::Queued
    }

    /// Returns the length of the options in front of the filter, their last `/` included; 0 if there are
    /// none.
    pub fn options_len(&self) -> usize {
        let mut counted = Counted(0);
        // a counter accepts everything
        _ = self.write_options(&mut counted);
        counted.0
    }

    /// Writes the options in front of the filter, their last `/` included.
    fn write_options(&self, out: &mut impl fmt::Write) -> fmt::Result {
        match self.sharing {
            Sharing::None => {}
            Sharing::Share { group } => write!(out, "$share/{group}/")?,
            Sharing::Key { group, levels } => write!(out, "$key/{group}/{levels}/")?,
        }
        match self.mode {
            DeliveryMode::Queued => Ok(()),
            DeliveryMode::Lossy => out.write_str("$lossy/"),
            DeliveryMode::Latest => out.write_str("$latest/"),
            DeliveryMode::Every { millis } => write!(out, "$every/{millis}/"),
        }
    }
}

impl fmt::Display for Subscription<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_options(f)?;
        f.write_str(self.filter)
    }
}

/// Counts the bytes that are written.
struct Counted(usize);

impl fmt::Write for Counted {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 += text.len();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_with_another_first_segment_has_no_options() {
        for text in ["", "$", "$SYS/x", "$shared/g/f", "$sharex", "a/$share/g/f", "/$latest/f", "share/g/f"] {
            assert!(!has_options(text), "{text:?}");
            assert_eq!(Subscription::parse(text), Ok(Subscription::plain(text)));
        }
        for text in ["$share", "$share/", "$key/x", "$latest", "$latest/f", "$every/f", "$lossy/f"] {
            assert!(has_options(text), "{text:?}");
        }
    }

    #[test]
    fn a_group_has_a_limit_in_bytes() {
        let longest = "é".repeat(127) + "x";
        let text = format!("$share/{longest}/f");
        assert_eq!(Subscription::parse(&text).unwrap().sharing, Sharing::Share { group: &longest });
        let text = format!("$share/{longest}y/f");
        assert_eq!(Subscription::parse(&text), Err(SubscriptionError::Group));
        let text = format!("$key/{}/1/f", "x".repeat(65_000));
        assert_eq!(Subscription::parse(&text), Err(SubscriptionError::Group));
    }

    #[test]
    fn every_error_has_a_code_and_a_sentence() {
        for error in [
            SubscriptionError::Group,
            SubscriptionError::Levels,
            SubscriptionError::Interval,
            SubscriptionError::Order,
            SubscriptionError::NoFilter,
        ] {
            assert_eq!(error.code(), Code::BadData);
            assert!(error.to_string().starts_with("the "));
        }
    }
}
