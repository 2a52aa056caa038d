//! What is cached, what is looked up again, and what is released.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use super::*;
use crate::{client_origin::ClientOrigin, routing::closed_sink::closed_sink};

fn member(name: &str) -> Arc<RegisteredClient> {
    Arc::new(RegisteredClient::new(name.into(), ClientOrigin::default(), 0, closed_sink(), None))
}

fn unasked(name: &str) -> Option<Arc<RegisteredClient>> {
    panic!("{name} was looked for")
}

#[test]
fn cached_targets_are_looked_up_once() {
    let members: Vec<_> = (0..CAPACITY).map(|number| member(&format!("m{number}"))).collect();
    let mut peers = TargetCache::default();
    for member in &members {
        assert!(peers.get(&member.name, |_| Some(member.clone())).is_some());
    }
    for member in members.iter().chain(members.iter().rev()).chain(members.iter().step_by(3)) {
        assert!(Arc::ptr_eq(&peers.get(&member.name, unasked).unwrap(), member));
    }
}

#[test]
fn more_targets_than_are_cached_are_all_found() {
    let members: Vec<_> = (0..3 * CAPACITY).map(|number| member(&format!("m{number}"))).collect();
    let mut peers = TargetCache::default();
    for member in members.iter().chain(&members) {
        assert!(Arc::ptr_eq(&peers.get(&member.name, |_| Some(member.clone())).unwrap(), member));
    }
    assert_eq!(peers.known.len(), CAPACITY);
}

#[test]
fn departed_targets_are_looked_up_again_and_not_kept() {
    let (old, other, new) = (member("a"), member("b"), member("a"));
    let mut peers = TargetCache::default();
    peers.get("a", |_| Some(old.clone()));
    peers.get("b", |_| Some(other.clone()));
    old.mark_gone();
    assert!(Arc::ptr_eq(&peers.get("a", |_| Some(new.clone())).unwrap(), &new));
    assert_eq!((Arc::weak_count(&old), Arc::strong_count(&old)), (0, 1));
    drop(new);
    assert!(peers.get("a", |_| None).is_none());
    assert!(Arc::ptr_eq(&peers.get("b", unasked).unwrap(), &other));
    assert_eq!(Arc::strong_count(&other), 1);
}
