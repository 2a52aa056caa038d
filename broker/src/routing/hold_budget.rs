//! How long receivers may hold senders that have other receivers as well: a budget for each name and for each identity,
//! in any ten minutes. Owns the table of what was used; reads no clock and calls nobody.
//!
//! A budget belongs to the name and the identity, not to the connection: neither reconnecting nor renaming renews it.

use elbus_protocol::name::primary_of;
use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use super::{Hashing, member::Member};

/// Names and identities whose use is remembered.
const REMEMBERED: usize = 4096;
/// A window is divided into so many parts; what was used in one is forgotten as a whole.
const PARTS: usize = 10;
/// An identity may use so many halves of what a name may.
const IDENTITY_HALVES: u32 = 5;

/// How long receivers may hold their senders.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct HoldSettings {
    /// For each name; zero: without limit.
    pub(crate) budget: Duration,
    /// In any time as long as this.
    pub(crate) window: Duration,
    /// Masks of the names of receivers that may hold their senders without limit.
    pub(crate) exempt: Vec<String>,
}

impl Default for HoldSettings {
    fn default() -> Self {
        HoldSettings { budget: Duration::from_secs(8), window: Duration::from_secs(600), exempt: Vec::new() }
    }
}

/// Whose budget it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Holder {
    /// A client, by its primary name.
    Name(Box<str>),
    /// Everybody with a certificate of these names.
    Certificate(Box<[String]>),
    /// The user of a process on this machine.
    User(u32),
    /// An address, of IPv6 the first half.
    Address(Box<str>),
}

impl Holder {
    /// Those a receiver belongs to: one by name, and one by identity, unless it is within this process.
    pub(super) fn of(member: &Member) -> impl Iterator<Item = Holder> + use<> {
        [Some(Holder::Name(primary_of(&member.name).into())), Holder::identity_of(member)]
            .into_iter()
            .flatten()
    }

    /// The one it belongs to by identity, unless it is within this process.
    pub(super) fn identity_of(member: &Member) -> Option<Holder> {
        let origin = &member.origin;
        match (origin.certificate_names(), origin.credentials, origin.source.as_deref()) {
            ([], None, None) => None,
            ([], None, Some(source)) => Some(Holder::Address(network(source).into())),
            ([], Some(credentials), _) => Some(Holder::User(credentials.uid)),
            (names, ..) => Some(Holder::Certificate(names.into())),
        }
    }
}

/// The part of `ip:port` that a network assigns to one subscriber. This machine has one address.
fn network(source: &str) -> String {
    match source.parse::<std::net::SocketAddr>().map(|address| address.ip().to_canonical()) {
        Ok(ip) if ip.is_loopback() => std::net::Ipv4Addr::LOCALHOST.to_string(),
        Ok(std::net::IpAddr::V6(ip)) => format!("{:x?}", ip.segments().first_chunk::<4>()),
        Ok(ip) => ip.to_string(),
        Err(_) => source.to_owned(),
    }
}

/// What one holder has used.
#[derive(Default)]
struct Used {
    /// In each part of the window, and in the one before it.
    parts: [Duration; PARTS + 1],
    /// The number of the newest part.
    part: u64,
    /// Nothing was left, and no half of it has been forgotten since.
    spent: bool,
}

impl Used {
    /// Forgets what is no longer in the window, `part` being the present one.
    fn forget(&mut self, part: u64, limit: Duration) {
        self.turn(part);
        self.spent &= self.sum() > limit / 2;
    }

    fn turn(&mut self, part: u64) {
        let passed = part.saturating_sub(self.part).min(self.parts.len() as u64);
        for behind in 0..passed {
            let at = (part - behind) % self.parts.len() as u64;
            if let Some(place) = self.parts.get_mut(at as usize) {
                *place = Duration::ZERO;
            }
        }
        self.part = self.part.max(part);
    }

    fn add(&mut self, time: Duration, limit: Duration) {
        let at = self.part % self.parts.len() as u64;
        if let Some(place) = self.parts.get_mut(at as usize) {
            *place = place.saturating_add(time);
        }
        self.spent |= self.sum() >= limit;
    }

