//! A broker: built, started, stopped.

use abi_stable::{sabi_trait::TD_Opaque, std_types::RArc};
use elbus_plugin_api::{Code, EventKind, Host, Notified, QueueBudget, abi::RawHost_TO, inproc::InprocClient};
use parking_lot::{Mutex, RwLock};
use std::{
    future::Future,
    os::fd::OwnedFd,
    path::PathBuf,
    pin::Pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    thread::JoinHandle,
    time::Duration,
};

use crate::{
    control::{ControlTable, add_explain_method, add_standard_methods},
    declaration::{PluginDeclaration, PluginSource},
    error::BrokerError,
    host::{
        Bridge, Core, EMBEDDER, Libraries, Listeners, PluginReport, Plugins, Probe, Reloaded,
        add_plugin_methods, watch_holds,
    },
    routing::{Router, RouterSettings},
    settings::BrokerSettings,
};

/// How long listeners may take for the events that are queued when the broker stops.
const EVENTS_DEADLINE: Duration = Duration::from_millis(250);
/// What a broker that is dropped gives its queues to drain.
const DROP_DEADLINE: Duration = Duration::from_secs(1);

/// What a broker is made of.
#[derive(Debug, Clone, Default)]
pub struct BrokerBuilder {
    settings: BrokerSettings,
    declarations: Vec<PluginDeclaration>,
    listeners: Vec<Arc<OwnedFd>>,
    interrupted: Arc<AtomicBool>,
    probe: Option<PathBuf>,
}

impl BrokerBuilder {
    /// With these settings instead of the defaults.
    pub fn settings(mut self, settings: BrokerSettings) -> Self {
        self.settings = settings;
        self
    }

