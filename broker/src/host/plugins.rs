//! All instances: brought up together, stopped together, one by one on request, and again after a failure.

use parking_lot::{Mutex, MutexGuard, RwLock};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    core::Core,
    instance::{Instance, PluginReport, PluginState},
    library::{Libraries, Wanted},
    needs::missing,
    stop::{INTERRUPTED_PATIENCE, Limit, stop_all, stop_one},
    supervisor::supervise,
    watch::watch,
};
use crate::{
    control::BROKER_ITSELF,
    declaration::{PluginDeclaration, PluginSource},
    error::BrokerError,
};

/// What a change that is under way gets to end when all are to be stopped, at least: a little more than it waits then.
const CHANGE_PATIENCE: Duration = INTERRUPTED_PATIENCE.saturating_add(Duration::from_millis(200));

/// All instances of plugins, in the order of their declaration.
pub(crate) struct Plugins {
    pub(super) libraries: Libraries,
    /// Never held while a plugin is called. Changed only while `changing` is held.
    pub(super) instances: RwLock<Vec<Arc<Instance>>>,
    pub(super) core: Arc<Core>,
    /// Held while instances change state, so that two requests do not mix.
    changing: Mutex<()>,
    /// All are stopped for good, or about to be.
    ended: AtomicBool,
}

/// Why a request about a plugin was refused.
pub(super) enum Refusal {
    Ending,
    Unknown { name: String, known: Vec<String> },
    Started { name: String },
    Failed(BrokerError),
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Refusal::Ending => write!(f, "{}", BrokerError::Ending),
            Refusal::Unknown { name, known } => {
                write!(f, "no plugin {name:?}; there are {}", known.join(", "))
            }
            Refusal::Started { name } => write!(f, "plugin {name:?} is started already"),
            Refusal::Failed(error) => write!(f, "{error}"),
        }
    }
}

impl Plugins {
    /// Takes the declarations; loads nothing yet.
    ///
    /// # Errors
    /// A name that is empty or used twice.
    pub(crate) fn new(
        core: Arc<Core>,
        libraries: Libraries,
        declarations: Vec<PluginDeclaration>,
    ) -> Result<Arc<Self>, BrokerError> {
        check_names(&declarations)?;
        let instances = declarations.into_iter().map(|declaration| Instance::new(declaration, core.clone()));
        let instances = RwLock::new(instances.collect());
        let (changing, ended) = (Mutex::default(), AtomicBool::new(false));
        let plugins = Arc::new(Plugins { libraries, instances, core, changing, ended });
        // from the first callback on
        watch(&plugins, &plugins.core);
        Ok(plugins)
    }

    /// Loads and configures all. Nothing outside is touched.
    pub(crate) fn configure(&self) -> Result<(), BrokerError> {
        let instances = self.all();
        let declarations: Vec<_> = instances.iter().map(|instance| instance.declaration()).collect();
        self.prepare_libraries(&declarations.iter().collect::<Vec<_>>());
        let configured = instances.iter().try_for_each(|instance| self.configure_one(instance));
        self.libraries.forget_prepared();
        configured?;
        missing(&instances.iter().map(|instance| instance.needs()).collect::<Vec<_>>())
            .into_iter()
            .next()
            .map_or(Ok(()), Err)
    }

    /// Whether all that the instances require is declared once one is replaced: its library may have changed.
    fn check_requirements(&self, old: &Arc<Instance>, new: &Arc<Instance>) -> Result<(), BrokerError> {
        let all = self.all();
        let needs = all.iter().map(|other| if Arc::ptr_eq(other, old) { new.needs() } else { other.needs() });
        missing(&needs.collect::<Vec<_>>()).into_iter().next().map_or(Ok(()), Err)
    }

    /// Reads and probes the libraries of these declarations, several at the same time.
    pub(super) fn prepare_libraries(&self, declarations: &[&PluginDeclaration]) {
        let tables: Vec<_> = declarations.iter().map(|declaration| declaration.config.to_string()).collect();
        let wanted = declarations.iter().zip(&tables).filter_map(|(declaration, config)| {
            let PluginSource::Library(library) = &declaration.source else { return None };
            Some(Wanted { library, instance: &declaration.name, config })
        });
        self.libraries.prepare(&wanted.collect::<Vec<_>>());
    }

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

