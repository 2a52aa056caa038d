//! The queue of one client: what it holds, when senders have to wait, and whom to wake. Has no lock and no clock of
//! its own, and calls no wake: it hands them out.

use abi_stable::std_types::RVec;
use elbus_plugin_api::{BROKER_NAME, Delivery, Queued, Run, Wake, local::RawReceived};
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use crate::settings::{Limits, Overflow};

/// What a run takes beside its bytes, about, so that empty messages are bounded too.
const RUN_BYTES: usize = 192;
const MESSAGE_BYTES: usize = 8;
/// A reader is given so much at once, at least a run: what it has not taken is under the limit and the watch.
const AT_ONCE_BYTES: usize = 64 * 1024;
/// So many wakes of readers are kept. Those of readers that have given up cannot be told from the others, so
/// beyond this all are called: a reader that still waits looks and comes again.
const MAX_READERS: usize = 256;
/// Room for so many runs is kept when the queue is empty.
const KEEP_RUNS: usize = 64;
/// How often the log hears of refused messages.
const TELL_EVERY: Duration = Duration::from_secs(10);

#[derive(Default)]
pub(crate) struct Inbox {
    /// The runs, with what each counts for.
    runs: VecDeque<(RawReceived, usize)>,
    bytes: usize,
    messages: u64,
    /// Since when senders are held and nothing was taken.
    held_since: Option<Instant>,
    /// The watch has the client on its list.
    watched: bool,
    closed: bool,
    /// A flush is owed, by whoever was told so first.
    dirty: bool,
    readers: Vec<Wake>,
    senders: Vec<Wake>,
    refused: u64,
    refused_told: Option<Instant>,
}

/// What became of a run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) delivery: Delivery,
    pub(crate) then: Then,
}

/// What is to be done after the lock is released.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Then {
    Nothing,
    /// The watch should look after the client.
    Watch,
    /// The queue is closed, since so many bytes wait: who waits is to be woken, and the client to leave.
    Disconnect {
        bytes: usize,
    },
    /// The log should hear how many messages were refused.
    Tell {
        refused: u64,
        bytes: usize,
    },
}

/// How a client does that the watch looks after.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// It has drained, or is closed: off the list.
    Well,
    /// To be looked at again.
    HeldUntil(Instant),
    /// It has taken nothing for too long.
    Stalled { bytes: usize },
}

/// What a run counts for.
pub(crate) fn cost(messages: usize, bytes: usize) -> usize {
    bytes.saturating_add(RUN_BYTES).saturating_add(messages.saturating_mul(MESSAGE_BYTES))
}

impl Inbox {
    /// Takes a run, or refuses it; an empty queue takes one of any size. `kept` is the run.
    ///
    /// Real-time messages make nobody wait, nor does what the broker itself says, which waits for nobody: so these
    /// may go up to twice the limit.
    pub(crate) fn take(
        &mut self,
        run: &Run<'_>,
        kept: RawReceived,
        limits: &Limits,
        now: impl FnOnce() -> Instant,
    ) -> Taken {
        let taken = |delivery, then| Taken { delivery, then };
        if self.closed {
            return taken(Delivery::CLOSED, Then::Nothing);
        }
        let count = kept.len();
        let cost = cost(count, kept.bytes() + run.sender().len() + run.topic().len());
        let after = self.bytes.saturating_add(cost);
        let never_waits = run.is_realtime() || run.sender() == BROKER_NAME;
        let refuse = match (never_waits, limits.overflow) {
            (true, _) => after > limits.queue_bytes.saturating_mul(2),
            (false, Overflow::Block) => false,
            (false, _) => after > limits.queue_bytes,
        };
        if refuse && !self.runs.is_empty() {
            if limits.overflow == Overflow::Disconnect {
                self.closed = true;
                self.held_since = None;
                return taken(Delivery::CLOSED, Then::Disconnect { bytes: self.bytes });
            }
            return taken(Delivery::REFUSED, self.refuse(count, now()));
        }
        self.runs.push_back((kept, cost));
        self.bytes = after;
        self.messages += count as u64;
        let mut delivery = Delivery::TAKEN;
        if !self.readers.is_empty() && !std::mem::replace(&mut self.dirty, true) {
            delivery = Delivery::DIRTY;
        }
        let mut then = Then::Nothing;
        if !never_waits && limits.overflow == Overflow::Block && self.bytes > limits.queue_bytes {
            delivery = delivery | Delivery::FULL;
            self.held_since.get_or_insert_with(now);
            if !std::mem::replace(&mut self.watched, true) {
                then = Then::Watch;
            }
        }
        taken(delivery, then)
    }

