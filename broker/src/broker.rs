//! A broker: built, started, stopped.

use abi_stable::{sabi_trait::TD_Opaque, std_types::RArc};
use elbus_plugin_api::{
    Code, EventKind, Host, Notified, QueueBudget,
    abi::{FromRaw, RawHost_TO},
    inproc::InprocClient,
};
use parking_lot::{Mutex, RwLock};
use std::{
    future::Future,
    os::fd::OwnedFd,
    path::PathBuf,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    thread::JoinHandle,
    time::Duration,
};

use crate::{
    control::{ControlTable, add_core_methods, add_explain_method},
    declaration::{PluginDeclaration, PluginSource},
    error::BrokerError,
    host::{
        api::{context::BrokerContext, host_impl::HostImpl, inherited_listeners::InheritedListeners},
        lifecycle::{
            control_methods::add_plugin_methods, metrics_method::add_metrics_method, plugins::Plugins,
            reload::Reloaded, report::PluginReport, supervisor::supervise,
        },
        load::{libraries::Libraries, probe::Probe},
        watch::{
            callback_watch::watch_callbacks, hold_watch::watch_holds, subscription_pacer::serve_subscriptions,
        },
    },
    routing::{Router, RouterSettings},
    settings::BrokerSettings,
};

/// Time for listeners to process the events that are queued when the broker stops.
const EVENTS_DEADLINE: Duration = Duration::from_millis(250);
/// Time for queues to drain when a broker is dropped.
const DROP_DEADLINE: Duration = Duration::from_secs(1);

/// Configures and starts a [`Broker`].
///
/// ```no_run
/// use elbus_broker::{Broker, PluginDeclaration};
///
/// let broker = Broker::builder()
///     .name("plant")
///     .plugin(PluginDeclaration::library("rpc", "elbus_rpc"))
///     .start()?;
/// # Ok::<(), elbus_broker::BrokerError>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct BrokerBuilder {
    settings: BrokerSettings,
    declarations: Vec<PluginDeclaration>,
    listeners: Vec<Arc<OwnedFd>>,
    interrupted: Arc<AtomicBool>,
    probe: Option<PathBuf>,
}

impl BrokerBuilder {
    /// Replaces the settings. The default is [`BrokerSettings::default`].
    pub fn settings(mut self, settings: BrokerSettings) -> Self {
        self.settings = settings;
        self
    }