    /// Lets a configured instance take what it needs; where it cannot, nothing of it is left.
    pub(super) fn bring_up(&self, instance: &Arc<Instance>) -> Result<(), BrokerError> {
        let started = instance.start().map_err(|error| {
            stop_one(instance, Duration::ZERO, "it could not start");
            BrokerError::Start { plugin: instance.name.clone(), error }
        });
        if started.is_ok() && self.has_ended() {
            // it took so long that all others have been stopped meanwhile
            stop_one(instance, Duration::ZERO, "the broker is ending");
            return Err(BrokerError::Ending);
        }
        started
    }

    /// Starts all, then lets all serve. Where one fails, those before it are stopped again.
    pub(crate) fn start(self: &Arc<Self>) -> Result<(), BrokerError> {
        let _changing = self.changing.lock();
        let instances = self.all();
        for instance in &instances {
            if let Err(error) = instance.start() {
                stop_all(&instances, "the broker could not start", Limit::of_end(Duration::ZERO));
                return Err(BrokerError::Start { plugin: instance.name.clone(), error });
            }
        }
        supervise(self, self.core.clone());
        instances.iter().for_each(|instance| instance.serve());
        Ok(())
    }

    /// Stops all in reverse order, within the deadline. A change that is under way may take that long to end, and no longer:
    /// where a plugin hangs in its start, the others are stopped all the same.
    pub(crate) fn stop(&self, why: &str, deadline: Duration) {
        self.ended.store(true, Ordering::SeqCst);
        self.core.interrupt();
        self.core.end();
        self.core.failures.ring();
        let begun = Instant::now();
        let changing = self.changing.try_lock_for(deadline.max(CHANGE_PATIENCE));
        if changing.is_none() {
            tracing::error!("a plugin that was being started or stopped hangs; not waited for");
        }
        stop_all(&self.all(), why, Limit::of_end(deadline.saturating_sub(begun.elapsed())));
    }

    pub(crate) fn reports(&self) -> Vec<PluginReport> {
        self.all().iter().map(|instance| instance.report()).collect()
    }

    /// The workers, and the plugins, that give no sign of life within the patience.
    pub(crate) fn unresponsive(&self, patience: Duration) -> Vec<String> {
        let mut unresponsive = self.core.workers.unresponsive(patience);
        for instance in self.all() {
            instance.report();
            if instance.owes_status() {
                unresponsive.push(format!("status of {}", instance.name));
            }
        }
        unresponsive
    }

    /// Where a key of an instance's table stands in the file.
    pub(crate) fn place_of(&self, instance: &str, key: &str) -> Option<String> {
        self.all().iter().find(|other| other.name == instance)?.place(key)
    }