    fn refuse(&mut self, count: usize, now: Instant) -> Then {
        self.refused += count as u64;
        let recently = |told: Instant| now.saturating_duration_since(told) < TELL_EVERY;
        if self.refused_told.is_some_and(recently) {
            return Then::Nothing;
        }
        self.refused_told = Some(now);
        Then::Tell { refused: std::mem::take(&mut self.refused), bytes: self.bytes }
    }

    /// Gives a reader some of what waits; `false` once nothing will follow. The wakes are those of senders that may
    /// go on.
    pub(crate) fn give(
        &mut self,
        into: &mut RVec<RawReceived>,
        limits: &Limits,
        now: impl FnOnce() -> Instant,
    ) -> (bool, Vec<Wake>) {
        let mut given = 0;
        while given < AT_ONCE_BYTES
            && let Some((run, cost)) = self.runs.pop_front()
        {
            given += cost;
            self.messages -= run.len() as u64;
            self.bytes -= cost;
            into.push(run);
        }
        if self.runs.is_empty() {
            self.runs.shrink_to(KEEP_RUNS);
        }
        let mut wakes = Vec::new();
        if self.held_since.is_some() {
            let drained = self.bytes <= limits.queue_bytes / 4;
            self.held_since = if drained { None } else { Some(now()) };
            if drained {
                wakes = std::mem::take(&mut self.senders);
            }
        }
        (!(self.closed && self.runs.is_empty()), wakes)
    }

    /// Whom a flush wakes: all readers, if there is anything for them.
    pub(crate) fn flush(&mut self) -> Vec<Wake> {
        self.dirty = false;
        if self.runs.is_empty() && !self.closed { Vec::new() } else { std::mem::take(&mut self.readers) }
    }

    /// Lets a reader wait; the wakes are to be called at once.
    pub(crate) fn when_readable(&mut self, wake: Wake) -> Vec<Wake> {
        if self.closed || !self.runs.is_empty() {
            return vec![wake];
        }
        self.readers.push(wake);
        if self.readers.len() < MAX_READERS { Vec::new() } else { std::mem::take(&mut self.readers) }
    }

    /// Lets a sender wait; `Some`: it need not.
    pub(crate) fn when_drained(&mut self, wake: Wake) -> Option<Wake> {
        if self.closed || self.held_since.is_none() {
            return Some(wake);
        }
        self.senders.push(wake);
        None
    }