    fn sum(&self) -> Duration {
        self.parts.iter().fold(Duration::ZERO, |sum, part| sum.saturating_add(*part))
    }
}

/// What a look at all receivers that hold senders has come to.
#[derive(Default)]
pub(super) struct Verdicts {
    /// Whose budget was spent just now: one of those who did it, and how much it was.
    pub(super) begun: Vec<(Arc<Member>, Holder, Duration)>,
    /// Those who hold senders although their budget is spent.
    pub(super) spent: Vec<Arc<Member>>,
    /// Those whose budget has refilled, and those for whom it has not.
    pub(super) refilled: Vec<Arc<Member>>,
    pub(super) waiting: Vec<Weak<Member>>,
    /// After what time budgets refill.
    pub(super) part: Duration,
}

/// What all of them have used.
pub(super) struct HoldTable {
    begun: Instant,
    settings: HoldSettings,
    used: HashMap<Holder, Used, Hashing>,
}

impl HoldTable {
    pub(super) fn new(settings: HoldSettings, now: Instant) -> Self {
        HoldTable { begun: now, settings, used: HashMap::default() }
    }

    /// Other settings, from now on; what was used counts by them.
    pub(super) fn set(&mut self, settings: HoldSettings) {
        if settings.window != self.settings.window {
            self.used.clear(); // its parts are of another length
        }
        self.settings = settings;
    }

    /// Whether a receiver may hold its senders without limit.
    pub(super) fn is_exempt(&self, member: &Member) -> bool {
        self.settings.budget.is_zero()
            || member.origin.internal
            || self.settings.exempt.iter().any(|mask| fits(mask, &member.name))
            || member.admission().is_some_and(|admission| admission.limits().may_hold == Some(true))
    }

    fn part_of(&self, now: Instant) -> u64 {
        let part = self.part_length().as_nanos().max(1);
        (now.saturating_duration_since(self.begun).as_nanos() / part) as u64
    }

    fn part_length(&self) -> Duration {
        self.settings.window / PARTS as u32
    }

    fn limit(&self, holder: &Holder) -> Duration {
        match holder {
            Holder::Name(_) => self.settings.budget,
            _ => self.settings.budget.saturating_mul(IDENTITY_HALVES) / 2,
        }
    }

    /// Whether one of the budgets of a receiver is spent, and it is not exempt.
    pub(super) fn is_spent(&mut self, member: &Member, now: Instant) -> bool {
        let part = self.part_of(now);
        let spent = Holder::of(member).any(|holder| {
            let limit = self.limit(&holder);
            self.used.get_mut(&holder).is_some_and(|used| {
                used.forget(part, limit);
                used.spent
            })
        });
        spent && !self.is_exempt(member)
    }

    /// How much of the budget of its name a receiver has used.
    pub(super) fn used(&mut self, member: &Member, now: Instant) -> Duration {
        let part = self.part_of(now);
        let Some(holder) = Holder::of(member).next() else { return Duration::ZERO };
        let limit = self.limit(&holder);
        self.used.get_mut(&holder).map_or(Duration::ZERO, |used| {
            used.forget(part, limit);
            used.sum()
        })
    }

    /// The receivers in `charged` have held their senders for so long while others starved. Each budget is charged once,
    /// however many they are.
    pub(super) fn judge(
        &mut self,
        watched: &[(Arc<Member>, u32)],
        mut charged: Vec<Arc<Member>>,
        spent: &[Weak<Member>],
        time: Duration,
        now: Instant,
    ) -> Verdicts {
        let mut verdicts = Verdicts { part: self.part_length(), ..Verdicts::default() };
        let part = self.part_of(now);
        charged.retain(|member| !self.is_exempt(member));
        let holders: HashMap<Holder, &Arc<Member>> = charged
            .iter()
            .flat_map(|member| Holder::of(member).map(move |holder| (holder, member)))
            .collect();
        for (holder, member) in holders {
            let limit = self.limit(&holder);
            if !self.used.contains_key(&holder) {
                self.make_room(part);
            }
            let used = self.used.entry(holder.clone()).or_default();
            used.forget(part, limit);
            let before = used.spent;
            used.add(time, limit);
            if used.spent && !before {
                verdicts.begun.push((member.clone(), holder, limit));
            }
        }
        for (member, _) in watched {
            if self.is_spent(member, now) {
                verdicts.spent.push(member.clone());
            }
        }
        for member in spent.iter().filter_map(Weak::upgrade) {
            if self.is_spent(&member, now) {
                verdicts.waiting.push(Arc::downgrade(&member));
            } else {
                verdicts.refilled.push(member);
            }
        }
        verdicts
    }

