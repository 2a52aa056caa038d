//! All instances: starts and stops them together or one by one, and restarts them after a failure.

use elbus_plugin_api::Figure;
use parking_lot::{Mutex, MutexGuard, RwLock};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    instance::{Instance, InstanceSummary},
    report::{PluginReport, PluginState},
    requirements::missing_plugins,
    stop::{INTERRUPTED_TIMEOUT, Limit, stop_all, stop_one},
};
use crate::{
    control::table::BROKER_OWNER,
    declaration::{PluginDeclaration, PluginSource},
    error::BrokerError,
    host::{
        api::context::BrokerContext,
        load::libraries::{Libraries, LibraryRequest},
    },
};

/// Minimum time that a stop of all instances waits for a change in progress: slightly longer than an
/// interrupted change takes.
const CHANGE_TIMEOUT: Duration = INTERRUPTED_TIMEOUT.saturating_add(Duration::from_millis(200));

/// All instances of plugins, in the order of their declaration.
pub(crate) struct Plugins {
    pub(super) libraries: Libraries,
    /// Never held during a call into a plugin. Changed only while `changing` is held.
    pub(super) instances: RwLock<Vec<Arc<Instance>>>,
    pub(crate) context: Arc<BrokerContext>,
    /// Held while instances change state, so that requests run one after the other.
    changing: Mutex<()>,
    /// All instances are stopped permanently, or about to be.
    ended: AtomicBool,
}

/// Why a request about a plugin failed.
pub(super) enum RequestError {
    Ending,
    Unknown { name: String, known: Vec<String> },
    AlreadyStarted { name: String },
    Failed(BrokerError),
}

impl std::fmt::Display for RequestError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            RequestError::Ending => write!(f, "{}", BrokerError::Ending),
            RequestError::Unknown { name, known } => {
                write!(f, "no plugin {name:?}; the plugins are {}", known.join(", "))
            }
            RequestError::AlreadyStarted { name } => write!(f, "plugin {name:?} is already started"),
            RequestError::Failed(error) => write!(f, "{error}"),
        }
    }
}

impl Plugins {
    /// Creates the instances of these declarations. Loads nothing yet.
    ///
    /// # Errors
    /// A name that is empty or used twice.
    pub(crate) fn new(
        context: Arc<BrokerContext>,
        libraries: Libraries,
        declarations: Vec<PluginDeclaration>,
    ) -> Result<Arc<Self>, BrokerError> {
        check_names(&declarations)?;
        let instances =
            declarations.into_iter().map(|declaration| Instance::new(declaration, context.clone()));
        let instances = RwLock::new(instances.collect());
        let (changing, ended) = (Mutex::default(), AtomicBool::new(false));
        Ok(Arc::new(Plugins { libraries, instances, context, changing, ended }))
    }

    /// Loads and configures all instances. Has no effect outside the process.
    pub(crate) fn configure(&self) -> Result<(), BrokerError> {
        let instances = self.all();
        let declarations: Vec<_> = instances.iter().map(|instance| instance.declaration()).collect();
        self.prepare_libraries(&declarations.iter().collect::<Vec<_>>());
        let configured = instances.iter().try_for_each(|instance| self.configure_one(instance));
        self.libraries.forget_prepared();
        configured?;
        missing_plugins(&instances.iter().map(|instance| instance.requirements()).collect::<Vec<_>>())
            .into_iter()
            .next()
            .map_or(Ok(()), Err)
    }

    /// Checks that all required plugins are declared when `new` replaces `old`, whose library may have
    /// changed.
    fn check_requirements(&self, old: &Arc<Instance>, new: &Arc<Instance>) -> Result<(), BrokerError> {
        let all = self.all();
        let requirements =
            all.iter().map(|other| if Arc::ptr_eq(other, old) { new } else { other }.requirements());
        missing_plugins(&requirements.collect::<Vec<_>>()).into_iter().next().map_or(Ok(()), Err)
    }

    /// Reads and probes the libraries of these declarations, several at the same time.
    pub(super) fn prepare_libraries(&self, declarations: &[&PluginDeclaration]) {
        let tables: Vec<_> = declarations.iter().map(|declaration| declaration.config.to_string()).collect();
        let requests = declarations.iter().zip(&tables).filter_map(|(declaration, config)| {
            let PluginSource::Library(library) = &declaration.source else { return None };
            Some(LibraryRequest { library, instance: &declaration.name, config })
        });
        self.libraries.prepare(&requests.collect::<Vec<_>>());
    }

    /// Loads and configures an instance.
    pub(super) fn configure_one(&self, instance: &Arc<Instance>) -> Result<(), BrokerError> {
        let name = || instance.name.clone();
        instance.load(&self.libraries).map_err(|error| BrokerError::Library { plugin: name(), error })?;
        self.configure_loaded(instance)
    }

