//! The marks of a client: what is recorded, for how long, and within which memory.

use super::*;
use crate::{
    client_origin::ClientOrigin,
    routing::{closed_sink::closed_sink, holds::Holds},
};
use elbus_plugin_api::DeliveryStatus;

fn client() -> Arc<RegisteredClient> {
    Arc::new(RegisteredClient::new("c".into(), ClientOrigin::default(), 0, closed_sink(), None))
}

fn live(client: &ClientReplays, topic: &str, mark: u64, delivered: DeliveryStatus) -> bool {
    let skipped = || DeliveryStatus::CLOSED;
    client.deliver_live(topic, mark, || delivered, |status| status.is_taken(), skipped).is_taken()
}

#[test]
fn a_replay_of_more_topics_than_can_be_marked_goes_on_unless_live_marks_are_missing() {
    let client = ClientReplays::default();
    let first = client.begin(None);
    let topic = |number: usize| format!("{number}/{}", "x".repeat(60_000));
    let replay = |number| client.deliver_earlier(first, &topic(number), 2, || true);
    let live = |number, mark| live(&client, &topic(number), mark, DeliveryStatus::TAKEN);
    assert!((0..800).all(|number| replay(number) == Replayed::Sent));
    assert!(client.state.lock().bytes <= MAX_REPLAYED_MARK_BYTES);
    assert_eq!((replay(0), live(0, 1), live(799, 3)), (Replayed::Skipped, false, true));
    assert_eq!(replay(799), Replayed::Skipped, "newer live");
    (1000..1700).for_each(|number| _ = live(number, 3));
    assert!(client.state.lock().bytes <= MAX_MARK_BYTES);
    assert_eq!((replay(2000), replay(1000)), (Replayed::Ended, Replayed::Skipped));
}

#[test]
fn live_marks_are_recorded_during_replays_only_and_not_if_they_are_refused() {
    let client = ClientReplays::default();
    let first = client.begin(None);
    assert!(!live(&client, "t", 3, DeliveryStatus::REFUSED));
    assert_eq!(client.deliver_earlier(first, "t", 3, || true), Replayed::Sent);
    assert!(live(&client, "t", 4, DeliveryStatus::FULL));
    assert!(!live(&client, "t", 5, DeliveryStatus::REFUSED));
    assert_eq!(client.deliver_earlier(first, "t", 4, || true), Replayed::Skipped);
    client.end();
    assert!(live(&client, "u", 6, DeliveryStatus::TAKEN) && !live(&client, "t", 3, DeliveryStatus::TAKEN));
    assert_eq!(client.state.lock().topics.len(), 1);
}

#[test]
fn marks_take_no_more_than_a_share_of_the_queue_budget() {
    let budget = QueueBudget::new(1 << 20);
    let mut others = (0, 0);
    budget.account(&mut others.0, 1 << 19);
    budget.account(&mut others.1, 1);
    let client = ClientReplays::default();
    let first = client.begin(Some(&budget));
    for number in 0..10_000 {
        let topic = format!("{number}");
        assert_eq!(client.deliver_earlier(first, &topic, 1, || true), Replayed::Sent, "{number}");
    }
    assert!(client.state.lock().bytes <= (1 << 20) / 3, "of three");
    assert!(budget.has_room(1));
}

#[test]
fn marks_are_freed_at_once_if_nothing_was_replayed_and_else_later() {
    let replays = Replays::new(Arc::new(Pacer::new(Arc::<Holds>::default())));
    let client = client();
    drop((replays.begin(&client), replays.begin(&client)));
    assert!(!client.is_replaying() && replays.of(&client).is_none());
    let (first, second) = (replays.begin(&client), replays.begin(&client));
    assert_eq!(first.deliver_earlier("t", 1, || true), Replayed::Sent);
    assert_eq!(second.deliver_earlier("t", 1, || true), Replayed::Skipped);
    drop((first, second));
    assert!(client.is_replaying() && replays.of(&client).is_some());
    let now = Instant::now();
    assert!(replays.sweep(now).is_some() && client.is_replaying());
    assert_eq!(replays.sweep(now + KEPT), None);
    assert!(!client.is_replaying() && replays.of(&client).is_none());
}

#[test]
fn the_marks_of_a_client_that_leaves_are_freed_at_once() {
    let replays = Replays::new(Arc::new(Pacer::new(Arc::<Holds>::default())));
    let (client, other) = (client(), client());
    let (ended, begun) = (replays.begin(&client), replays.begin(&other));
    for replay in [&ended, &begun] {
        assert_eq!(replay.deliver_earlier("t", 1, || true), Replayed::Sent);
    }
    drop(ended);
    replays.forget(&client);
    assert!(replays.of(&client).is_none() && replays.of(&other).is_some());
    other.mark_gone();
    drop(begun);
    assert!(replays.of(&other).is_none());
}