    /// Takes no more; what is there stays readable. Says whether it was open, and who waited.
    pub(crate) fn close(&mut self) -> (bool, Vec<Wake>) {
        let was_open = !std::mem::replace(&mut self.closed, true);
        self.held_since = None;
        let mut wakes = std::mem::take(&mut self.readers);
        wakes.append(&mut self.senders);
        (was_open, wakes)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// How the client does, for the watch; one that does well must be told of anew.
    pub(crate) fn look(&mut self, limits: &Limits, now: Instant) -> Look {
        match self.held_since {
            Some(since) if now.saturating_duration_since(since) >= limits.stall => {
                Look::Stalled { bytes: self.bytes }
            }
            Some(since) => Look::HeldUntil(since + limits.stall),
            None => {
                self.watched = false;
                Look::Well
            }
        }
    }

    pub(crate) fn queued(&self) -> Queued {
        Queued { frames: self.messages, bytes: self.bytes as u64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use elbus_plugin_api::{Encoding, FrameKind, Payload, Qos};
    use parking_lot::Mutex;
    use std::sync::Arc;

    const LIMIT: usize = 10_000;
    const STALL: Duration = Duration::from_secs(4);

    struct Bench {
        inbox: Inbox,
        limits: Limits,
        now: Instant,
        woken: Arc<Mutex<Vec<&'static str>>>,
    }

    impl Bench {
        fn new(overflow: Overflow) -> Self {
            let limits = Limits { queue_bytes: LIMIT, stall: STALL, overflow };
            Bench { inbox: Inbox::default(), limits, now: Instant::now(), woken: Arc::default() }
        }

        fn take_from(&mut self, sender: &str, qos: Qos, bytes: usize) -> Taken {
            let payload = vec![1; bytes];
            let payloads = [Payload::from(&*payload)];
            let mut encoding = Encoding::new();
            let run = Run::new(FrameKind::Message, qos, sender, "", &payloads, None, &mut encoding);
            self.inbox.take(&run, RawReceived::keep(&run), &self.limits, || self.now)
        }

        fn take(&mut self, bytes: usize) -> Taken {
            self.take_from("s", Qos::NO, bytes)
        }

        /// How many runs were given, and whether more may follow.
        fn give(&mut self) -> (usize, bool) {
            let mut into = RVec::new();
            let (open, wakes) = self.inbox.give(&mut into, &self.limits, || self.now);
            wakes.iter().for_each(Wake::wake);
            (into.len(), open)
        }

        fn wake(&self, name: &'static str) -> Wake {
            let woken = self.woken.clone();
            Wake::new(move || woken.lock().push(name))
        }

        fn woken(&self) -> Vec<&'static str> {
            std::mem::take(&mut *self.woken.lock())
        }
    }

    #[test]
    fn senders_are_held_above_the_limit_until_a_quarter_is_left() {
        let mut bench = Bench::new(Overflow::Block);
        bench.limits.queue_bytes = 1_000_000;
        assert_eq!(bench.take(900_000), Taken { delivery: Delivery::TAKEN, then: Then::Nothing });
        let wake = bench.wake("early");
        assert!(bench.inbox.when_drained(wake).is_some());
        for _ in 0..4 {
            bench.take(60_000);
        }
        assert_eq!(bench.take(240_000), Taken { delivery: Delivery::FULL, then: Then::Nothing });
        let wake = bench.wake("sender");
        assert!(bench.inbox.when_drained(wake).is_none());
        assert_eq!(bench.give(), (1, true), "so much at once: half a million is left");
        assert_eq!(bench.woken(), [""; 0]);
        assert_eq!(bench.give(), (2, true));
        assert_eq!(bench.give(), (2, true), "a quarter is left");
        assert_eq!(bench.woken(), ["sender"]);
        assert_eq!(bench.give(), (1, true));
        assert_eq!(bench.inbox.queued(), Queued::default());
    }

    #[test]
    fn real_time_and_the_broker_go_up_to_twice_and_hold_nobody() {
        for (sender, qos) in [("s", Qos::REALTIME), (BROKER_NAME, Qos::NO)] {
            let mut bench = Bench::new(Overflow::Block);
            assert_eq!(bench.take(9_000).delivery, Delivery::TAKEN);
            for _ in 0..2 {
                let taken = bench.take_from(sender, qos, 4_000);
                assert_eq!(taken, Taken { delivery: Delivery::TAKEN, then: Then::Nothing });
            }
            let taken = bench.take_from(sender, qos, 4_000);
            assert_eq!(taken.delivery, Delivery::REFUSED);
            assert!(matches!(taken.then, Then::Tell { refused: 1, .. }));
            assert_eq!(bench.take_from(sender, qos, 4_000).then, Then::Nothing, "the log is spared");
            bench.now += TELL_EVERY;
            assert!(matches!(bench.take_from(sender, qos, 4_000).then, Then::Tell { refused: 2, .. }));
            assert_eq!(bench.take(10).delivery, Delivery::FULL, "others wait, and lose nothing");
        }
    }

    #[test]
    fn an_empty_queue_takes_anything() {
        for overflow in [Overflow::Block, Overflow::DropNewest, Overflow::Disconnect] {
            let mut bench = Bench::new(overflow);
            assert!(bench.take(100 * LIMIT).delivery.is_taken());
            assert_eq!(bench.give(), (1, true));
            assert!(bench.take_from("s", Qos::REALTIME, 100 * LIMIT).delivery.is_taken());
        }
    }

    #[test]
    fn drop_newest_refuses_and_disconnect_closes() {
        let mut bench = Bench::new(Overflow::DropNewest);
        bench.take(9_000);
        assert_eq!(bench.take(2_000).delivery, Delivery::REFUSED);
        assert!(bench.take(100).delivery.is_taken(), "what fits is taken");
        assert!(bench.take_from("s", Qos::REALTIME, 2_000).delivery.is_taken());
        let mut bench = Bench::new(Overflow::Disconnect);
        bench.take(9_000);
        bench.give();
        bench.take(9_000);
        let wake = bench.wake("nobody");
        bench.inbox.readers.push(wake);
        let taken = bench.take(2_000);
        assert_eq!(taken.delivery, Delivery::CLOSED);
        let (was_open, wakes) = bench.inbox.close();
        assert!(!was_open && wakes.len() == 1, "closed by itself, the wakes are left to whoever sees it off");
        assert!(matches!(taken.then, Then::Disconnect { bytes } if bytes > 9_000));
    }

    #[test]
    fn empty_messages_count_too() {
        let mut bench = Bench::new(Overflow::Block);
        let taken = (0..LIMIT).take_while(|_| bench.take(0).delivery != Delivery::FULL).count();
        assert!((20..100).contains(&taken), "{taken}");
    }

    #[test]
    fn stalled_is_who_takes_nothing_while_senders_wait() {
        let mut bench = Bench::new(Overflow::Block);
        bench.take(9_000);
        bench.now += 10 * STALL;
        assert_eq!(bench.take(2_000).then, Then::Watch);
        let full = bench.now;
        assert_eq!(bench.take(100).then, Then::Nothing, "watched already");
        bench.now += STALL / 2;
        assert_eq!(bench.inbox.look(&bench.limits, bench.now), Look::HeldUntil(full + STALL));
        bench.now += STALL / 2;
        let look = bench.inbox.look(&bench.limits, bench.now);
        assert!(matches!(look, Look::Stalled { bytes } if bytes > 11_000));
        bench.give();
        assert_eq!(bench.inbox.look(&bench.limits, bench.now), Look::Well);
        bench.take(9_000);
        assert_eq!(bench.take(2_000).then, Then::Watch, "watched anew");
    }

    #[test]
    fn taking_a_part_is_a_sign_of_life() {
        let mut bench = Bench::new(Overflow::Block);
        (0..10).for_each(|_| _ = bench.take(100_000));
        bench.now += STALL - Duration::from_millis(1);
        assert_eq!(bench.give(), (1, true));
        let alive = bench.now;
        bench.now += STALL / 2;
        assert_eq!(bench.inbox.look(&bench.limits, bench.now), Look::HeldUntil(alive + STALL));
    }

    #[test]
    fn readers_are_woken_once_by_a_batch() {
        let mut bench = Bench::new(Overflow::Block);
        assert_eq!(bench.take(1).delivery, Delivery::TAKEN, "nobody waits, nothing is owed");
        bench.give();
        let wake = bench.wake("reader");
        assert!(bench.inbox.when_readable(wake).is_empty());
        assert!(bench.inbox.flush().is_empty(), "nothing has come");
        assert_eq!(bench.take(1).delivery, Delivery::DIRTY);
        assert_eq!(bench.take(1).delivery, Delivery::TAKEN, "one flush is owed");
        bench.inbox.flush().iter().for_each(Wake::wake);
        assert_eq!(bench.woken(), ["reader"]);
        let wake = bench.wake("late");
        assert_eq!(bench.inbox.when_readable(wake).len(), 1, "there is something already");
    }

    #[test]
    fn readers_that_gave_up_are_not_kept_for_ever() {
        let mut bench = Bench::new(Overflow::Block);
        for n in 1..=10 * MAX_READERS {
            let wake = bench.wake("gone");
            let woken = bench.inbox.when_readable(wake).len();
            assert_eq!(woken, if n % MAX_READERS == 0 { MAX_READERS } else { 0 });
        }
    }

    #[test]
    fn what_was_received_is_readable_after_the_close() {
        let mut bench = Bench::new(Overflow::Block);
        let wake = bench.wake("reader");
        bench.inbox.when_readable(wake);
        (0..2).for_each(|_| _ = bench.take(100_000));
        let wake = bench.wake("sender");
        assert!(bench.inbox.when_drained(wake).is_none());
        let (was_open, wakes) = bench.inbox.close();
        wakes.iter().for_each(Wake::wake);
        assert!(was_open);
        assert_eq!(bench.woken(), ["reader", "sender"]);
        assert!(!bench.inbox.close().0);
        assert_eq!(bench.take(1).delivery, Delivery::CLOSED);
        let wake = bench.wake("x");
        assert!(bench.inbox.when_drained(wake).is_some());
        assert_eq!(bench.inbox.look(&bench.limits, bench.now + 2 * STALL), Look::Well);
        assert_eq!(bench.give(), (1, true));
        assert_eq!(bench.give(), (1, false));
        assert_eq!(bench.give(), (0, false));
    }
}
