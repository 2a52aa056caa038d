//! Random schedules over a simulated engine: every message is accounted for, order is kept, presence
//! recovers, memory is bounded, and credit never leaks.
//!
//! `ELBUS_BRIDGE_SCHEDULES` sets the number of schedules. A schedule that fails is reduced to the events that
//! it needs; `ELBUS_BRIDGE_SEED` and `ELBUS_BRIDGE_EVENTS`, which the failure prints, run it alone.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod minimise;
mod simulation;

use fastrand::Rng;
use simulation::world::World;
use std::{panic, time::Duration};

/// Schedules if nothing else is set.
const SCHEDULES: u64 = 1500;

/// Events that follow from a seed, or some of them. Each has random numbers of its own, so that it is the
/// same whichever others there are.
#[derive(Debug, Clone)]
struct Schedule {
    seed: u64,
    events: Vec<u64>,
}

impl Schedule {
    fn new(seed: u64) -> Self {
        Schedule { seed, events: (0..Rng::with_seed(seed).u64(20..150)).collect() }
    }

    /// Returns the schedule that the environment asks for.
    fn of_environment() -> Option<Self> {
        let schedule = Schedule::new(std::env::var("ELBUS_BRIDGE_SEED").ok()?.parse().unwrap());
        let Ok(events) = std::env::var("ELBUS_BRIDGE_EVENTS") else { return Some(schedule) };
        let events = events.split(',').map(|event| event.parse().unwrap()).collect();
        Some(Schedule { events, ..schedule })
    }

    /// Runs the schedule. Returns how many messages were taken, acknowledged with success, and delivered.
    fn run(&self) -> (usize, usize, usize) {
        run(self.seed, &self.events)
    }
}

fn run(seed: u64, events: &[u64]) -> (usize, usize, usize) {
    let mut world = World::new(seed);
    for index in 0..3 {
        world.connect(index);
    }
    world.advance(Duration::from_secs(4));
    for event in events {
        world.random = Rng::with_seed(seed.rotate_left(32) ^ event.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        world.disturb();
        let pause = match world.random.u8(..40) {
            0 => world.random.u64(1000..6000),
            1..10 => world.random.u64(10..300),
            _ => world.random.u64(0..10),
        };
        world.advance(Duration::from_millis(pause));
    }
    world.heal();
    // a node that has just restarted listens first
    world.advance(Duration::from_millis(2500));
    for index in 0..3 {
        world.nodes[index].drain_receivers();
    }
    world.advance(Duration::from_secs(3));
    for index in 0..3 {
        let refused = world.nodes[index].bridge.counters().get(elbus_bridge::ReportKind::NamesTaken) > 0;
        let (node, expected) = (&world.nodes[index], world.expected(index));
        let (known, listed) = (node.known(false), node.known(true));
        assert!(listed.is_subset(&expected), "node {index} knows {listed:?}, not {expected:?}");
        assert!(refused || expected.is_subset(&known), "node {index} knows {known:?}, not {expected:?}");
    }
    world.advance(Duration::from_secs(12));
    for node in &world.nodes {
        node.check_rest(world.now);
    }
    world.account.check(world.counted());
    world.account.summary()
}

/// Reduces a schedule that fails, and fails with the rest.
fn report(schedule: &Schedule) -> ! {
    let fails = |events: &[u64]| panic::catch_unwind(|| run(schedule.seed, events)).is_err();
    // one failure is printed, not each of its parts
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let events = minimise::minimise(&schedule.events, fails);
    panic::set_hook(hook);
    let events: Vec<_> = events.iter().map(u64::to_string).collect();
    panic!("failed: ELBUS_BRIDGE_SEED={} ELBUS_BRIDGE_EVENTS={}", schedule.seed, events.join(","));
}

#[test]
fn random_schedules_lose_nothing_silently() {
    if let Some(schedule) = Schedule::of_environment() {
        println!("{:?}", schedule.run());
        return;
    }
    let schedules = std::env::var("ELBUS_BRIDGE_SCHEDULES").ok().and_then(|count| count.parse().ok());
    let schedules: u64 = schedules.unwrap_or(SCHEDULES);
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    let totals = std::thread::scope(|scope| {
        let run_all = |first: u64| {
            let mut total = (0, 0, 0);
            for seed in (first..schedules).step_by(threads as usize) {
                let schedule = Schedule::new(seed);
                let result = panic::catch_unwind(|| schedule.run());
                let (taken, good, delivered) = result.unwrap_or_else(|_| report(&schedule));
                total = (total.0 + taken, total.1 + good, total.2 + delivered);
            }
            total
        };
        let handles: Vec<_> = (0..threads).map(|first| scope.spawn(move || run_all(first))).collect();
        let totals = handles.into_iter().map(|handle| handle.join().unwrap());
        totals.fold((0, 0, 0), |sum, total| (sum.0 + total.0, sum.1 + total.1, sum.2 + total.2))
    });
    println!("{schedules} schedules: {totals:?} messages taken, acknowledged, delivered");
    assert!(
        totals.1 > schedules as usize && totals.2 > totals.0 / 2,
        "the schedules carry messages: {totals:?}"
    );
}