    /// Forgets those that have used nothing in the window, and where there are none, the one that has used least.
    fn make_room(&mut self, part: u64) {
        if self.used.len() < REMEMBERED {
            return;
        }
        self.used.retain(|_, used| {
            used.turn(part);
            !used.sum().is_zero()
        });
        if self.used.len() >= REMEMBERED
            && let Some(least) =
                self.used.iter().min_by_key(|(_, used)| used.sum()).map(|(key, _)| key.clone())
        {
            self.used.remove(&least);
        }
    }
}

/// Whether a mask matches a name (protocol section 6).
fn fits(mask: &str, name: &str) -> bool {
    let (mut masks, mut names) = (mask.split('.'), name.split('.'));
    loop {
        match (masks.next(), names.next()) {
            (Some("*"), Some(_)) | (None, None) => return true,
            (Some("?"), Some(_)) => {}
            (Some(mask), Some(name)) if mask == name => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn no_window_has_more_than_the_limit_and_half_of_it_refills_first() {
        let (limit, mut used) = (10 * SECOND, Used::default());
        for part in 0..10 {
            used.forget(part, limit);
            assert!(!used.spent, "{part}");
            used.add(SECOND, limit);
        }
        assert!(used.spent);
        // what was used in part 0 is forgotten when eleven have passed: then the window is without it for certain
        for (part, left) in [(10, 10), (11, 9), (13, 7), (14, 6)] {
            used.forget(part, limit);
            assert_eq!((used.sum(), used.spent), (left * SECOND, true), "{part}");
        }
        used.forget(15, limit);
        assert_eq!((used.sum(), used.spent), (5 * SECOND, false));
        used.forget(1000, limit);
        assert_eq!(used.sum(), Duration::ZERO);
    }

    #[test]
    fn addresses_of_one_subscriber_are_one() {
        assert_eq!(network("10.0.0.1:5"), network("10.0.0.1:6"));
        assert_ne!(network("10.0.0.1:5"), network("10.0.0.2:5"));
        assert_eq!(network("[::ffff:10.0.0.1]:5"), network("10.0.0.1:5"));
        assert_eq!(network("[2001:db8:1:2::1]:5"), network("[2001:db8:1:2:ffff::]:6"));
        assert_ne!(network("[2001:db8:1:2::1]:5"), network("[2001:db8:1:3::1]:5"));
        for loopback in ["127.0.0.2:5", "127.255.1.1:5", "[::1]:5", "[::ffff:127.0.0.3]:5"] {
            assert_eq!(network(loopback), network("127.0.0.1:5"), "this machine, whichever address it uses");
        }
    }

    #[test]
    fn masks() {
        for (mask, name) in [("a", "a"), ("*", "a.b"), ("a.*", "a.b.c"), ("a.?", "a.b"), ("?.b", "a.b")] {
            assert!(fits(mask, name), "{mask} {name}");
        }
        for (mask, name) in [("a", "a.b"), ("a.*", "a"), ("?", "a.b"), ("", "a"), ("a.b", "a")] {
            assert!(!fits(mask, name), "{mask} {name}");
        }
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_spent_stay() {
        let mut table = HoldTable::new(HoldSettings::default(), Instant::now());
        let holder = |number: usize| Holder::Name(number.to_string().into());
        for number in 0..REMEMBERED + 100 {
            table.make_room(0);
            let used = table.used.entry(holder(number)).or_default();
            used.add(if number < 10 { 8 * SECOND } else { SECOND / 100 }, 8 * SECOND);
        }
        assert_eq!(table.used.len(), REMEMBERED);
        assert!((0..10).all(|number| table.used.get(&holder(number)).is_some_and(|used| used.spent)));
        table.make_room(1000);
        assert_eq!(table.used.len(), 0, "those that have used nothing for long go first");
    }
}
