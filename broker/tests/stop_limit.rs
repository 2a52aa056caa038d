//! How long a plugin may take to stop while the broker continues.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use elbus_broker::{Broker, BrokerBuilder, BrokerSettings, PluginDeclaration};
use elbus_plugin_api::{Config, Host, Plugin, PluginError, Status};
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    time::Duration,
};

/// Time limit of waits, sufficient on a busy machine.
const TEST_TIMEOUT: Duration = Duration::from_secs(30);

/// A stop in progress: its time limit, and the sender that lets it return.
type Stop = (Duration, Sender<()>);
static STOPS: Mutex<Option<Sender<Stop>>> = Mutex::new(None);
/// Serialises the tests.
static ALONE: Mutex<()> = Mutex::new(());

/// A plugin that stops when the test permits.
struct Slow;

impl Plugin for Slow {
    const ABOUT: &'static str = "stops when it is allowed to";

    fn create(_: Host, _: &Config) -> Result<Self, PluginError> {
        Ok(Slow)
    }

    fn start(&self) -> Result<(), PluginError> {
        Ok(())
    }

    fn stop(&self, deadline: Duration) {
        let (allow, allowed) = channel();
        let stops = STOPS.lock().unwrap().clone();
        if stops.is_some_and(|stops| stops.send((deadline, allow)).is_ok()) {
            let _ = allowed.recv();
        }
    }

    fn status(&self) -> Status {
        Status::default()
    }
}

mod export {
    #![allow(unsafe_code)]
    elbus_plugin_api::export_plugin!(super::Slow);
}

fn stops() -> Receiver<Stop> {
    let (sender, receiver) = channel();
    *STOPS.lock().unwrap() = Some(sender);
    receiver
}

fn builder(shutdown_seconds: f64, plugins: &[&str]) -> BrokerBuilder {
    let mut settings = BrokerSettings::default();
    settings.shutdown_seconds = shutdown_seconds;
    let declared = plugins.iter().map(|name| PluginDeclaration::linked(*name, export::plugin()));
    declared.fold(Broker::builder().settings(settings), BrokerBuilder::plugin)
}

#[test]
fn a_plugin_that_a_reload_removes_has_shutdown_seconds_to_stop() {
    let _alone = ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    // the settings of the reload apply, but not less than 2 s
    for (shutdown_seconds, above, most) in [(60.0, 3, 60), (0.0, 0, 2)] {
        let stops = stops();
        let broker = builder(7.0, &["slow"]).start().unwrap();
        std::thread::scope(|scope| {
            let reload = scope.spawn(|| broker.reload(builder(shutdown_seconds, &[])).unwrap());
            let (deadline, allow) = stops.recv_timeout(TEST_TIMEOUT).unwrap();
            let (above, most) = (Duration::from_secs(above), Duration::from_secs(most));
            assert!(above < deadline && deadline <= most, "{shutdown_seconds}: {deadline:?}");
            drop(allow);
            assert_eq!(reload.join().unwrap().removed, ["slow"]);
        });
        broker.stop(Duration::ZERO).wait();
    }
}

#[test]
fn the_end_of_the_broker_does_not_wait_for_a_plugin_that_a_reload_stops() {
    let _alone = ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let (stops, interrupted) = (stops(), Arc::new(AtomicBool::new(false)));
    let broker = builder(3600.0, &["slow"]).interrupted_by(interrupted.clone()).start().unwrap();
    std::thread::scope(|scope| {
        let (done, reloaded) = channel();
        let broker = &broker;
        scope.spawn(move || {
            _ = broker.reload(builder(3600.0, &[]));
            done.send(()).unwrap();
        });
        let (_, allow) = stops.recv_timeout(TEST_TIMEOUT).unwrap();
        interrupted.store(true, Ordering::Release);
        let ended = reloaded.recv_timeout(TEST_TIMEOUT);
        drop(allow);
        ended.expect("the reload waits for the plugin");
    });
    broker.stop(Duration::ZERO).wait();
}
