//! How long a client waits for the broker, and what it says when that has passed or the connection has ended.

use std::time::Duration;

use crate::BoxError;

/// A broker that neither reads nor writes for this long has lost a message.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(20);

pub(super) fn closed() -> BoxError {
    "the broker closed the connection".into()
}

pub(super) fn timed_out(action: &str, consequence: &str) -> BoxError {
    format!("the broker {action} nothing for {} s: {consequence}", TIMEOUT.as_secs()).into()
}
