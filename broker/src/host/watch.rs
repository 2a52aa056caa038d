//! The watch over callbacks: a thread that looks at the [calls in progress](crate::calls) twenty times a second, logs those
//! that last, counts them, and fails instances whose callbacks do not return. Never calls a plugin itself.
//!
//! It counts its own looks rather than time: while the whole process is stopped, nothing ages.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};

use super::{core::Core, plugins::Plugins};
use crate::calls::{self, Callback, Caller, InProgress, InThread};

/// Time between two looks.
const PERIOD: Duration = Duration::from_millis(50);
/// A callback is reported when it has lasted for so many periods.
const REPORTED_AFTER: u32 = 2;
/// Calls of one batch are judged together where they take a millisecond each on average, that is so many for each look...
const REPORTED_CALLS: u64 = 50;
/// ...and fail their instance if they take ten: no short call does on a busy machine.
const FAILED_CALLS: u64 = 5;
/// Then the callbacks of an instance are reported no more for so many looks, only counted.
const SILENCE: u64 = 200;
/// Instances whose last report is remembered.
const REMEMBERED_REPORTS: usize = 1024;

/// Starts the thread, which ends with the plugins. Without it callbacks are not watched.
pub(super) fn watch(plugins: &Arc<Plugins>, core: &Arc<Core>) {
    let (plugins, core) = (Arc::downgrade(plugins), core.clone());
    let body = move || run(&plugins, &core);
    if let Err(error) = std::thread::Builder::new().name("callback watch".to_owned()).spawn(body) {
        tracing::error!(%error, "cannot start a thread: callbacks of plugins are not watched");
    }
}

/// How the calls of a batch are reported.
const TOGETHER: &str = "callbacks have followed one another without a pause for";

fn run(plugins: &Weak<Plugins>, core: &Core) {
    let mut ages = Ages::default();
    let mut reports = Reports::default();
    loop {
        std::thread::sleep(PERIOD);
        let Some(plugins) = plugins.upgrade() else { return };
        let limit = core.callback_limit();
        let limit = u32::try_from(limit.as_millis() / PERIOD.as_millis()).unwrap_or(u32::MAX);
        reports.looks += 1;
        for late in ages.look(calls::in_progress(), limit) {
            match late {
                Late::Reached(call) => {
                    reports.report(&plugins, core, &call, "callback has not returned within")
                }
                Late::Together(call) => reports.report(&plugins, core, &call, TOGETHER),
                Late::Returned(call, looks) => reports.returned(&plugins, &call, looks),
                Late::Expired(call) => fail(&plugins, core, &call, "has not returned within"),
                Late::ExpiredTogether(call) => {
                    fail(&plugins, core, &call, "has lasted, call after call, for")
                }
            }
        }
    }
}

/// What a look has found.
#[derive(Debug, PartialEq, Eq)]
enum Late {
    /// It has lasted for [`REPORTED_AFTER`].
    Reached(InProgress),
    /// It has lasted for the limit, though it must not block.
    Expired(InProgress),
    /// The calls of its instance in one batch have lasted for [`REPORTED_AFTER`].
    Together(InProgress),
    /// They have lasted for the limit.
    ExpiredTogether(InProgress),
    /// A call that had been reported has returned, after so many looks.
    Returned(InProgress, u32),
}

/// How long the calls in progress have lasted, in looks.
#[derive(Default)]
struct Ages {
    calls: HashMap<(usize, u64), Age>,
    /// By thread and instance: the calls of its batch.
    batches: HashMap<(usize, u32), Batch>,
}

/// The calls of one instance that a thread makes one after another in the same batch.
struct Batch {
    number: u64,
    /// How many looks have met one.
    looks: u32,
    /// How many of them the thread had made at the first look.
    from: u64,
    reported: bool,
    expired: bool,
}

struct Age {
    looks: u32,
    /// As it was reported.
    reported: Option<InProgress>,
    /// Its instance was failed because of it.
    expired: bool,
}

