//! Tests of the record of calls into plugins.

use super::*;
use std::sync::mpsc;

fn all_calls() -> impl Iterator<Item = CallInProgress> {
    in_progress().into_iter().flat_map(|thread| thread.calls)
}

fn of(owner: u32) -> Vec<(Callback, Caller)> {
    all_calls().filter(|call| call.owner == owner).map(|call| (call.callback, call.caller)).collect()
}

#[test]
fn calls_are_visible_while_they_are_in_progress() {
    let (owner, client) = (1_000_001, 77);
    let ((entered, was_entered), (go, wait)) = (mpsc::channel(), mpsc::channel::<()>());
    let thread = std::thread::spawn(move || {
        for_caller(owner, Callback::OnEvent, "who", || {
            set_client(client);
            for_client(owner, Callback::Deliver, || {
                entered.send(()).unwrap();
                wait.recv().unwrap();
            });
            entered.send(()).unwrap();
            wait.recv().unwrap();
        });
        entered.send(()).unwrap();
        wait.recv().unwrap();
    });
    let outer = (Callback::OnEvent, Caller::Name("who".into()));
    was_entered.recv().unwrap();
    assert_eq!(of(owner), [outer.clone(), (Callback::Deliver, Caller::Client(client))]);
    go.send(()).unwrap();
    was_entered.recv().unwrap();
    assert_eq!(of(owner), [outer]);
    go.send(()).unwrap();
    was_entered.recv().unwrap();
    assert_eq!(of(owner), []);
    go.send(()).unwrap();
    thread.join().unwrap();
}

#[test]
fn threads_without_a_name_have_separate_records() {
    let owner = 1_000_004;
    let both_in = std::sync::Barrier::new(3);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let thread = std::thread::Builder::new().name(String::new());
            let wait = || _ = (both_in.wait(), both_in.wait());
            thread.spawn_scoped(scope, move || for_caller(owner, Callback::Flush, "", wait)).unwrap();
        }
        both_in.wait();
        let calls: Vec<_> = all_calls().filter(|call| call.owner == owner).collect();
        both_in.wait();
        assert_eq!(calls.len(), 2);
        assert_ne!(calls[0].key.0, calls[1].key.0, "two records");
        assert_eq!(calls[0].thread, "(unnamed)");
    });
}

#[test]
fn a_call_keeps_its_key_and_the_next_has_another() {
    let owner = 1_000_002;
    let key = || all_calls().find(|call| call.owner == owner).unwrap().key;
    let key_twice = || (key(), key());
    let first = for_client(owner, Callback::Flush, key_twice);
    let second = for_client(owner, Callback::Flush, key_twice);
    let third = for_caller(owner, Callback::Stop, "", key_twice);
    for (one, other) in [first, second, third] {
        assert_eq!(one, other);
    }
    assert!(first != second && second != third);
}

#[test]
fn a_call_keeps_its_key_while_it_makes_inner_ones() {
    let (owner, inner) = (1_000_005, 1_000_006);
    let key = |owner| all_calls().find(|call| call.owner == owner).map(|call| call.key);
    for_client(owner, Callback::Deliver, || {
        let own = key(owner);
        let mut seen = vec![own];
        for _ in 0..2 {
            for_client(inner, Callback::Deliver, || {
                assert_eq!(key(owner), own);
                for_caller(inner, Callback::Method, "", || assert_eq!(key(owner), own));
                seen.push(key(inner));
            });
            assert_eq!(key(owner), own);
        }
        assert!(seen.iter().all(|key| key.is_some()), "{seen:?}");
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 3, "each inner call has its own key");
    });
    assert_eq!((key(owner), key(inner)), (None, None));
}

#[test]
fn a_batch_that_ends_within_a_call_ends_nothing() {
    let owner = 1_000_007;
    let here = || {
        let threads = in_progress().into_iter();
        threads
            .map(|thread| (thread.batch, thread.count, thread.calls))
            .find(|(.., calls)| calls.iter().any(|call| call.owner == owner))
    };
    let counts = || here().map(|(batch, count, _)| (batch, count)).unwrap_or_default();
    let (batch, count) = for_client(owner, Callback::Deliver, counts);
    let within = for_client(owner, Callback::Deliver, || {
        end_batch();
        counts()
    });
    assert_eq!(within, (batch, count + 1));
    end_batch();
    assert_eq!(for_client(owner, Callback::Flush, counts), (batch + 1, count + 2));
}

#[test]
fn each_callback_has_its_own_number_and_name() {
    for (index, (callback, name)) in CALLBACKS.iter().enumerate() {
        assert_eq!(*callback as usize, index + 1);
        assert_eq!((Callback::of(*callback as u64), callback.name()), (Some(*callback), *name));
    }
    let waiting = CALLBACKS.iter().filter(|(callback, _)| !callback.must_not_block()).map(|(c, _)| *c);
    use Callback::*;
    assert_eq!(waiting.collect::<Vec<_>>(), [SlowMethod, Create, Start, Serve, Refresh, Stop]);
}
