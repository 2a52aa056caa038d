//! The limits of what waits, and the phases of a name.

use super::*;
use elbus_plugin_api::{Encoding, FrameKind, Payload, Qos, Run};
use std::time::Duration;

fn run(payload: &[u8]) -> HeldRun {
    let (payloads, mut encoding) = ([Payload::from(payload)], Encoding::new());
    let mut run = Run::new(FrameKind::Message, Qos::NO, "s", "", &payloads, None, &mut encoding);
    HeldRun::new(&mut run, payload.len())
}

/// Returns the payloads of runs.
fn payloads(runs: &VecDeque<HeldRun>) -> Vec<Vec<u8>> {
    let payload = |run: &HeldRun| {
        run.with_run(|run| run.payloads().iter().flat_map(|payload| payload.to_vec()).collect())
    };
    runs.iter().map(payload).collect()
}

/// Has messages to `name` wait, because of the resolver 7.
fn await_name(names: &WaitingNames, name: &str, until: Instant) {
    let NextStep::Ask { question } = names.next_step(name) else { panic!("known already") };
    assert!(names.await_name(name, question, 7, until, || true));
}

fn later() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

#[test]
fn a_name_is_asked_about_once_and_runs_wait_for_the_answer() {
    let names = WaitingNames::default();
    let NextStep::Ask { question } = names.next_step("n") else { panic!() };
    assert_eq!(names.next_step("n"), NextStep::Wait);
    assert_eq!(names.push("n", run(b"1")), Pushed::Waits);
    assert_eq!(names.push("other", run(b"1")), Pushed::NotAwaited);
    assert_eq!(names.take_due(later()).1, None);
    assert_eq!(payloads(&names.refuse_name("n", question)), [b"1"]);
    assert_eq!(names.refuse_name("n", question).len(), 0);
    // an answer of a resolver that has ended
    let NextStep::Ask { question: second } = names.next_step("n") else { panic!() };
    assert_ne!(question, second);
    assert!(!names.await_name("n", second, 7, later(), || false));
    assert_eq!(names.refuse_name("n", question).len(), 0);
    assert_eq!(names.next_step("n"), NextStep::Wait, "an old question ends nothing");
}

#[test]
fn waits_end_by_time_by_their_resolver_and_with_it() {
    let names = WaitingNames::default();
    let now = Instant::now();
    for (name, seconds) in [("a", 1), ("b", 2), ("c", 3), ("d", 4)] {
        await_name(&names, name, now + Duration::from_secs(seconds));
        assert_eq!(names.push(name, run(name.as_bytes())), Pushed::Waits);
    }
    let (due, next) = names.take_due(now + Duration::from_secs(1));
    assert_eq!(due.iter().map(|(name, runs)| (&**name, runs.len())).collect::<Vec<_>>(), [("a", 1)]);
    assert_eq!(next, Some(now + Duration::from_secs(2)));
    assert_eq!(names.end_wait(8, "b").len(), 0, "of another resolver");
    assert_eq!(payloads(&names.end_wait(7, "b")), [b"b"]);
    assert!(names.end_waits_of(8).is_empty());
    assert_eq!(names.end_waits_of(7).len(), 2);
    assert_eq!(names.take_due(later()), (vec![], None));
}

impl PartialEq for HeldRun {
    fn eq(&self, other: &Self) -> bool {
        self.body_bytes == other.body_bytes
    }
}

impl std::fmt::Debug for HeldRun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HeldRun of {} messages", self.frames())
    }
}

#[test]
fn what_waits_is_limited_and_counts_in_the_budget() {
    let names = WaitingNames::default();
    let budget = QueueBudget::new(100 << 20);
    names.set_budget(budget.clone());
    let large = vec![0; 300 << 10];
    for name in 0..64 {
        let name = format!("n{name}");
        await_name(&names, &name, later());
        while names.push(&name, run(&large)) == Pushed::Waits {}
        assert_eq!(names.push(&name, run(&vec![0; (1 << 20) + 1])), Pushed::Full);
    }
    let queued = budget.queued();
    assert!(queued <= MAX_BYTES && queued > MAX_BYTES - large.len() - 1024, "{queued}");
    assert_eq!(names.end_waits_of(7).len(), 64);
    assert_eq!(budget.queued(), 0);
    await_name(&names, "empty", later());
    let mut count = 0;
    while names.push("empty", run(b"")) == Pushed::Waits {
        count += 1;
    }
    assert!((1000..=MAX_NAME_RUNS).contains(&count), "{count}");
    drop(names);
    assert_eq!(budget.queued(), 0);
}

#[test]
fn the_number_of_names_is_limited() {
    let names = WaitingNames::default();
    (0..MAX_NAMES).for_each(|name| await_name(&names, &name.to_string(), later()));
    assert_eq!(names.next_step("more"), NextStep::Refuse);
    assert_eq!(names.next_step("0"), NextStep::Wait);
    assert!(!names.begin_delivery("0", 1), "nothing waits for it");
    assert!(matches!(names.next_step("more"), NextStep::Ask { .. }));
}

#[test]
fn runs_queue_behind_until_the_last_one_is_taken() {
    let names = WaitingNames::default();
    await_name(&names, "n", later());
    assert_eq!(names.push("n", run(b"1")), Pushed::Waits);
    assert!(names.begin_delivery("n", 5) && names.end_waits_of(7).is_empty(), "it has registered");
    assert!(matches!(names.push_behind("n", 4, || unreachable!()), Behind::Ended(None)));
    assert!(matches!(names.push_behind("n", 5, || run(b"2")), Behind::Waits));
    let mut ended = false;
    assert_eq!(payloads(&names.take_delivery("n", 5, || ended = true).unwrap()), [b"1", b"2"]);
    assert!(matches!(names.push_behind("n", 5, || run(b"3")), Behind::Waits));
    assert_eq!(payloads(&names.take_delivery("n", 5, || ended = true).unwrap()), [b"3"]);
    assert!(!ended && names.take_delivery("n", 5, || ended = true).is_none());
    assert!(ended && matches!(names.push_behind("n", 5, || unreachable!()), Behind::Ended(None)));
}

#[test]
fn a_sender_that_goes_on_cannot_prolong_the_delivery_for_ever() {
    let names = WaitingNames::default();
    await_name(&names, "n", later());
    assert_eq!(names.push("n", run(b"1")), Pushed::Waits);
    assert!(names.begin_delivery("n", 5));
    let mut rounds = 0;
    while names.take_delivery("n", 5, || ()).is_some() {
        rounds += 1;
        let behind = names.push_behind("n", 5, || run(b"again"));
        assert!(matches!(behind, Behind::Waits) == (rounds < MAX_ROUNDS));
    }
    assert_eq!(rounds, MAX_ROUNDS);
}

#[test]
fn another_client_that_takes_the_name_gets_what_is_left() {
    let names = WaitingNames::default();
    await_name(&names, "n", later());
    assert_eq!(names.push("n", run(b"1")), Pushed::Waits);
    assert!(names.begin_delivery("n", 5) && names.begin_delivery("n", 6));
    let mut ended = false;
    assert!(names.take_delivery("n", 5, || ended = true).is_none() && ended);
    assert_eq!(payloads(&names.take_delivery("n", 6, || ()).unwrap()), [b"1"]);
}
