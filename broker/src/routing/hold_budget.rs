//! How long receivers may hold senders that have other receivers: a budget for each sender with each name and
//! each identity of receivers, in any ten minutes. Owns the table of used time; reads no clock and calls
//! nothing.
//!
//! A budget belongs to the name and the identity, not to the connection: neither reconnecting nor renaming
//! renews it. Each sender has its own: what a receiver uses with one sender does not count for another.

mod used_time;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use super::{Hashing, client_keys::ClientKeys, registered_client::RegisteredClient};
use crate::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};
use used_time::{PARTS, UsedTime};

/// The most departed senders whose receivers' use is kept.
const MAX_DEPARTED_SENDERS: usize = 1024;
/// The most names of receivers whose use of one sender is kept. Names of one identity are limited together in
/// any case.
const MAX_NAMES: usize = 32;
/// The most identities of receivers whose use of one sender is kept. All their budgets together are several
/// windows.
const MAX_IDENTITIES: usize = 256;
/// The budget of an identity in halves of that of a name.
const IDENTITY_HALVES: u32 = 5;

/// How long receivers may hold their senders.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct HoldSettings {
    /// The budget of each name; zero: without limit.
    pub(crate) budget: Duration,
    /// The sliding window in which the budget is counted.
    pub(crate) window: Duration,
    /// Masks of the names of receivers that may hold their senders without limit.
    pub(crate) exempt: Vec<String>,
}

impl Default for HoldSettings {
    fn default() -> Self {
        HoldSettings { budget: Duration::from_secs(8), window: Duration::from_secs(600), exempt: Vec::new() }
    }
}

/// The receivers whose budget is spent for one sender.
pub(super) struct SpentFor {
    /// Of the sender.
    key: u64,
    /// The number of `owners`: usually zero.
    count: AtomicUsize,
    /// Keys of the names and identities of the receivers. A leaf lock, held briefly.
    owners: Mutex<HashSet<u64, Hashing>>,
}

impl SpentFor {
    /// Returns whether the budget of a receiver is spent for this sender.
    #[inline]
    pub(super) fn has(&self, receiver: ClientKeys) -> bool {
        self.count.load(Ordering::Relaxed) > 0 && self.contains(receiver)
    }

    #[cold]
    fn contains(&self, ClientKeys { name, identity }: ClientKeys) -> bool {
        let owners = self.owners.lock();
        owners.contains(&name) || owners.contains(&identity)
    }

    fn change(&self, change: impl FnOnce(&mut HashSet<u64, Hashing>)) {
        let mut owners = self.owners.lock();
        change(&mut owners);
        self.count.store(owners.len(), Ordering::Relaxed);
    }
}

/// The time for which receivers have held one sender.
struct Account {
    names: HashMap<u64, UsedTime, Hashing>,
    identities: HashMap<u64, UsedTime, Hashing>,
    /// Of the sender.
    identity: u64,
    spent: Arc<SpentFor>,
}

impl Account {
    /// Returns whether a registered sender may be charged to it.
    fn is_in_use(&self) -> bool {
        Arc::strong_count(&self.spent) > 1
    }

    fn sum(&self) -> Duration {
        self.names.values().map(UsedTime::sum).fold(Duration::ZERO, Duration::saturating_add)
    }
}

/// A name or an identity whose budget is spent for at least one sender.
struct Spent {
    /// The number of senders that it is spent for.
    senders: usize,
    /// One of the clients that have used it.
    client: Weak<RegisteredClient>,
}

/// A budget that has just been spent: its receiver, its sender and its length.
pub(super) struct Begun {
    pub(super) client: Arc<RegisteredClient>,
    pub(super) budget: Duration,
    /// Whether it is not yet spent for any other sender.
    pub(super) first: bool,
}

/// The used time of all senders and receivers.
pub(super) struct HoldTable {
    begun: Instant,
    /// By the keys of senders.
    accounts: HashMap<u64, Account, Hashing>,
    /// By the keys of names and identities of receivers.
    spent: HashMap<u64, Spent, Hashing>,
    /// The number of accounts at which unused ones are searched for next.
    sweep_at: usize,
    /// The part of the window in which refilled budgets were last searched for.
    refilled: Option<u64>,
}

impl HoldSettings {
    /// Returns whether a receiver may hold its senders without limit.
    pub(super) fn exempts(&self, member: &RegisteredClient) -> bool {
        self.budget.is_zero()
            || member.origin.internal
            || self.exempt.iter().any(|mask| mask_matches(mask, &member.name))
            || member.policy().is_some_and(|policy| policy.limits().may_hold == Some(true))
    }

