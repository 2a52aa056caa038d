//! Retained values of ELBUS: keeps the last publication of each topic and sends it to clients that subscribe
//! later (section 6 of the protocol).
//!
//! It owns the lifecycle of an instance. What is kept is in `topics`, how it reaches new subscribers in
//! `replayer`, and how it gets to the disk in `disk`. It decides about no message: publications pass
//! whether they are kept or not.
#![deny(unsafe_code)]

mod disk;
mod interceptor;
mod methods;
mod replayer;
mod settings;
mod table;
mod topics;

use elbus_plugin_api::{
    Config, Figure, Host, Plugin, PluginError, PluginThread, Status,
    hooks::{Hook, HookScope, OnFailure, Replay, SubscriptionChange},
};
use parking_lot::Mutex;
use std::{sync::Arc, time::Duration};

use disk::Disk;
use interceptor::Retaining;
use replayer::Replayer;
use settings::Settings;
use table::Table;
use topics::Topics;

/// The plugin.
pub struct Retain {
    host: Host,
    topics: Arc<Topics>,
    replayer: Arc<Replayer>,
    disk: Option<Disk>,
    /// From start to stop. Taken, never held while something of the broker is called.
    running: Mutex<Option<Running>>,
}

struct Running {
    hooks: [Hook; 2],
    thread: PluginThread,
}

impl Plugin for Retain {
    const ABOUT: &'static str = "keeps the last value of each topic for clients that subscribe later";

    fn create(host: Host, config: &Config) -> Result<Self, PluginError> {
        let settings = Settings::read(config)?;
        let topics = Arc::new(Topics::new(host.clone(), settings.topic));
        let is_on_disk = topics.tables().iter().any(Table::is_on_disk);
        let path = settings.path.filter(|_| is_on_disk);
        let commit = Duration::from_millis(settings.commit_ms);
        let disk = path.map(|path| Disk::new(path, commit, &topics));
        let replayer = Arc::new(Replayer::new(host.clone(), settings.replay_topics_per_second));
        Ok(Retain { host, topics, replayer, disk, running: Mutex::default() })
    }

    fn start(&self) -> Result<(), PluginError> {
        // before anything can be kept
        if let Some(disk) = &self.disk {
            disk.start(&self.host, &self.topics)?;
        }
        // the listener first: nobody is served yet, so the order decides nothing else than which error is
        // reported if another instance has one
        let replayer = self.replayer.clone();
        let listener = move |change: &SubscriptionChange<'_>, replay: Option<Replay>| {
            replayer.on_change(change, replay);
        };
        let listener = self.host.add_subscription_listener(listener)?;
        let filters = self.topics.tables().iter().map(|table| &table.settings.filter);
        // what others have rejected or replaced is not kept
        let scope = HookScope::new().publications(filters).after_others();
        let retaining = Retaining(self.topics.clone());
        let interceptor = self.host.add_interceptor(&scope, OnFailure::Open, retaining)?;
        methods::add(&self.host, &self.topics)?;
        let (replayer, topics) = (self.replayer.clone(), self.topics.clone());
        let thread = self.host.spawn(move || replayer.work(&topics))?;
        let replayer = self.replayer.clone();
        self.host.watch_worker("replays", move |answer| replayer.ask(answer));
        *self.running.lock() = Some(Running { hooks: [listener, interceptor], thread });
        Ok(())
    }

    fn stop(&self, deadline: Duration) {
        let running = self.running.lock().take();
        self.replayer.end();
        if let Some(Running { hooks, thread }) = running {
            drop(hooks);
            if !thread.ended_within(deadline) {
                tracing::warn!(?deadline, "thread for replays has not ended within the deadline");
            }
        }
        // last, when nothing is kept any more
        if let Some(disk) = &self.disk {
            disk.stop(deadline);
        }
    }

    fn figures(&self) -> Vec<Figure> {
        let of_table = |table: &Table| {
            let filter = &table.settings.filter;
            [
                Figure::gauge("topics", table.topics() as f64).of(filter),
                Figure::gauge("value_bytes", table.bytes() as f64).of(filter),
                Figure::counter("refused_values", table.refused() as f64).of(filter),
            ]
        };
        let replays = Figure::gauge("replays", self.replayer.running() as f64);
        self.topics.tables().iter().flat_map(of_table).chain([replays]).collect()
    }

    fn status(&self) -> Status {
        let tables = self.topics.tables();
        let topics: usize = tables.iter().map(Table::topics).sum();
        let bytes: usize = tables.iter().map(Table::bytes).sum();
        let refused: u64 = tables.iter().map(Table::refused).sum();
        let replays = self.replayer.running();
        let disk = self.disk.as_ref().map(|disk| format!(", {}", disk.detail())).unwrap_or_default();
        Status::with_detail(format!(
            "{topics} topics, {bytes} bytes, {refused} values not kept, {replays} replays{disk}"
        ))
    }
}

impl Drop for Retain {
    /// Without a stop, the threads would run on.
    fn drop(&mut self) {
        self.stop(Duration::ZERO);
    }
}

elbus_plugin_api::export_plugin!(Retain);
