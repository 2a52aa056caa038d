//! The cached recipients of the topics and masks of a sender. Owns how much memory that takes; never decides
//! who they are.

use std::{collections::HashMap, sync::Arc};

use super::{Hashing, recipients::Recipients, router::Resolved};

/// Topics or masks that are remembered, at most.
const MAX_ROUTES: usize = 4096;
/// Memory that they may take, about, in bytes.
const MAX_BYTES: usize = 512 * 1024;
/// A longer topic or mask is not remembered.
const MAX_TARGET_BYTES: usize = 1024;
/// Routes that are visited to find out whether a sender has other receivers.
const RECENT_ROUTES: usize = 16;
/// What one takes beside its text and its recipients.
const ROUTE_BYTES: usize = 96;

/// Recipients by topic or mask, all of one epoch. Of those to which the sender may not send only the last is
/// remembered.
#[derive(Default)]
pub(super) struct RouteCache {
    epoch: u64,
    last_target: String,
    last: Option<Arc<Recipients>>,
    by_target: HashMap<Box<str>, Arc<Recipients>, Hashing>,
    /// What `by_target` takes.
    bytes: usize,
    /// Some of the previous epoch, so that a change does not hide the recipients of a sender.
    previous: Vec<Arc<Recipients>>,
}

impl RouteCache {
    /// The recipients, as remembered or as `resolve` finds them.
    #[inline]
    pub(super) fn get(
        &mut self,
        epoch: u64,
        target: &str,
        resolve: impl FnOnce() -> Resolved,
    ) -> Arc<Recipients> {
        if let Some(last) = &self.last
            && self.epoch == epoch
            && self.last_target == target
        {
            return last.clone();
        }
        self.look_up(epoch, target, resolve)
    }

    #[cold]
    fn look_up(&mut self, epoch: u64, target: &str, resolve: impl FnOnce() -> Resolved) -> Arc<Recipients> {
        let known = self.by_target.get(target).filter(|_| self.epoch == epoch);
        let recipients = match known {
            Some(recipients) => recipients.clone(),
            None => {
                let resolved = resolve();
                if resolved.epoch != self.epoch {
                    self.clear();
                    self.last = None;
                    self.epoch = resolved.epoch;
                }
                if target.len() > MAX_TARGET_BYTES {
                    return resolved.recipients;
                }
                // consecutive new topics often have the same recipients, which are then stored once
                let recipients = match &self.last {
                    Some(last) if last.has_same_members(&resolved.recipients) => last.clone(),
                    _ => resolved.recipients,
                };
                self.remember(target, &recipients);
                recipients
            }
        };
        self.last_target.clear();
        self.last_target.push_str(target);
        self.last = Some(recipients.clone());
        recipients
    }

    fn remember(&mut self, target: &str, recipients: &Arc<Recipients>) {
        let bytes = ROUTE_BYTES + target.len() + recipients.bytes();
        if recipients.is_denied() || bytes > MAX_BYTES {
            return;
        }
        if self.by_target.len() >= MAX_ROUTES || self.bytes + bytes > MAX_BYTES {
            self.clear();
        }
        self.by_target.insert(target.into(), recipients.clone());
        self.bytes += bytes;
    }

    fn clear(&mut self) {
        if !self.by_target.is_empty() {
            self.previous =
                self.by_target.drain().map(|(_, recipients)| recipients).take(RECENT_ROUTES).collect();
        }
        self.bytes = 0;
    }

    /// Some of those that were used last.
    pub(super) fn recent(&self) -> impl Iterator<Item = &Arc<Recipients>> {
        self.last.iter().chain(self.by_target.values().take(RECENT_ROUTES)).chain(&self.previous)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(epoch: u64) -> Resolved {
        Resolved { epoch, recipients: Arc::new(Recipients::new(std::iter::empty())) }
    }

    /// Asks for a target; whether it had to be resolved.
    fn asks(routes: &mut RouteCache, epoch: u64, target: &str) -> bool {
        let mut asked = false;
        routes.get(epoch, target, || {
            asked = true;
            resolved(epoch)
        });
        assert!(routes.bytes <= MAX_BYTES && routes.by_target.len() <= MAX_ROUTES);
        asked
    }

    #[test]
    fn cached_topics_are_resolved_once() {
        let (mut routes, topics) =
            (RouteCache::default(), (0..MAX_ROUTES).map(|number| format!("topic/{number}")));
        for turn in 0..3 {
            for topic in topics.clone() {
                assert_eq!(asks(&mut routes, 1, &topic), turn == 0, "{topic}");
            }
        }
        assert!(asks(&mut routes, 1, "one more"));
        assert!(!asks(&mut routes, 1, "one more"));
        assert!(asks(&mut routes, 2, "one more"), "another epoch");
    }

    #[test]
    fn topics_with_the_same_recipients_share_them() {
        let mut routes = RouteCache::default();
        let one = routes.get(1, "one", || resolved(1));
        let other = routes.get(1, "other", || resolved(1));
        assert!(Arc::ptr_eq(&one, &other));
        let denied = routes.get(1, "denied", || Resolved::denied(1));
        let after = routes.get(1, "after", || resolved(1));
        assert!(denied.is_denied() && !after.is_denied());
    }

    #[test]
    fn cached_routes_are_limited_in_bytes() {
        let mut routes = RouteCache::default();
        for number in 0..10_000 {
            assert!(asks(&mut routes, 1, &format!("{number}/{}", "x".repeat(1000))));
        }
        let long = "x".repeat(MAX_TARGET_BYTES + 1);
        assert!(asks(&mut routes, 1, &long) && asks(&mut routes, 1, &long), "too long to be remembered");
        assert!(routes.last_target.capacity() <= 2 * MAX_TARGET_BYTES);
        assert!(asks(&mut routes, 1, "t") && !asks(&mut routes, 1, "t"));
        assert!(asks(&mut routes, 2, &long) && asks(&mut routes, 2, "t"), "it is of another epoch");
    }

    #[test]
    fn only_the_last_denied_target_is_cached() {
        let mut routes = RouteCache::default();
        for number in 0..100 {
            for turn in 0..2 {
                let mut asked = false;
                let denied = routes.get(1, &number.to_string(), || {
                    asked = true;
                    Resolved::denied(1)
                });
                assert!(denied.is_denied() && asked == (turn == 0));
            }
        }
        assert!(routes.by_target.is_empty());
    }

    #[test]
    fn denials_are_not_cached_beyond_their_epoch() {
        let mut routes = RouteCache::default();
        assert!(routes.get(1, "t", || Resolved::denied(1)).is_denied());
        assert!(!routes.get(2, "t", || resolved(2)).is_denied());
    }
}