    /// Configures an instance whose library is loaded.
    pub(super) fn configure_loaded(&self, instance: &Arc<Instance>) -> Result<(), BrokerError> {
        let name = || instance.name.clone();
        instance.configure().map_err(|error| BrokerError::Configure { plugin: name(), error })
    }

    /// Starts a configured instance. If the start fails, everything that it registered is removed.
    pub(super) fn bring_up(&self, instance: &Arc<Instance>) -> Result<(), BrokerError> {
        let started = instance.start().map_err(|error| {
            stop_one(instance, INTERRUPTED_TIMEOUT, "it could not start");
            BrokerError::Start { plugin: instance.name.clone(), error }
        });
        if started.is_ok() && self.has_ended() {
            // all others were stopped while it started
            stop_one(instance, Duration::ZERO, "the broker is ending");
            return Err(BrokerError::Ending);
        }
        started
    }

    /// Starts all instances, then lets all serve. If one fails to start, those before it are stopped.
    pub(crate) fn start(&self) -> Result<(), BrokerError> {
        let _changing = self.changing.lock();
        let instances = self.all();
        for instance in &instances {
            if let Err(error) = instance.start() {
                stop_all(&instances, "the broker could not start", Limit::of_end(INTERRUPTED_TIMEOUT));
                return Err(BrokerError::Start { plugin: instance.name.clone(), error });
            }
        }
        instances.iter().for_each(|instance| instance.serve());
        Ok(())
    }

    /// Stops all instances in reverse order within the deadline. A change in progress has the same time to
    /// end: if a plugin hangs in its start, the others are stopped nevertheless.
    pub(crate) fn stop(&self, reason: &str, deadline: Duration) {
        self.ended.store(true, Ordering::SeqCst);
        self.context.interrupt();
        self.context.end();
        self.context.failures.signal();
        let begun = Instant::now();
        let changing = self.changing.try_lock_for(deadline.max(CHANGE_TIMEOUT));
        if changing.is_none() {
            tracing::error!("a plugin hangs while it is started or stopped; stopping the others without it");
        }
        stop_all(&self.all(), reason, Limit::of_end(deadline.saturating_sub(begun.elapsed())));
    }

    /// Reports the states of all instances, in the order of their declaration.
    pub(crate) fn reports(&self) -> Vec<PluginReport> {
        self.all().iter().map(|instance| instance.report()).collect()
    }

    /// Returns what is known of all instances and their own figures, in the order of their declaration.
    pub(super) fn summaries(&self) -> Vec<(InstanceSummary, Vec<Figure>)> {
        self.all().iter().map(|instance| (instance.summary(), instance.figures())).collect()
    }

    /// Returns the workers and plugins that do not answer within `timeout`.
    pub(crate) fn unresponsive(&self, timeout: Duration) -> Vec<String> {
        let mut unresponsive = self.context.workers.unresponsive(timeout);
        for instance in self.all() {
            instance.report();
            if instance.is_status_overdue() {
                unresponsive.push(format!("status of {}", instance.name));
            }
        }
        unresponsive
    }

    /// Returns the file and line of a key in an instance's table.
    pub(crate) fn location_of(&self, instance: &str, key: &str) -> Option<String> {
        self.all().iter().find(|other| other.name == instance)?.location(key)
    }

