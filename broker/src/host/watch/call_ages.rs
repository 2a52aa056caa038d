//! The ages of the calls in progress, in scans of the watch. Finds the callback that blocks a thread, alone
//! or together with others of its batch. Reads no clock, calls no plugin, logs nothing.

use std::collections::HashMap;

use crate::callbacks::{CallInProgress, Callback, Caller, ThreadCalls};

/// Age in scans above which a callback is reported.
pub(super) const REPORTED_AFTER: u32 = 2;
/// Calls per scan up to which the calls of one batch are reported together: a millisecond each on average.
const REPORTED_CALLS: u64 = 50;
/// Calls per scan up to which they fail their instance: ten milliseconds each, which no short call takes even
/// on a busy machine.
const FAILED_CALLS: u64 = 5;

/// A finding of a scan.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum LateCall {
    /// The call is older than [`REPORTED_AFTER`] scans.
    Reached(CallInProgress),
    /// The call must not block and has reached the limit.
    Expired(CallInProgress),
    /// The calls of its instance in one batch have together taken longer than [`REPORTED_AFTER`] scans.
    BatchReached(CallInProgress),
    /// The calls of its instance in one batch have reached the limit.
    BatchExpired(CallInProgress),
    /// A reported call has returned, after this many scans.
    Returned(CallInProgress, u32),
}

/// The ages of the calls in progress, in scans.
#[derive(Default)]
pub(super) struct CallAges {
    calls: HashMap<(usize, u64), Age>,
    /// The calls of the current batch, by thread and instance.
    batches: HashMap<(usize, u32), Batch>,
}

/// The calls of one instance that a thread makes one after the other in a batch.
struct Batch {
    number: u64,
    /// The number of scans that have found one in progress.
    scans: u32,
    /// The thread's count of these calls at the first scan.
    first_count: u64,
    reported: bool,
    expired: bool,
}

struct Age {
    scans: u32,
    /// The call as it was reported.
    reported: Option<CallInProgress>,
    /// The call has failed its instance.
    expired: bool,
}

impl CallAges {
    /// Takes the calls in progress at one scan and returns the late ones. `limit` is in scans.
    pub(super) fn scan(&mut self, threads: Vec<ThreadCalls>, limit: u32) -> Vec<LateCall> {
        let mut before = std::mem::take(&mut self.calls);
        let continues = |record: usize, number: u64| {
            threads.iter().any(|thread| thread.record == record && thread.batch == number)
        };
        self.batches.retain(|(record, _), batch| continues(*record, batch.number));
        let mut late = vec![];
        for thread in threads {
            late.extend(self.scan_batch(&thread, limit));
            let calls = thread.calls;
            for call in &calls {
                let mut age =
                    before.remove(&call.key).unwrap_or(Age { scans: 0, reported: None, expired: false });
                age.scans = age.scans.saturating_add(1);
                self.calls.insert(call.key, age);
            }
            let ages = &mut self.calls;
            // the caller of a stop enforces its deadline; a slow method may block, but not indefinitely
            let is_due = |call: &&CallInProgress| match call.callback {
                Callback::Stop => false,
                Callback::SlowMethod => ages.get(&call.key).is_some_and(|age| age.scans >= limit),
                _ => true,
            };
            if let Some(call) = blocking_call(&calls, ages, REPORTED_AFTER + 1).filter(is_due)
                && let Some(age) = ages.get_mut(&call.key)
                && age.reported.is_none()
            {
                age.reported = Some(call.clone());
                late.push(LateCall::Reached(call.clone()));
            }
            if let Some(call) = blocking_call(&calls, ages, limit)
                && call.callback.must_not_block()
                && let Some(age) = ages.get_mut(&call.key)
                && !std::mem::replace(&mut age.expired, true)
            {
                late.push(LateCall::Expired(call.clone()));
            }
        }
        let returned =
            before.into_values().filter_map(|age| Some(LateCall::Returned(age.reported?, age.scans)));
        late.extend(returned);
        late
    }