    /// Returns the time after which a part of a budget refills.
    pub(super) fn part(&self) -> Duration {
        self.window / PARTS as u32
    }

    fn of_identity(&self) -> Duration {
        self.budget.saturating_mul(IDENTITY_HALVES) / 2
    }
}

impl HoldTable {
    pub(super) fn new(now: Instant) -> Self {
        HoldTable {
            begun: now,
            accounts: HashMap::default(),
            spent: HashMap::default(),
            sweep_at: MAX_DEPARTED_SENDERS,
            refilled: None,
        }
    }

    /// Applies other settings. Used time counts under the new ones, unless their parts have another length.
    pub(super) fn set(&mut self, before: &HoldSettings, settings: &HoldSettings) {
        self.refilled = None;
        if before.window != settings.window {
            for account in self.accounts.values_mut() {
                account.names.clear();
                account.identities.clear();
                account.spent.change(HashSet::clear);
            }
            self.spent.clear();
        }
    }

    fn part_of(&self, settings: &HoldSettings, now: Instant) -> u64 {
        let part = settings.part().as_nanos().max(1);
        (now.saturating_duration_since(self.begun).as_nanos() / part) as u64
    }

    /// Returns the receivers whose budget is spent for a sender. Its account is kept as long as the result.
    pub(super) fn spent_for(
        &mut self,
        sender: ClientKeys,
        settings: &HoldSettings,
        now: Instant,
    ) -> Arc<SpentFor> {
        let key = sender.of_sender();
        if let Some(account) = self.accounts.get(&key) {
            return account.spent.clone();
        }
        if self.accounts.len() >= self.sweep_at {
            self.sweep(self.part_of(settings, now));
        }
        let spent = SpentFor { key, count: AtomicUsize::new(0), owners: Mutex::default() };
        let spent = Arc::new(spent);
        let account = Account {
            names: HashMap::default(),
            identities: HashMap::default(),
            identity: sender.identity,
            spent: spent.clone(),
        };
        self.accounts.insert(key, account);
        spent
    }

    /// Returns whether the budget of a receiver is spent for any sender.
    pub(super) fn is_spent(&self, ClientKeys { name, identity }: ClientKeys) -> bool {
        self.spent.contains_key(&name) || self.spent.contains_key(&identity)
    }

    /// Returns the number of names and identities whose budget is spent for a sender.
    pub(super) fn spent_count(&self) -> usize {
        self.spent.len()
    }

    /// Returns whether any budget is spent.
    pub(super) fn any_spent(&self) -> bool {
        !self.spent.is_empty()
    }

    /// Returns the used time of the budget of a receiver's name, with the sender that it has held longest.
    pub(super) fn used(&mut self, receiver: ClientKeys, settings: &HoldSettings, now: Instant) -> Duration {
        let part = self.part_of(settings, now);
        let used = self.accounts.values_mut().filter_map(|account| account.names.get_mut(&receiver.name));
        let sums = used.map(|used| {
            used.turn(part);
            used.sum()
        });
        sums.max().unwrap_or_default()
    }

    /// Charges receivers that have held senders for `time` while others starved. Each budget is charged once,
    /// regardless of the number of its receivers.
    pub(super) fn charge(
        &mut self,
        charged: &[(Arc<RegisteredClient>, Arc<SpentFor>)],
        settings: &HoldSettings,
        time: Duration,
        now: Instant,
    ) -> Vec<Begun> {
        let part = self.part_of(settings, now);
        let (mut seen, mut begun) = (HashSet::<_, Hashing>::default(), Vec::new());
        for (client, spent_for) in charged {
            let Some(account) = self.accounts.get_mut(&spent_for.key) else { continue };
            let ClientKeys { name, identity } = client.keys;
            for (key, used, limit, most) in [
                (name, &mut account.names, settings.budget, MAX_NAMES),
                (identity, &mut account.identities, settings.of_identity(), MAX_IDENTITIES),
            ] {
                if key == 0 || !seen.insert((spent_for.key, key)) {
                    continue;
                }
                if !used.contains_key(&key) {
                    make_room(used, most, part, |key| forget_spent(&mut self.spent, spent_for, key));
                }
                let used = used.entry(key).or_default();
                used.forget(part, limit);
                used.add(time, limit);
                if used.spent && !spent_for.owners.lock().contains(&key) {
                    spent_for.change(|owners| _ = owners.insert(key));
                    let client_of = || Spent { senders: 0, client: Arc::downgrade(client) };
                    let spent = self.spent.entry(key).or_insert_with(client_of);
                    spent.senders += 1;
                    let first = spent.senders == 1;
                    begun.push(Begun { client: client.clone(), budget: limit, first });
                }
            }
        }
        begun
    }

