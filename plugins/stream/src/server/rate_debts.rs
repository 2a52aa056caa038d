//! How much of their rates clients had used when they left, by identity, so that a reconnection does not
//! refill them. Owns no bucket and reads no clock. A debt is the time until the bucket would be full, at most
//! a second: there are few of them, and those that have passed are removed.

use std::{
    collections::{HashMap, hash_map::RandomState},
    hash::{BuildHasher, Hash},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use crate::server::peer_info::{PeerInfo, Verified};

/// Identities with debts of their own; all others share the greatest debt that did not fit.
const MAX_IDENTITIES: usize = 4096;
/// Time in which any bucket is full again.
const LONGEST: Duration = Duration::from_secs(1);

/// Hash of an identity, with a random key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct IdentityKey(u64);

/// Debts of clients that have left.
#[derive(Default)]
pub(crate) struct RateDebts {
    hashing: RandomState,
    until: HashMap<IdentityKey, Instant>,
    /// The greatest debt that did not fit.
    of_others: Option<Instant>,
}

impl RateDebts {
    /// Returns the identity of a connection: its certificate and token, else its user, else its address. IPv6
    /// addresses count by their /64 network, since one client has all addresses in it.
    pub(crate) fn identity(&self, peer: &PeerInfo) -> IdentityKey {
        let has_proved = |it: &&Verified| !it.certificate_names.is_empty() || it.token.is_some();
        let verified = peer.verified.as_deref().filter(has_proved);
        let user = peer.credentials.map(|credentials| credentials.uid);
        IdentityKey(match (verified, user) {
            (Some(verified), _) => self.number((&verified.certificate_names, &verified.token)),
            (None, Some(uid)) => self.number(uid),
            (None, None) => {
                let source = peer.source.as_deref().unwrap_or_default();
                match source.parse::<SocketAddr>().map(|source| source.ip().to_canonical()) {
                    Ok(address) if address.is_loopback() => self.number(IpAddr::from(Ipv4Addr::LOCALHOST)),
                    Ok(IpAddr::V6(address)) => self.number(address.to_bits() >> 64),
                    Ok(address) => self.number(address),
                    Err(_) => self.number(source),
                }
            }
        })
    }

    fn number(&self, identity: impl Hash) -> u64 {
        self.hashing.hash_one(identity)
    }

    /// Returns the time until a client of this identity has its full rates.
    pub(crate) fn of(&self, identity: IdentityKey, now: Instant) -> Duration {
        let until = self.until.get(&identity).copied().max(self.of_others.filter(|_| self.is_full()));
        until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }

    /// Adds the debt of a client that has left.
    pub(crate) fn add(&mut self, identity: IdentityKey, debt: Duration, now: Instant) {
        if debt.is_zero() {
            return;
        }
        let until = now + debt.min(LONGEST);
        if let Some(known) = self.until.get_mut(&identity) {
            *known = until.max(*known);
            return;
        }
        if self.is_full() {
            self.until.retain(|_, until| *until > now);
        }
        if self.is_full() {
            self.of_others = self.of_others.max(Some(until));
        } else {
            self.until.insert(identity, until);
        }
    }

    fn is_full(&self) -> bool {
        self.until.len() >= MAX_IDENTITIES
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use elbus_plugin_api::Credentials;

    fn from(source: &str) -> PeerInfo {
        PeerInfo { source: Some(source.to_owned()), ..PeerInfo::default() }
    }

    fn of_user(uid: u32) -> PeerInfo {
        PeerInfo { credentials: Some(Credentials { pid: 1, uid, gid: 1 }), ..PeerInfo::default() }
    }

    #[test]
    fn an_identity_is_a_user_or_an_address_whatever_the_port() {
        let rate_debts = RateDebts::default();
        let same = |one: &PeerInfo, other: &PeerInfo| rate_debts.identity(one) == rate_debts.identity(other);
        assert!(same(&of_user(1), &of_user(1)) && !same(&of_user(1), &of_user(2)));
        assert!(same(&from("10.0.0.1:1"), &from("10.0.0.1:2")));
        assert!(!same(&from("10.0.0.1:1"), &from("10.0.0.2:1")));
        assert!(
            same(&from("127.0.0.1:1"), &from("127.0.0.9:2")) && same(&from("127.0.0.1:1"), &from("[::1]:2"))
        );
        assert!(same(&from("[2001:db8::1]:1"), &from("[2001:db8::ffff:2]:1")));
        assert!(!same(&from("[2001:db8::1]:1"), &from("[2001:db8:0:1::1]:1")));
        let with_token = |token: &str| {
            let verified = Verified { token: Some(token.to_owned()), ..Verified::default() };
            PeerInfo { verified: Some(Box::new(verified)), ..from("10.0.0.1:1") }
        };
        assert!(same(&with_token("a"), &with_token("a")) && !same(&with_token("a"), &with_token("b")));
        assert!(!same(&with_token("a"), &from("10.0.0.1:1")));
    }

    #[test]
    fn a_debt_ends_with_its_second_and_is_the_greatest_of_those_who_left() {
        let (mut rate_debts, start) = (RateDebts::default(), Instant::now());
        let (me, other) = (rate_debts.identity(&of_user(1)), rate_debts.identity(&of_user(2)));
        let after = |millis| start + Duration::from_millis(millis);
        rate_debts.add(me, Duration::from_millis(800), start);
        rate_debts.add(me, Duration::from_millis(300), start);
        assert_eq!(
            (rate_debts.of(me, start), rate_debts.of(other, start)),
            (Duration::from_millis(800), Duration::ZERO)
        );
        rate_debts.add(me, Duration::from_secs(500), after(500));
        assert_eq!(rate_debts.of(me, after(500)), LONGEST);
        assert_eq!(rate_debts.of(me, after(1600)), Duration::ZERO);
    }

    #[test]
    fn many_identities_need_bounded_memory_and_none_escapes_its_debt() {
        let (mut rate_debts, start) = (RateDebts::default(), Instant::now());
        for uid in 0..100_000 {
            let identity = rate_debts.identity(&of_user(uid));
            rate_debts.add(identity, LONGEST, start);
            assert_eq!(rate_debts.of(identity, start), LONGEST, "{uid}");
        }
        assert_eq!(rate_debts.until.len(), MAX_IDENTITIES);
        let late = start + LONGEST * 2;
        assert_eq!(rate_debts.of(rate_debts.identity(&of_user(99_999)), late), Duration::ZERO);
        rate_debts.add(rate_debts.identity(&of_user(5)), LONGEST, late);
        rate_debts.add(rate_debts.identity(&of_user(99_999)), LONGEST, late);
        assert!(rate_debts.until.len() <= 2, "those that are over are forgotten: {}", rate_debts.until.len());
    }
}
