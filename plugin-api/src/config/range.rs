//! Checks of values that a table may contain only within a range, with one text for the error.

use std::{
    fmt::Display,
    ops::{Bound, RangeBounds},
    time::Duration,
};

use crate::plugin_error::PluginError;

/// Checks that the value of a key is within a range.
///
/// # Errors
/// The key, the value and the range.
///
/// # Examples
/// ```
/// use elbus_plugin_api::config::check_range;
///
/// assert_eq!(check_range("workers", 4, 1..=64), Ok(()));
/// let error = check_range("workers", 0, 1..=64).unwrap_err();
/// assert_eq!(error.to_string(), "workers: 0 is not between 1 and 64");
/// ```
pub fn check_range<T: PartialOrd + Display>(
    key: &str,
    value: T,
    range: impl RangeBounds<T>,
) -> Result<(), PluginError> {
    if range.contains(&value) {
        return Ok(());
    }
    let least = match range.start_bound() {
        Bound::Included(least) => Some(format!("at least {least}")),
        Bound::Excluded(least) => Some(format!("above {least}")),
        Bound::Unbounded => None,
    };
    let most = match range.end_bound() {
        Bound::Included(most) => Some(format!("at most {most}")),
        Bound::Excluded(most) => Some(format!("below {most}")),
        Bound::Unbounded => None,
    };
    let expected = match (range.start_bound(), range.end_bound()) {
        (Bound::Included(least), Bound::Included(most)) => format!("between {least} and {most}"),
        _ => least.into_iter().chain(most).collect::<Vec<_>>().join(" and "),
    };
    Err(PluginError::of_key(key, format!("{value} is not {expected}")))
}

/// Converts a number of seconds. What is no time, such as a negative number, is the longest time;
/// [`check_range`] refuses it before.
///
/// # Examples
/// ```
/// use elbus_plugin_api::config::seconds;
/// use std::time::Duration;
///
/// assert_eq!(seconds(0.5), Duration::from_millis(500));
/// ```
pub fn seconds(value: f64) -> Duration {
    Duration::try_from_secs_f64(value).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_key_value_and_range() {
        let text = |result: Result<(), PluginError>| result.unwrap_err().to_string();
        assert_eq!(text(check_range("a", 0, 1..=5)), "a: 0 is not between 1 and 5");
        assert_eq!(text(check_range("a", 0, 1..)), "a: 0 is not at least 1");
        assert_eq!(text(check_range("a", 6, ..=5)), "a: 6 is not at most 5");
        assert_eq!(text(check_range("a", 5, 1..5)), "a: 5 is not at least 1 and below 5");
        let open = (Bound::Excluded(0.0), Bound::Included(5.0));
        assert_eq!(text(check_range("a", 0.0, open)), "a: 0 is not above 0 and at most 5");
        assert_eq!(text(check_range("a", f64::NAN, 0.05..=5.0)), "a: NaN is not between 0.05 and 5");
        assert_eq!(check_range("a", 5, 1..=5), Ok(()));
    }

    #[test]
    fn what_is_no_time_is_the_longest() {
        assert_eq!([seconds(-1.0), seconds(f64::NAN), seconds(1e300)], [Duration::MAX; 3]);
        assert_eq!(seconds(0.0), Duration::ZERO);
    }
}
