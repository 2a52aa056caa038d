//! Tests of hold budgets, with a clock of their own.

use super::*;
use crate::client_origin::ClientOrigin;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn no_window_has_more_than_the_limit_and_half_of_it_refills_first() {
    let (limit, mut used) = (10 * SECOND, UsedTime::default());
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
fn masks() {
    for (mask, name) in [("a", "a"), ("*", "a.b"), ("a.*", "a.b.c"), ("a.?", "a.b"), ("?.b", "a.b")] {
        assert!(mask_matches(mask, name), "{mask} {name}");
    }
    for (mask, name) in [("a", "a.b"), ("a.*", "a"), ("?", "a.b"), ("", "a"), ("a.b", "a")] {
        assert!(!mask_matches(mask, name), "{mask} {name}");
    }
}

/// A table, and how far its clock is.
struct Tested {
    table: HoldTable,
    now: Instant,
}

impl Tested {
    fn new() -> Self {
        let now = Instant::now();
        Tested { table: HoldTable::new(now), now }
    }

    fn sender(&mut self, name: &str, uid: u32) -> Arc<SpentFor> {
        let keys = ClientKeys::of(name, &of_user(uid));
        self.table.spent_for(keys, &HoldSettings::default(), self.now)
    }

    fn charge(&mut self, receiver: &Arc<RegisteredClient>, sender: &Arc<SpentFor>, time: Duration) -> usize {
        let charged = [(receiver.clone(), sender.clone())];
        self.table.charge(&charged, &HoldSettings::default(), time, self.now).len()
    }
}

fn of_user(uid: u32) -> ClientOrigin {
    let mut origin = ClientOrigin::default();
    origin.credentials = Some(elbus_plugin_api::Credentials { pid: 1, uid, gid: 1 });
    origin
}

fn receiver(name: &str, uid: u32) -> Arc<RegisteredClient> {
    let sink = crate::routing::closed_sink::closed_sink();
    Arc::new(RegisteredClient::new(name.into(), of_user(uid), 1, sink, None))
}

#[test]
fn a_budget_is_spent_for_its_sender_only_and_whatever_the_receiver_is_called() {
    let mut tested = Tested::new();
    let (flooder, sender) = (tested.sender("flooder", 1), tested.sender("sender", 1));
    let of_other = tested.sender("flooder", 2);
    let target = receiver("target", 3);
    assert_eq!(tested.charge(&target, &flooder, 7 * SECOND), 0);
    assert_eq!(tested.charge(&target, &flooder, SECOND), 1);
    assert!(flooder.has(target.keys) && !sender.has(target.keys) && !of_other.has(target.keys));
    assert!(tested.table.is_spent(target.keys));
    assert!(tested.sender("flooder%%2", 1).has(target.keys), "a secondary is the same sender");
    assert!(flooder.has(receiver("target", 4).keys) && !flooder.has(receiver("else", 3).keys));
    assert_eq!(tested.table.used(target.keys, &HoldSettings::default(), tested.now), 8 * SECOND);
    // of one identity under many names
    for number in 0..12 {
        tested.charge(&receiver(&number.to_string(), 3), &flooder, SECOND);
    }
    assert!(flooder.has(receiver("new", 3).keys) && !sender.has(target.keys));
    assert_eq!(tested.table.refill(&HoldSettings::default(), tested.now).len(), 0);
    tested.now += Duration::from_secs(700);
    assert_eq!(tested.table.refill(&HoldSettings::default(), tested.now).len(), 1, "of those that are there");
    assert!(!flooder.has(target.keys) && !flooder.has(receiver("new", 3).keys) && !tested.table.any_spent());
}

#[test]
fn receivers_of_one_identity_are_charged_once_for_each_check() {
    let mut tested = Tested::new();
    let sender = tested.sender("sender", 1);
    let charged: Vec<_> = (0..10).map(|number| (receiver(&number.to_string(), 3), sender.clone())).collect();
    for _ in 0..19 {
        assert!(tested.table.charge(&charged, &HoldSettings::default(), SECOND / 3, tested.now).is_empty());
    }
    assert!(!sender.has(receiver("new", 3).keys));
}

#[test]
fn many_receivers_do_not_reset_the_use_of_their_identity_and_are_bounded() {
    let mut tested = Tested::new();
    let sender = tested.sender("sender", 1);
    let hostile = receiver("hostile", 3);
    tested.charge(&hostile, &sender, 8 * SECOND);
    for number in 0..2000 {
        tested.charge(&receiver(&number.to_string(), 3), &sender, SECOND / 100);
        tested.charge(&receiver("a", 100 + number), &sender, SECOND / 100);
    }
    let account = tested.table.accounts.values().next().unwrap();
    assert_eq!((account.names.len(), account.identities.len()), (MAX_NAMES, MAX_IDENTITIES));
    assert!(sender.has(hostile.keys) && sender.has(receiver("a new name", 3).keys));
    assert!(!sender.has(receiver("other", 4).keys));
    assert!(sender.owners.lock().len() <= MAX_NAMES + MAX_IDENTITIES);
}

#[test]
fn many_senders_that_have_left_forget_nothing_of_those_that_are_there_or_of_other_identities() {
    let mut tested = Tested::new();
    let hostile = receiver("hostile", 3);
    let present = tested.sender("present", 1);
    tested.charge(&hostile, &present, 8 * SECOND);
    let departed = tested.sender("departed", 2);
    tested.charge(&hostile, &departed, 8 * SECOND);
    drop(departed);
    for number in 0..5 * MAX_DEPARTED_SENDERS {
        let flooder = tested.sender(&number.to_string(), 1);
        tested.charge(&hostile, &flooder, 9 * SECOND);
        assert!(tested.table.accounts.len() <= 2 * MAX_DEPARTED_SENDERS);
    }
    assert!(present.has(hostile.keys) && tested.sender("departed", 2).has(hostile.keys));
    tested.now += Duration::from_secs(700);
    tested.table.sweep(11);
    assert_eq!(tested.table.accounts.len(), 1, "of which nothing was used for long go first");
    assert_eq!(tested.table.refill(&HoldSettings::default(), tested.now).len(), 1);
    assert!(!tested.table.any_spent());
}
