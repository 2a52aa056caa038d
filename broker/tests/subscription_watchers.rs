//! Subscription watchers: what they learn, beside a subscription listener and from the start.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use elbus_plugin_api::{
    Call, Op,
    hooks::{Replay, SubscriptionChange, SubscriptionEvent},
};
use std::sync::{Arc, Mutex};
use support::{Peer, broker};

type Seen = Arc<Mutex<Vec<(SubscriptionEvent, String, String)>>>;

fn watcher(seen: &Seen) -> impl Fn(&SubscriptionChange<'_>, Option<Replay>) + Send + Sync + 'static {
    let seen = seen.clone();
    move |change, replay| {
        assert!(replay.is_none());
        let filters = change.filters().collect::<Vec<_>>().join(" ");
        seen.lock().unwrap().push((change.event().unwrap(), change.client().to_owned(), filters));
    }
}

#[test]
fn watchers_learn_what_there_is_and_what_changes_beside_a_listener() {
    let broker = broker();
    let mut early = Peer::new(&broker, "early");
    early.subscribe(&["a/#", "b"]);
    early.subscribe(&["$latest/c"]);
    let listener =
        broker.host().add_subscription_listener(|_: &SubscriptionChange<'_>, _: Option<Replay>| ());
    let (one, other) = (Seen::default(), Seen::default());
    let hook = broker.host().add_subscription_watcher(watcher(&one)).unwrap();
    let _other = broker.host().add_subscription_watcher(watcher(&other)).unwrap();

    let take = |seen: &Seen| std::mem::take(&mut *seen.lock().unwrap());
    let existing = |seen: &Seen| {
        let mut filters: Vec<_> = take(seen)
            .into_iter()
            .inspect(|(event, client, _)| {
                assert_eq!((*event, &**client), (SubscriptionEvent::Existing, "early"));
            })
            .flat_map(|(.., filters)| filters.split(' ').map(str::to_owned).collect::<Vec<_>>())
            .collect();
        filters.sort();
        filters
    };
    // a client of a transport gets the warnings of the broker
    let expected = ["$latest/c", ".broker/warn", "a/#", "b"];
    assert_eq!(
        (existing(&one), existing(&other)),
        (expected.map(str::to_owned).to_vec(), expected.map(str::to_owned).to_vec())
    );

    early.subscribe(&["b", "$share/g/b"]);
    early.filters(Op::Unsubscribe, &["b", "nothing"]);
    drop(early);
    let changes = [
        (SubscriptionEvent::Subscribed, "early".to_owned(), "$share/g/b".to_owned()),
        (SubscriptionEvent::Unsubscribed, "early".to_owned(), "b".to_owned()),
        (SubscriptionEvent::Left, "early".to_owned(), String::new()),
    ];
    assert_eq!(take(&one), changes);
    assert_eq!(take(&other), changes);

    drop((hook, listener));
    Peer::new(&broker, "late").subscribe(&["x"]);
    assert!(take(&one).is_empty(), "its hook has ended");
    assert_eq!(take(&other).len(), 2);
}

#[test]
fn a_client_that_is_removed_while_its_change_is_reported_has_left_afterwards() {
    let broker = broker();
    let (host, seen) = (broker.host().clone(), Seen::default());
    // it is called first
    let kicking = move |change: &SubscriptionChange<'_>, _: Option<Replay>| {
        if change.event() == Some(SubscriptionEvent::Subscribed) {
            host.call(&Call::by_broker("client.kick", b"\x81\xa4name\xa5quick")).unwrap();
        }
    };
    let _kicking = broker.host().add_subscription_watcher(kicking).unwrap();
    let _hook = broker.host().add_subscription_watcher(watcher(&seen)).unwrap();
    Peer::new(&broker, "quick").subscribe(&["x"]);
    let events: Vec<_> = seen.lock().unwrap().iter().map(|(event, ..)| *event).collect();
    assert!(events.contains(&SubscriptionEvent::Subscribed), "{events:?}");
    assert_eq!(events.last(), Some(&SubscriptionEvent::Left), "{events:?}");
}