impl Ages {
    /// Looks at the threads once.
    fn look(&mut self, threads: Vec<InThread>, limit: u32) -> Vec<Late> {
        let mut before = std::mem::take(&mut self.calls);
        let goes_on = |record: usize, number: u64| {
            threads.iter().any(|thread| thread.record == record && thread.batch == number)
        };
        self.batches.retain(|(record, _), batch| goes_on(*record, batch.number));
        let mut late = vec![];
        for thread in threads {
            late.extend(self.look_at_batch(&thread, limit));
            let calls = thread.calls;
            for call in &calls {
                let mut age =
                    before.remove(&call.key).unwrap_or(Age { looks: 0, reported: None, expired: false });
                age.looks = age.looks.saturating_add(1);
                self.calls.insert(call.key, age);
            }
            let ages = &mut self.calls;
            // a stop has a deadline, and whoever waits for it; a slow method may block, but not without end
            let is_due = |call: &&InProgress| match call.callback {
                Callback::Stop => false,
                Callback::SlowMethod => ages.get(&call.key).is_some_and(|age| age.looks >= limit),
                _ => true,
            };
            if let Some(call) = blamed(&calls, ages, REPORTED_AFTER + 1).filter(is_due)
                && let Some(age) = ages.get_mut(&call.key)
                && age.reported.is_none()
            {
                age.reported = Some(call.clone());
                late.push(Late::Reached(call.clone()));
            }
            if let Some(call) = blamed(&calls, ages, limit)
                && call.callback.must_not_block()
                && let Some(age) = ages.get_mut(&call.key)
                && !std::mem::replace(&mut age.expired, true)
            {
                late.push(Late::Expired(call.clone()));
            }
        }
        let returned = before.into_values().filter_map(|age| Some(Late::Returned(age.reported?, age.looks)));
        late.extend(returned);
        late
    }

    /// Looks at the batch of a thread: calls of one instance that are short may last long together. Those within another call
    /// are that call's affair, and a call that lasts is judged by itself.
    fn look_at_batch(&mut self, thread: &InThread, limit: u32) -> Option<Late> {
        let [call @ InProgress { caller: Caller::Client(_), .. }] = &*thread.calls else { return None };
        let new =
            Batch { number: thread.batch, looks: 0, from: thread.count, reported: false, expired: false };
        let batch = self.batches.entry((thread.record, call.owner)).or_insert(new);
        batch.looks = batch.looks.saturating_add(1);
        let count = thread.count.saturating_sub(batch.from);
        let looks = u64::from(batch.looks);
        if count == 0 {
            return None;
        }
        if batch.looks >= limit
            && count <= looks.saturating_mul(FAILED_CALLS)
            && !std::mem::replace(&mut batch.expired, true)
        {
            return Some(Late::ExpiredTogether(call.clone()));
        }
        let is_reached = batch.looks > REPORTED_AFTER && count <= looks.saturating_mul(REPORTED_CALLS);
        (is_reached && !std::mem::replace(&mut batch.reported, true)).then(|| Late::Together(call.clone()))
    }
}

/// The call of a thread that holds it up for `limit` looks. Of calls within calls it is the innermost that has lasted
/// for half of that at least: those around it wait for it.
fn blamed<'a>(
    calls: &'a [InProgress],
    ages: &HashMap<(usize, u64), Age>,
    limit: u32,
) -> Option<&'a InProgress> {
    let looks = |call: &InProgress| ages.get(&call.key).map_or(0, |age| age.looks);
    let candidate = calls.iter().rev().find(|call| looks(call) >= limit.div_ceil(2))?;
    (looks(candidate) >= limit).then_some(candidate)
}

/// When the callbacks of which instance were reported last.
#[derive(Default)]
struct Reports {
    looks: u64,
    last: HashMap<u32, u64>,
}

impl Reports {
    fn report(&mut self, plugins: &Plugins, core: &Core, call: &InProgress, what: &str) {
        if let Some(instance) = plugins.by_owner(call.owner) {
            instance.count_slow_callback();
        }
        let last = self.last.get(&call.owner);
        if last.is_some_and(|last| self.looks - last < SILENCE) {
            return;
        }
        if self.last.len() >= REMEMBERED_REPORTS {
            self.last.clear();
        }
        self.last.insert(call.owner, self.looks);
        tracing::warn!(
            plugin = calls::owner_name(call.owner),
            callback = call.callback.name(),
            caller = caller_name(core, &call.caller),
            thread = call.thread,
            "{what} {} ms",
            (PERIOD * REPORTED_AFTER).as_millis()
        );
    }