    /// Locks the instances for a change.
    ///
    /// # Errors
    /// All instances are stopped permanently.
    pub(super) fn lock_for_change(&self) -> Result<MutexGuard<'_, ()>, BrokerError> {
        // a request that waited during the stop must not start anything
        let changing = self.changing.lock();
        if self.has_ended() { Err(BrokerError::Ending) } else { Ok(changing) }
    }

    /// Returns the instance with this owner number.
    pub(crate) fn by_owner(&self, owner: u32) -> Option<Arc<Instance>> {
        // an instance that was never configured has the broker's number
        let is_it = |instance: &Arc<Instance>| owner != BROKER_OWNER && instance.owner() == owner;
        self.all().into_iter().find(is_it)
    }

    /// Returns whether all instances are stopped permanently, or about to be.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    /// Returns the instances in the order of their declaration.
    pub(super) fn all(&self) -> Vec<Arc<Instance>> {
        self.instances.read().clone()
    }

    fn find(&self, name: &str) -> Result<Arc<Instance>, RequestError> {
        let all = self.all();
        let found = all.iter().find(|instance| instance.name == name).cloned();
        found.ok_or_else(|| {
            let known = all.iter().map(|instance| instance.name.clone()).collect();
            RequestError::Unknown { name: name.to_owned(), known }
        })
    }

    /// Starts a stopped or failed instance.
    pub(super) fn start_plugin(&self, name: &str) -> Result<(), RequestError> {
        let _changing = self.lock_for_change().map_err(|_| RequestError::Ending)?;
        let instance = self.find(name)?;
        if instance.state() == PluginState::Started {
            return Err(RequestError::AlreadyStarted { name: name.to_owned() });
        }
        instance.cancel_restart();
        self.start_or_retry(&instance).map_err(RequestError::Failed)
    }

    /// Stops an instance; it is not restarted.
    pub(super) fn stop_plugin(&self, name: &str, caller: &str) -> Result<(), RequestError> {
        let _changing = self.changing.lock();
        let instance = self.find(name)?;
        tracing::info!(plugin = name, caller, "stop requested");
        instance.cancel_restart();
        stop_one(&instance, self.context.stop_limit(), &format!("plugin {name} was stopped by {caller}"));
        Ok(())
    }

    /// Loads the library again and replaces the instance. The new instance is loaded and configured before
    /// the running one is stopped; if it fails to start, the previous one is started again.
    pub(super) fn reload_plugin(&self, name: &str, caller: &str) -> Result<(), RequestError> {
        let _changing = self.lock_for_change().map_err(|_| RequestError::Ending)?;
        let old = self.find(name)?;
        let fresh = Instance::candidate(old.declaration(), self.context.clone());
        if let Err(error) = self.configure_one(&fresh).and_then(|()| self.check_requirements(&old, &fresh)) {
            fresh.discard();
            tracing::error!(plugin = name, caller, %error, "reload failed; the running instance continues");
            return Err(RequestError::Failed(error));
        }
        tracing::info!(plugin = name, caller, "reload requested");
        let was_started = old.state() == PluginState::Started;
        old.cancel_restart();
        stop_one(&old, self.context.stop_limit(), &format!("plugin {name} was reloaded by {caller}"));
        self.replace(&old, &fresh);
        fresh.adopt();
        let mut errors = Vec::new();
        match self.bring_up(&fresh) {
            Ok(()) => fresh.serve(),
            Err(error) => {
                let location = fresh.location(error.key().unwrap_or_default());
                tracing::error!(plugin = name, location, %error, "plugin could not be started");
                errors.push(error);
                if was_started && !self.has_ended() {
                    if let Some(previous) = self.roll_back(&fresh, &old, &mut errors) {
                        previous.serve();
                    }
                } else {
                    fresh.retry_later();
                }
            }
        }
        errors.into_iter().next().map_or(Ok(()), |error| Err(RequestError::Failed(error)))
    }

    /// Replaces one instance with another.
    pub(super) fn replace(&self, old: &Arc<Instance>, new: &Arc<Instance>) {
        if let Some(replaced) = self.instances.write().iter_mut().find(|other| Arc::ptr_eq(other, old)) {
            *replaced = new.clone();
        }
    }

    /// Configures and starts an instance. If that fails, its policy decides whether a restart is scheduled.
    fn start_or_retry(&self, instance: &Arc<Instance>) -> Result<(), BrokerError> {
        let configured = self.configure_one(instance).and_then(|()| {
            self.check_requirements(instance, instance).inspect_err(|error| {
                instance.discard();
                instance.set_state(PluginState::Failed(error.to_string()));
            })
        });
        let started = configured.and_then(|()| self.bring_up(instance));
        match &started {
            Ok(()) => instance.serve(),
            Err(_) => instance.retry_later(),
        }
        started
    }

    /// Returns when the next restart is due.
    pub(super) fn next_restart(&self) -> Option<Instant> {
        self.all().iter().filter_map(|instance| instance.restart_due()).min()
    }

    /// Restarts the failed instances whose restart is due.
    pub(super) fn restart_due(&self) {
        for instance in self.all() {
            let Ok(_changing) = self.lock_for_change() else { return };
            // a reload may have replaced the instance, or a request may have started it
            let is_current = self.all().iter().any(|other| Arc::ptr_eq(other, &instance));
            if !is_current || !instance.take_due_restart() {
                continue;
            }
            tracing::info!(plugin = instance.name, "restarting failed plugin");
            if let Err(error) = self.start_or_retry(&instance) {
                tracing::error!(plugin = instance.name, %error, "restart failed");
            }
        }
    }
}

/// Checks that names are unique and not empty.
pub(super) fn check_names(declarations: &[PluginDeclaration]) -> Result<(), BrokerError> {
    for (index, declaration) in declarations.iter().enumerate() {
        if declaration.name.is_empty() {
            return Err(BrokerError::NamelessPlugin);
        }
        if declarations[..index].iter().any(|other| other.name == declaration.name) {
            return Err(BrokerError::DuplicatePlugin { name: declaration.name.clone() });
        }
    }
    Ok(())
}