    /// Sets the name that the control method `health` returns.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.settings.name = name.into();
        self
    }

    /// Sets whether a second client of a primary name evicts the first instead of being refused.
    pub fn force_register(mut self, force: bool) -> Self {
        self.settings.force_register = force;
        self
    }

    /// Adds a folder to search libraries in, before that of the executable.
    pub fn plugin_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.settings.plugin_dirs.push(folder.into());
        self
    }

    /// Adds an instance of a plugin. Instances are configured and started in this order.
    pub fn plugin(mut self, declaration: PluginDeclaration) -> Self {
        self.declarations.push(declaration);
        self
    }

    /// Adds a listening socket, such as one from a service manager, for the plugin that is configured for its
    /// address.
    pub fn listener(mut self, socket: OwnedFd) -> Self {
        self.listeners.push(Arc::new(socket));
        self
    }

    /// Sets a flag that interrupts the start: plugins that do not return from their creation or start are
    /// then abandoned, and the start fails after everything that did start was stopped.
    pub fn interrupted_by(mut self, flag: Arc<AtomicBool>) -> Self {
        self.interrupted = flag;
        self
    }

    /// Returns the settings that the broker will have.
    pub fn effective_settings(&self) -> &BrokerSettings {
        &self.settings
    }

    /// Probes each new library in a process of its own before it is loaded, so that a damaged one does not
    /// end this process. `program` is started for that and must call
    /// [`run_library_probe`](crate::run_library_probe) first thing in its `main`; `/proc/self/exe` is the
    /// running program. Without it, libraries are loaded unprobed. A reload does not change it.
    pub fn library_probe(mut self, program: impl Into<PathBuf>) -> Self {
        self.probe = Some(program.into());
        self
    }

    /// Returns whether a library of this name is found.
    pub fn finds_library(&self, library: &str) -> bool {
        Libraries::new(self.settings.library_policy(), None).find(library).is_ok()
    }

    /// Returns the names of the declared plugins, in order.
    pub fn plugin_names(&self) -> Vec<&str> {
        self.declarations.iter().map(PluginDeclaration::name).collect()
    }

    /// Returns whether any declared plugin is linked in.
    pub fn has_linked_plugins(&self) -> bool {
        self.declarations.iter().any(|declaration| matches!(declaration.source, PluginSource::Linked(_)))
    }

    /// Loads and configures everything without starting it.
    ///
    /// # Errors
    /// The first plugin that cannot be loaded or whose table is invalid.
    pub fn check(self) -> Result<(), BrokerError> {
        self.build().map(drop)
    }

    /// As [`check`](Self::check), but returns all errors: one for each plugin that cannot be loaded, and one
    /// for each invalid key.
    pub fn check_all(self) -> Vec<BrokerError> {
        let BrokerBuilder { settings, declarations, listeners, interrupted, probe } = self;
        match (BrokerBuilder { settings, declarations: Vec::new(), listeners, interrupted, probe }).build() {
            Ok(broker) => broker.plugins.check(declarations),
            Err(error) => vec![error],
        }
    }

    /// Returns the declared plugins.
    pub fn declarations(&self) -> &[PluginDeclaration] {
        &self.declarations
    }

    /// Loads, configures and starts all plugins. Blocks until they have started. Linked-in plugins run their
    /// tasks on the tokio runtime in which this is called, or on runtimes of their own without one.
    ///
    /// # Errors
    /// The first plugin that fails; those before it are stopped again.
    pub fn start(self) -> Result<Broker, BrokerError> {
        let broker = self.build()?;
        broker.plugins.start()?;
        supervise(&broker.plugins);
        broker.context.listeners.warn_of_unclaimed();
        Ok(broker)
    }

    fn build(self) -> Result<Broker, BrokerError> {
        let BrokerBuilder { settings, declarations, listeners, interrupted, probe } = self;
        let name = Arc::new(RwLock::new(settings.name.clone()));
        let budget = QueueBudget::new(settings.max_queued_bytes);
        let router = Router::new(RouterSettings::of(&settings));
        router.holds.set(settings.holds());
        watch_holds(&router.holds, &budget);
        serve_subscriptions(&router, &budget);
        let control = ControlTable::new(router.clone(), settings.remote_admin);
        if let Err(error) = router.events.start() {
            tracing::error!(%error, "no thread for events: the threads that cause them dispatch them");
        }
        add_core_methods(&control, &router, &name, &budget);
        let listeners = InheritedListeners::new(listeners);
        let context =
            BrokerContext::new(name, router, control.clone(), budget, listeners, &settings, interrupted);
        let libraries = Libraries::new(settings.library_policy(), probe.map(Probe::new));
        let plugins = Plugins::new(context.clone(), libraries, declarations)?;
        // from the first callback on
        watch_callbacks(&plugins);
        add_plugin_methods(&control, &plugins);
        add_metrics_method(&control, &plugins);
        let weak = Arc::downgrade(&plugins);
        let location_of = move |instance: &str, key: &str| weak.upgrade()?.location_of(instance, key);
        context.router.access.rule_locations.set_finder(location_of.clone());
        add_explain_method(&control, &context.router, location_of);
        plugins.configure()?;
        let host = HostImpl::for_embedder(context.clone());
        let host = Host::from_raw((RawHost_TO::from_ptr(RArc::new(host), TD_Opaque), ""));
        let settings = Mutex::new(settings);
        Ok(Broker {
            context,
            plugins,
            host,
            settings,
            announced: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
        })
    }
}

/// A running broker. Dropping it stops it, which can block for two seconds.
pub struct Broker {
    context: Arc<BrokerContext>,
    plugins: Arc<Plugins>,
    host: Host,
    settings: Mutex<BrokerSettings>,
    announced: AtomicBool,
    stopped: AtomicBool,
}

impl Broker {
    /// Returns a builder with the default settings and no plugins.
    pub fn builder() -> BrokerBuilder {
        BrokerBuilder::default()
    }

    /// Connects an in-process client. Does not block.
    ///
    /// # Errors
    /// [`Code::NotSupported`] if no plugin offers in-process clients, [`Code::BadData`] for an invalid name,
    /// [`Code::Busy`] for one that is taken, [`Code::NotRegistered`] for a secondary without its primary.
    pub fn connect(&self, name: &str) -> Result<InprocClient, Code> {
        self.host.connect(name)
    }