    /// Examines the batch of a thread, since many short calls of one instance can take long together. A
    /// nested call counts as part of the call around it, and a single long call is examined by itself.
    fn scan_batch(&mut self, thread: &ThreadCalls, limit: u32) -> Option<LateCall> {
        let [call @ CallInProgress { caller: Caller::Client(_), .. }] = &*thread.calls else { return None };
        let new = Batch {
            number: thread.batch,
            scans: 0,
            first_count: thread.count,
            reported: false,
            expired: false,
        };
        let batch = self.batches.entry((thread.record, call.owner)).or_insert(new);
        batch.scans = batch.scans.saturating_add(1);
        let count = thread.count.saturating_sub(batch.first_count);
        let scans = u64::from(batch.scans);
        if count == 0 {
            return None;
        }
        if batch.scans >= limit
            && count <= scans.saturating_mul(FAILED_CALLS)
            && !std::mem::replace(&mut batch.expired, true)
        {
            return Some(LateCall::BatchExpired(call.clone()));
        }
        let is_reached = batch.scans > REPORTED_AFTER && count <= scans.saturating_mul(REPORTED_CALLS);
        (is_reached && !std::mem::replace(&mut batch.reported, true))
            .then(|| LateCall::BatchReached(call.clone()))
    }
}

/// Returns the call that has blocked its thread for `limit` scans: of nested calls the innermost that has
/// lasted for at least half of that, since those around it wait for it.
fn blocking_call<'a>(
    calls: &'a [CallInProgress],
    ages: &HashMap<(usize, u64), Age>,
    limit: u32,
) -> Option<&'a CallInProgress> {
    let scans = |call: &CallInProgress| ages.get(&call.key).map_or(0, |age| age.scans);
    let candidate = calls.iter().rev().find(|call| scans(call) >= limit.div_ceil(2))?;
    (scans(candidate) >= limit).then_some(candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(serial: u64, callback: Callback) -> CallInProgress {
        CallInProgress { key: (0, serial), owner: 9, callback, caller: Caller::Client(0), thread: "t".into() }
    }

    /// Returns one thread that executes these calls.
    fn thread(calls: Vec<CallInProgress>) -> Vec<ThreadCalls> {
        vec![ThreadCalls { calls, ..ThreadCalls::default() }]
    }

    #[test]
    fn a_long_call_is_reported_once_and_expires_once() {
        let mut ages = CallAges::default();
        let deliver = call(1, Callback::Deliver);
        let mut found = vec![];
        for scan in 1..=20 {
            let late = ages.scan(thread(vec![deliver.clone()]), 10);
            found.extend(late.into_iter().map(|late| (scan, late)));
        }
        assert_eq!(
            found,
            [(3, LateCall::Reached(deliver.clone())), (10, LateCall::Expired(deliver.clone()))]
        );
        assert_eq!(ages.scan(vec![], 10), [LateCall::Returned(deliver, 20)]);
        assert_eq!(ages.scan(vec![], 10), []);
    }

    #[test]
    fn calls_that_come_and_go_are_not_late() {
        let mut ages = CallAges::default();
        for scan in 0..50 {
            assert_eq!(ages.scan(thread(vec![call(scan / 2, Callback::Deliver)]), 10), []);
        }
    }

    #[test]
    fn the_innermost_call_is_found_even_if_it_began_a_scan_later() {
        let mut ages = CallAges::default();
        let (outer, inner) = (call(1, Callback::OnEvent), call(2, Callback::Deliver));
        let mut found = ages.scan(thread(vec![outer.clone()]), 10);
        for _ in 0..20 {
            found.extend(ages.scan(thread(vec![outer.clone(), inner.clone()]), 10));
        }
        assert_eq!(found, [LateCall::Reached(inner.clone()), LateCall::Expired(inner)]);
    }

    #[test]
    fn a_call_that_keeps_making_short_calls_is_found() {
        let mut ages = CallAges::default();
        let outer = call(1, Callback::OnEvent);
        let mut found = vec![];
        for scan in 0..20 {
            found.extend(ages.scan(thread(vec![outer.clone(), call(100 + scan, Callback::Deliver)]), 10));
        }
        assert_eq!(found, [LateCall::Reached(outer.clone()), LateCall::Expired(outer)]);
    }

    #[test]
    fn a_call_that_continues_after_a_long_inner_call_is_found() {
        let mut ages = CallAges::default();
        let (outer, inner) = (call(1, Callback::OnEvent), call(2, Callback::Deliver));
        let mut found = vec![];
        for scan in 1..=30 {
            // the inner call is in progress when the outer one reaches the limit
            let calls = if (4..=11).contains(&scan) { vec![&outer, &inner] } else { vec![&outer] };
            found.extend(ages.scan(thread(calls.into_iter().cloned().collect()), 10));
        }
        found.retain(|late| matches!(late, LateCall::Expired(_)));
        assert_eq!(found, [LateCall::Expired(outer.clone())]);
        // a lowered limit applies to calls that have already exceeded it
        let mut ages = CallAges::default();
        let mut expired = |limit| {
            let late = ages.scan(thread(vec![outer.clone()]), limit);
            late.iter().filter(|late| matches!(late, LateCall::Expired(_))).count()
        };
        assert_eq!((0..20).map(|_| expired(100)).sum::<usize>(), 0);
        assert_eq!((expired(10), expired(10)), (1, 0));
    }

    #[test]
    fn callbacks_that_may_block_are_reported_and_do_not_expire() {
        for (callback, reported) in [(Callback::Start, 1), (Callback::SlowMethod, 1), (Callback::Stop, 0)] {
            let mut ages = CallAges::default();
            let late: Vec<_> = (0..20).flat_map(|_| ages.scan(thread(vec![call(1, callback)]), 10)).collect();
            assert_eq!(late.len(), reported, "{late:?}");
        }
        let mut ages = CallAges::default();
        let early = (0..9).flat_map(|_| ages.scan(thread(vec![call(1, Callback::SlowMethod)]), 10)).count();
        assert_eq!(early, 0, "a slow method is reported after callback_seconds");
    }

    /// Returns the findings for a thread that makes `calls_per_scan` calls between two scans, in batches of
    /// `scans_per_batch`.
    fn findings(
        count: u32,
        calls_per_scan: u64,
        scans_per_batch: u64,
        within: &[CallInProgress],
    ) -> Vec<(u32, LateCall)> {
        let mut ages = CallAges::default();
        let mut found = vec![];
        for scan in 1..=count {
            let made = u64::from(scan) * calls_per_scan;
            let calls = [within, &[call(1000 + made, Callback::Deliver)]].concat();
            let batch = u64::from(scan) / scans_per_batch;
            let thread = ThreadCalls { record: 0, batch, count: made, calls };
            found.extend(ages.scan(vec![thread], 10).into_iter().map(|late| (scan, late)));
        }
        found
    }

    #[test]
    fn short_calls_that_block_a_thread_together_are_found() {
        let deliver = |scan: u64, calls: u64| call(1000 + scan * calls, Callback::Deliver);
        let (reached, expired) =
            (LateCall::BatchReached(deliver(3, 5)), LateCall::BatchExpired(deliver(10, 5)));
        assert_eq!(findings(30, 5, 100, &[]), [(3, reached), (10, expired)], "ten milliseconds each");
        assert_eq!(
            findings(30, 50, 100, &[]),
            [(3, LateCall::BatchReached(deliver(3, 50)))],
            "one millisecond each: only reported"
        );
        assert_eq!(findings(30, 100, 100, &[]), [], "many calls, none of them slow");
        assert_eq!(findings(30, 5, 2, &[]), [], "the thread did something else in between");
        let outer = call(1, Callback::OnEvent);
        let found = findings(30, 5, 100, std::slice::from_ref(&outer));
        assert_eq!(
            found,
            [(3, LateCall::Reached(outer.clone())), (10, LateCall::Expired(outer))],
            "the call that makes them is found"
        );
    }

    #[test]
    fn instances_that_alternate_in_a_batch_are_examined_separately() {
        let mut ages = CallAges::default();
        let mut found = vec![];
        for scan in 1..=30 {
            // two scans of three find calls of the slow instance, the others one of the many of another
            // instance
            let is_slow = scan % 3 > 0;
            let (owner, count) = if is_slow { (9, scan) } else { (10, 1000 * scan) };
            let calls = vec![CallInProgress { owner, ..call(100 + scan, Callback::Deliver) }];
            found.extend(ages.scan(vec![ThreadCalls { count, calls, ..ThreadCalls::default() }], 10));
        }
        let owners: Vec<_> = found
            .iter()
            .map(|late| match late {
                LateCall::BatchReached(call) => (call.owner, false),
                LateCall::BatchExpired(call) => (call.owner, true),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(owners, [(9, false), (9, true)]);
    }
}
