//! What is cached, what is removed, and that memory is returned.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use super::*;
use crate::{
    client_origin::ClientOrigin,
    routing::{closed_sink::closed_sink, recipients::Recipients},
};

fn client(name: &str) -> Arc<RegisteredClient> {
    Arc::new(RegisteredClient::new(name.into(), ClientOrigin::default(), 0, closed_sink(), None))
}

fn memory() -> CacheMemory {
    CacheMemory::new(Arc::default())
}

#[test]
fn clients_that_have_left_are_forgotten() {
    let (mut targets, mut memory) = (MixedTargets::default(), memory());
    for number in 0..10_000 {
        targets.begin(1, &mut memory);
        let name = format!("client.{number}");
        targets.set_name(name.as_bytes(), &client(&name), &mut memory).unwrap();
        assert!(targets.receivers.len() <= 2 * FIRST_PRUNING);
    }
    let staying: Vec<_> = (0..1000).map(|number| client(&format!("staying.{number}"))).collect();
    for client in &staying {
        targets.begin(1, &mut memory);
        targets.set_name(client.name.as_bytes(), client, &mut memory).unwrap();
    }
    for client in &staying[300..] {
        assert!(targets.by_name(client.name.as_bytes()).is_some(), "registered clients stay");
    }
    targets.clear(&mut memory);
    assert_eq!(memory.used(), 0);
}

#[test]
fn a_route_is_counted_once_and_given_back_with_its_generation() {
    let (mut targets, mut memory) = (MixedTargets::default(), memory());
    let clients: Vec<_> = (0..20).map(|number| client(&format!("client.{number}"))).collect();
    let recipients = Recipients::new(clients.iter());
    targets.begin(1, &mut memory);
    assert!(targets.set_route(0, &recipients, &mut memory));
    let used = memory.used();
    (0..1000).for_each(|_| assert!(targets.set_route(0, &recipients, &mut memory)));
    assert_eq!(memory.used(), used);
    for generation in 2..1000 {
        targets.begin(generation, &mut memory);
        assert!(!targets.knows_route(0) && memory.used() < used);
        assert!(targets.set_route(0, &recipients, &mut memory));
        assert_eq!(memory.used(), used);
    }
}

#[test]
fn recent_receivers_are_the_last_different_ones() {
    let mut targets = MixedTargets::default();
    let clients: Vec<_> = (0..20).map(|number| client(&format!("client.{number}"))).collect();
    let has = |targets: &MixedTargets, client: &Arc<RegisteredClient>| {
        targets.recent().any(|recent| std::ptr::eq(recent.as_ptr(), Arc::as_ptr(client)))
    };
    for _ in 0..3 {
        targets.set_recent(clients[..1].iter());
        targets.set_recent(clients[1..2].iter());
    }
    assert!(has(&targets, &clients[0]) && has(&targets, &clients[1]));
    clients.iter().for_each(|client| targets.set_recent(std::iter::once(client)));
    assert_eq!(targets.recent().count(), RECENT_RECEIVERS);
    assert!(clients[5..].iter().all(|client| has(&targets, client)));
}