    /// Returns the host API, as plugins have it: control methods, events, registration.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Returns the plugins and their states.
    pub fn plugins(&self) -> Vec<PluginReport> {
        self.plugins.reports()
    }

    /// Asks the workers of all plugins, such as runtimes of transports, whether they are alive, and all
    /// plugins for their status. Returns descriptions of those that do not answer within `timeout`, for the
    /// log. Blocks for at most that time, and for a second for each plugin that does not answer.
    pub fn unresponsive(&self, timeout: Duration) -> Vec<String> {
        self.plugins.unresponsive(timeout)
    }

    /// Returns the current settings.
    pub fn settings(&self) -> BrokerSettings {
        self.settings.lock().clone()
    }

    /// Applies new settings and declarations. New and changed plugins are loaded and configured before
    /// anything is stopped. Then removed plugins stop, changed ones restart and new ones start; unchanged
    /// ones and their clients are not affected. Blocks until that is done. Inherited listeners are those of
    /// the start.
    ///
    /// # Errors
    /// The first plugin that cannot be loaded or whose table is invalid. Then nothing has changed.
    pub fn reload(&self, builder: BrokerBuilder) -> Result<Reloaded, BrokerError> {
        let reloaded = self.plugins.reload(&builder.settings, builder.declarations)?;
        *self.settings.lock() = builder.settings;
        Ok(reloaded)
    }

    /// Returns file and line of a key of an instance's table, such as `broker.toml:42`; `None` if there is no
    /// such instance or it was not declared in a file.
    pub fn location_of(&self, instance: &str, key: &str) -> Option<String> {
        self.plugins.location_of(instance, key)
    }

    /// Announces the shutdown to listeners, once, and continues to serve, so that clients can prepare.
    pub fn announce_shutdown(&self) {
        if !self.announced.swap(true, Ordering::AcqRel) {
            self.context.router.events.enqueue(EventKind::Shutdown, "", "");
            self.context.router.events.dispatch();
        }
    }

    /// Returns the number of registered clients, secondaries included.
    pub fn client_count(&self) -> usize {
        self.context.router.client_count()
    }

    /// Returns the number of clients that would receive a publication to this topic. Not cached: costs as
    /// much as a client's first publication to the topic.
    pub fn subscriber_count(&self, topic: &str) -> usize {
        self.context.router.subscriber_count(topic)
    }

    /// Announces the shutdown, unless that is done, and stops all plugins: they refuse new connections, drain
    /// queued messages until `deadline`, then close the rest and remove what they have created. Await the
    /// result, or [`wait`](Stopping::wait) for it in a thread that runs no tasks.
    pub fn stop(&self, deadline: Duration) -> Stopping {
        let (notifier, stopped) = Notified::pair();
        if self.stopped.swap(true, Ordering::AcqRel) {
            notifier.notify();
            return Stopping { stopped, thread: None };
        }
        self.announce_shutdown();
        let (context, plugins) = (self.context.clone(), self.plugins.clone());
        let body = move || {
            context.router.events.flush(deadline.min(EVENTS_DEADLINE));
            plugins.stop("the broker is shutting down", deadline);
            context.router.events.end();
            notifier.notify();
        };
        match std::thread::Builder::new().name("broker stop".to_owned()).spawn(body) {
            Ok(thread) => Stopping { stopped, thread: Some(thread) },
            Err(error) => {
                tracing::error!(%error, "cannot spawn the thread that stops the broker");
                Stopping { stopped: finished(), thread: None }
            }
        }
    }
}

fn finished() -> Notified {
    let (notifier, stopped) = Notified::pair();
    notifier.notify();
    stopped
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.stop(DROP_DEADLINE).wait();
    }
}

/// A broker that is stopping: a future that completes when it has stopped.
#[must_use = "await it or wait for it"]
pub struct Stopping {
    stopped: Notified,
    thread: Option<JoinHandle<()>>,
}

impl Stopping {
    /// Blocks until the broker has stopped. Must not be called in a thread whose tasks must run for that.
    pub fn wait(mut self) {
        if let Some(thread) = self.thread.take() {
            // a panic has been logged; there is nothing left to do
            _ = thread.join();
        }
    }
}

impl Future for Stopping {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.stopped).poll(context)
    }
}