    /// Refills budgets. Returns the clients of those that are no longer spent for any sender.
    pub(super) fn refill(&mut self, settings: &HoldSettings, now: Instant) -> Vec<Arc<RegisteredClient>> {
        let part = self.part_of(settings, now);
        if self.refilled.replace(part) == Some(part) || self.spent.is_empty() {
            return Vec::new();
        }
        let mut refilled = Vec::new();
        for account in self.accounts.values_mut() {
            let owners: Vec<u64> = account.spent.owners.lock().iter().copied().collect();
            for key in owners {
                let used = match account.names.get_mut(&key) {
                    Some(used) => Some((used, settings.budget)),
                    None => account.identities.get_mut(&key).map(|used| (used, settings.of_identity())),
                };
                let spent = used.is_some_and(|(used, limit)| {
                    used.forget(part, limit);
                    used.spent
                });
                if !spent {
                    refilled.extend(forget_spent(&mut self.spent, &account.spent, key));
                }
            }
        }
        refilled
    }

    /// Removes accounts of departed senders: those without use in the window and, if too many are left, those
    /// with the least use among the identities that have most.
    fn sweep(&mut self, part: u64) {
        let mut departed: HashMap<u64, Vec<(Duration, u64)>, Hashing> = HashMap::default();
        for (key, account) in &mut self.accounts {
            if !account.is_in_use() {
                account
                    .names
                    .values_mut()
                    .chain(account.identities.values_mut())
                    .for_each(|used| used.turn(part));
                departed.entry(account.identity).or_default().push((account.sum(), *key));
            }
        }
        let mut forgotten = Vec::new();
        for of_identity in departed.values_mut() {
            of_identity.sort_unstable_by(|one, other| other.cmp(one));
            while let Some((_, key)) = of_identity.pop_if(|(sum, _)| sum.is_zero()) {
                forgotten.push(key);
            }
        }
        // each identity keeps an equal share, and what others leave of theirs
        let mut sizes: Vec<usize> = departed.values().map(Vec::len).collect();
        sizes.sort_unstable();
        let (mut left, mut share) = (MAX_DEPARTED_SENDERS / 2, usize::MAX);
        for (at, size) in sizes.iter().enumerate() {
            let fair = left / (sizes.len() - at);
            if *size > fair {
                share = fair;
                break;
            }
            left -= size;
        }
        for of_identity in departed.values_mut() {
            let from = share.min(of_identity.len());
            forgotten.extend(of_identity.drain(from..).map(|(_, key)| key));
        }
        for key in forgotten {
            let Some(account) = self.accounts.remove(&key) else { continue };
            let owners: Vec<u64> = account.spent.owners.lock().iter().copied().collect();
            owners.into_iter().for_each(|key| _ = forget_spent(&mut self.spent, &account.spent, key));
        }
        self.sweep_at = self.accounts.len() + (MAX_DEPARTED_SENDERS / 2).max(self.accounts.len() / 4);
    }
}

/// Records that a budget is no longer spent for a sender. Returns its client if it is spent for no sender any
/// more.
fn forget_spent(
    spent: &mut HashMap<u64, Spent, Hashing>,
    spent_for: &SpentFor,
    key: u64,
) -> Option<Arc<RegisteredClient>> {
    let mut was_spent = false;
    spent_for.change(|owners| was_spent = owners.remove(&key));
    let of_all = spent.get_mut(&key).filter(|_| was_spent)?;
    of_all.senders = of_all.senders.saturating_sub(1);
    if of_all.senders > 0 {
        return None;
    }
    spent.remove(&key)?.client.upgrade()
}

/// Removes owners without use in the window or, if there are none, the one with the least use.
fn make_room(
    all: &mut HashMap<u64, UsedTime, Hashing>,
    most: usize,
    part: u64,
    mut forgotten: impl FnMut(u64) -> Option<Arc<RegisteredClient>>,
) {
    if all.len() < most {
        return;
    }
    all.retain(|key, used| {
        used.turn(part);
        let keeps = !used.sum().is_zero();
        if !keeps {
            forgotten(*key);
        }
        keeps
    });
    if all.len() >= most
        && let Some(least) = all.iter().min_by_key(|(_, used)| used.sum()).map(|(key, _)| *key)
    {
        all.remove(&least);
        forgotten(least);
    }
}

/// Returns whether a mask matches a name (protocol section 6).
fn mask_matches(mask: &str, name: &str) -> bool {
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
#[allow(clippy::unwrap_used, reason = "a test that cannot go on should not")]
mod tests;