    /// The name that the control method `health` shows.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.settings.name = name.into();
        self
    }

    /// A second client of a primary name evicts the first instead of being refused.
    pub fn force_register(mut self, force: bool) -> Self {
        self.settings.force_register = force;
        self
    }

    /// A folder to look for libraries in, besides that of the executable.
    pub fn plugin_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.settings.plugin_dirs.push(folder.into());
        self
    }

    /// An instance of a plugin. They are configured and started in this order.
    pub fn plugin(mut self, declaration: PluginDeclaration) -> Self {
        self.declarations.push(declaration);
        self
    }

    /// Adds a listening socket, such as one from a service manager, for the plugin that is configured for its address.
    pub fn listener(mut self, socket: OwnedFd) -> Self {
        self.listeners.push(Arc::new(socket));
        self
    }

    /// Once the flag is set, plugins that do not return from their creation or their start are abandoned: the start of the
    /// broker then fails, after everything that did start was stopped.
    pub fn interrupted_by(mut self, flag: Arc<AtomicBool>) -> Self {
        self.interrupted = flag;
        self
    }

    /// The settings that the broker will have.
    pub fn settings_in_force(&self) -> &BrokerSettings {
        &self.settings
    }

    /// Probes each new library in a process of its own before it is loaded, so that a damaged one does not end this
    /// process. `program` is started for that and must call [`run_library_probe`](crate::run_library_probe) first thing
    /// in its `main`; `/proc/self/exe` names the running program. Without it libraries are loaded unprobed. A reload
    /// does not change it.
    pub fn library_probe(mut self, program: impl Into<PathBuf>) -> Self {
        self.probe = Some(program.into());
        self
    }

    /// Whether a library of this name is found.
    pub fn finds_library(&self, library: &str) -> bool {
        Libraries::new(self.settings.library_policy(), None).find(library).is_ok()
    }

    /// The names of the plugins, in order.
    pub fn plugin_names(&self) -> Vec<&str> {
        self.declarations.iter().map(PluginDeclaration::name).collect()
    }

    /// Whether any of the plugins is linked in.
    pub fn has_linked_plugins(&self) -> bool {
        self.declarations.iter().any(|declaration| matches!(declaration.source, PluginSource::Linked(_)))
    }

    /// Loads and configures everything without starting: what `elbusd --check` does.
    ///
    /// # Errors
    /// The first plugin that cannot be loaded or whose table is wrong.
    pub fn check(self) -> Result<(), BrokerError> {
        self.build().map(drop)
    }

    /// As [`check`](Self::check), and reports all that is wrong rather than the first: for each plugin that cannot be
    /// loaded one error, for each whose table is wrong one for each key.
    pub fn check_all(self) -> Vec<BrokerError> {
        let BrokerBuilder { settings, declarations, listeners, interrupted, probe } = self;
        match (BrokerBuilder { settings, declarations: Vec::new(), listeners, interrupted, probe }).build() {
            Ok(broker) => broker.plugins.check(declarations),
            Err(error) => vec![error],
        }
    }

    /// The plugins that were declared.
    pub fn declarations(&self) -> &[PluginDeclaration] {
        &self.declarations
    }

    /// Loads, configures and starts all plugins. Blocks for as long as they need. Plugins that are linked in run
    /// their tasks on the tokio runtime this is called in, or on their own where there is none.
    ///
    /// # Errors
    /// The first plugin that fails; those before it are stopped again and nothing is left behind.
    pub fn start(self) -> Result<Broker, BrokerError> {
        let broker = self.build()?;
        broker.plugins.start()?;
        broker.core.listeners.warn_of_unclaimed();
        Ok(broker)
    }

    fn build(self) -> Result<Broker, BrokerError> {
        let BrokerBuilder { settings, declarations, listeners, interrupted, probe } = self;
        let name = Arc::new(RwLock::new(settings.name.clone()));
        let budget = QueueBudget::new(settings.max_queued_bytes);
        let router = Router::new(RouterSettings::of(&settings));
        router.holds.set(settings.holds());
        watch_holds(&router.holds, &budget);
        let control = ControlTable::new(router.clone(), settings.remote_admin);
        if let Err(error) = router.events.start() {
            tracing::error!(%error, "cannot start the thread that dispatches events");
        }
        add_standard_methods(&control, &router, &name, &budget);
        let listeners = Listeners::new(listeners);
        let core = Core::new(name, router, control.clone(), budget, listeners, &settings, interrupted);
        let libraries = Libraries::new(settings.library_policy(), probe.map(Probe::new));
        let plugins = Plugins::new(core.clone(), libraries, declarations)?;
        add_plugin_methods(&control, &plugins);
        let placed = Arc::downgrade(&plugins);
        let knows = Arc::downgrade(&plugins);
        core.router
            .access
            .rule_locations
            .set_finder(move |instance, key| knows.upgrade()?.place_of(instance, key));
        add_explain_method(&control, &core.router, move |instance, key| {
            placed.upgrade()?.place_of(instance, key)
        });
        plugins.configure()?;
        let bridge = Bridge::new(core.clone(), EMBEDDER, Weak::new());
        let host = Host::from_object(RawHost_TO::from_ptr(RArc::new(bridge), TD_Opaque), "");
        let settings = Mutex::new(settings);
        Ok(Broker {
            core,
            plugins,
            host,
            settings,
            announced: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
        })
    }
}

/// A running broker. Dropping it stops it, which blocks for up to a second or two.
pub struct Broker {
    core: Arc<Core>,
    plugins: Arc<Plugins>,
    host: Host,
    settings: Mutex<BrokerSettings>,
    announced: AtomicBool,
    stopped: AtomicBool,
}

impl Broker {
    /// Begins with the default settings and no plugins.
    pub fn builder() -> BrokerBuilder {
        BrokerBuilder::default()
    }

    /// Connects an in-process client. Does not block.
    ///
    /// # Errors
    /// [`Code::NotSupported`] where no plugin offers in-process clients, [`Code::BadData`] for an illegal name,
    /// [`Code::Busy`] for one that is taken, [`Code::NotRegistered`] for a secondary without its primary.
    pub fn connect(&self, name: &str) -> Result<InprocClient, Code> {
        self.host.connect(name)
    }

    /// The broker as its plugins see it: control methods, events, registration.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The plugins and their states.
    pub fn plugins(&self) -> Vec<PluginReport> {
        self.plugins.reports()
    }

