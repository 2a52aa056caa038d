//! Readers that wait and are woken, with a source that the test fills.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use super::*;
use crate::{Encoding, FrameKind, Payload, Qos, Run, inproc::OwnedRun};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

#[derive(Default)]
struct Counter(AtomicUsize);

impl std::task::Wake for Counter {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

fn counted() -> (Arc<Counter>, Waker) {
    let counter = Arc::new(Counter::default());
    (counter.clone(), counter.into())
}

fn run_of(payloads: &[&str]) -> OwnedRun {
    let payloads: Vec<_> = payloads.iter().map(|payload| Payload::from(payload.as_bytes())).collect();
    let mut encoding = Encoding::new();
    OwnedRun::new(&Run::new(FrameKind::Message, Qos::NO, "s", "", &payloads, None, &mut encoding))
}

fn give(run: &[&str]) -> impl Fn(&mut RunBatch, bool) -> bool {
    move |into, _| {
        into.push(run_of(run));
        true
    }
}

fn nothing(_: &mut RunBatch, _: bool) -> bool {
    true
}

fn text(message: Poll<Option<Message>>) -> String {
    let Poll::Ready(Some(message)) = message else { return format!("{message:?}") };
    String::from_utf8_lossy(message.payload()).into_owned()
}

#[test]
fn messages_come_in_order_and_then_the_end() {
    let receiver = Receiver::default();
    let received = |into: &mut RunBatch, _: bool| {
        into.push(run_of(&["1", "2"]));
        into.push(run_of(&["3"]));
        false
    };
    assert_eq!(text(receiver.poll(None, received)), "1");
    for expected in ["2", "3"] {
        assert_eq!(text(receiver.poll(None, |_, _| unreachable!("it is there"))), expected);
    }
    assert_eq!(text(receiver.poll(None, give(&["4"]))), "4");
    assert!(matches!(receiver.poll(None, |_, _| false), Poll::Ready(None)));
}

#[test]
fn who_waits_is_woken_once_and_who_does_not_is_not_noted() {
    let (counter, waker) = counted();
    let receiver = Receiver::default();
    assert!(receiver.poll(None, |_, waits| !waits).is_pending());
    assert!(receiver.poll(Some(&waker), |_, waits| waits).is_pending());
    assert!(receiver.poll(Some(&waker), nothing).is_pending(), "again, by the same task");
    receiver.notify();
    receiver.notify();
    assert_eq!(counter.0.load(SeqCst), 1);
}

#[test]
fn a_notification_before_a_reader_waits_makes_it_poll_again() {
    let (counter, waker) = counted();
    let (receiver, polls) = (Receiver::default(), AtomicUsize::new(0));
    let received = |into: &mut RunBatch, _: bool| {
        if polls.fetch_add(1, SeqCst) == 0 {
            receiver.notify(); // something arrives after the poll
        } else {
            into.push(run_of(&["x"]));
        }
        true
    };
    assert_eq!(text(receiver.poll(Some(&waker), received)), "x");
    assert_eq!(counter.0.load(SeqCst), 0);
}

#[test]
fn a_reader_that_leaves_messages_wakes_the_readers_that_wait() {
    let (counter, waker) = counted();
    let receiver = Receiver::default();
    assert!(receiver.poll(Some(&waker), nothing).is_pending());
    assert_eq!(text(receiver.poll(None, give(&["1"]))), "1");
    assert_eq!(counter.0.load(SeqCst), 0, "nothing is left for it");
    assert_eq!(text(receiver.poll(None, give(&["2", "3"]))), "2");
    assert_eq!(counter.0.load(SeqCst), 1);
}

#[test]
fn readers_that_gave_up_are_not_kept_for_ever() {
    let receiver = Receiver::default();
    let crowd: Vec<_> = (0..=MAX_READERS).map(|_| counted()).collect();
    for (_, waker) in &crowd {
        assert!(receiver.poll(Some(waker), nothing).is_pending());
    }
    assert!(crowd.iter().all(|(counter, _)| counter.0.load(SeqCst) == 1));
    let state = receiver.state.lock();
    assert!(state.waiting.first.is_none() && state.waiting.others.is_empty());
}