    /// For a change of the instances, of which there is one at a time.
    ///
    /// # Errors
    /// Where all are stopped for good.
    pub(super) fn change(&self) -> Result<MutexGuard<'_, ()>, BrokerError> {
        // a request that waited while the broker was stopped must not bring anything up again
        let changing = self.changing.lock();
        if self.has_ended() { Err(BrokerError::Ending) } else { Ok(changing) }
    }

    /// The instance that has this number now.
    pub(super) fn by_owner(&self, owner: u32) -> Option<Arc<Instance>> {
        // one that was never configured has that of the broker itself
        let is_it = |instance: &Arc<Instance>| owner != BROKER_ITSELF && instance.owner() == owner;
        self.all().into_iter().find(is_it)
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    pub(super) fn all(&self) -> Vec<Arc<Instance>> {
        self.instances.read().clone()
    }

    fn find(&self, name: &str) -> Result<Arc<Instance>, Refusal> {
        let all = self.all();
        let found = all.iter().find(|instance| instance.name == name).cloned();
        found.ok_or_else(|| {
            let known = all.iter().map(|instance| instance.name.clone()).collect();
            Refusal::Unknown { name: name.to_owned(), known }
        })
    }

    pub(super) fn start_one(&self, name: &str) -> Result<(), Refusal> {
        let _changing = self.change().map_err(|_| Refusal::Ending)?;
        let instance = self.find(name)?;
        if instance.state() == PluginState::Started {
            return Err(Refusal::Started { name: name.to_owned() });
        }
        instance.retire();
        self.start_again(&instance).map_err(Refusal::Failed)
    }

    pub(super) fn stop_one(&self, name: &str, caller: &str) -> Result<(), Refusal> {
        let _changing = self.changing.lock();
        let instance = self.find(name)?;
        tracing::info!(plugin = name, caller, "stopping on request");
        instance.retire();
        stop_one(&instance, self.core.stop_limit(), &format!("plugin {name} was stopped by {caller}"));
        Ok(())
    }

    /// Loads the library anew and replaces the instance. The new one is loaded and configured before the running one is
    /// touched; if it cannot start, the running one comes back.
    pub(super) fn reload_one(&self, name: &str, caller: &str) -> Result<(), Refusal> {
        let _changing = self.change().map_err(|_| Refusal::Ending)?;
        let old = self.find(name)?;
        let fresh = Instance::candidate(old.declaration(), self.core.clone());
        if let Err(error) = self.configure_one(&fresh).and_then(|()| self.check_requirements(&old, &fresh)) {
            fresh.discard();
            tracing::error!(plugin = name, caller, %error, "not reloaded; the running instance goes on");
            return Err(Refusal::Failed(error));
        }
        tracing::info!(plugin = name, caller, "reloading on request");
        let had_run = old.state() == PluginState::Started;
        old.retire();
        stop_one(&old, self.core.stop_limit(), &format!("plugin {name} was reloaded by {caller}"));
        self.replace(&old, &fresh);
        fresh.adopt();
        let mut errors = Vec::new();
        match self.bring_up(&fresh) {
            Ok(()) => fresh.serve(),
            Err(error) => {
                tracing::error!("{error}");
                errors.push(error);
                if had_run && !self.has_ended() {
                    if let Some(again) = self.take_back(&fresh, &old, &mut errors) {
                        again.serve();
                    }
                } else {
                    fresh.try_later();
                }
            }
        }
        errors.into_iter().next().map_or(Ok(()), |error| Err(Refusal::Failed(error)))
    }

    /// Puts one instance in the place of another.
    pub(super) fn replace(&self, old: &Arc<Instance>, new: &Arc<Instance>) {
        if let Some(place) = self.instances.write().iter_mut().find(|other| Arc::ptr_eq(other, old)) {
            *place = new.clone();
        }
    }

    /// Configures and starts an instance. Where that fails it is tried again later, as its policy says.
    fn start_again(&self, instance: &Arc<Instance>) -> Result<(), BrokerError> {
        let configured = self.configure_one(instance).and_then(|()| {
            self.check_requirements(instance, instance).inspect_err(|error| {
                instance.discard();
                instance.set(PluginState::Failed(error.to_string()));
            })
        });
        let started = configured.and_then(|()| self.bring_up(instance));
        match &started {
            Ok(()) => instance.serve(),
            Err(_) => instance.try_later(),
        }
        started
    }

    /// When the next failed instance is to be started again.
    pub(super) fn next_revival(&self) -> Option<Instant> {
        self.all().iter().filter_map(|instance| instance.revival_due()).min()
    }

    /// Starts those failed instances again whose time has come.
    pub(super) fn revive(&self) {
        for instance in self.all() {
            let Ok(_changing) = self.change() else { return };
            // a reload may have replaced it, or a request have started it
            let is_there = self.all().iter().any(|other| Arc::ptr_eq(other, &instance));
            if !is_there || !instance.take_revival() {
                continue;
            }
            tracing::info!(plugin = instance.name, "starting again after its failure");
            if let Err(error) = self.start_again(&instance) {
                tracing::error!("not started again: {error}");
            }
        }
    }
}

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