    /// Asks the workers of all plugins, such as the runtimes of transports, for a sign of life, and all plugins for their
    /// status. Returns who does not answer within `patience`, for the log. Blocks for that long at most for the workers, and
    /// for a second for each plugin that does not answer.
    pub fn unresponsive(&self, patience: Duration) -> Vec<String> {
        self.plugins.unresponsive(patience)
    }

    /// The settings in force.
    pub fn settings(&self) -> BrokerSettings {
        self.settings.lock().clone()
    }

    /// Changes over to other settings and plugins. What is new or declared otherwise is loaded and configured before
    /// anything is stopped; then plugins that are gone stop, those that are declared otherwise stop and start, new ones
    /// start, and all others and their clients notice nothing. Blocks for as long as that takes. Passed listeners stay
    /// those of the start.
    ///
    /// # Errors
    /// The first plugin that cannot be loaded or whose table is wrong: then nothing has changed.
    pub fn reload(&self, builder: BrokerBuilder) -> Result<Reloaded, BrokerError> {
        let reloaded = self.plugins.reload(&builder.settings, builder.declarations)?;
        *self.settings.lock() = builder.settings;
        Ok(reloaded)
    }

    /// Where a key of the table of an instance stands, `broker.toml:42`; `None` where there is no such instance, or
    /// where it was declared in no file.
    pub fn place_of(&self, instance: &str, key: &str) -> Option<String> {
        self.plugins.place_of(instance, key)
    }

    /// Announces the shutdown to whoever listens, once, and goes on serving: clients get a moment to prepare.
    pub fn announce_shutdown(&self) {
        if !self.announced.swap(true, Ordering::AcqRel) {
            self.core.router.events.note(EventKind::Shutdown, "", "");
            self.core.router.events.tell();
        }
    }

    /// How many clients are registered, secondaries included.
    pub fn client_count(&self) -> usize {
        self.core.router.client_count()
    }

    /// How many clients a publication to this topic would be given to now. Looked up anew each time, as for the
    /// first publication of a client to the topic.
    pub fn subscriber_count(&self, topic: &str) -> usize {
        self.core.router.subscriber_count(topic)
    }

    /// Announces the shutdown, if that is still to be done, and stops all plugins: they accept nobody any more, give what is queued until
    /// `deadline` to drain, close the rest and remove what they created. Await it, or [`wait`](Stopping::wait) in a
    /// thread that runs no tasks.
    pub fn stop(&self, deadline: Duration) -> Stopping {
        let (notifier, woken) = Notified::pair();
        if self.stopped.swap(true, Ordering::AcqRel) {
            notifier.notify();
            return Stopping { woken, thread: None };
        }
        self.announce_shutdown();
        let (core, plugins) = (self.core.clone(), self.plugins.clone());
        let body = move || {
            core.router.events.flush(deadline.min(EVENTS_DEADLINE));
            plugins.stop("the broker is shutting down", deadline);
            core.router.events.end();
            notifier.notify();
        };
        match std::thread::Builder::new().name("broker stop".to_owned()).spawn(body) {
            Ok(thread) => Stopping { woken, thread: Some(thread) },
            Err(error) => {
                tracing::error!(%error, "no thread to stop the broker in");
                Stopping { woken: finished(), thread: None }
            }
        }
    }
}

fn finished() -> Notified {
    let (notifier, woken) = Notified::pair();
    notifier.notify();
    woken
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.stop(DROP_DEADLINE).wait();
    }
}

/// A broker that is stopping: a future that ends when it has stopped.
#[must_use = "await it or wait for it"]
pub struct Stopping {
    woken: Notified,
    thread: Option<JoinHandle<()>>,
}

impl Stopping {
    /// Blocks until the broker has stopped. Not from a thread whose tasks have to run for that.
    pub fn wait(mut self) {
        if let Some(thread) = self.thread.take() {
            // it panics nowhere; if it did, there would be nothing left to do here
            _ = thread.join();
        }
    }
}

impl Future for Stopping {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.woken).poll(context)
    }
}