    fn returned(&self, plugins: &Plugins, call: &InProgress, looks: u32) {
        // short ones are counted and shown by the report
        let milliseconds = (PERIOD * looks).as_millis();
        if plugins.by_owner(call.owner).is_none() || looks < 20 {
            return tracing::debug!(
                plugin = calls::owner_name(call.owner),
                callback = call.callback.name(),
                milliseconds,
                "callback has returned"
            );
        }
        tracing::info!(
            plugin = calls::owner_name(call.owner),
            callback = call.callback.name(),
            milliseconds,
            "callback has returned"
        );
    }
}

fn caller_name(core: &Core, caller: &Caller) -> String {
    match caller {
        Caller::Client(number) => core.router.client_by_number(*number).unwrap_or_default(),
        Caller::Name(name) => name.clone(),
    }
}

/// Fails the instance whose callback does not return. The thread is abandoned: it ends, if ever, when the callback
/// returns.
fn fail(plugins: &Plugins, core: &Core, call: &InProgress, what: &str) {
    let seconds = core.callback_limit().as_secs_f64();
    let why = format!("{} {what} {seconds} s (callback_seconds)", call.callback.name());
    let Some(instance) = plugins.by_owner(call.owner) else {
        let plugin = calls::owner_name(call.owner);
        return tracing::error!(plugin, thread = call.thread, "abandoned: {why}");
    };
    if call.callback == Callback::OnEvent {
        core.router.events.replace_thread();
    }
    instance.fail(call.owner, &why);
}

