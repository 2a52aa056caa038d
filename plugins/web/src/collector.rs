//! The collector: one thread that measures once per second, and what it has collected. Owns the times at
//! which it asks the broker and observes the traffic; decides nothing about who may see what.

use elbus_plugin_api::{CallError, Event, Host, PluginError, PluginThread, unix_nanos};
use parking_lot::{Condvar, Mutex};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    busiest::{Busiest, Entry},
    calls::ListedCall,
    events::{self, EventLog, LoggedEvent},
    figures,
    flows::Flow,
    history::{self, History, INTERVAL},
    traffic::{SAMPLE_INTERVAL, Traffic, TrafficObserver},
};

/// Time between two measurements of all clients.
const CLIENTS_INTERVAL: Duration = Duration::from_secs(2);
/// Time after the last request for which clients are measured.
const CLIENTS_LEASE: Duration = Duration::from_secs(30);
/// Niceness of the thread: it gets processor time that the bus leaves.
const NICENESS: i32 = 10;

/// What is collected. Shared by the thread and the control methods.
pub(crate) struct Collector {
    host: Host,
    history: Mutex<History>,
    busiest: Mutex<Busiest>,
    traffic: Traffic,
    events: EventLog,
    /// Never held while the broker is called, as the other locks.
    control: Mutex<Control>,
    changed: Condvar,
}

#[derive(Default)]
struct Control {
    is_stopping: bool,
    /// Whether something is wanted now that was not.
    has_request: bool,
    /// When the busiest clients were last asked for.
    clients_wanted: Option<Instant>,
}

impl Collector {
    pub(crate) fn new(host: Host) -> Arc<Self> {
        Arc::new(Collector {
            host,
            history: Mutex::default(),
            busiest: Mutex::default(),
            traffic: Traffic::default(),
            events: EventLog::default(),
            control: Mutex::default(),
            changed: Condvar::new(),
        })
    }

    /// Listens to events, and starts the thread.
    ///
    /// # Errors
    /// The thread cannot be created.
    pub(crate) fn start(self: &Arc<Self>) -> Result<PluginThread, PluginError> {
        let this = self.clone();
        self.host.add_listener(move |event: &Event<'_>| this.events.add(event));
        let this = self.clone();
        self.host.spawn(move || this.run())
    }

    /// Has the thread end. Does not wait.
    pub(crate) fn stop(&self) {
        self.control.lock().is_stopping = true;
        self.changed.notify_all();
    }

    pub(crate) fn host(&self) -> &Host {
        &self.host
    }

    /// Returns the history after the value with this number.
    pub(crate) fn history(&self, after: u64) -> history::Answer {
        self.history.lock().answer(after)
    }

    /// Returns the clients that matter most among those that may be seen. Measures them at once if nobody has
    /// asked lately.
    ///
    /// # Errors
    /// The broker is ending.
    pub(crate) fn busiest(&self, is_visible: impl Fn(&str) -> bool) -> Result<Vec<Entry>, CallError> {
        self.control.lock().clients_wanted = Some(Instant::now());
        let is_measured = self.busiest.lock().measured().is_some();
        if !is_measured {
            self.measure_clients()?;
        }
        Ok(self.busiest.lock().answer(is_visible))
    }

    /// Returns the flows, since when they are observed, and how many messages were not looked at. Has the
    /// thread observe the traffic.
    pub(crate) fn flows(&self) -> (Vec<Flow>, u64, u64) {
        self.want_traffic();
        self.traffic.with_flows(|flows, since_ms, missed| (flows.all(), since_ms, missed + flows.omitted()))
    }

    /// Returns slow and failed calls. Has the thread observe the traffic.
    pub(crate) fn calls(&self) -> (Vec<ListedCall>, Vec<ListedCall>) {
        self.want_traffic();
        self.traffic.with_calls(|calls| calls.all())
    }

    /// Returns the events after the one with this number that may be seen.
    pub(crate) fn events(&self, after: u64, is_visible: impl Fn(&LoggedEvent) -> bool) -> events::Answer {
        self.events.answer(after, is_visible)
    }

    fn want_traffic(&self) {
        self.traffic.want();
        self.control.lock().has_request = true;
        self.changed.notify_all();
    }

    fn run(&self) {
        // without the right to do so, it competes like any other thread
        _ = rustix::process::setpriority_process(None, NICENESS);
        let started = Instant::now();
        let (mut second, mut observer) = (0, None);
        self.measure(0);
        loop {
            let next_second = started + INTERVAL * (second + 1);
            let next_sample = observer.as_ref().map(|_| Instant::now() + SAMPLE_INTERVAL);
            if !self.wait_until(next_sample.map_or(next_second, |next| next.min(next_second))) {
                return;
            }
            self.observe(&mut observer);
            let now = Instant::now();
            if now >= next_second {
                let current =
                    (now.saturating_duration_since(started).as_millis() / INTERVAL.as_millis()) as u32;
                let skipped = current.saturating_sub(second + 1);
                second = current;
                self.measure(skipped.into());
                self.measure_wanted_clients(now);
                self.events.read_log(&self.host);
            }
        }
    }

    /// Waits for a time or a request. Returns `false` once the thread has to end.
    fn wait_until(&self, time: Instant) -> bool {
        let mut control = self.control.lock();
        while !control.is_stopping && !std::mem::take(&mut control.has_request) {
            if self.changed.wait_until(&mut control, time).timed_out() {
                break;
            }
        }
        !control.is_stopping
    }

    /// Begins, continues or ends to observe the traffic.
    fn observe(&self, observer: &mut Option<TrafficObserver>) {
        if !self.traffic.is_wanted(Instant::now()) {
            *observer = None;
            return;
        }
        match observer {
            Some(observer) => self.traffic.look(observer),
            None => *observer = self.traffic.observe(&self.host),
        }
    }

    /// Adds the sums of a second to the history, after as many seconds in which nothing was measured.
    fn measure(&self, skipped: u64) {
        match figures::totals(&self.host) {
            Ok(totals) => {
                let mut history = self.history.lock();
                history.skip(skipped);
                history.add(totals, unix_nanos() / 1_000_000);
            }
            Err(error) => {
                tracing::debug!(%error, "cannot measure the broker");
                self.history.lock().skip(skipped + 1);
            }
        }
    }

    fn measure_wanted_clients(&self, now: Instant) {
        let wanted = self.control.lock().clients_wanted;
        if wanted.is_none_or(|wanted| now.saturating_duration_since(wanted) >= CLIENTS_LEASE) {
            return self.busiest.lock().clear();
        }
        let measured = self.busiest.lock().measured();
        // half an interval: seconds are never exact
        let is_due = |then| now.saturating_duration_since(then) + INTERVAL / 2 >= CLIENTS_INTERVAL;
        if measured.is_none_or(is_due)
            && let Err(error) = self.measure_clients()
        {
            tracing::debug!(%error, "cannot measure clients");
        }
    }

    fn measure_clients(&self) -> Result<(), CallError> {
        let clients = figures::clients(&self.host)?;
        self.busiest.lock().measure(clients, Instant::now());
        Ok(())
    }
}