/// Names the calls in progress that do not return: those that last through a moment.
pub fn hanging_calls() -> Vec<String> {
    let all = calls::in_progress().into_iter().flat_map(|thread| thread.calls);
    let before: Vec<_> = all.map(|call| call.key).collect();
    std::thread::sleep(PERIOD);
    let innermost = calls::in_progress().into_iter().filter_map(|mut thread| thread.calls.pop());
    innermost
        .filter(|call| before.contains(&call.key))
        .map(|call| {
            let plugin = calls::owner_name(call.owner);
            format!("plugin {plugin} in {} (thread {})", call.callback.name(), call.thread)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(serial: u64, callback: Callback) -> InProgress {
        InProgress { key: (0, serial), owner: 9, callback, caller: Caller::Client(0), thread: "t".into() }
    }

    /// One thread, in these calls.
    fn thread(calls: Vec<InProgress>) -> Vec<InThread> {
        vec![InThread { calls, ..InThread::default() }]
    }

    #[test]
    fn a_call_is_reported_once_and_fails_its_instance_once() {
        let mut ages = Ages::default();
        let deliver = call(1, Callback::Deliver);
        let mut found = vec![];
        for look in 1..=20 {
            let late = ages.look(thread(vec![deliver.clone()]), 10);
            found.extend(late.into_iter().map(|late| (look, late)));
        }
        assert_eq!(found, [(3, Late::Reached(deliver.clone())), (10, Late::Expired(deliver.clone()))]);
        assert_eq!(ages.look(vec![], 10), [Late::Returned(deliver, 20)]);
        assert_eq!(ages.look(vec![], 10), []);
    }

    #[test]
    fn calls_that_come_and_go_are_not_late() {
        let mut ages = Ages::default();
        for look in 0..50 {
            assert_eq!(ages.look(thread(vec![call(look / 2, Callback::Deliver)]), 10), []);
        }
    }

    #[test]
    fn the_innermost_is_blamed_also_when_it_began_a_look_later() {
        let mut ages = Ages::default();
        let (outer, inner) = (call(1, Callback::OnEvent), call(2, Callback::Deliver));
        let mut found = ages.look(thread(vec![outer.clone()]), 10);
        for _ in 0..20 {
            found.extend(ages.look(thread(vec![outer.clone(), inner.clone()]), 10));
        }
        assert_eq!(found, [Late::Reached(inner.clone()), Late::Expired(inner)]);
    }

    #[test]
    fn one_that_makes_short_calls_for_ever_is_blamed_itself() {
        let mut ages = Ages::default();
        let outer = call(1, Callback::OnEvent);
        let mut found = vec![];
        for look in 0..20 {
            found.extend(ages.look(thread(vec![outer.clone(), call(100 + look, Callback::Deliver)]), 10));
        }
        assert_eq!(found, [Late::Reached(outer.clone()), Late::Expired(outer)]);
    }

    #[test]
    fn one_that_goes_on_behind_a_long_call_of_its_own_is_blamed_in_the_end() {
        let mut ages = Ages::default();
        let (outer, inner) = (call(1, Callback::OnEvent), call(2, Callback::Deliver));
        let mut found = vec![];
        for look in 1..=30 {
            // the inner one lasts through the moment when the outer one has reached the limit
            let calls = if (4..=11).contains(&look) { vec![&outer, &inner] } else { vec![&outer] };
            found.extend(ages.look(thread(calls.into_iter().cloned().collect()), 10));
        }
        found.retain(|late| matches!(late, Late::Expired(_)));
        assert_eq!(found, [Late::Expired(outer.clone())]);
        // a limit that was lowered meanwhile holds for what has lasted longer
        let mut ages = Ages::default();
        let mut expired = |limit| {
            let late = ages.look(thread(vec![outer.clone()]), limit);
            late.iter().filter(|late| matches!(late, Late::Expired(_))).count()
        };
        assert_eq!((0..20).map(|_| expired(100)).sum::<usize>(), 0);
        assert_eq!((expired(10), expired(10)), (1, 0));
    }

    #[test]
    fn those_that_may_block_are_reported_and_left_alone() {
        for (callback, reported) in [(Callback::Start, 1), (Callback::SlowMethod, 1), (Callback::Stop, 0)] {
            let mut ages = Ages::default();
            let late: Vec<_> = (0..20).flat_map(|_| ages.look(thread(vec![call(1, callback)]), 10)).collect();
            assert_eq!(late.len(), reported, "{late:?}");
        }
        let mut ages = Ages::default();
        let early = (0..9).flat_map(|_| ages.look(thread(vec![call(1, Callback::SlowMethod)]), 10)).count();
        assert_eq!(early, 0, "a slow method is reported after callback_seconds");
    }

    /// What comes of looks at a thread that makes so many calls between two of them, in batches of so many looks.
    fn looks(
        count: u32,
        calls_per_look: u64,
        looks_per_batch: u64,
        within: &[InProgress],
    ) -> Vec<(u32, Late)> {
        let mut ages = Ages::default();
        let mut found = vec![];
        for look in 1..=count {
            let made = u64::from(look) * calls_per_look;
            let calls = [within, &[call(1000 + made, Callback::Deliver)]].concat();
            let batch = u64::from(look) / looks_per_batch;
            let thread = InThread { record: 0, batch, count: made, calls };
            found.extend(ages.look(vec![thread], 10).into_iter().map(|late| (look, late)));
        }
        found
    }

    #[test]
    fn short_calls_that_hold_up_a_thread_together_are_blamed() {
        let deliver = |look: u64, calls: u64| call(1000 + look * calls, Callback::Deliver);
        let (reached, expired) = (Late::Together(deliver(3, 5)), Late::ExpiredTogether(deliver(10, 5)));
        assert_eq!(looks(30, 5, 100, &[]), [(3, reached), (10, expired)], "ten milliseconds each");
        assert_eq!(looks(30, 50, 100, &[]), [(3, Late::Together(deliver(3, 50)))], "one: only reported");
        assert_eq!(looks(30, 100, 100, &[]), [], "there are many, not slow ones");
        assert_eq!(looks(30, 5, 2, &[]), [], "it did something else in between");
        let outer = call(1, Callback::OnEvent);
        let found = looks(30, 5, 100, std::slice::from_ref(&outer));
        assert_eq!(found, [(3, Late::Reached(outer.clone())), (10, Late::Expired(outer))], "who makes them");
    }

    #[test]
    fn instances_that_take_turns_in_a_batch_are_told_apart() {
        let mut ages = Ages::default();
        let mut found = vec![];
        for look in 1..=30 {
            // two looks of three are in calls of the slow one, the others in those of another, of which there are many
            let is_slow = look % 3 > 0;
            let (owner, count) = if is_slow { (9, look) } else { (10, 1000 * look) };
            let calls = vec![InProgress { owner, ..call(100 + look, Callback::Deliver) }];
            found.extend(ages.look(vec![InThread { count, calls, ..InThread::default() }], 10));
        }
        let owners: Vec<_> = found
            .iter()
            .map(|late| match late {
                Late::Together(call) => (call.owner, false),
                Late::ExpiredTogether(call) => (call.owner, true),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(owners, [(9, false), (9, true)]);
    }
}
